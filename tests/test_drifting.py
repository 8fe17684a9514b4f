"""Drifting: the field and the loss against loops and by hand, devices, resuming, what it learns."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import Game
from jaxgan.drifting import TEMPERATURES, drift, drift_loss, drifting
from jaxgan.models import MLPGenerator
from jaxgan.nn import GaussianNoise
from jaxgan.parallel import data_parallel
from jaxgan.training import Plan, train
from jaxgan.types import Batch
from tests.tiny import assert_close, assert_goes_on_exactly, points, same

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(2)
X, DATA, OTHERS = (np.random.default_rng(i).normal(i, 1, (size, 3)) for i, size in
                   enumerate((4, 6, 5)))


def looped(points, attracting, repelling, temperatures, normalised):
    """The field by its formula, in float64, one number after the other."""
    sides = [(y, +1) for y in attracting] + [(y, -1) for y in repelling]
    away = np.array([[math.dist(x, y) for y, _ in sides] for x in points])
    mean, fields = away[away > 0].mean() if normalised else 1.0, []
    for temperature in temperatures:
        kernel = np.where(away > 0, np.exp(-away / (mean * temperature)), 0.0)
        field = np.zeros_like(points)
        for i in range(len(points)):
            share = [math.sqrt(kernel[i, j]**2 / kernel[i].sum() / kernel[:, j].sum())
                     for j in range(len(sides))]
            for (y, sign), a in zip(sides, share, strict=True):
                for (z, other), b in zip(sides, share, strict=True):
                    if (sign, other) == (1, -1):
                        field[i] += a * b * (y - z)
        if normalised:
            field *= mean / math.sqrt(points.shape[1]) / math.sqrt(np.square(field).mean())
        fields.append(field)
    return sum(fields)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("temperatures", [(0.5,), (0.2, 0.4, 2.0)])
def test_the_field_is_that_of_the_formula(temperatures, normalised):
    found = drift(*map(jnp.asarray, (X, DATA, OTHERS)), temperatures, normalised=normalised)
    np.testing.assert_allclose(found, looped(X, DATA, OTHERS, temperatures, normalised), rtol=1e-3,
                               atol=1e-5)


def test_one_point_between_two_by_hand():
    """Of data at 3 and another at -1: shares 1 / (1 + e^2) and the rest, and 4 between them."""
    found = drift(jnp.zeros((1, 1)), jnp.full((1, 1), 3.0), jnp.full((1, 1), -1.0), (1.0,),
                  normalised=False)
    share = 1 / (1 + math.e**2)
    assert float(found[0, 0]) == pytest.approx(4 * math.sqrt(share * (1 - share)), rel=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_nothing_drifts_where_the_sets_agree_and_exchange_reverses_it(normalised):
    field = partial(drift, jnp.asarray(X), normalised=normalised)
    assert not np.asarray(field(jnp.asarray(DATA), jnp.asarray(DATA))).any()
    there, back = field(jnp.asarray(DATA), jnp.asarray(OTHERS)), field(jnp.asarray(OTHERS),
                                                                       jnp.asarray(DATA))
    assert np.abs(there).max() > 0.05
    np.testing.assert_allclose(there, -np.asarray(back), rtol=1e-3, atol=1e-5)
    shuffled = jnp.asarray(np.random.default_rng(9).permutation(X))
    assert np.abs(drift(shuffled, jnp.asarray(X), shuffled, normalised=False)).max() < 1e-5


def test_each_class_drifts_alone():
    """As if the others weren't there; nothing where a class has no other member, on any side."""
    labels = jnp.array([0, 1, 1, 2]), jnp.array([1, 0, 1, 0, 1, 4]), jnp.array([0, 0, 1, 1, 3])
    found = drift(*map(jnp.asarray, (X, DATA, OTHERS)), (0.5,), normalised=False, classes=labels)
    for label in (0, 1):
        chosen = [x[np.asarray(of) == label] for x, of in zip((X, DATA, OTHERS), labels, strict=True)]
        np.testing.assert_allclose(found[labels[0] == label], looped(*chosen, (0.5,), False), rtol=1e-3,
                                   atol=1e-5)
    assert not np.asarray(found[3]).any()
    one = drift(*map(jnp.asarray, (X, DATA, OTHERS)), classes=tuple(jnp.zeros_like(x) for x in labels))
    np.testing.assert_allclose(one, drift(*map(jnp.asarray, (X, DATA, OTHERS))), rtol=1e-5)
    loss = drift_loss(jnp.asarray(X), jnp.asarray(DATA), (0.5,), normalised=False, classes=labels[:2])
    field = drift(*map(jnp.asarray, (X, DATA, X)), (0.5,), normalised=False,
                  classes=(*labels[:2], labels[0]))
    np.testing.assert_allclose(loss, np.square(field).mean(), rtol=1e-5)


def test_a_heap_of_equal_points_stays_finite_and_moves_to_the_data():
    heap = jnp.ones((4, 2))
    assert not np.asarray(drift(heap, heap, heap)).any()
    moved = drift(heap, heap + 1.0, heap)
    assert np.isfinite(moved).all()
    slope = jax.grad(drift_loss)(heap, heap + 1.0)
    assert np.isfinite(slope).all()


