"""Pairs of distributions between which the Wasserstein-1 distance and the optimal critic are known.

The continuous benchmark of Korotin, Kolesov, Burnaev 2022 (arXiv 2206.07767, section 4). The potential
u(x) = min_n (|x - a_n| + b_n) is a minimum of funnels. Points that are uniform in a cube are moved along
the rays of u, each within its funnel, which makes u optimal between where they were and where they are:
the distance is the mean length of the way, and the critic that is optimal for E_P f - E_Q f, with the
moved points in the reals' place, is -u.
"""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.data.dataset import DataNotFoundError
from jaxgan.data.sources import Source, position_keys
from jaxgan.digests import params_digest
from jaxgan.distances import squared_distances
from jaxgan.files import reason
from jaxgan.keys import uniform
from jaxgan.types import Array, Batch, Key, PyTree

HALF = 2.5  # of the cube's side
DEGREE = 8  # of the movement: as in the paper
_BIAS = 0.1  # standard deviation of the funnels' heights, about that of the published ones


class Funnels(NamedTuple):
    """The potential u(x) = min_n (|x - a_n| + b_n).

    Attributes:
        centres: a_n, [funnels, dimensions] float32, in the cube.
        heights: b_n, [funnels] float32.
    """

    centres: Array | np.ndarray
    heights: Array | np.ndarray


def make_funnels(dimensions: int, count: int, seed: int = 0) -> Funnels:
    """Draws funnels: centres uniform in the cube, heights N(0, 0.1^2).

    Args:
        dimensions: of the space.
        count: how many funnels.
        seed: of the draw; each pair of numbers has funnels of its own.

    Raises:
        ValueError: a number is below 1.
    """
    if min(dimensions, count) < 1:
        raise ValueError(f"there must be at least one dimension and one funnel; got {dimensions} and "
                         f"{count}")
    draw = np.random.default_rng([seed, dimensions, count])
    return Funnels(draw.uniform(-HALF, HALF, (count, dimensions)).astype(np.float32),
                   draw.normal(0.0, _BIAS, count).astype(np.float32))


def read_funnels(path: str | Path, dimensions: int, count: int) -> Funnels:
    """Reads published funnels: the arrays `centers_D_N` and `bias_D_N` of an .npz file.

    Args:
        path: the file, in which nothing is unpickled.
        dimensions: D.
        count: N.

    Raises:
        DataNotFoundError: there is no such file, or it lacks this pair.
        ValueError: the arrays have other shapes, or aren't finite.
    """
    names = f"centers_{dimensions}_{count}", f"bias_{dimensions}_{count}"
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in names if name in file}
    except FileNotFoundError as error:
        raise DataNotFoundError(f"there is no file {path}") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} can't be read ({reason(error)})") from error
    if missing := [name for name in names if name not in found]:
        raise DataNotFoundError(f"{path} has no {missing[0]}: choose a pair that it has")
    centres, heights = (found[name].astype(np.float32) for name in names)
    if centres.shape != (count, dimensions) or heights.shape != (count,):
        raise ValueError(f"{names[0]} and {names[1]} in {path} must have shapes {(count, dimensions)} "
                         f"and {(count,)}; got {centres.shape} and {heights.shape}")
    if not (np.isfinite(centres).all() and np.isfinite(heights).all()):
        raise ValueError(f"{names[0]} or {names[1]} in {path} is not finite")
    return Funnels(centres, heights)


def potential(funnels: Funnels, points: Array) -> Array:
    """Returns u, [batch], at points [batch, dimensions]."""
    low, height = _funnel(funnels, points)
    return jnp.linalg.norm(points - low, axis=-1) + height


def slope(funnels: Funnels, points: Array) -> Array:
    """Returns the gradient of u, [batch, dimensions]: the unit vector from the funnel's centre.

    It is the same all along a ray, and of a point that was moved best taken where it was: in few
    dimensions many come so near to the centre that the direction is lost.
    """
    away = points - _funnel(funnels, points)[0]
    return away / _least(jnp.linalg.norm(away, axis=-1, keepdims=True))


