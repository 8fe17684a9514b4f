"""Distances between all pairs of points of two sets."""

import jax.numpy as jnp
from jax import lax

from jaxgan.types import Array


def squared_distances(x: Array, y: Array) -> Array:
    """Returns |x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i . y_j, [len(x), len(y)].

    What rounding could have made of 0 is 0, so that equal points have distance 0 exactly.
    """
    x_squares, y_squares = jnp.square(x).sum(axis=1)[:, None], jnp.square(y).sum(axis=1)[None]
    squares = x_squares + y_squares - 2 * jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
    rounding = (x.shape[1] + 4) * jnp.finfo(x.dtype).eps * (x_squares + y_squares)
    return jnp.where(squares > rounding, squares, 0)
