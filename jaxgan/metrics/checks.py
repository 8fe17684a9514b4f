"""What metrics ask of the arrays they are given, before they compute anything."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def features(name: str, values: ArrayLike, at_least: int = 1) -> np.ndarray:
    """Returns real, finite numbers [samples, dimensions] as they are, on the host.

    Raises:
        TypeError: they aren't real numbers.
        ValueError: they have another shape, are too few, or aren't finite.
    """
    values = np.asarray(values)
    if not (jnp.issubdtype(values.dtype, jnp.floating) or jnp.issubdtype(values.dtype, jnp.integer)):
        raise TypeError(f"{name} must be real numbers; got {values.dtype}")
    if values.ndim != 2 or not values.shape[1]:
        remedy = "add an axis" if values.ndim < 2 else "flatten each sample"
        raise ValueError(f"{name} must be [samples, dimensions]; got {values.shape}: {remedy}")
    if len(values) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} samples; got {len(values)}: add more")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(f"{name} must be finite; {bad.sum()} of {len(values)} samples, the first at "
                         f"index {bad.argmax()}, hold NaN or infinity")
    return values


def images(name: str, values: ArrayLike, at_least: int) -> np.ndarray:
    """Returns images, uint8 [count, height, width, channels], as they are, on the host.

    Raises:
        TypeError: they aren't uint8.
        ValueError: they have another shape, or are smaller than `at_least` in height or width.
    """
    values = np.asarray(values)
    if values.dtype != np.uint8:
        raise TypeError(f"{name} must be uint8 images in [0, 255]; got {values.dtype}")
    if values.ndim != 4 or not values.size or min(values.shape[1:3]) < at_least:
        raise ValueError(f"{name} must be [count, height, width, channels] of at least "
                         f"{at_least}x{at_least} pixels; got {values.shape}")
    return values


def same_dimensions(**sets: np.ndarray) -> None:
    """Raises a ValueError unless all sets are of the same number of dimensions."""
    dimensions = [values.shape[1] for values in sets.values()]
    if len(set(dimensions)) > 1:
        raise ValueError(f"{', '.join(sets)} must have the same dimensions; got "
                         f"{', '.join(map(str, dimensions))}")


def positive(**numbers: int) -> None:
    """Raises a ValueError unless all numbers are at least 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1; got {number}")