def move(funnels: Funnels, points: Array, degree: int = DEGREE) -> Array:
    """Moves points of the cube towards the centres of their funnels, each along its ray of u.

    A point that is at the share t of its ray, which ends where the cube does or another funnel begins,
    comes to be at t^degree.

    Args:
        funnels: the potential.
        points: [batch, dimensions], in the cube.
        degree: 1 leaves them where they are.

    Returns:
        [batch, dimensions].
    """
    centres, heights = map(jnp.asarray, funnels)
    distances, own = _nearest(funnels, points)
    low = centres[own]
    away = points - low
    radius = _least(jnp.linalg.norm(away, axis=-1))  # [batch]
    ray = away / radius[:, None]
    to_side = jnp.abs((jnp.sign(ray) * HALF - points) / jnp.where(ray == 0, 1.0, ray))
    to_cube = jnp.where(ray == 0, 2 * HALF * points.shape[-1], to_side).min(axis=-1)  # at most
    # At x + r v the funnel m is as high as the own one where |x + r v - a_m| = r + rise.
    rise = (radius + heights[own])[:, None] - heights[None]
    along = (points * ray).sum(axis=-1, keepdims=True) - jnp.matmul(
        ray, centres.T, precision=lax.Precision.HIGHEST)
    there = (jnp.square(distances) - jnp.square(rise)) / (2 * (rise - along))
    counts = (there > 0) & (there > -rise) & (jnp.arange(len(heights))[None] != own[:, None])
    to_funnel = jnp.min(jnp.where(counts, there, jnp.inf), axis=-1)
    length = radius + jnp.minimum(to_cube, to_funnel)
    return low + ((radius / length) ** degree * length)[:, None] * ray


def cube(keys: Key, dimensions: int) -> Array:
    """Draws points that are uniform in the cube, [len(keys), dimensions], each from its own key."""
    return (2 * uniform(keys, (dimensions,)) - 1) * HALF


def transport_pair(funnels: Funnels, degree: int = DEGREE) -> Source:
    """Returns an endless source of independent draws from the two distributions.

    Samples are pairs (real, fake), each [batch, dimensions]: moved points, and points of the cube.

    Args:
        funnels: the potential.
        degree: see `move`.
    """
    dimensions = np.shape(funnels.centres)[1]

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        for_real, for_fake = jax.vmap(jax.random.split, out_axes=1)(position_keys(key, epochs, offsets))
        real = move(Funnels(*arrays), cube(for_real, dimensions), degree)
        return Batch((real, cube(for_fake, dimensions)))

    arrays = Funnels(*map(jnp.asarray, funnels))
    return Source(arrays, draw, None, ((dimensions,), (dimensions,)), (-HALF, HALF), 0,
                  digest=params_digest(arrays))


def true_distance(funnels: Funnels, key: Key, degree: int = DEGREE, *, count: int = 2**17) -> float:
    """Returns the distance, as the mean length of the way of so many points."""
    @jax.jit
    def total(key: Key) -> Array:
        points = cube(jax.random.split(key, _AT_ONCE), np.shape(funnels.centres)[1])
        return jnp.linalg.norm(points - move(funnels, points, degree), axis=-1).mean()

    parts = [float(total(jax.random.fold_in(key, i))) for i in range(-(-count // _AT_ONCE))]
    return float(np.mean(parts))


_AT_ONCE = 2**12


def _funnel(funnels: Funnels, points: Array) -> tuple[Array, Array]:
    """The centres and the heights of the funnels that points are in."""
    _, own = _nearest(funnels, points)
    return jnp.asarray(funnels.centres)[own], jnp.asarray(funnels.heights)[own]


def _nearest(funnels: Funnels, points: Array) -> tuple[Array, Array]:
    """Distances to the centres, [batch, funnels], and the funnel that each point is in, [batch].

    That of a point that is nearly at a centre is rough: it is the root of a small difference.
    """
    centres, heights = map(jnp.asarray, funnels)
    distances = jnp.sqrt(squared_distances(points, centres))
    return distances, jnp.argmin(distances + heights[None], axis=-1)


def _least(lengths: Array) -> Array:
    """Lengths that can be divided by: a point at a centre has no direction, and stays there."""
    return jnp.maximum(lengths, jnp.finfo(lengths.dtype).tiny)
