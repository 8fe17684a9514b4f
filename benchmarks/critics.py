"""What the Lipschitz constraint costs a critic: updates of one alone, constrained in each way."""

import time
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.networks_jaxgan import configure
from jaxgan import Batch
from jaxgan.critics import critic_game
from jaxgan.models import DCGANCritic, MLPCritic
from jaxgan.nn import orthonormal_kernels
from jaxgan.penalties import clip_weights, gradient_penalty

WAYS = {"none": "nothing", "clip": "weights clipped", "spectral": "spectral normalisation",
        "orthonormal": "orthonormal layers", "penalty": "gradient penalty"}


class Shape(NamedTuple):
    """A critic, and what it sees.

    Attributes:
        title: what the table calls it.
        critic: its module, called with `norm=`.
        batch: the shape of a batch of reals.
    """

    title: str
    critic: partial[nn.Module]
    batch: tuple[int, ...]


SHAPES = {
    "mlp": Shape("MLP, three layers of 256 (maxmin), 64 dimensions, batch 512",
                 partial(MLPCritic, (256,) * 3, activation="maxmin"), (512, 64)),
    "dcgan": Shape("DCGAN of 64 channels, 28x28x1, batch 64",
                   partial(DCGANCritic, width=64), (64, 28, 28, 1))}


class Critics:
    """One critic of `SHAPES`, constrained in each of `WAYS`.

    Args:
        name: which critic.
    """

    def __init__(self, name: str):
        configure("float32")
        shape = SHAPES[name]
        pair = tuple(jax.random.normal(jax.random.key(seed), (1, *shape.batch)) for seed in (1, 2))
        self.batches, self.key, self.states, self.updates = Batch(pair), jax.random.key(0), {}, {}
        for way in WAYS:
            optimizer = optax.adam(1e-4, 0.0, 0.9)
            if way == "clip":
                optimizer = optax.chain(optimizer, clip_weights(0.01))
            if way == "orthonormal":
                optimizer = optax.chain(optimizer, orthonormal_kernels())
            game = critic_game(
                shape.critic(norm=way if way in ("spectral", "orthonormal") else "none"), optimizer,
                penalty=gradient_penalty() if way == "penalty" else None)
            self.states[way] = game.init(self.key, Batch(jax.tree.map(lambda x: x[0], pair)))
            self.updates[way] = jax.jit(partial(self._run, game.step), donate_argnums=0)

    def seconds(self, way: str, count: int) -> float:
        """Seconds of `count` updates in one call; the first one compiles."""
        started = time.perf_counter()
        self.states[way] = jax.block_until_ready(self.updates[way](self.states[way], jnp.int32(count)))
        return time.perf_counter() - started

    def _run(self, step, state, count):
        return jax.lax.fori_loop(
            0, count, lambda i, now: step(now, self.batches, jax.random.fold_in(self.key, i))[0], state)
