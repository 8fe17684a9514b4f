"""Randomness as a function of (seed, step, global example index).

A run's key is split once, by name. Inside a step every example draws from a key of its own, folded
from the example's index in the *global* batch, so that 1, 2 or 8 devices see the same noise.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.parallel import share
from jaxgan.types import Array, Key, PyTree

SEEDS = 2**32
_NOT_BY_EXAMPLE = ("rbg", "unsafe_rbg")


def of_seed(seed: int) -> Key:
    """Returns the key of a seed, a whole number from 0 to 2**32 - 1.

    Raises:
        ValueError: it is another one: jax would take it for one of these.
    """
    check_seed(seed)
    return jax.random.key(seed)


def check_seed(seed: int, name: str = "seed") -> None:
    """Raises ValueError for a seed that jax would take for another one."""
    if not 0 <= seed < SEEDS:
        raise ValueError(f"{name} must be from 0 to {SEEDS - 1}; got {seed}")


def stream(key: Key, name: str) -> Key:
    """Returns the key of the stream called `name` ("init", "data", "train", "sample", ...).

    Streams of different names are independent; adding a stream never changes another one.

    Raises:
        TypeError: the key is no typed key.
        ValueError: it is of a kind whose draws depend on the rest of a batch.
    """
    check_key(key)
    if str(jax.random.key_impl(key)) in _NOT_BY_EXAMPLE:
        raise ValueError(f"keys of the kind {jax.random.key_impl(key)} don't draw by example, on which "
                         "everything random here relies: unset JAX_DEFAULT_PRNG_IMPL, or make them by "
                         "jax.random.key(seed, impl='threefry2x32')")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def example_keys(key: Key, count: int, axis_name: str | None = None, part: Array | int = 0,
                 parts: int = 1) -> Key:
    """Returns one key per example, [count], folded from the example's global index.

    Args:
        key: one typed key, shape ().
        count: the number of examples on this device, in this part of its batch.
        axis_name: the mapped axis of the devices that share the batch; None on a single device.
        part: which of the parts of a device's batch, from 0, where they come one after the other.
        parts: how many these are.
    """
    first = _place(axis_name, part, parts) * count
    return share(jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count)))


def device_key(key: Key, axis_name: str | None = None, part: Array | int = 0, parts: int = 1) -> Key:
    """Returns a key of this device's own: what is drawn from it depends on the number of devices.

    Arguments as for `example_keys`; each part of a batch has its own, too.
    """
    if axis_name is None and parts == 1:
        return key
    return jax.random.fold_in(key, _place(axis_name, part, parts))


def _place(axis_name: str | None, part: Array | int, parts: int) -> Array | int:
    """The number of a part among those of all devices."""
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return device if parts == 1 else device * parts + part


def is_key(array: Any) -> bool:
    """Whether an array, or the shape of one, is of typed keys, as `jax.random.key` makes them."""
    return hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def check_key(key: Any) -> None:
    """Raises TypeError for what is no typed key: raw numbers, or a seed."""
    if not is_key(key):
        given = f"{key.dtype} numbers" if hasattr(key, "dtype") else repr(key)
        raise TypeError(f"key must be a typed key, jax.random.key(seed); got {given}")


def on_host(array: Array | np.ndarray) -> np.ndarray:
    """Returns an array's numbers on the host; of typed keys those that they consist of."""
    return np.asarray(jax.random.key_data(array) if is_key(array) else array)


def per_example(key: Key, count: int) -> Key:
    """Returns `count` keys: `key` itself if it holds one per example, else `example_keys` of it.

    Raises:
        TypeError: `key` is no typed key.
        ValueError: `key` is neither one key nor one per example.
    """
    check_key(key)
    if key.shape == ():
        return example_keys(key, count)
    if key.shape != (count,):
        raise ValueError(f"key must be one key or one per example, shape ({count},); "
                         f"got shape {key.shape}")
    return key


def normal(keys: Key, shape: tuple[int, ...]) -> Array:
    """Draws standard normal values, [len(keys), *shape], each row from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def uniform(keys: Key, shape: tuple[int, ...] = ()) -> Array:
    """Draws values uniform in [0, 1), [len(keys), *shape], each row from its own key."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)


def by_leaf(draw: Callable[[Array, Key], Array], tree: PyTree, keys: Key) -> PyTree:
    """Maps `draw(leaf, keys)` over arrays [batch, ...], each with keys [batch] of its own."""
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) == 1:
        return structure.unflatten([draw(leaves[0], keys)])
    return structure.unflatten([
        draw(leaf, jax.vmap(jax.random.fold_in, (0, None))(keys, i)) for i, leaf in enumerate(leaves)])
