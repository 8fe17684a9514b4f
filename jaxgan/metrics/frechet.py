"""The Frechet distance between the Gaussians that have the moments of two sets of features."""

import functools
import warnings
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks

_BLOCK = 4096


class Moments(NamedTuple):
    """The first two moments of a set of features, in float64.

    Attributes:
        count: the number of samples.
        mean: [dimensions].
        scatter: the sum of the outer products of the centred samples, [dimensions, dimensions].
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    def covariance(self, ddof: int = 1) -> np.ndarray:
        """Returns scatter / (count - ddof), [dimensions, dimensions].

        Raises:
            ValueError: there are no more than `ddof` samples.
        """
        if self.count <= ddof:
            raise ValueError(f"a covariance with ddof {ddof} needs more than {ddof} samples; "
                             f"got {self.count}")
        return self.scatter / (self.count - ddof)


def moments(features: ArrayLike) -> Moments:
    """Returns the moments of features, [samples, dimensions]; a block at a time is in float64.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape.
    """
    features = checks.features("features", features)
    return functools.reduce(merge, (_of_block(features[start:start + _BLOCK])
                                    for start in range(0, len(features), _BLOCK)))


def merge(a: Moments, b: Moments) -> Moments:
    """Returns the moments of two sets together, from the moments of each.

    Chan, Golub and LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances": scatter = A + B + (n_a n_b / n) (m_b - m_a) (m_b - m_a)^T.

    Raises:
        ValueError: the dimensions differ.
    """
    _check_same_dimensions(a, b)
    count, difference = a.count + b.count, b.mean - a.mean
    scatter = a.scatter + b.scatter
    scatter += np.outer(difference * (a.count * b.count / count), difference)
    return Moments(count, a.mean + difference * (b.count / count), scatter)


def frechet_distance(real: Moments, fake: Moments, *, ddof: int = 1) -> float:
    """Returns |m_r - m_f|^2 + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^(1/2)).

    The last trace is the sum of the singular values of C_r^(1/2) C_f^(1/2), taken from low-rank
    factors of both: exact for singular covariances as well, and equal sets give 0. With the pool
    features of Inception it is FID.

    Args:
        real: moments, [dimensions].
        fake: moments of the same dimensions.
        ddof: covariances are divided by count - ddof; 1 as most public code, 0 as some.

    Returns:
        The squared 2-Wasserstein distance of the two Gaussians. A set of no more samples than
        dimensions brings a warning: the distance of small sets is biased upwards, then grossly.

    Raises:
        ValueError: the dimensions differ, or a set is too small.

    Dowson and Landau 1982; Heusel et al. 2017 (arXiv 1706.08500), equation 6.
    """
    _check_same_dimensions(real, fake)
    for name, of in (("real", real), ("fake", fake)):
        if of.count <= len(of.mean):
            warnings.warn(f"{name} has only {of.count} samples of {len(of.mean)} dimensions: its "
                          "covariance is rank-deficient; the distance is biased upwards", stacklevel=2)
    a, b = _factor(real.covariance(ddof)), _factor(fake.covariance(ddof))
    root_trace = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    distance = np.square(real.mean - fake.mean).sum() + np.vdot(a, a) + np.vdot(b, b) - 2 * root_trace
    return max(float(distance), 0.0)


def _of_block(block: np.ndarray) -> Moments:
    block = block.astype(np.float64)
    mean = block.mean(axis=0)
    block -= mean
    return Moments(len(block), mean, block.T @ block)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Returns F, [dimensions, rank], with F F^T = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]  # the others are rounding
    return vectors[:, kept] * np.sqrt(values[kept])


def _check_same_dimensions(a: Moments, b: Moments) -> None:
    if a.mean.shape != b.mean.shape:
        raise ValueError("moments must be of the same dimensions; got "
                         f"{len(a.mean)} and {len(b.mean)}")
