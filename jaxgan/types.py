"""The types that every layer of the library shares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
PyTree = Any
Dtype = Any  # what jnp.dtype takes
Device = Any  # a jax.Device, whose type jaxlib doesn't tell
Metrics = dict[str, Array]

CriticFn = Callable[[PyTree], Array]  # samples [B, ...] -> scores [B]
ScoreLoss = Callable[[Array, Array], Array]  # (real_scores [B], fake_scores [B]) -> scalar


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
    """Returns how many examples a pytree of arrays holds: the length of its leading axis."""
    return jax.tree.leaves(tree)[0].shape[0]
