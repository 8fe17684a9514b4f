"""What an augmentation costs: updates of a critic alone, whose images are changed in each way."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

from benchmarks.networks_jaxgan import configure
from jaxgan import GAN, Batch, critic_step, init_state
from jaxgan.augment import ADA, Augmentation, ada, diffaugment
from jaxgan.losses import non_saturating
from jaxgan.models import DCGANCritic, DCGANGenerator
from jaxgan.penalties import r1
from jaxgan.views import Fakes

MADE: dict[str, Augmentation | None] = {
    "none": None, "diffaugment": diffaugment(), "ada": ada(probability=0.5),
    "all": ada(ADA, probability=0.5)}


class Augmentations:
    """A DCGAN's critic with R1, which goes through the augmentation, on given fakes.

    Args:
        width: channels of its first layer.
        shape: of a batch of images.
    """

    def __init__(self, width: int, shape: tuple[int, ...]):
        configure("float32")
        real, fake = (jax.random.uniform(jax.random.key(seed), shape, minval=-1.0) for seed in (1, 2))
        self.batch, self.fakes = Batch(real), Fakes(fake, {}, None)
        self.key, self.states, self.updates = jax.random.key(0), {}, {}
        optimizer = optax.adam(1e-4, 0.0, 0.9)
        for way, augmentation in MADE.items():
            gan = GAN(DCGANGenerator(tuple(shape[1:]), width), DCGANCritic(width), 16, non_saturating(),
                      optimizer, optimizer, penalty=r1(0.1), augment=augmentation)
            self.states[way] = jax.jit(partial(init_state, gan))(self.key, self.batch)
            self.updates[way] = jax.jit(partial(self._run, gan), donate_argnums=0)

    def seconds(self, way: str, count: int) -> float:
        """Seconds of `count` updates in one call; the first one compiles."""
        started = time.perf_counter()
        self.states[way] = jax.block_until_ready(self.updates[way](self.states[way], jnp.int32(count)))
        return time.perf_counter() - started

    def _run(self, gan, state, count):
        def update(i, state):
            return critic_step(gan, state, self.batch, jax.random.fold_in(self.key, i),
                               fakes=self.fakes)[0]

        return jax.lax.fori_loop(0, count, update, state)
