"""Activations chosen by name, and those that keep gradients' norms."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.types import Array


def maxmin(x: Array) -> Array:
    """Sorts each pair of channels, of i and i + channels / 2, the larger one first.

    It permutes the channels, so that its Jacobian is orthogonal but where the two are equal: gradients
    keep their norms, as they don't behind a ReLU. Chernodub and Nowicki 2016 (arXiv 1604.02313); Anil et
    al. 2019 (arXiv 1811.05381).

    Args:
        x: activations, [batch, ..., channels], of an even number of channels.

    Raises:
        ValueError: the number is odd.
    """
    _check_groups("maxmin", x, 2)
    # Halves, not neighbours: those lie so that a processor takes twice the time.
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([jnp.maximum(first, second), jnp.minimum(first, second)], axis=-1)


def group_sort(x: Array, size: int | None = None) -> Array:
    """Sorts each group of neighbouring channels, the smallest first.

    It keeps gradients' norms as `maxmin` does. Anil et al. 2019 (arXiv 1811.05381).

    Args:
        x: activations, [batch, ..., channels].
        size: how many channels a group has; None for all of them.

    Raises:
        ValueError: the number of channels is no multiple of `size`.
    """
    size = x.shape[-1] if size is None else size
    _check_groups("group_sort", x, size)
    return jnp.sort(x.reshape(*x.shape[:-1], -1, size), axis=-1).reshape(x.shape)


def _check_groups(name: str, x: Array, size: int) -> None:
    if size < 1 or x.shape[-1] % size:
        raise ValueError(f"{name} takes a number of channels that is a multiple of {size}; got "
                         f"{x.shape[-1]}: choose another width")


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.2),
    "silu": nn.silu,
    "softplus": nn.softplus,
    "maxmin": maxmin,
    "sort": group_sort,
}
