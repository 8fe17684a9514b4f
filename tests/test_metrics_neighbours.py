"""Nearest neighbours against scikit-learn's, rank statistics against SciPy's."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from jaxgan.metrics import density_coverage, memorisation, pairs, precision_recall


def normal(count, dimensions=4, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, size=(count, dimensions)).astype(np.float32)


def lattice(count, seed):
    return np.random.default_rng(seed).integers(0, 3, (count, 6)) * 0.1


def far_apart(count, seed):
    """Two clusters of spread 1 at a distance of 20,000."""
    points = normal(count, seed=seed).astype(np.float64)
    points[::2] += 1e4
    points[1::2] -= 1e4
    return points


PAIRS = {
    "random": (normal(90), normal(70, shift=0.7, seed=1)),
    "few dimensions": (normal(90, 1), normal(70, 1, seed=1)),
    "many dimensions": (normal(90, 300), 1.1 * normal(70, 300, seed=1)),
    "a lattice, with ties and repetitions": (lattice(90, 0), lattice(70, 1)),
    "far apart": (far_apart(90, 0), far_apart(70, 1)),
    "far from 0": (normal(90) + np.float64(1e8), normal(70, seed=1) + np.float64(1e8)),
    "repeated": (np.repeat(normal(9), 10, axis=0), np.repeat(normal(9), 8, axis=0)),
}


def inside(rows, points, k):
    """[rows, points]: whether a row is in the ball around a point; exact where differences are."""
    radii = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(points).kneighbors()[0][:, -1]
    return cdist(rows, points) <= radii * (1 + 1e-12)


@pytest.fixture(params=[32, 1024], ids=lambda size: f"blocks of {size}")
def block(request, monkeypatch):
    monkeypatch.setattr(pairs, "_BLOCK", request.param)


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.usefixtures("block")
def test_manifolds_are_scikit_learns(case):
    real, fake = (np.asarray(points, np.float64) for points in PAIRS[case])
    fakes_in, reals_in = inside(fake, real, 3), inside(real, fake, 3)
    assert precision_recall(*PAIRS[case]) == pytest.approx(
        (fakes_in.any(1).mean(), reals_in.any(1).mean()))
    fakes_in = inside(fake, real, 5)
    assert density_coverage(*PAIRS[case]) == pytest.approx(
        (fakes_in.sum(1).mean() / 5, fakes_in.any(0).mean()))


@pytest.mark.parametrize("case", PAIRS)
def test_a_set_and_itself(case):
    real = PAIRS[case][0]
    assert precision_recall(real, real[::-1]) == (1.0, 1.0)
    assert density_coverage(real, real[::-1]).coverage == 1.0


def test_a_set_without_ties_and_itself_is_denser_by_one():
    assert density_coverage(normal(90), normal(90), k=4).density == pytest.approx(5 / 4)


def test_another_draw_has_density_one():
    # A fake is as likely as any real to be among the k nearest: the mean is 1 exactly.
    values = [density_coverage(normal(200, seed=i), normal(200, seed=i + 100)).density for i in range(5)]
    assert np.mean(values) == pytest.approx(1.0, abs=0.05)


def test_disjoint_sets():
    assert precision_recall(normal(50), normal(50, shift=100, seed=1)) == (0.0, 0.0)
    assert density_coverage(normal(50), normal(50, shift=100, seed=1)) == (0.0, 0.0)


def test_collapse_to_one_real():
    real = normal(50)
    fake = np.repeat(real[:1], 50, axis=0)
    assert precision_recall(real, fake) == (1.0, 1 / 50)  # the fakes' balls are points
    density, coverage = density_coverage(real, fake)
    assert coverage == density * 5 / 50  # every fake is in the same balls


def test_too_large_k():
    with pytest.raises(ValueError, match=r"k must be in \[1, 4\), below the number of samples of real "
                       "and fake; got 4: add samples or lower k"):
        precision_recall(normal(9), normal(4), k=4)
    with pytest.raises(ValueError, match=r"k must be in \[1, 5\), below .* of real; got 5"):
        density_coverage(normal(5), normal(3))
    with pytest.raises(ValueError, match=r"k must be in \[1, 5\)"):
        precision_recall(normal(5), normal(5), k=0)
    assert density_coverage(normal(6), normal(1)).coverage >= 0  # one fake will do


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
@pytest.mark.usefixtures("block")
def test_memorisation_is_the_rank_test(scale):
    samples, held_out, training = scale * normal(60, seed=1), normal(50, seed=2), normal(200)
    training[:10] = held_out[:10]  # ties, at 0
    samples[:5] = training[20:25]
    nearest = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(training.astype(np.float64))
    ours, theirs = (nearest.kneighbors(rows.astype(np.float64))[0][:, 0] for rows in (samples, held_out))
    test = scipy.stats.mannwhitneyu(theirs, ours, alternative="greater", use_continuity=False,
                                    method="asymptotic")
    found = memorisation(samples, held_out, training)
    assert found.sample_median == pytest.approx(np.median(ours))
    assert found.held_out_median == pytest.approx(np.median(theirs))
    assert found.ratio == pytest.approx(np.median(ours) / np.median(theirs))
    assert found.probability == pytest.approx(test.statistic / (60 * 50))
    assert found.z_score == pytest.approx(scipy.stats.norm.isf(test.pvalue))


def test_copies_and_others():
    training, held_out = normal(300), normal(100, seed=1)
    copies = memorisation(training[:100], held_out, training)
    assert copies[:4] == (0.0, pytest.approx(copies.held_out_median), 0.0, 1.0)
    assert copies.z_score > 10
    fresh = memorisation(normal(100, seed=2), held_out, training)
    assert abs(fresh.z_score) < 3
    far = memorisation(normal(100, shift=10, seed=2), held_out, training)
    assert (far.probability, far.z_score) == (0.0, pytest.approx(-copies.z_score, rel=0.2))


def test_copies_on_either_side():
    training = normal(30)
    assert memorisation(training, training, training) == (0.0, 0.0, 1.0, 0.5, 0.0)
    assert memorisation(training + 1, training, training).ratio == float("inf")
