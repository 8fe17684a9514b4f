"""The continuous Wasserstein-1 benchmark: its construction, against what is known of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jaxgan.data import DataNotFoundError, draw_step
from jaxgan.data.transport import (
    HALF,
    Funnels,
    cube,
    make_funnels,
    move,
    potential,
    read_funnels,
    slope,
    transport_pair,
    true_distance,
)

PAIRS = [(1, 3), (2, 4), (5, 16), (16, 64)]


def drawn(dimensions, seed=0, count=2000):
    return cube(jax.random.split(jax.random.key(seed), count), dimensions)


def in_double(funnels, points):
    """The potential by its definition, in float64."""
    centres, heights = (np.asarray(array, np.float64) for array in funnels)
    away = np.linalg.norm(np.asarray(points, np.float64)[:, None] - centres, axis=-1)
    return (away + heights).min(axis=1), (away + heights).argmin(axis=1)


@pytest.mark.parametrize(("dimensions", "count"), PAIRS)
def test_points_move_down_their_own_funnel_by_as_much_as_the_potential_falls(dimensions, count):
    funnels, points = make_funnels(dimensions, count), drawn(dimensions)
    moved = move(funnels, points)
    (before, own), (after, there) = in_double(funnels, points), in_double(funnels, moved)
    assert (own == there).all()
    assert np.abs(moved).max() <= HALF + 1e-6
    way = np.linalg.norm(np.asarray(points, np.float64) - np.asarray(moved, np.float64), axis=1)
    np.testing.assert_allclose(before - after, way, atol=2e-6)
    np.testing.assert_allclose(potential(funnels, points), before, atol=1e-5)
    np.testing.assert_allclose(true_distance(funnels, jax.random.key(1), count=2**16), way.mean(),
                               rtol=0.1)


@pytest.mark.parametrize(("dimensions", "count"), PAIRS)
def test_no_two_points_differ_by_more_than_their_distance(dimensions, count):
    funnels = make_funnels(dimensions, count)
    one = np.asarray(drawn(dimensions))
    for other in (np.asarray(drawn(dimensions, 1)), one + 0.01 * np.asarray(drawn(dimensions, 2))):
        gap = np.abs(in_double(funnels, one)[0] - in_double(funnels, other)[0])
        assert (gap <= np.linalg.norm(one - other, axis=1) + 1e-6).all()


def test_the_slope_is_the_gradient_of_the_potential():
    funnels, points = make_funnels(5, 16), drawn(5)
    gradient = jax.grad(lambda x: potential(funnels, x).sum())(points)
    np.testing.assert_allclose(slope(funnels, points), gradient, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(gradient, axis=1), 1, atol=1e-5)


def test_the_way_is_the_optimal_one_on_a_line():
    funnels = make_funnels(1, 3, seed=4)
    points = drawn(1, count=20_000)
    moved = move(funnels, points)
    known = wasserstein_distance(np.ravel(points), np.ravel(moved))
    np.testing.assert_allclose(np.abs(points - moved).mean(), known, rtol=1e-4)


def test_a_point_is_moved_as_worked_by_hand():
    # From 1 the ray of the funnel at 0 ends at the cube's side, 2.5: t = 0.4, and the point comes to
    # 2.5 t^degree. With a second funnel at 2.4 the ray ends half way, at 1.2: t = 1 / 1.2.
    alone = Funnels(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    two = Funnels(np.array([[0], [2.4]], np.float32), np.zeros(2, np.float32))
    point = jnp.ones((1, 1))
    for degree in (1, 2, 8):
        np.testing.assert_allclose(move(alone, point, degree), 2.5 * 0.4**degree, rtol=1e-5)
        np.testing.assert_allclose(move(two, point, degree), 1.2 * (1 / 1.2) ** degree, rtol=1e-5)
    # A second funnel that is 0.4 lower takes over where r = (2.4 - r) - 0.4.
    lower = two._replace(heights=np.array([0, -0.4], np.float32))
    np.testing.assert_allclose(move(lower, 0.5 * point, 2), 1.0 * (0.5 / 1.0) ** 2, rtol=1e-5)


def test_a_point_at_a_centre_stays_and_breaks_nothing():
    funnels = make_funnels(3, 4)
    moved = move(funnels, jnp.asarray(funnels.centres))
    np.testing.assert_allclose(moved, funnels.centres, atol=1e-6)
    assert np.isfinite(slope(funnels, jnp.asarray(funnels.centres))).all()


def test_the_two_samples_of_a_pair_are_drawn_independently():
    source = transport_pair(make_funnels(2, 4), degree=1)  # nothing is moved: twice the same cube
    real, fake = draw_step(source, source.arrays, jax.random.key(0), 3, 4000, jnp.arange(4000)).samples
    assert real.shape == fake.shape == (4000, 2)
    assert np.abs(np.corrcoef(np.hstack([real, fake]).T) - np.eye(4)).max() < 0.06
    np.testing.assert_allclose(np.vstack([real, fake]).var(axis=0), 25 / 12, rtol=0.05)


def test_funnels_are_read_without_unpickling(tmp_path):
    made = make_funnels(3, 4)
    np.savez(tmp_path / "f.npz", centers_3_4=made.centres, bias_3_4=made.heights,
             centers_3_5=made.centres, bias_3_5=made.heights,
             centers_3_1=np.full((1, 3), np.nan), bias_3_1=np.zeros(1))
    there = read_funnels(tmp_path / "f.npz", 3, 4)
    assert all((a == b).all() for a, b in zip(there, made, strict=True))
    with pytest.raises(DataNotFoundError, match="has no centers_2_4: choose"):
        read_funnels(tmp_path / "f.npz", 2, 4)
    with pytest.raises(ValueError, match=r"must have shapes \(5, 3\) and \(5,\)"):
        read_funnels(tmp_path / "f.npz", 3, 5)
    with pytest.raises(ValueError, match="is not finite"):
        read_funnels(tmp_path / "f.npz", 3, 1)
    np.savez(tmp_path / "o.npz", centers_3_4=np.array([{}], object), bias_3_4=made.heights)
    with pytest.raises(ValueError, match="can't be read"):
        read_funnels(tmp_path / "o.npz", 3, 4)
    whole = (tmp_path / "f.npz").read_bytes()
    for damaged in (whole[:len(whole) // 2], whole.replace(b"centers", b"center\0"), b"no archive"):
        (tmp_path / "d.npz").write_bytes(damaged)
        with pytest.raises((ValueError, DataNotFoundError)):
            read_funnels(tmp_path / "d.npz", 3, 4)
    with pytest.raises(ValueError, match="at least one dimension"):
        make_funnels(0, 4)
