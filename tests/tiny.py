"""The smallest networks that have everything, for tests that compile quickly."""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import keys, losses, penalties
from jaxgan.gan import GAN
from jaxgan.terms import Seen, View
from jaxgan.types import Batch


class Generator(nn.Module):
    """Latents to points in the plane, through BatchNorm if asked."""

    norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, latents, condition=None, *, train):
        x = nn.Dense(8)(latents)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
        x = nn.Dense(2)(nn.softplus(x))
        return x if condition is None else x + condition[:, None]


class Critic(nn.Module):
    """Points to scores, through BatchNorm if asked."""

    norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        x = nn.Dense(8)(samples if condition is None else samples - condition[:, None])
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
        return nn.Dense(1)(nn.softplus(x)).squeeze(-1)


class Linear(nn.Module):
    """`w . x + b`: to samples, [batch, features], or if `features` is None to scores, [batch]."""

    features: int | None = None

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        del condition, train
        x_or_scores = nn.Dense(self.features or 1)(x)
        return x_or_scores if self.features else x_or_scores.squeeze(-1)


TINY = GAN(
    generator=Generator(), critic=Critic(), latent_size=3, loss=losses.wasserstein(),
    penalty=penalties.gradient_penalty(), generator_optimizer=optax.sgd(0.05),
    critic_optimizer=optax.sgd(0.1))


def tiny(**changes):
    """The smallest GAN, with changes."""
    return dataclasses.replace(TINY, **changes)


def points(*shape, seed=3):
    """A batch of points in the plane, [*shape, 2]."""
    return Batch(1.0 + jax.random.normal(jax.random.key(seed), (*shape, 2)))


class Measured(NamedTuple):
    """A penalty, its weight included, and the norms that it was computed from."""

    value: jax.Array
    norms: jax.Array


def measured(term, critic_fn, real, fake, key):
    """What a penalty is for this critic, reals and fakes."""
    scalar, norms = term.value.measure(critic_fn, real, fake, key)
    return Measured(term.weight * scalar, norms)


def seen(samples=None, condition=None, scores=None, **heads):
    """Reals or fakes as a term sees them, shown as they are."""
    return Seen(samples, samples, condition, scores,
                {name: jnp.asarray(head) for name, head in heads.items()})


def view(real, fake, **changes):
    """What a term sees of two `Seen` on one device; nothing is judged, shown or generated anew."""
    return View(real, fake, latents=None, generator_heads={}, step=jnp.int32(0), batch_size=0,
                judge=None, show=lambda kind, samples: samples, generate=None,
                keys=lambda name, count=None: keys.example_keys(
                    keys.stream(jax.random.key(0), name), count or len(real.samples)),
                mean=lambda tree: tree, gather=lambda tree: tree)._replace(**changes)


def value(term, real, fake):
    """A term that has no state, of two `Seen`."""
    return term.value(view(real, fake), ())


class Stop(Exception):
    """What an interrupted run ends by."""


def assert_goes_on_exactly(run, step):
    """A run that is stopped after the checkpoint of a step, and resumed, comes to the same bits.

    Args:
        run: (name, **options of `train`) -> state and result.
        step: of a checkpoint.
    """
    def interrupt(moment):
        if moment.kind == "checkpoint" and moment.step == step:
            raise Stop

    whole, expected = run("whole")
    with pytest.raises(Stop):
        run("cut", callbacks=[interrupt])
    state, result = run("cut", resume="auto")
    assert result["params_sha256"] == expected["params_sha256"]
    assert same(state, whole)


def same(a, b):
    """Whether two trees have the same bits."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    """Asserts that two trees agree up to the order of floating-point sums."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def all_finite(tree):
    """Whether no number of a tree is NaN or infinite."""
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


def count_parameters(module, shape):
    """How many a model has that takes such inputs, for labels if it is for some; nothing is computed."""
    variables = jax.eval_shape(lambda key: module.init(
        key, jnp.zeros((2, *shape)), jnp.zeros(2, jnp.int32), train=False), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
