"""What R1 by finite differences costs, and how far it is from R1: updates of a critic alone."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from benchmarks.networks_jaxgan import configure
from benchmarks.settings import PENALISED
from benchmarks.updates import Updates
from experiments import opening
from jaxgan import Batch
from jaxgan.penalties import add_noise, r1
from jaxgan.terms import Term

STEP = 0.01  # the articles'
WAYS: dict[str, Term | None] = {"none": None, "exact": r1(1.0),
                                "difference": r1(1.0, finite_difference=STEP)}
_TRAINED = 10  # updates with R1 before the penalties are compared


class Differences(Updates):
    """The critic of one of `settings.PENALISED`, with each of `WAYS`, on random samples.

    Args:
        name: which.
    """

    def __init__(self, name: str):
        configure("float32")
        chosen = PENALISED[name]
        made = opening.load(chosen.experiment)
        config = made.configure(chosen.preset, **dict(chosen.changes))
        optimizer = optax.adam(1e-4, 0.0, 0.9)
        gan = dataclasses.replace(
            made.make_game(config, chosen.shape), penalty=None, augment=None, critic_terms=(), tasks=(),
            generator_optimizer=optimizer, critic_optimizer=optimizer)
        shape = (chosen.batch_size, *chosen.shape)
        real, fake, condition = (jax.random.uniform(jax.random.key(seed), shape, minval=-1.0)
                                 for seed in (1, 2, 3))
        super().__init__(
            {way: dataclasses.replace(gan, penalty=penalty) for way, penalty in WAYS.items()},
            Batch(real, condition if chosen.experiment == "pix2pix" else None),
            gan.lift(fake) if gan.lift else fake)
        self.gan = gan

    def apart(self, draws: int) -> dict[str, float]:
        """How far the difference is from the gradient, after some updates.

        Args:
            draws: of the direction.

        Returns:
            "error": the root of the mean square of (quotient - n^T g), of that of n^T g; "one" and
            "many": cosines of the derivative of the penalty by the parameters with that of the exact
            one, for one draw and for the mean of so many.
        """
        trained = dataclasses.replace(self.gan, penalty=WAYS["exact"])
        state = self.run(trained, self.begin(trained), jnp.int32(_TRAINED))
        real = self.gan.lift(self.batch.samples) if self.gan.lift else self.batch.samples
        keys = jax.random.split(jax.random.key(1), draws)

        def scores(critic, samples, condition, params=None):
            variables = {"params": critic.params if params is None else params, **critic.stats}
            return self.gan.critic.apply(variables, samples, condition, train=False)

        def each(scores):  # of patches their mean
            return scores.reshape(len(scores), -1).mean(1)

        @jax.jit
        def quotients(critic, real, condition, key):
            judge = partial(scores, critic, condition=condition)
            here, slope = jax.jvp(judge, (real,), (add_noise(jnp.zeros_like(real), key, 1.0),))
            there = judge(add_noise(real, key, STEP))
            return (each(there) - each(here)) / STEP, each(slope)

        @partial(jax.jit, static_argnums=0)
        def derivative(way, critic, real, condition, key):
            def penalty(params):
                judge = partial(scores, critic, condition=condition, params=params)
                return WAYS[way].value.measure(judge, real, real, key)[0]

            return ravel_pytree(jax.grad(penalty)(critic.params))[0]

        known = state.critic, real, self.batch.condition
        quotient, slope = map(jnp.stack, zip(*(quotients(*known, key) for key in keys), strict=True))
        exact = derivative("exact", *known, keys[0])
        found = jnp.stack([derivative("difference", *known, key) for key in keys])

        def cosine(x):
            return float(x @ exact / jnp.linalg.norm(x) / jnp.linalg.norm(exact))

        return {"error": float(jnp.linalg.norm(quotient - slope) / jnp.linalg.norm(slope)),
                "one": sum(map(cosine, found)) / draws, "many": cosine(found.mean(0))}
