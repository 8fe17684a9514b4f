"""Moments against NumPy's, Frechet distances against SciPy's matrix root and closed forms."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from jaxgan.metrics import Moments, frechet, frechet_distance, merge, moments


def draw(count, dimensions, seed=0):
    """Correlated features whose variances span three orders of magnitude."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dimensions, dimensions)) * np.geomspace(1, 0.03, dimensions)
    return generator.normal(size=(count, dimensions)) @ mixing.T + generator.normal(size=dimensions)


def distance(real, fake, **options):
    return frechet_distance(moments(real), moments(fake), **options)


def gaussian(mean, covariance, count=1000):
    return Moments(count, np.array(mean, float), np.array(covariance, float) * (count - 1))


def by_matrix_root(a, b):
    """The distance by its formula, with the square root of the product itself."""
    root = scipy.linalg.sqrtm(a.covariance() @ b.covariance()).real
    return np.square(a.mean - b.mean).sum() + np.trace(a.covariance() + b.covariance() - 2 * root)


@pytest.mark.parametrize("block", [1, 7, 300, 4096])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_numpys(monkeypatch, block, offset):
    monkeypatch.setattr(frechet, "_BLOCK", block)
    features = draw(300, 5) + offset
    found = moments(features)
    assert found.count == 300
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    centred = features - features.mean(0)
    np.testing.assert_allclose(found.scatter, centred.T @ centred, rtol=1e-9,
                               atol=1e-12 * np.trace(found.scatter))
    for ddof in (0, 1):
        np.testing.assert_allclose(found.covariance(ddof), np.cov(features.T, ddof=ddof), rtol=1e-9,
                                   atol=1e-8)


def test_merging_in_any_order_is_all_at_once():
    features = draw(1000, 6)
    whole = moments(features)
    generator = np.random.default_rng(1)
    for _ in range(5):
        parts = np.split(features, np.sort(generator.choice(np.arange(1, 1000), 9, replace=False)))
        generator.shuffle(parts := [moments(part) for part in parts])
        merged = functools.reduce(merge, parts)
        assert merged.count == 1000
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=0,
                                   atol=1e-12 * np.trace(whole.scatter))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_jax_arrays_of_any_type(dtype):
    features = jnp.asarray(draw(50, 3), dtype)
    expected = np.asarray(features, np.float64).mean(0)
    np.testing.assert_allclose(moments(features).mean, expected, rtol=1e-12)


@pytest.mark.parametrize("dimensions", [64, pytest.param(2048, marks=pytest.mark.slow)])
def test_formula_with_a_matrix_root(dimensions):
    a, b = moments(draw(3 * dimensions, dimensions)), moments(draw(2 * dimensions, dimensions, seed=1))
    assert frechet_distance(a, b) == pytest.approx(by_matrix_root(a, b), rel=1e-6)


def test_commuting_covariances():
    # |m - n|^2 + sum (sqrt(l_i) - sqrt(k_i))^2 in the eigenvectors that both share
    rotation = scipy.stats.ortho_group.rvs(3, random_state=0)
    a, b = (rotation @ np.diag(values) @ rotation.T for values in ([4, 9, 0.25], [1, 16, 0.25]))
    assert frechet_distance(gaussian([0, 0, 1], a), gaussian([3, 4, 1], b)) == pytest.approx(25 + 1 + 1)


def test_ddof_by_hand():
    real, fake = np.array([[0.0], [2.0]]), np.array([[1.0], [9.0]])  # variances 2 and 32, or 1 and 16
    assert distance(real, fake) == pytest.approx(16 + 18)
    assert distance(real, fake, ddof=0) == pytest.approx(16 + 9)


def test_a_shift_alone():
    features, shift = draw(500, 20), np.linspace(-1, 1, 20)
    assert distance(features, features + shift) == pytest.approx(np.square(shift).sum(), rel=1e-9)


def test_equal_sets_and_symmetry():
    real, fake = draw(500, 30), draw(400, 30, seed=1)
    scale = np.trace(moments(real).covariance())
    assert 0 <= distance(real, real) <= 1e-9 * scale
    assert 0 <= distance(real, real[::-1]) <= 1e-9 * scale
    assert distance(real, fake) == pytest.approx(distance(fake, real), rel=1e-10)
    assert distance(real, fake[::-1]) == pytest.approx(distance(real, fake), rel=1e-10)


def test_rotations_and_far_means_change_nothing():
    real, fake = draw(500, 10), draw(500, 10, seed=1)
    rotation = scipy.stats.ortho_group.rvs(10, random_state=0)
    assert distance(real @ rotation, fake @ rotation) == pytest.approx(distance(real, fake), rel=1e-9)
    assert distance(real + 1e6, fake + 1e6) == pytest.approx(distance(real, fake), rel=1e-7)


def test_singular_covariances_are_exact():
    # Five dimensions turned into forty: distances can't tell.
    real, fake = draw(300, 5), draw(300, 5, seed=1)
    basis = scipy.stats.ortho_group.rvs(40, random_state=0)[:5]
    assert distance(real @ basis, fake @ basis) == pytest.approx(distance(real, fake), rel=1e-9)


def test_rounding_adds_no_rank():
    # Of a covariance of rank 5, only the 5x5 block of the other one counts, in the same axes.
    rotation = scipy.stats.ortho_group.rvs(100, random_state=0)
    full = np.cov(draw(300, 100).T)
    root = np.sqrt(np.linalg.eigvalsh(full[:5, :5])).sum()
    flat = gaussian(np.zeros(100), rotation.T @ np.diag([1] * 5 + [0] * 95) @ rotation)
    found = frechet_distance(flat, gaussian(np.zeros(100), rotation.T @ full @ rotation))
    assert found == pytest.approx(5 + np.trace(full) - 2 * root, rel=1e-10)


def test_constant_features():
    constant, fake = np.full((50, 3), 2.0), draw(50, 3)
    expected = np.square(fake.mean(0) - 2).sum() + fake.var(0, ddof=1).sum()
    assert distance(constant, fake) == pytest.approx(expected, rel=1e-12)
    assert distance(constant, constant + 1) == pytest.approx(3)


def test_few_samples_bring_a_warning():
    real, fake = draw(100, 10), draw(10, 10, seed=1)
    with pytest.warns(UserWarning, match="fake has only 10 samples of 10 dimensions: its covariance is "
                      "rank-deficient; the distance is biased upwards"):
        distance(real, fake)


def test_errors():
    with pytest.raises(ValueError, match="moments must be of the same dimensions; got 2 and 3"):
        frechet_distance(moments(draw(9, 2)), moments(draw(9, 3)))
    with pytest.raises(ValueError, match="moments must be of the same dimensions; got 3 and 2"):
        merge(moments(draw(9, 3)), moments(draw(9, 2)))
    with pytest.raises(ValueError, match="ddof 1 needs more than 1 samples; got 1"):
        moments(draw(1, 2)).covariance()
