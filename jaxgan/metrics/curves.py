"""How far samples lie from a curve that is known, the Swiss roll's say."""

import numpy as np
from jax.typing import ArrayLike


def curve_distance(samples: ArrayLike, corners: ArrayLike) -> float:
    """Returns the mean distance of samples to the nearest point of a curve made of straight pieces.

    Args:
        samples: [count, dimensions].
        corners: where the pieces begin and end, in order, [2 or more, dimensions].

    Raises:
        ValueError: the shapes don't fit, or samples aren't finite.
    """
    samples, corners = np.asarray(samples, np.float64), np.asarray(corners, np.float64)
    if ((samples.ndim, corners.ndim) != (2, 2) or samples.shape[1] != corners.shape[1]
            or not len(samples) or len(corners) < 2):
        raise ValueError("samples and corners must have shapes [count, dimensions] and [2 or more, "
                         f"dimensions]; got {samples.shape} and {corners.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("samples must be finite; some are NaN or infinite")
    nearest = np.full(len(samples), np.inf)
    for start, piece in zip(corners, np.diff(corners, axis=0), strict=False):
        along = (samples - start) @ piece / max(piece @ piece, np.finfo(np.float64).tiny)
        foot = start + np.clip(along, 0, 1)[:, None] * piece
        nearest = np.minimum(nearest, np.square(samples - foot).sum(axis=1))
    return float(np.sqrt(nearest).mean())
