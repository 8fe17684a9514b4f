"""The types that every layer of the library shares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
PyTree = Any
Dtype = Any  # what jnp.dtype takes
Device = Any  # a jax.Device, whose type jaxlib doesn't tell
Metrics = dict[str, Array]

CriticFn = Callable[[PyTree], Array]  # samples [B, ...] -> scores [B], or of patches [B, down, across]
ScoreLoss = Callable[[Array, Array], Array]  # (real_scores, fake_scores) -> scalar


class Batch(NamedTuple):
    """What a step consumes: samples and, for conditional GANs, what they are conditioned on.

    Attributes:
        samples: real samples, [batch, ...]; images are [batch, height, width, channels]. Or a pytree of
            arrays with the same leading axis, an image and its mask for instance.
        condition: None, or a pytree of arrays with the same leading axis (labels, masks, boxes).
    """

    samples: PyTree
    condition: PyTree | None = None


class WithHeads(NamedTuple):
    """What a generator returns that predicts something besides its samples; a critic may, too.

    Attributes:
        output: the samples, or the critic's scores.
        heads: predictions by name, each [batch, ...].
    """

    output: PyTree
    heads: dict[str, Array]


def batch_size(tree: PyTree) -> int:
    """Returns how many examples a pytree of arrays holds: the length of its leading axis.

    Raises:
        TypeError: there are no arrays in it, or none with axes.
    """
    shape = next((getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(tree)), ())
    if not shape:
        raise TypeError(f"a batch must be arrays, [batch, ...]; got {described(tree)}")
    return shape[0]


def check_scores(scores: Array, count: int) -> None:
    """Raises ValueError unless there is a score for each of so many samples, or for its patches."""
    shape = jnp.shape(scores)
    if len(shape) not in (1, 3) or shape[0] != count:
        raise ValueError(f"the critic must return one score per sample, shape {(count,)}; got {shape}: "
                         f"squeeze the last axis, or return those of patches, ({count}, down, across)")


def check_type(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raises TypeError for an argument of another kind than is expected, and says how to make one."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {expected}; got {described(value)}")


def check_callable(name: str, value: Any, expected: str) -> None:
    """Raises TypeError for an argument that is neither a function nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be {expected}; got {described(value)}")


def described(value: Any) -> str:
    """Returns what a message says was given; of a function or a class, that it is to be called."""
    name = getattr(value, "__name__", "")
    if isinstance(value, type):
        return f"the class {name} itself: make one, {name}(...)"
    if name:
        return f"the function {name} itself: call it, {name}(...)"
    said = repr(value)
    return said if len(said) <= 60 and "\n" not in said else type(value).__name__
