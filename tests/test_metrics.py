"""Coverage against values counted by hand; what all metrics ask of their features."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import metrics
from jaxgan.metrics import curve_distance, mode_coverage

CENTRES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_counts_by_hand():
    # 3 samples near the first centre, 1 near the second, and 1 near none though nearest to the third.
    samples = [[0.0, 0.0], [0.2, 0.0], [0.0, -0.2], [1.1, 0.0], [0.0, 1.4]]
    assert mode_coverage(samples, CENTRES, sigma=0.1) == {
        "modes": 2.0, "high_quality": 0.8,
        "modes_kl": pytest.approx(0.75 * math.log(3) + 0.25 * math.log(1))}


def test_distances_to_a_curve_by_hand():
    """Of a right angle: beside a piece, beyond an end, at its corner, and where both are near."""
    corner = [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]]
    for sample, distance in (([1, 0.5], 0.5), ([-3, 4], 5), ([3, -1], math.sqrt(2)), ([1.9, 1], 0.1)):
        assert curve_distance([sample], corner) == pytest.approx(distance)
    assert curve_distance([[1, 0.5], [-3, 4]], corner) == pytest.approx(2.75)
    assert curve_distance([[1.0, 1.0]], [[0.0, 1.0]] * 2) == 1.0  # a piece without a length
    for wrong in (([[1.0]], corner), (np.zeros((0, 2)), corner), ([[0.0, 0.0]], corner[:1])):
        with pytest.raises(ValueError, match=r"samples and corners must have shapes"):
            curve_distance(*wrong)
    with pytest.raises(ValueError, match="samples must be finite"):
        curve_distance([[0.0, np.nan]], corner)


def test_even_coverage_has_no_divergence():
    assert mode_coverage(np.repeat(CENTRES, 5, axis=0), CENTRES, 0.1) == {
        "modes": 4.0, "high_quality": 1.0, "modes_kl": pytest.approx(0.0)}


def test_one_sample_among_many_reaches_a_mode():
    samples = np.zeros((1000, 2))
    samples[0] = CENTRES[1]
    assert mode_coverage(samples, CENTRES, 0.1)["modes"] == 2.0


def test_samples_between_the_centres_reach_none():
    """Half a spacing away from each: as evenly spread as can be, and of no mode."""
    found = {"modes": 0.0, "high_quality": 0.0, "modes_kl": math.log(4)}
    assert mode_coverage(CENTRES + np.array([0.5, 0.0]), CENTRES, 0.1) == found
    assert mode_coverage([[0.5, 0.5]], CENTRES, 0.1) == found


def test_three_sigma_is_within_and_more_is_not():
    centres = np.array([[0.0, 0.0], [4.0, 0.0]])
    at = np.array([[0.75, 0.0], [4.0, -0.75]])  # exact in floating point
    assert mode_coverage(at, centres, 0.25)["modes"] == 2.0
    assert mode_coverage(np.nextafter(at, 2 * at), centres, 0.25)["modes"] == 0.0


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


TWO_SETS = [
    (metrics.kernel_distance, "real", "fake"),
    (metrics.maximum_mean_discrepancy, "x", "y"),
    (metrics.precision_recall, "real", "fake"),
    (metrics.density_coverage, "real", "fake"),
    (metrics.sliced_wasserstein, "x", "y"),
    (lambda samples, training: metrics.memorisation(samples, training, training), "samples", "held_out"),
    (lambda one, other: metrics.moments(one) and metrics.moments(other), "features", "features"),
]


@pytest.mark.parametrize(("metric", "first", "second"), TWO_SETS)
def test_features_are_checked(metric, first, second):
    good, bad = np.ones((20, 4), np.float32), np.ones((20, 4))
    bad[7, 1], bad[9] = np.nan, np.inf
    with pytest.raises(ValueError, match=rf"{first} must be \[samples, dimensions\]; got \(20,\): add"):
        metric(good[:, 0], good)
    with pytest.raises(ValueError, match=rf"{second} must be .* got \(20, 2, 2\): flatten each sample"):
        metric(good, jnp.asarray(good).reshape(20, 2, 2))
    with pytest.raises(ValueError, match=f"{first} must be finite; 2 of 20 .* the first at index 7"):
        metric(bad, good)
    with pytest.raises(ValueError, match=rf"{second} must hold at least \d samples; got 0: add more"):
        metric(good, good[:0])
    with pytest.raises(TypeError, match=f"{first} must be real numbers; got complex64"):
        metric(good + 1j, good)
    if first != second:
        with pytest.raises(ValueError, match=f"{first}, {second}.* same dimensions; got 4, 3"):
            metric(good, good[:, :3])
