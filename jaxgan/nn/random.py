"""Layers that draw random numbers in training, by example: the same on any number of devices.

The training steps give every module one key per example of the batch (`module_rngs`), folded from its
index in the global batch. Layers that draw from these see the same on one device and on eight. Other
linen modules that draw, `flax.linen.Dropout` for instance, get a key for each device.
"""

from collections.abc import Hashable
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl

from jaxgan import keys
from jaxgan.types import Array, Key

_STREAM = "examples"
_KIND_OF_EACH: dict[Hashable, str] = {}  # by the kind of key that stands for all of them


def module_rngs(key: Key, count: int, axis_name: str | None = None, *, by_device: bool = True,
                part: Array | int = 0, parts: int = 1) -> dict[str, Key]:
    """Returns the `rngs` that linen modules are applied with in training.

    Args:
        key: one typed key, the same on every device.
        count: the number of examples on this device.
        axis_name: the devices' axis; None on a single device.
        by_device: whether there is a key for modules that don't draw by example, too.
        part, parts: as for `jaxgan.keys.example_keys`.
    """
    return rngs_of(keys.example_keys(key, count, axis_name, part, parts)) | (
        {"params": keys.device_key(key, axis_name, part, parts)} if by_device else {})


def rngs_of(example_keys: Key) -> dict[str, Key]:
    """Returns the `rngs` of these keys, one per example, [batch].

    To linen and its transformations (`nn.jit`, `nn.scan`, ...) they are one key, of a kind of its own.
    """
    data = jax.random.key_data(example_keys)
    kind = _together(data.shape[0], str(jax.random.key_impl(example_keys)))
    return {_STREAM: jax.random.wrap_key_data(data, impl=kind)}


def example_keys(module: nn.Module) -> Key:
    """Returns keys for a module to draw from, one per example, [batch]: others for each module and call.

    Raises:
        ValueError: the module is applied without them.
    """
    scope = module.scope
    if scope is None or _STREAM not in scope.rngs:
        raise ValueError(f"{type(module).__name__} draws by example in training: apply the module with "
                         "rngs=module_rngs(key, batch), or with train=False")
    together = module.make_rng(_STREAM)
    impl = _KIND_OF_EACH[jax.random.key_impl(together)]
    return jax.random.wrap_key_data(jax.random.key_data(together), impl=impl)


@cache
def _together(count: int, impl: str) -> Hashable:
    """The kind of a key that stands for `count` keys, and is folded and split as each of them is."""
    def keys_of(data: Array) -> Key:
        return jax.random.wrap_key_data(data, impl=impl)

    def fold_in(data: Array, number: int) -> Array:
        return jax.random.key_data(jax.vmap(jax.random.fold_in, (0, None))(keys_of(data), number))

    def split(data: Array, shape: tuple[int, ...]) -> Array:
        each = jax.vmap(lambda key: jax.random.split(key, shape), out_axes=len(shape))(keys_of(data))
        return jax.random.key_data(each)

    def refused(*_: object) -> Array:
        raise ValueError("what is drawn by example is drawn from jaxgan.nn.example_keys(module), one "
                         "key for each example")

    width = jax.random.key_data(jax.random.key(0, impl=impl)).shape
    kind = define_prng_impl(key_shape=(count, *width), seed=refused, split=split, random_bits=refused,
                            fold_in=fold_in, name=f"{count} keys of {impl}")
    _KIND_OF_EACH[kind] = impl
    return kind


def dropped(x: Array, example_keys: Key, rate: float, shape: tuple[int, ...] | None = None) -> Array:
    """Sets numbers to 0 with the probability `rate`, and scales the others to compensate.

    Args:
        x: [batch, ...].
        example_keys: one per example, [batch].
        rate: the probability, in [0, 1).
        shape: that of an example's draws, to which the others are broadcast; by default each number is
            drawn by itself.
    """
    kept = keys.uniform(example_keys, x.shape[1:] if shape is None else shape) >= rate
    return jnp.where(kept, x / (1.0 - rate), 0.0)


class Dropout(nn.Module):
    """Sets each number to 0 with the probability `rate` in training, and scales the others to
    compensate.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".

    Attributes:
        rate: the probability, in [0, 1).
        over_positions: whether a channel is dropped at all positions together (Tompson et al. 2015,
            arXiv 1411.4280, section 3.2) rather than each number by itself.
    """

    rate: float
    over_positions: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [batch, ..., channels] to the same shape."""
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"rate must be in [0, 1); got {self.rate}")
        if not train or self.rate == 0.0:
            return x
        shape = (*(1,) * (x.ndim - 2), x.shape[-1]) if self.over_positions else x.shape[1:]
        return dropped(x, example_keys(self), self.rate, shape)


class GaussianNoise(nn.Module):
    """Adds Gaussian noise of standard deviation `scale` to activations in training.

    Attributes:
        scale: the standard deviation, in units of the activations.
    """

    scale: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [batch, ...] to the same shape."""
        if not train:
            return x
        return x + (self.scale * keys.normal(example_keys(self), x.shape[1:])).astype(x.dtype)
