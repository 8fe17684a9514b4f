"""Scores of samples against values counted by hand."""

import math

import numpy as np
import pytest

from jaxgan.metrics import mode_coverage

CENTRES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_counts_by_hand():
    # 99 samples on the first centre, one 0.4 to the right of it, none elsewhere.
    samples = np.concatenate([np.zeros((99, 2)), [[0.4, 0.0]]])
    assert mode_coverage(samples, CENTRES, sigma=0.1) == {
        "modes": 1.0, "high_quality": 0.99, "modes_kl": pytest.approx(math.log(4))}


def test_even_coverage_has_no_divergence():
    assert mode_coverage(np.repeat(CENTRES, 5, axis=0), CENTRES, 0.1) == {
        "modes": 4.0, "high_quality": 1.0, "modes_kl": pytest.approx(0.0)}


def test_one_percent_counts_and_less_does_not():
    samples = np.zeros((1000, 2))
    samples[:10] = CENTRES[1]
    samples[10:19] = CENTRES[2]
    assert mode_coverage(samples, CENTRES, 0.1)["modes"] == 2.0


def test_order_does_not_matter():
    samples = np.random.default_rng(0).normal(size=(300, 2))
    assert mode_coverage(samples, CENTRES, 0.1) == mode_coverage(samples[::-1], CENTRES, 0.1)


@pytest.mark.parametrize(("samples", "message"), [
    (np.zeros((3, 3)), r"got \(3, 3\) and \(4, 2\)"),
    (np.zeros((0, 2)), r"got \(0, 2\)"),
    (np.full((3, 2), np.nan), "must be finite"),
])
def test_errors(samples, message):
    with pytest.raises(ValueError, match=message):
        mode_coverage(samples, CENTRES, 0.1)
