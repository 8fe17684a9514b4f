"""Distances between all pairs of two sets, a block of rows at a time, in float64.

Used inside `jax.enable_x64(True)`.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from jaxgan import distances
from jaxgan.types import Array

_BLOCK = 1024


def centred(*sets: np.ndarray) -> list[np.ndarray]:
    """Returns the sets in float64 with their common mean subtracted, which keeps distances exact."""
    total = sum(values.sum(axis=0, dtype=np.float64) for values in sets)
    mean = total / sum(map(len, sets))
    return [values.astype(np.float64) - mean for values in sets]


def blocks(rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yields blocks of the rows and how many count: the last is padded by repeating its last row.

    All are of one size, so that one compiled program serves them.
    """
    size = min(_BLOCK, len(rows))
    for start in range(0, len(rows), size):
        block = rows[start:start + size]
        yield np.pad(block, ((0, size - len(block)), (0, 0)), mode="edge"), len(block)


def squared_distances(x: Array, y: Array) -> Array:
    """Returns |x_i - y_j|^2, [len(x), len(y)].

    What rounding could have made of 0 is 0, so that equal points have distance 0 exactly.
    """
    squares, sizes = distances.squared_distances(x, y), [jnp.square(z).sum(axis=1) for z in (x, y)]
    rounding = (x.shape[1] + 4) * jnp.finfo(x.dtype).eps * (sizes[0][:, None] + sizes[1][None])
    return jnp.where(squares > rounding, squares, 0)
