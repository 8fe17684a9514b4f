"""Metrics of nearest neighbours: precision, recall, density, coverage; copies of the training set."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks, pairs
from jaxgan.types import Array

_SLACK = 1 + 1e-9  # on squared radii, so that rounding doesn't decide whether a point on a ball is in it


class PrecisionRecall(NamedTuple):
    """The fraction of fakes among the reals, and of reals among the fakes, both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely reals surround the fakes, from 0, may exceed 1; and the fraction of reals met."""

    density: float
    coverage: float


class Memorisation(NamedTuple):
    """How near samples are to the training set, compared with reals that were held out.

    Attributes:
        sample_median: the median distance of samples to the nearest of the training set.
        held_out_median: the same of the held-out reals.
        ratio: the first divided by the second; of 0 by 0 it is 1.
        probability: that a sample is nearer than a held-out real; ties count half.
        z_score: by how many standard deviations that is above 1/2.
    """

    sample_median: float
    held_out_median: float
    ratio: float
    probability: float
    z_score: float


def precision_recall(real: ArrayLike, fake: ArrayLike, *, k: int = 3) -> PrecisionRecall:
    """Returns the fraction of fakes in the manifold of reals, and of reals in that of fakes.

    A manifold is the union of closed balls (<=, as the paper writes it) around the samples of a set,
    each as wide as the distance to its k-th nearest neighbour in the set, itself not counted. Equal
    sets have precision and recall 1.

    Kynkaanniemi et al. 2019 (arXiv 1904.06991), section 2.

    Args:
        real: features, [samples, dimensions].
        fake: features of the same dimensions.
        k: the neighbour, below both numbers of samples.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape, or k is out of range.
    """
    real, fake = _checked(k, real, fake, fewest="real and fake")
    with jax.enable_x64(True):
        precision = (_balls_around(fake, real, _squared_radii(real, k))[0] > 0).mean()
        recall = (_balls_around(real, fake, _squared_radii(fake, k))[0] > 0).mean()
    return PrecisionRecall(float(precision), float(recall))


def density_coverage(real: ArrayLike, fake: ArrayLike, *, k: int = 5) -> DensityCoverage:
    """Returns how many reals' balls hold a fake, over k; and the fraction of reals whose ball holds one.

    Balls as in `precision_recall`. They are closed, so that a fake equal to a real is met even where
    reals repeat and their radii are 0; the authors' code takes open ones, which differs for ties
    alone. The density of the very same set is thus (k + 1) / k, of another draw about 1.

    Naeem et al. 2020 (arXiv 2002.09797), section 3.2.

    Args:
        real: features, [samples, dimensions].
        fake: features of the same dimensions.
        k: the neighbour, below the number of reals.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape, or k is out of range.
    """
    real, fake = _checked(k, real, fake, fewest="real")
    with jax.enable_x64(True):
        counts, met = _balls_around(fake, real, _squared_radii(real, k))
    return DensityCoverage(float(counts.mean() / k), float(met.mean()))


def memorisation(samples: ArrayLike, held_out: ArrayLike, training: ArrayLike) -> Memorisation:
    """Compares the samples' distances to the training set with those of reals that were held out.

    The probability is the Mann-Whitney statistic U / (samples * held_out), the z-score its normal
    approximation, corrected for ties. About 1/2 and 0: nothing copied; towards 1 and far above 0: the
    samples are copies. Meehan et al. 2020 (arXiv 2004.05675), section 3: its Z_U, there of one
    region of the space at a time, is minus the z-score.

    Args:
        samples: features of generated samples, [samples, dimensions].
        held_out: of reals that weren't trained on.
        training: of the reals that were.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape.
    """
    sets = {name: checks.features(name, values) for name, values in (
        ("samples", samples), ("held_out", held_out), ("training", training))}
    checks.same_dimensions(**sets)
    samples, held_out, training = pairs.centred(*sets.values())
    with jax.enable_x64(True):
        ours, theirs = (np.sqrt(_kth_squares(rows, training, 1)) for rows in (samples, held_out))
    medians = float(np.median(ours)), float(np.median(theirs))
    ratio = medians[0] / medians[1] if medians[1] else math.inf if medians[0] else 1.0
    return Memorisation(*medians, ratio, *_mann_whitney(ours, theirs))


def _checked(k: int, real: ArrayLike, fake: ArrayLike, fewest: str) -> list[np.ndarray]:
    sets = {"real": checks.features("real", real), "fake": checks.features("fake", fake)}
    checks.same_dimensions(**sets)
    limit = min(len(sets[name]) for name in fewest.split(" and "))
    if not 1 <= k < limit:
        raise ValueError(f"k must be in [1, {limit}), below the number of samples of {fewest}; "
                         f"got {k}: add samples or lower k")
    return pairs.centred(*sets.values())


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """Returns the squared distances to the k-th neighbours: a point itself is the first, at 0."""
    return _kth_squares(points, points, k + 1)


def _kth_squares(rows: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    columns = jnp.asarray(points)
    return np.concatenate([np.asarray(_kth_of_block(block, columns, k))[:count]
                           for block, count in pairs.blocks(rows)])


def _balls_around(rows: np.ndarray, points: np.ndarray,
                  squared_radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns in how many balls around the points each row is, and which balls hold any row."""
    columns, limits = jnp.asarray(points), jnp.asarray(squared_radii * _SLACK)
    counts, met = [], np.zeros(len(points), bool)
    for block, count in pairs.blocks(rows):
        counts_of_block, met_by_block = _balls_around_block(block, columns, limits)
        counts.append(np.asarray(counts_of_block)[:count])
        met |= np.asarray(met_by_block)
    return np.concatenate(counts), met


@functools.partial(jax.jit, static_argnames="k")
def _kth_of_block(rows: Array, points: Array, k: int) -> Array:
    """Returns the k-th smallest squared distance of each row; k passes, since sorting is slower."""
    squares = pairs.squared_distances(rows, points)

    def pass_on(_, state: tuple[Array, Array]) -> tuple[Array, Array]:
        value, reached = state
        larger = jnp.where(squares > value[:, None], squares, jnp.inf).min(axis=1)
        value = jnp.where(reached < k, larger, value)
        return value, (squares <= value[:, None]).sum(axis=1)

    start = jnp.full(len(rows), -jnp.inf), jnp.zeros(len(rows), int)
    return jax.lax.fori_loop(0, k, pass_on, start)[0]


@jax.jit
def _balls_around_block(rows: Array, points: Array, limits: Array) -> tuple[Array, Array]:
    inside = pairs.squared_distances(rows, points) <= limits[None]
    return inside.sum(axis=1), inside.any(axis=0)


def _mann_whitney(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Returns the probability that ours is smaller, ties half, and its z-score corrected for ties."""
    theirs = np.sort(theirs)
    below, not_above = (np.searchsorted(theirs, ours, side) for side in ("left", "right"))
    probability = float(1 - (below + not_above).mean() / (2 * len(theirs)))
    total = len(ours) + len(theirs)
    ties = np.unique(np.concatenate([ours, theirs]), return_counts=True)[1].astype(np.float64)
    variance = (total + 1 - (ties**3 - ties).sum() / (total * (total - 1))) / (
        12 * len(ours) * len(theirs))
    return probability, (probability - 0.5) / math.sqrt(variance) if variance > 0 else 0.0
