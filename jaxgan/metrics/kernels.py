"""The maximum mean discrepancy of two sets of features."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks, pairs
from jaxgan.types import Array

_MEDIAN_POINTS = 2000


class KernelDistance(NamedTuple):
    """The mean of a kernel distance over subsets, and its standard deviation (ddof 0) over them."""

    mean: float
    std: float


def kernel_distance(real: ArrayLike, fake: ArrayLike, *, subsets: int = 100, subset_size: int = 1000,
                    degree: int = 3, gamma: float | None = None, coef: float = 1.0,
                    seed: int = 0) -> KernelDistance:
    """Returns the unbiased squared MMD with the kernel (gamma x . y + coef)^degree over subsets.

    With the pool features of Inception it is KID. It may be negative. Binkowski et al. 2018 (arXiv
    1801.01401), equation 4.

    Args:
        real: features, [samples, dimensions].
        fake: features of the same dimensions.
        subsets: how many are drawn, each without replacement.
        subset_size: samples of either kind in a subset.
        degree: of the polynomial.
        gamma: None for 1 / dimensions.
        coef: the constant.
        seed: of the subsets.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape, or there are fewer
            than `subset_size`.
    """
    real, fake = checks.features("real", real), checks.features("fake", fake)
    checks.same_dimensions(real=real, fake=fake)
    checks.positive(subsets=subsets, degree=degree)
    fewer = min(len(real), len(fake))
    if not 2 <= subset_size <= fewer:
        raise ValueError(f"subset_size must be in [2, {fewer}], for there are {len(real)} reals and "
                         f"{len(fake)} fakes; got {subset_size}: add samples or take smaller subsets")
    gamma = 1 / real.shape[1] if gamma is None else gamma
    generator = np.random.default_rng(seed)

    def draw(features: np.ndarray) -> np.ndarray:
        return features[generator.choice(len(features), subset_size, replace=False)]

    with jax.enable_x64(True):
        values = [float(_polynomial_discrepancy(draw(real), draw(fake), gamma, coef, degree))
                  for _ in range(subsets)]
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def maximum_mean_discrepancy(x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None) -> float:
    """Returns the unbiased squared MMD with the kernel exp(-|x - y|^2 / (2 bandwidth^2)).

    It may be negative. Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3; section 8 for
    the bandwidth.

    Args:
        x: [samples, dimensions], at least 2.
        y: likewise; the numbers of samples may differ.
        bandwidth: None for the median distance between points of both sets together, of 2000 points
            evenly spaced in [x, y] where there are more.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape; or the bandwidth
            isn't above 0, because most points are equal.
    """
    x, y = checks.features("x", x, at_least=2), checks.features("y", y, at_least=2)
    checks.same_dimensions(x=x, y=y)
    x, y = pairs.centred(x, y)
    with jax.enable_x64(True):
        if bandwidth is None:
            bandwidth = _median_distance(np.concatenate([x, y]))
            if bandwidth == 0:
                raise ValueError("the median distance between points must be above 0; all or most "
                                 "points are equal: pass a bandwidth")
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be above 0; got {bandwidth}")
        within = [(_gaussian_sum(z, z, bandwidth) - len(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
        return float(sum(within) - 2 * _gaussian_sum(x, y, bandwidth) / (len(x) * len(y)))


@functools.partial(jax.jit, static_argnames="degree")
def _polynomial_discrepancy(real: Array, fake: Array, gamma: float, coef: float, degree: int) -> Array:
    real, fake = real.astype(jnp.float64), fake.astype(jnp.float64)

    def kernel(x: Array, y: Array) -> Array:
        return (gamma * x @ y.T + coef) ** degree

    def within(x: Array) -> Array:
        values = kernel(x, x)
        return (values.sum() - jnp.trace(values)) / (len(x) * (len(x) - 1))

    return within(real) + within(fake) - 2 * kernel(real, fake).mean()


def _gaussian_sum(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """Returns the sum of the kernel over all pairs; a point and itself give 1 exactly."""
    columns = jnp.asarray(y)
    return sum(float(np.asarray(_gaussian_sums(block, columns, bandwidth))[:count].sum())
               for block, count in pairs.blocks(x))


@jax.jit
def _gaussian_sums(x: Array, y: Array, bandwidth: float) -> Array:
    return jnp.exp(pairs.squared_distances(x, y) / (-2 * bandwidth**2)).sum(axis=1)


def _median_distance(points: np.ndarray) -> float:
    chosen = np.linspace(0, len(points) - 1, min(len(points), _MEDIAN_POINTS)).round().astype(int)
    squares = np.asarray(jax.jit(pairs.squared_distances)(points[chosen], points[chosen]))
    return float(np.median(np.sqrt(squares[np.triu_indices(len(chosen), 1)])))
