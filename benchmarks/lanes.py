"""What several runs cost at once, by `jax.vmap`, and what one costs by itself."""

import time
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.networks_jaxgan import configure
from experiments import opening
from jaxgan import game, run_steps
from jaxgan.data import Source
from jaxgan.lanes import Lane, Together
from jaxgan.loops import Game
from jaxgan.plans import Plan
from jaxgan.training import Due, example_batch, initial_state

# What is trained: the experiment and its preset.
MADE = {"toy": ("gaussians", "paper"), "digits_mlp": ("digits", "mlp"),
        "digits_dcgan": ("digits", "dcgan")}


def make(name: str) -> tuple[Game, Source, Plan]:
    """What is trained, its data and its batches, of one of `settings.LANES`."""
    experiment = opening.load(MADE[name][0])
    config = experiment.configure(MADE[name][1])
    source = experiment.make_source(config)
    plan = Plan(steps=1, batch_size=config.schedule.batch_size, n_critic=config.schedule.n_critic,
                devices=1)
    return game(experiment.make_game(config, source.sample_shape)), source, plan


class Lanes:
    """Runs of one of `settings.LANES` with seeds of their own.

    Args:
        name: which.
        count: how many runs.
    """

    def __init__(self, name: str, count: int):
        configure("float32")
        trained, source, plan = make(name)
        example = example_batch(source, plan.batch_size)
        self.keys = [jax.random.key(seed) for seed in range(count)]
        self.states = [initial_state(trained, seed, example) for seed in range(count)]
        self.lone = initial_state(trained, 0, example)
        self.arrays = jax.device_put(source.arrays)
        self.steps = jax.jit(partial(run_steps, trained, source=source, batch_size=plan.batch_size,
                                     batches_per_step=plan.batches_per_step), donate_argnums=0)
        self.together = Together(trained, source, [
            Lane(str(seed), trained, "", plan) for seed in range(count)], None)

    def seconds(self, way: str, count: int) -> float:
        """Seconds of `count` iterations of "one" run, or of all "together"; the first call compiles."""
        started = time.perf_counter()
        if way == "one":
            self.lone, _ = jax.block_until_ready(
                self.steps(self.lone, self.arrays, self.keys[0], jnp.int32(count)))
        else:
            pairs = enumerate(zip(self.states, self.keys, strict=True))
            done = self.together({str(seed): Due(state, self.arrays, key, 0, count)
                                  for seed, (state, key) in pairs}, count)
            self.states = [state for state, _ in done.values()]
        return time.perf_counter() - started
