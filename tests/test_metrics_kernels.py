"""Kernel distances against scikit-learn's kernels."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from jaxgan.metrics import kernel_distance, kernels, maximum_mean_discrepancy, pairs


def draw(count, dimensions=8, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, size=(count, dimensions)).astype(np.float32)


def unbiased(kernel, x, y):
    """The estimator, over all pairs of different points."""
    def within(z):
        return kernel(z, z)[~np.eye(len(z), dtype=bool)].mean()
    x, y = x.astype(np.float64), y.astype(np.float64)
    return within(x) + within(y) - 2 * kernel(x, y).mean()


@pytest.mark.parametrize("options", [{}, {"degree": 2, "gamma": 0.3, "coef": 0.5}])
@pytest.mark.parametrize("same", [False, True])
def test_kernel_distance_of_all_samples(options, same):
    real = draw(40)
    fake = real if same else draw(40, shift=0.5, seed=1)
    named = {"coef0" if name == "coef" else name: value for name, value in options.items()}
    expected = unbiased(lambda x, y: polynomial_kernel(x, y, **named), real, fake)
    mean, std = kernel_distance(jnp.asarray(real), fake[::-1], subsets=3, subset_size=40, **options)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)  # every subset is the set


def test_kernel_distance_of_subsets():
    real, fake = draw(500), draw(400, shift=0.3, seed=1)
    found = kernel_distance(real, fake, subset_size=100)
    exact = kernel_distance(real[:400], fake, subsets=1, subset_size=400).mean
    assert found.std > 0
    assert abs(found.mean - exact) < 4 * found.std / np.sqrt(100) + 0.1 * exact
    assert kernel_distance(real, fake, subset_size=100) == found
    assert kernel_distance(real, fake, subset_size=100, seed=1) != found


def test_a_subset_repeats_no_sample():
    # The kernel is 1 for equal points and else 0: only pairs of a real and an equal fake, of which a
    # subset holds 29 * 29 / 30 in the mean, are left. Repeated reals would add up to something above 0.
    found = kernel_distance(np.eye(30), np.eye(30), subsets=20, subset_size=29, degree=1, gamma=1.0,
                            coef=0.0)
    assert found.mean == pytest.approx(-2 / 30, rel=0.01)


def test_kernel_distance_errors():
    with pytest.raises(ValueError, match=r"subset_size must be in \[2, 400\], for there are 500 reals "
                       "and 400 fakes; got 1000: add samples or take smaller subsets"):
        kernel_distance(draw(500), draw(400))
    with pytest.raises(ValueError, match="subsets must be at least 1; got 0"):
        kernel_distance(draw(5), draw(5), subsets=0)


@pytest.mark.parametrize("block", [16, 1024])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_gaussian_discrepancy(monkeypatch, block, offset):
    monkeypatch.setattr(pairs, "_BLOCK", block)
    x, y = (part.astype(np.float64) + offset for part in (draw(50), draw(37, shift=0.5, seed=1)))
    bandwidth = np.median(pdist(np.concatenate([x, y])))
    for given, used in ((None, bandwidth), (1.5, 1.5)):
        expected = unbiased(lambda x, y: rbf_kernel(x, y, gamma=1 / (2 * used**2)),  # noqa: B023
                            x - offset, y - offset)
        assert maximum_mean_discrepancy(x, y, bandwidth=given) == pytest.approx(expected, rel=1e-8)
    found = maximum_mean_discrepancy(x, y)
    assert maximum_mean_discrepancy(x[::-1], y) == pytest.approx(found, rel=1e-9)
    assert maximum_mean_discrepancy(y, x) == pytest.approx(found, rel=1e-9)


def test_the_median_of_many_is_thinned(monkeypatch):
    x, y = draw(300, 2), draw(300, 2, shift=1.0, seed=1)
    exact = maximum_mean_discrepancy(x, y)
    monkeypatch.setattr(kernels, "_MEDIAN_POINTS", 100)
    assert maximum_mean_discrepancy(x, y) != exact
    assert maximum_mean_discrepancy(x, y) == pytest.approx(exact, rel=0.1)


def test_gaussian_discrepancy_errors():
    with pytest.raises(ValueError, match=r"the median distance .* all or most points are equal: pass a"):
        maximum_mean_discrepancy(np.full((5, 2), 0.1), np.full((6, 2), 0.1))
    with pytest.raises(ValueError, match="bandwidth must be above 0; got 0"):
        maximum_mean_discrepancy(draw(5), draw(5), bandwidth=0)
    with pytest.raises(ValueError, match="y must hold at least 2 samples; got 1: add more"):
        maximum_mean_discrepancy(draw(5), draw(1))
