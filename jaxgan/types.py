"""The types that every layer of the library shares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
PyTree = Any
Dtype = Any  # what jnp.dtype takes
Metrics = dict[str, Array]

CriticFn = Callable[[Array], Array]  # samples [B, ...] -> scores [B]
ScoreLoss = Callable[[Array, Array], Array]  # (real_scores [B], fake_scores [B]) -> scalar


class Batch(NamedTuple):
    """What a step consumes: samples and, for conditional GANs, what they are conditioned on.

    Attributes:
        samples: real samples, [batch, ...]; images are [batch, height, width, channels].
        condition: None, or a pytree of arrays with the same leading axis (labels, masks, boxes).
    """

    samples: Array
    condition: PyTree | None = None