def test_the_loss_and_its_slope():
    """Of one temperature it is 1 if normalised; a step against its slope is one along the field."""
    fake, real = jnp.asarray(X, jnp.float32), jnp.asarray(DATA, jnp.float32)
    field = drift(fake, real, fake, (0.5,), normalised=False)
    loss, slope = jax.value_and_grad(partial(drift_loss, temperatures=(0.5,), normalised=False))(
        fake, real)
    np.testing.assert_allclose(loss, np.square(field).mean(), rtol=1e-5)
    np.testing.assert_allclose(slope, -2 * field / fake.size, rtol=1e-5, atol=1e-8)
    assert float(drift_loss(fake, real, (0.5,))) == pytest.approx(1.0, rel=1e-4)
    whole, larger = (jax.grad(drift_loss)(times * fake, times * real) for times in (1.0, 8.0))
    np.testing.assert_allclose(larger, whole / 8, rtol=1e-3, atol=1e-6)  # in units of distances
    images = fake.reshape(4, 3, 1, 1)
    np.testing.assert_allclose(drift_loss(images, real.reshape(6, 3, 1, 1)), drift_loss(fake, real))


def make(**options):
    options = {"latent_size": 2, "features": lambda x: {"x": x, "square": jnp.square(x)}} | options
    return drifting(MLPGenerator((2,), (8,)), optax.sgd(0.1), **options)


def test_a_step_is_the_loss_of_all_reals_of_its_batches():
    game = make(features=None, temperatures=(0.3,), ema_decay=0.5)
    state, batches = game.init(KEY, points(4)), points(3, 4)
    after, metrics = jax.jit(game.step)(state, batches, KEY)
    assert metrics.keys() == {"generator/loss", "generator/gradient_norm", "generator/drift"}
    assert float(metrics["generator/loss"]) == pytest.approx(1.0, rel=1e-3)
    fewer = jax.tree.map(lambda x: x[:1], batches)
    assert not same(jax.jit(game.step)(state, fewer, KEY)[0].generator, after.generator)
    shuffled = Batch(batches.samples[::-1])
    assert_close(jax.jit(game.step)(state, shuffled, KEY)[0].generator, after.generator)
    mean = jax.tree.map(lambda a, b: (2 * a + 9 * b) / 11, state.ema, after.generator.variables)
    assert_close(after.ema, mean)
    np.testing.assert_allclose(game.sample(after, KEY, 3), game.sample(
        after._replace(generator=None), KEY, 5)[:3], rtol=1e-6)
    assert int(after.step) == 1


class Noisy(nn.Module):
    """A generator that draws random numbers, and keeps statistics."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, latents, condition=None, *, train):
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(nn.Dense(4)(latents))
        if condition is not None:
            x += nn.Embed(2, 4)(condition)
        return nn.Dense(2)(GaussianNoise(0.1)(nn.softplus(x), train=train))


@pytest.mark.parametrize("labels", [None, jnp.arange(16).reshape(2, 8) // 3 % 2])
def test_two_devices_do_what_one_does(labels):
    game = drifting(Noisy(), optax.sgd(0.1), prior=lambda keys: jax.vmap(
        lambda key: jax.random.uniform(key, (3,)))(keys), features=lambda x: (x, x[:, :1] * x))
    batches = points(2, 8)._replace(condition=labels)
    state = game.init(KEY, jax.tree.map(lambda x: x[0], batches))
    alone, metrics = jax.jit(game.step)(state, batches, KEY)
    both, others = data_parallel(game.step, devices=jax.devices()[:2], batch_axis=1)(
        state, batches, KEY)
    assert_close(both, alone, rtol=1e-4, atol=1e-5)
    assert_close(others, metrics, rtol=1e-4, atol=1e-5)
    assert "batch_stats" in alone.generator.stats


def test_an_interrupted_run_comes_to_the_same_bits(tmp_path):
    def run(name, **options):
        return train(make(ema_decay=0.9), np.asarray(points(32).samples), tmp_path / name,
                     Plan(steps=4, batch_size=4, batches_per_step=2, checkpoint_every=2, log_every=1,
                          devices=1), **options)

    assert_goes_on_exactly(run, 2)


def test_a_few_steps_come_near_the_data(tmp_path):
    """Two heaps at -1 and 1: the generator, which starts about 0, makes both, half of each."""
    data = np.repeat([[-1.0], [1.0]], 64, 0).astype(np.float32) + 0.05 * np.random.default_rng(
        0).normal(size=(128, 1)).astype(np.float32)
    game = drifting(MLPGenerator((1,), (32, 32)), optax.adam(optax.cosine_decay_schedule(1e-2, 300)),
                    latent_size=2)
    assert isinstance(game, Game)
    state, _ = train(game, data, tmp_path, steps=300, batch_size=64, devices=1)
    made = np.asarray(game.sample(state, KEY, 500))
    near = np.abs(np.abs(made) - 1) < 0.3
    assert near.mean() > 0.85
    assert 0.4 < (made[near] > 0).mean() < 0.6


@pytest.mark.parametrize(("call", "message"), [
    (lambda: drift(jnp.ones((2, 3)), jnp.ones((2, 2)), jnp.ones((2, 3))),
     r"points and what attracts must be \[count, dimensions\], of the same dimensions; got \(2, 3\)"),
    (lambda: drift(*[jnp.ones((2, 3))] * 3, (0.1, 0.0)), r"temperatures must be positive; got \(0.1, 0"),
    (lambda: make(temperatures=()), "temperatures must be positive"),
    (lambda: make(prior=lambda keys: keys), "latent_size is 2 and there is a prior: give one"),
    (lambda: make(latent_size=None), "latent_size is None and there is no prior: give one"),
    (lambda: make().init(KEY, Batch(jnp.zeros((4, 2)), jnp.zeros((4, 3)))),
     r"class by class, and takes labels, int \[batch\]; got"),
    (lambda: make().init(KEY, Batch(jnp.zeros((4, 3)))), r"of shape \(4, 2\), the data has \(4, 3\)"),
])
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_articles_temperatures():
    assert TEMPERATURES == (0.02, 0.05, 0.2)
