"""Updates of critics alone, on the same samples, in several ways."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxgan import GAN, Batch, critic_step, init_state
from jaxgan.views import Fakes


class Updates:
    """A critic that is updated in each of several ways.

    Args:
        ways: GANs by what the table calls them.
        batch: the reals.
        fakes: what the generator has made.
    """

    def __init__(self, ways: Mapping[str, GAN], batch: Batch, fakes: Any):
        self.batch, self.fakes, self.key = batch, Fakes(fakes, {}, None), jax.random.key(0)
        self.states = {way: self.begin(gan) for way, gan in ways.items()}
        self.updates = {way: jax.jit(partial(self.run, gan), donate_argnums=0)
                        for way, gan in ways.items()}

    def begin(self, gan: GAN) -> Any:
        """The first state."""
        return jax.jit(partial(init_state, gan))(self.key, self.batch)

    def seconds(self, way: str, count: int) -> float:
        """Seconds of `count` updates in one call; the first one compiles."""
        started = time.perf_counter()
        self.states[way] = jax.block_until_ready(self.updates[way](self.states[way], jnp.int32(count)))
        return time.perf_counter() - started

    def run(self, gan: GAN, state: Any, count: Any) -> Any:
        """The state after so many updates."""
        def update(i, state):
            return critic_step(gan, state, self.batch, jax.random.fold_in(self.key, i),
                               fakes=self.fakes)[0]

        return jax.lax.fori_loop(0, count, update, state)
