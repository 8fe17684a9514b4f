"""Distances between all pairs of points of two sets."""

import jax.numpy as jnp
from jax import lax

from jaxgan.types import Array


def squared_distances(x: Array, y: Array) -> Array:
    """Returns |x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i . y_j, [len(x), len(y)], not below 0.

    Of points that nearly coincide it is what rounding leaves of a difference of larger numbers.
    """
    squares = (jnp.square(x).sum(axis=-1, keepdims=True) + jnp.square(y).sum(axis=-1)[None]
               - 2 * jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST))
    return jnp.maximum(squares, 0.0)
