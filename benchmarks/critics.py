"""What the Lipschitz constraint costs a critic: updates of one alone, constrained in each way."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

from benchmarks.networks_jaxgan import configure
from benchmarks.settings import CONSTRAINTS
from jaxgan import Batch
from jaxgan.critics import critic_game
from jaxgan.models import DCGANCritic, MLPCritic
from jaxgan.nn import orthonormal_kernels
from jaxgan.penalties import clip_weights, gradient_penalty

# Critics, called with `norm=`, and the shapes of their batches.
MADE = {"mlp": (partial(MLPCritic, (256,) * 3, activation="maxmin"), (512, 64)),
        "dcgan": (partial(DCGANCritic, width=64), (64, 28, 28, 1))}


class Critics:
    """One critic of `settings.CRITICS`, constrained in each way of `settings.CONSTRAINTS`.

    Args:
        name: which critic.
    """

    def __init__(self, name: str):
        configure("float32")
        critic, shape = MADE[name]
        pair = tuple(jax.random.normal(jax.random.key(seed), (1, *shape)) for seed in (1, 2))
        self.batches, self.key, self.states, self.updates = Batch(pair), jax.random.key(0), {}, {}
        for way in CONSTRAINTS:
            optimizer = optax.adam(1e-4, 0.0, 0.9)
            if way == "clip":
                optimizer = optax.chain(optimizer, clip_weights(0.01))
            if way == "orthonormal":
                optimizer = optax.chain(optimizer, orthonormal_kernels())
            game = critic_game(
                critic(norm=way if way in ("spectral", "orthonormal") else "none"), optimizer,
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
