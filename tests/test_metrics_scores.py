"""Scores of classifiers, of n-grams and of classes against SciPy's entropies and by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from jaxgan.metrics import class_coverage, inception_score, ngram_divergence


def test_nothing_recognised_scores_one():
    assert inception_score(np.zeros((20, 7))) == (pytest.approx(1.0), pytest.approx(0.0))


@pytest.mark.parametrize("height", [100.0, 1e6])
def test_every_class_recognised_alike_scores_their_number(height):
    logits = np.tile(height * np.eye(5), (20, 1)) - height / 3
    assert inception_score(logits) == (pytest.approx(5.0), pytest.approx(0.0))


@pytest.mark.parametrize("seed", [None, 2020])
def test_score_of_uneven_splits(seed):
    logits = np.random.default_rng(0).normal(0, 3, size=(26, 6)).astype(np.float32)
    order = np.arange(26) if seed is None else np.random.RandomState(seed).permutation(26)
    values = []
    for part in (order[:8], order[8:17], order[17:]):  # 26 / 3 and 52 / 3, rounded down
        p = softmax(logits[part].astype(np.float64), axis=1)
        values.append(math.exp(np.mean([entropy(row, p.mean(axis=0)) for row in p])))
    found = inception_score(logits, splits=3, seed=seed)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.std == pytest.approx(np.std(values), rel=1e-10)


@pytest.mark.parametrize(("count", "splits"), [(23, 10), (47, 7), (12, 12), (5, 1)])
def test_score_is_that_of_the_reference_implementations(count, splits):
    """The formula of Salimans et al., with the parts that torch-fidelity takes."""
    logits = np.random.default_rng(count).normal(0, 2, size=(count, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for k in range(splits):
        part = p[k * count // splits:(k + 1) * count // splits]
        scores.append(np.exp((part * np.log(part / part.mean(axis=0))).sum(axis=1).mean()))
    assert inception_score(logits, splits=splits) == pytest.approx(
        (np.mean(scores), np.std(scores)), rel=1e-9, abs=1e-12)


def test_score_errors():
    with pytest.raises(ValueError, match="logits must hold at least 10 samples; got 9: add more"):
        inception_score(np.zeros((9, 3)))
    with pytest.raises(ValueError, match="splits must be at least 1; got 0"):
        inception_score(np.zeros((9, 3)), splits=0)


def test_divergence_by_hand():
    real, fake = np.array([[0, 1]]), np.array([[0, 0]])
    # p = (1/2, 1/2), q = (1, 0), m = (3/4, 1/4)
    expected = (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2) + math.log2(4 / 3)) / 2
    assert ngram_divergence(real, fake, 1) == pytest.approx(expected)
    assert ngram_divergence(real, fake, 2) == 1.0  # 01 against 00


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_divergence_is_scipys(n):
    generator = np.random.default_rng(n)
    real, fake = generator.integers(0, 4, (40, 9)), generator.binomial(3, 0.3, (30, 9)).astype(np.int8)
    counts = [Counter(tuple(row[i:i + n]) for row in part.tolist() for i in range(10 - n))
              for part in (real, fake)]
    grams = sorted(counts[0] | counts[1])
    p, q = ([count[gram] for gram in grams] for count in counts)
    assert ngram_divergence(real, fake, n) == pytest.approx(jensenshannon(p, q, base=2)**2, rel=1e-10)
    assert ngram_divergence(real, real[::-1], n) == 0.0
    assert ngram_divergence(real, real - 10**9, n) == pytest.approx(1.0)  # no gram in common


@pytest.mark.parametrize(("real", "fake", "n", "error", "message"), [
    (np.zeros((2, 3)), np.zeros((2, 3), int), 1, TypeError, "integer tokens; got float64 and int64"),
    (np.zeros((2, 3), int), np.zeros((2, 4), int), 1, ValueError, "the same length; got 3 and 4"),
    (np.zeros((2, 3), int), np.zeros((2, 3), int), 4, ValueError, r"n must be in \[1, 3\], .* got 4"),
    (np.zeros((2, 3), int), np.zeros((2, 3), int), 0, ValueError, r"n must be in \[1, 3\], .* got 0"),
])
def test_divergence_errors(real, fake, n, error, message):
    with pytest.raises(error, match=message):
        ngram_divergence(real, fake, n)


def test_classes_by_hand():
    assert class_coverage(np.array([0, 2, 2, 2]), 3) == {
        "modes": 2.0, "modes_kl": pytest.approx(0.25 * math.log(0.75) + 0.75 * math.log(2.25))}
    assert class_coverage(np.arange(1000), 1000) == {"modes": 1000.0, "modes_kl": pytest.approx(0.0)}
    assert class_coverage(np.zeros(9, np.uint8), 1000) == {
        "modes": 1.0, "modes_kl": pytest.approx(math.log(1000))}


def test_classes_errors():
    with pytest.raises(TypeError, match="must be integers; got float64: take the argmax"):
        class_coverage(np.zeros(3), 2)
    with pytest.raises(ValueError, match=r"must be \[count\]; got \(3, 1\)"):
        class_coverage(np.zeros((3, 1), int), 2)
    with pytest.raises(ValueError, match=r"must be in \[0, 2\); they reach from -1 to 2"):
        class_coverage(np.array([-1, 2]), 2)
