"""Labels, integers in [0, classes): refused where they are known and out of range, else NaN."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgan.types import Array, Dtype


def one_hot(labels: Array, num_classes: int, dtype: Dtype = jnp.float32) -> Array:
    """Returns 1 at each label's class and 0 at the others, [batch, num_classes].

    A label that is no class makes its row NaN, so that what is computed of it is no number either: zeros
    would pass for a class of its own, without a word.

    Args:
        labels: integers [batch].
        num_classes: how many classes there are.
        dtype: of what is returned.
    """
    labels = _wide(labels)
    return jnp.where(in_range(labels, num_classes)[:, None],
                     jax.nn.one_hot(labels, num_classes, dtype=dtype), jnp.asarray(jnp.nan, dtype))


def in_range(labels: Array, num_classes: int) -> Array:
    """Whether each label is in [0, num_classes)."""
    labels = _wide(labels)
    return (labels >= 0) & (labels < num_classes)


def _wide(labels: Array) -> Array:
    """The labels as integers that can count the classes: int8 would take class 256 for 0."""
    return labels.astype(jnp.promote_types(labels.dtype, jnp.int32))


def check_range(name: str, labels: Array, num_classes: int) -> None:
    """Raises ValueError for labels that aren't in [0, num_classes), unless they are traced."""
    if isinstance(labels, Tracer) or not labels.size:
        return
    known = np.asarray(labels)  # what jax computes here may be traced all the same
    low, high = known.min(), known.max()
    if low < 0 or high >= num_classes:
        counted = ": count them from 0" if low == 1 and high == num_classes else ""
        raise ValueError(f"{name}: labels must be in [0, {num_classes}); got {low} to {high}{counted}")
