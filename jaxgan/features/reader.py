"""A network that reads from samples of any shape what they were drawn for: their class, or numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import keys
from jaxgan.models import DCGANCritic, MLPCritic
from jaxgan.types import Array, PyTree

_BATCH = 128
_RATE = 1e-3
_AT_ONCE = 100  # updates in a dispatch


class Reader(NamedTuple):
    """A trained network.

    Attributes:
        read: samples, float [count, ...] -> classes, int [count], or numbers, float [count, numbers].
    """

    read: Callable[[np.ndarray], np.ndarray]

    def error(self, samples: np.ndarray, wanted: np.ndarray) -> float:
        """Returns the fraction of samples whose class is another one; of numbers in [-1, 1], the mean
        difference, as a fraction of their range.
        """
        found = self.read(samples)
        return float((found != wanted).mean() if wanted.ndim == 1 else np.abs(found - wanted).mean() / 2)


def train_reader(samples: np.ndarray, wanted: np.ndarray, num_classes: int = 0, *, seed: int = 0,
                 updates: int = 1500, progress: Callable[[int, float], None] = lambda done, loss: None
                 ) -> Reader:
    """Trains a small critic's network to read a condition, by Adam with a rate that rises and falls.

    Args:
        samples: reals in [-1, 1], [count, ...]: vectors, series, images or volumes, with channels.
        wanted: their classes, int32 [count], or numbers in [-1, 1], float32 [count, numbers].
        num_classes: how many classes there are; 0 for numbers.
        seed: of weights and order.
        updates: of 128 samples each, a multiple of 100.
        progress: told of the number of updates done, and the mean loss of the last 100.

    Raises:
        ValueError: the updates aren't such a multiple.
    """
    if updates < 1 or updates % _AT_ONCE:
        raise ValueError(f"updates must be a multiple of {_AT_ONCE}; got {updates}")
    heads = (("read", num_classes or wanted.shape[1]),)
    model = (MLPCritic((128, 128), heads=heads) if samples.ndim == 2 else
             DCGANCritic(16, kernel_size=3, heads=heads, axes=samples.ndim - 2))
    optimizer = optax.adam(optax.cosine_onecycle_schedule(updates, _RATE))
    key, count = jax.random.key(seed), len(samples)

    def reads(params: PyTree, samples: Array) -> Array:
        _, found = cast("Any", model.apply({"params": params}, samples, train=False))
        return found["read"]

    def loss_fn(params: PyTree, samples: Array, wanted: Array) -> Array:
        found = reads(params, samples)
        if num_classes:
            return optax.softmax_cross_entropy_with_integer_labels(found, wanted).mean()
        return optax.squared_error(found, wanted).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def run(params: PyTree, opt_state: PyTree, samples: Array, wanted: Array, first: int):
        def update(carry, step):
            params, opt_state = carry
            rows = jax.random.randint(jax.random.fold_in(keys.stream(key, "order"), step), (_BATCH,), 0,
                                      count)
            loss, gradients = jax.value_and_grad(loss_fn)(params, samples[rows], wanted[rows])
            changes, opt_state = optimizer.update(gradients, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), loss

        carry, losses = jax.lax.scan(update, (params, opt_state), first + jnp.arange(_AT_ONCE))
        return *carry, losses.mean()

    on_device = jnp.asarray(samples), jnp.asarray(wanted)
    params = jax.jit(partial(model.init, train=False))(keys.stream(key, "init"),
                                                       on_device[0][:1])["params"]
    opt_state = optimizer.init(params)
    for first in range(0, updates, _AT_ONCE):
        params, opt_state, loss = run(params, opt_state, *on_device, first)
        progress(first + _AT_ONCE, float(loss))
    apply = jax.jit(partial(reads, params))

    def read(samples: np.ndarray) -> np.ndarray:
        found = np.concatenate([np.asarray(apply(samples[first:first + 500]))
                                for first in range(0, len(samples), 500)])
        return found.argmax(axis=1) if num_classes else found

    return Reader(read)
