"""The filter [1, 3, 3, 1], and images of half and of twice the size by it.

Zhang 2019 (arXiv 1904.11486) for the filter; Karras et al. 2020 (arXiv 1912.04958) and Huang et al. 2024
(arXiv 2501.05441) for its use in GANs. Each axis is filtered by itself, by sums of shifted images, whose
derivatives are as quick as they are. Images are 0 outside.
"""

import jax.numpy as jnp
from jax import lax

from jaxgan.types import Array


def upsample(x: Array) -> Array:
    """Doubles height and width: along each axis a pixel becomes (3 x + its neighbour) / 4, twice.

    Args:
        x: [batch, height, width, channels].

    Returns:
        [batch, 2 height, 2 width, channels].
    """
    for axis in (1, 2):
        near, before, after = 0.75 * x, 0.25 * _shifted(x, axis, 1), 0.25 * _shifted(x, axis, -1)
        x = jnp.stack([near + before, near + after], axis + 1)
        x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2:])
    return x


def downsample(x: Array) -> Array:
    """Halves height and width: along each axis a pixel is (before + 3 first + 3 second + after) / 8.

    Args:
        x: [batch, height, width, channels], height and width even.

    Returns:
        [batch, height / 2, width / 2, channels].

    Raises:
        ValueError: height or width is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"downsample halves images of even height and width; got {x.shape[1:3]}")
    for axis in (1, 2):
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1:])
        first, second = jnp.take(pairs, 0, axis + 1), jnp.take(pairs, 1, axis + 1)
        x = 0.375 * (first + second) + 0.125 * (
            _shifted(second, axis, 1) + _shifted(first, axis, -1))
    return x


def smooth(x: Array, padding: int) -> Array:
    """Filters images, along each axis with [1, 3, 3, 1] / 8.

    Args:
        x: [batch, height, width, channels].
        padding: zeros that are put on each side first.

    Returns:
        [batch, height + 2 padding - 3, width + 2 padding - 3, channels].
    """
    for axis in (1, 2):
        pad = [(0, 0, 0)] * x.ndim
        pad[axis] = (padding, padding, 0)
        x = lax.pad(x, jnp.zeros((), x.dtype), pad)
        first, second, third, fourth = (
            lax.slice_in_dim(x, i, x.shape[axis] - 3 + i, axis=axis) for i in range(4))
        x = 0.125 * (first + fourth) + 0.375 * (second + third)
    return x


def _shifted(x: Array, axis: int, by: int) -> Array:
    """`x` moved by one along an axis, with zeros where nothing comes in."""
    pad = [(0, 0, 0)] * x.ndim
    pad[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), pad)
