"""Training steps against updates worked by hand, and what a step must leave alone."""

import dataclasses
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Critic, Generator, Linear, all_finite, assert_close, points, same, tiny

from jaxgan import critic_step, game, generator_step, init_state, keys, losses, penalties
from jaxgan.augment import instance_noise
from jaxgan.data import Source
from jaxgan.loops import draw_batches, run_steps
from jaxgan.models import MLPCritic
from jaxgan.penalties import Penalty
from jaxgan.steps import train_step
from jaxgan.terms import ADVERSARIAL, Term
from jaxgan.types import Batch

KEY = jax.random.key(11)
CRITIC_METRICS = {"critic/loss", "critic/wasserstein", "critic/real_score", "critic/fake_score",
                  "critic/gradient_norm"}
NORM_METRICS = {"critic/input_gradient_mean", "critic/input_gradient_std"}
GENERATOR_METRICS = {"generator/loss", "generator/gradient_norm"}

VARIANTS = {
    "penalised": tiny(generator=Generator(norm=True), ema_decay=0.5),
    "batch norm": tiny(generator=Generator(norm=True), critic=Critic(norm=True), penalty=None,
                       loss=losses.non_saturating(), critic_optimizer=optax.adam(1e-2)),
    "spectral, noisy": tiny(critic=MLPCritic((8,), "spectral"), loss=losses.relativistic(),
                            penalty=penalties.r1(),
                            augment=instance_noise(optax.linear_schedule(0.1, 0.0, 10))),
}


# For what compiles long: the dearest variant is for the slow tests.
SPARING = pytest.mark.parametrize("variant", [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "spectral, noisy")) for name in VARIANTS],
    indirect=True)


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@cache
def initial(variant):
    return jax.jit(partial(init_state, VARIANTS[variant]))(KEY, points(4))


@cache
def compiled(step, variant):
    """One program for all tests; they all show it batches of 4, `train_step` 3 of them."""
    return jax.jit(partial(step, VARIANTS[variant]))


class ConditionalCritic(nn.Module):
    """`c (w . x)`: the norm of its gradient at sample i is |c_i| |w|."""

    @nn.compact
    def __call__(self, samples, condition, *, train):
        return condition * nn.Dense(1, use_bias=False)(samples).squeeze(-1)


class ConditionalGenerator(nn.Module):
    """`z A + (c, c)`."""

    @nn.compact
    def __call__(self, latents, condition, *, train):
        return nn.Dense(2, use_bias=False)(latents) + condition[:, None]


CONDITIONAL = {"generator": ConditionalGenerator(), "critic": ConditionalCritic()}


def linear_gan(batch, **changes):
    """D(x) = w . x + b and G(z) = z A + c, whose gradients one can write down; their numbers."""
    gan = tiny(**{"generator": Linear(2), "critic": Linear(), "penalty": None} | changes)
    state = init_state(gan, KEY, batch)
    critic, generator = (jax.tree.map(partial(np.asarray, dtype=np.float64), network.params["Dense_0"])
                         for network in (state.critic, state.generator))
    return (gan, state, critic["kernel"][:, 0], critic.get("bias", [0.0])[0], generator["kernel"],
            generator.get("bias", np.zeros(2)))


def draw(key, name, count, size):
    """The documented noise: stream by name, then the example's index."""
    key = keys.stream(key, name)
    return np.stack([np.float64(jax.random.normal(jax.random.fold_in(key, i), (size,)))
                     for i in range(count)])


def table(size=10):
    """A source that tells its position: sample i is (i / size, epoch)."""

    def draw(arrays, key, epochs, offsets):
        del key
        return Batch(jnp.stack([arrays[offsets], epochs.astype(jnp.float32)], -1))

    return Source(jnp.arange(size) / size, draw, size, (2,), (0.0, 1.0), 0)


def assert_metrics(metrics, expected):
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        # A standard deviation comes from the first two moments: near 0 it is as exact as their root.
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=2e-3 * name.endswith("_std"),
                                   err_msg=name)


# What the equations say.

def test_critic_update_by_hand():
    batch = points(6)
    gan, state, w, b, a, c = linear_gan(batch, penalty=penalties.gradient_penalty(10.0))
    new, metrics = critic_step(gan, state, batch, KEY)

    fake = draw(KEY, "latents", 6, 3) @ a + c
    real_mean, fake_mean = np.float64(batch.samples).mean(0), fake.mean(0)
    norm = np.linalg.norm(w)
    gradient = fake_mean - real_mean + 10 * 2 * (norm - 1) * w / norm  # the bias's cancels

    updated = new.critic.params["Dense_0"]
    np.testing.assert_allclose(updated["kernel"][:, 0], w - 0.1 * gradient, rtol=1e-4)
    np.testing.assert_allclose(updated["bias"], [b], atol=1e-6)
    assert_metrics(metrics, {
        "critic/loss": w @ (fake_mean - real_mean) + 10 * (norm - 1)**2,
        "critic/penalty": 10 * (norm - 1)**2,
        "critic/wasserstein": w @ (real_mean - fake_mean),
        "critic/real_score": w @ real_mean + b,
        "critic/fake_score": w @ fake_mean + b,
        "critic/gradient_norm": np.linalg.norm(gradient),
        "critic/input_gradient_mean": norm,
        "critic/input_gradient_std": 0.0,
    })


def test_generator_update_by_hand():
    batch = points(6)
    gan, state, w, b, a, c = linear_gan(batch)
    new, metrics = generator_step(gan, state, batch, KEY)

    mean = draw(KEY, "latents", 6, 3).mean(0)
    gradient = -np.outer(mean, w)
    np.testing.assert_allclose(new.generator.params["Dense_0"]["kernel"], a - 0.05 * gradient, rtol=1e-5)
    np.testing.assert_allclose(new.generator.params["Dense_0"]["bias"], c + 0.05 * w, rtol=1e-5)
    assert_metrics(metrics, {
        "generator/loss": -(mean @ a + c) @ w - b,
        "generator/gradient_norm": np.sqrt((gradient**2).sum() + w @ w),
        # Without a penalty the critic's slope is measured at the fakes.
        "critic/input_gradient_mean": np.linalg.norm(w),
        "critic/input_gradient_std": 0.0,
    })


def test_conditional_updates_by_hand():
    """The condition reaches the generator, the critic and, sample by sample, the penalty's critic."""
    c = np.array([0.5, -2.0, 1.0, 3.0, -0.25, 1.5])
    batch = Batch(points(6).samples, jnp.float32(c))
    gan, state, w, _, a, _ = linear_gan(batch, **CONDITIONAL, penalty=penalties.gradient_penalty(0.5))
    z = draw(KEY, "latents", 6, 3)
    fake, norm, weight = z @ a + c[:, None], np.linalg.norm(w), np.abs(c)

    new, metrics = critic_step(gan, state, batch, KEY)
    real_mean, fake_mean = (np.mean(c[:, None] * x, 0) for x in (np.float64(batch.samples), fake))
    gradient = (fake_mean - real_mean
                + 0.5 * 2 * np.mean((weight * norm - 1) * weight) * w / norm)
    penalty = 0.5 * np.mean((weight * norm - 1)**2)
    updated = new.critic.params["Dense_0"]["kernel"][:, 0]
    np.testing.assert_allclose(updated, w - 0.1 * gradient, rtol=1e-4)
    assert_metrics(metrics, {
        "critic/loss": w @ (fake_mean - real_mean) + penalty,
        "critic/penalty": penalty,
        "critic/wasserstein": w @ (real_mean - fake_mean),
        "critic/real_score": w @ real_mean,
        "critic/fake_score": w @ fake_mean,
        "critic/gradient_norm": np.linalg.norm(gradient),
        "critic/input_gradient_mean": norm * weight.mean(),
        "critic/input_gradient_std": norm * weight.std(),
    })

    new, metrics = generator_step(dataclasses.replace(gan, penalty=None), state, batch, KEY)
    gradient = -np.outer(np.mean(c[:, None] * z, 0), w)
    np.testing.assert_allclose(new.generator.params["Dense_0"]["kernel"], a - 0.05 * gradient, rtol=1e-4)
    assert_metrics(metrics, {
        "generator/loss": -w @ fake_mean,
        "generator/gradient_norm": np.linalg.norm(gradient),
        "critic/input_gradient_mean": norm * weight.mean(),
        "critic/input_gradient_std": norm * weight.std(),
    })


def test_iterations_by_hand():
    """Two iterations of three critic updates in float64: data, noise and order, all as documented."""
    source = table()
    rows = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    reals = np.stack([rows % 10 / 10, rows // 10], -1)  # [iteration, critic update, sample, 2]
    gan, state, w, b, a, c = linear_gan(Batch(jnp.float32(reals[0, 0])),
                                        penalty=penalties.gradient_penalty(1.0))
    for i in range(2):
        iteration = jax.random.fold_in(keys.stream(KEY, "train"), i)
        for j in range(3):
            key = jax.random.fold_in(keys.stream(iteration, "critic_step"), j)
            fake_mean = draw(key, "latents", 4, 3).mean(0) @ a + c
            real_mean, norm = reals[i, j].mean(0), np.linalg.norm(w)
            wasserstein = w @ (real_mean - fake_mean)
            w = w - 0.1 * (fake_mean - real_mean + 2 * (norm - 1) * w / norm)
        z_mean = draw(keys.stream(iteration, "generator_step"), "latents", 4, 3).mean(0)
        loss = -w @ (z_mean @ a + c) - b
        a, c = a + 0.05 * np.outer(z_mean, w), c + 0.05 * w

    steps = partial(run_steps, game(gan), source=source, batches_per_step=3, batch_size=4)
    new, metrics = jax.jit(steps)(state, source.arrays, KEY, 2)
    np.testing.assert_allclose(new.critic.params["Dense_0"]["kernel"][:, 0], w, rtol=1e-4)
    np.testing.assert_allclose(new.generator.params["Dense_0"]["kernel"], a, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new.generator.params["Dense_0"]["bias"], c, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["critic/wasserstein"], wasserstein, rtol=1e-3)
    np.testing.assert_allclose(metrics["generator/loss"], loss, rtol=1e-3)
    assert new.step == 2


def test_instance_noise_by_hand():
    """Its size goes by the iteration; reals and fakes, critic and generator see noise of their own."""
    batch = points(6)
    gan, state, w, _, _, _ = linear_gan(batch, augment=instance_noise(lambda step: 0.5 / (1.0 + step)))
    clean = dataclasses.replace(gan, augment=None)
    for step in (0, 3):
        state = state._replace(step=jnp.int32(step))
        real, fake = (0.5 / (1 + step) * draw(KEY, f"{kind}_noise", 6, 2).mean(0) @ w
                      for kind in ("real", "fake"))
        assert not np.isclose(real, fake)
        (_, noisy), (_, plain) = (critic_step(g, state, batch, KEY) for g in (gan, clean))
        for name, shift in (("real_score", real), ("fake_score", fake), ("wasserstein", real - fake)):
            np.testing.assert_allclose(noisy[f"critic/{name}"] - plain[f"critic/{name}"], shift,
                                       rtol=1e-4, atol=1e-6)
        (_, noisy), (_, plain) = (generator_step(g, state, batch, KEY) for g in (gan, clean))
        np.testing.assert_allclose(noisy["generator/loss"] - plain["generator/loss"], -fake,
                                   rtol=1e-4, atol=1e-6)


def test_no_instance_noise_is_none():
    quiet, state, *_ = linear_gan(points(4), augment=instance_noise(optax.constant_schedule(0.0)))
    silent = dataclasses.replace(quiet, augment=None)
    for step in (critic_step, generator_step):
        assert same(step(quiet, state, points(4), KEY), step(silent, state, points(4), KEY))


def test_batch_norm_keeps_reals_and_fakes_apart():
    gan, state, batch = VARIANTS["batch norm"], initial("batch norm"), points(4)
    new, metrics = compiled(critic_step, "batch norm")(state, batch, KEY)

    apply_critic, apply_generator = (partial(module.apply, train=True, mutable=["batch_stats"])
                                     for module in (gan.critic, gan.generator))
    fake, _ = apply_generator(state.generator.variables, jnp.float32(draw(KEY, "latents", 4, 3)))
    real_scores, stats = apply_critic(state.critic.variables, batch.samples)
    fake_scores, stats = apply_critic({"params": state.critic.params, **stats}, fake)
    np.testing.assert_allclose(metrics["critic/real_score"], real_scores.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["critic/fake_score"], fake_scores.mean(), rtol=1e-5)
    assert_close(new.critic.stats, stats)
    assert not same(new.critic.stats, state.critic.stats)


# What a step leaves alone.

@SPARING
def test_only_the_trained_network_changes(variant):
    state = initial(variant)
    after_critic, _ = compiled(critic_step, variant)(state, points(4), KEY)
    assert same(after_critic._replace(critic=state.critic), state)
    assert not same(after_critic.critic.params, state.critic.params)
    assert (after_critic.critic.stats == {}) == (state.critic.stats == {})
    if state.critic.stats:  # BatchNorm's averages, or spectral norm's iterates
        assert not same(after_critic.critic.stats, state.critic.stats)

    after_generator, _ = compiled(generator_step, variant)(state, points(4), KEY)
    assert same(after_generator.critic, state.critic)
    assert not same(after_generator.generator.params, state.generator.params)
    assert after_generator.step == state.step + 1
    assert (after_generator.generator.stats == {}) == (state.generator.stats == {})
    if state.generator.stats:
        assert not same(after_generator.generator.stats, state.generator.stats)
    assert (after_generator.ema is None) == (state.ema is None)
    assert state.ema is None or not same(after_generator.ema, state.ema)


def test_metrics(variant):
    state = initial(variant)
    _, critic_metrics = compiled(critic_step, variant)(state, points(4), KEY)
    _, generator_metrics = compiled(generator_step, variant)(state, points(4), KEY)
    _, metrics = compiled(train_step, variant)(state, points(3, 4), KEY)
    if VARIANTS[variant].penalty is None:
        assert critic_metrics.keys() == CRITIC_METRICS
        assert generator_metrics.keys() == GENERATOR_METRICS | NORM_METRICS
    else:
        assert critic_metrics.keys() == CRITIC_METRICS | NORM_METRICS | {"critic/penalty"}
        assert generator_metrics.keys() == GENERATOR_METRICS
    assert metrics.keys() == critic_metrics.keys() | generator_metrics.keys()
    assert all(m.shape == () and m.dtype == jnp.float32 for m in metrics.values())
    assert all_finite(metrics)


def test_spectral_norm_takes_a_power_iteration_a_critic_step():
    state = initial("spectral, noisy")
    new, _ = compiled(critic_step, "spectral, noisy")(state, points(4), KEY)
    kernel = np.float64(state.critic.params["Dense_0"]["kernel"])
    before, after = (s.critic.stats["batch_stats"]["SpectralNorm_0"] for s in (state, new))
    v = np.float64(before["Dense_0/kernel/u"]) @ kernel.T
    u = v / np.linalg.norm(v) @ kernel
    np.testing.assert_allclose(after["Dense_0/kernel/sigma"], np.linalg.norm(u), rtol=1e-5)
    np.testing.assert_allclose(after["Dense_0/kernel/u"], u / np.linalg.norm(u), rtol=1e-4, atol=1e-6)


# How steps compose.

@pytest.mark.parametrize("at_once", [False, True])
def test_train_step_is_the_loop(variant, at_once):
    batches = points(3, 4)
    step = partial(train_step, VARIANTS[variant], fakes_at_once=at_once)
    scanned, metrics = jax.jit(step)(initial(variant), batches, KEY)

    looped = initial(variant)
    for i in range(3):
        key = jax.random.fold_in(keys.stream(KEY, "critic_step"), i)
        looped, critic_metrics = compiled(critic_step, variant)(looped, Batch(batches.samples[i]), key)
    looped, generator_metrics = compiled(generator_step, variant)(
        looped, Batch(batches.samples[0]), keys.stream(KEY, "generator_step"))

    assert_close(scanned, looped, 1e-4)
    assert_close(metrics, critic_metrics | generator_metrics, 1e-3)
    assert scanned.step == 1


def test_generator_batches():
    """The fakes are drawn for the conditions of the first two of three critic batches, sample by
    sample, so that a device's slices lie together.
    """
    c = np.array([[0.5, -2.0, 1.0], [3.0, -0.25, 1.5], [9.0, 9.0, 9.0]])
    batches = Batch(points(3, 3).samples, jnp.float32(c))
    gan, state, w, _, a, _ = linear_gan(
        Batch(batches.samples[0], batches.condition[0]), **CONDITIONAL,
        critic_optimizer=optax.sgd(0.0), generator_batches=2)
    new, metrics = train_step(gan, state, batches, KEY)

    z, c = draw(keys.stream(KEY, "generator_step"), "latents", 6, 3), c[:2].T.ravel()
    np.testing.assert_allclose(new.generator.params["Dense_0"]["kernel"],
                               a + 0.05 * np.outer(np.mean(c[:, None] * z, 0), w), rtol=1e-4)
    np.testing.assert_allclose(metrics["generator/loss"], -np.mean(c * ((z @ a + c[:, None]) @ w)),
                               rtol=1e-4)


def test_each_critic_update_sees_its_batch_and_fresh_noise():
    """Seen by a penalty that keeps what it is shown and asks for nothing."""
    seen = []

    def spy(critic_fn, real, fake, key):
        jax.debug.callback(lambda *args: seen.append(args), real, fake, jax.random.key_data(key),
                           ordered=True)
        return jnp.zeros(()), jnp.zeros(1)

    gan, state, _, _, a, c = linear_gan(
        points(4), penalty=Term("penalty", Penalty("penalty", spy), part_of=ADVERSARIAL),
        augment=instance_noise(optax.constant_schedule(0.5)))
    batches = Batch(jnp.stack([points(4).samples, points(4, seed=9).samples, points(4).samples]))
    train_step(gan, state, batches, KEY)
    jax.effects_barrier()
    assert len(seen) == 3
    for i, (real, fake, key_data) in enumerate(seen):
        key = jax.random.fold_in(keys.stream(KEY, "critic_step"), i)
        np.testing.assert_allclose(
            real, np.float64(batches.samples[i]) + 0.5 * draw(key, "real_noise", 4, 2), rtol=1e-5)
        np.testing.assert_allclose(
            fake, draw(key, "latents", 4, 3) @ a + c + 0.5 * draw(key, "fake_noise", 4, 2), rtol=1e-4)
        np.testing.assert_array_equal(key_data, [jax.random.key_data(
            jax.random.fold_in(keys.stream(key, "penalty"), j)) for j in range(4)])


def test_weights_stay_clipped():
    gan, state, *_ = linear_gan(points(4), critic_optimizer=optax.chain(optax.sgd(0.1),
                                                                        penalties.clip_weights(0.05)))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.critic.params))
    assert largest > 0.05
    generator = state.generator.params
    state, _ = train_step(gan, state, points(2, 4), KEY)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.critic.params))
    assert largest == pytest.approx(0.05, rel=1e-6)
    assert not same(state.generator.params, generator)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.generator.params)) > 0.05


def test_a_critic_of_zeros_has_no_nan(variant):
    state = initial(variant)
    critic = state.critic._replace(params=jax.tree.map(jnp.zeros_like, state.critic.params))
    new, metrics = compiled(train_step, variant)(state._replace(critic=critic), points(3, 4), KEY)
    assert all_finite((new, metrics))


def test_a_batch_of_half_precision_is_trained_on_in_single_precision():
    gan, state, *_ = linear_gan(points(4), penalty=penalties.gradient_penalty())
    half = Batch(points(2, 4).samples.astype(jnp.bfloat16))
    new, metrics = train_step(gan, state, half, KEY)
    assert [x.dtype for x in jax.tree.leaves(new)] == [x.dtype for x in jax.tree.leaves(state)]
    assert {m.dtype for m in metrics.values()} == {jnp.dtype(jnp.float32)}
    expected, _ = train_step(gan, state, Batch(half.samples.astype(jnp.float32)), KEY)
    assert_close(new, expected, 1e-4, 1e-5)


# Many iterations in one dispatch.

def test_draw_batches_walks_through_the_stream():
    source = table()
    batch = jax.jit(partial(draw_batches, source, batches_per_step=2, batch_size=4))(
        source.arrays, KEY, 3)
    position = 3 * 2 * 4 + np.arange(8)
    np.testing.assert_allclose(
        batch.samples, np.stack([position % 10 / 10, position // 10], -1).reshape(2, 4, 2), rtol=1e-6)


@cache
def many(variant):
    """Many iterations, compiled, and a list that grows each time they are traced."""
    traces = []

    def steps(*args):
        traces.append(args)
        return run_steps(game(VARIANTS[variant]), *args, source=table(), batches_per_step=3,
                         batch_size=4)

    return jax.jit(steps), traces


@SPARING
def test_steps_in_one_go_or_one_by_one(variant):
    steps, traces = many(variant)
    state, arrays = initial(variant), table().arrays
    at_once, last = steps(state, arrays, KEY, 5)
    for counts in ((1, 4), (1, 1, 1, 1, 1)):
        bit_by_bit = state
        for count in counts:
            bit_by_bit, metrics = steps(bit_by_bit, arrays, KEY, count)
        assert same(at_once, bit_by_bit)
        assert same(last, metrics)
    assert at_once.step == 5
    assert len(traces) == 1
    assert steps._cache_size() == 1


def test_run_steps_is_the_loop(variant):
    source = table()
    done, metrics = many(variant)[0](initial(variant), source.arrays, KEY, 2)
    looped = initial(variant)
    for i in range(2):
        batches = draw_batches(source, source.arrays, KEY, i, batches_per_step=3, batch_size=4)
        looped, expected = compiled(train_step, variant)(
            looped, batches, jax.random.fold_in(keys.stream(KEY, "train"), i))
    assert_close(done, looped, 1e-3, 1e-5)
    assert_close(metrics, expected, 1e-3, 1e-5)


def test_compiled_once_and_donated():
    gan = tiny(generator=Linear(2), critic=Linear(), ema_decay=0.9, critic_optimizer=optax.adam(1e-3))
    step = jax.jit(partial(train_step, gan), donate_argnums=0)
    state = jax.jit(partial(init_state, gan))(KEY, points(4))
    for i in range(3):
        before = state
        state, _ = step(state, points(2, 4, seed=i), jax.random.fold_in(KEY, i))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.critic, before.ema)))
    assert step._cache_size() == 1
    assert state.step == 3
    assert all_finite(state)


def test_reals_are_scored_for_the_generator_only_by_losses_that_compare():
    batch, products = points(4), {}
    state = init_state(tiny(), KEY, batch)
    for name in ("wasserstein", "relativistic"):
        step = partial(generator_step, tiny(loss=getattr(losses, name)()))
        products[name] = jax.jit(step).lower(state, batch, KEY).compile().as_text().count(" dot(")
    layers_of_the_critic = 2
    assert products["relativistic"] == products["wasserstein"] + layers_of_the_critic


# Errors.

def test_penalised_batch_norm_is_refused():
    state = initial("batch norm")
    penalised = dataclasses.replace(VARIANTS["batch norm"], penalty=penalties.r1())
    with pytest.raises(ValueError, match="not defined for a critic with batch normalisation"):
        critic_step(penalised, state, points(4), KEY)


def test_scores_of_two_axes_are_refused():
    state = init_state(tiny(critic=Linear()), KEY, points(4))
    column = tiny(critic=Linear(features=1))
    for step, count in ((critic_step, 8), (generator_step, 4)):
        with pytest.raises(ValueError, match=rf"shape \({count},\); got \({count}, 1\): squeeze"):
            step(column, state, points(4), KEY)


def test_too_few_batches_for_the_generator():
    gan = tiny(generator_batches=3)
    state = init_state(gan, KEY, points(4))
    with pytest.raises(ValueError, match="generator_batches is 3, but an iteration has only 2 critic"):
        train_step(gan, state, points(2, 4), KEY)


class Halved(Linear):
    """Scores in bfloat16, which keeps eight bits."""

    def __call__(self, x, condition=None, *, train):
        return super().__call__(x, condition, train=train).astype(jnp.bfloat16)


def test_scores_in_half_precision_are_averaged_in_float32():
    gan, batch = tiny(critic=Halved(), penalty=None), points(8)
    state = init_state(gan, jax.random.key(0), batch)
    _, metrics = jax.jit(partial(critic_step, gan))(state, batch, jax.random.key(1))
    assert {value.dtype for value in metrics.values()} == {jnp.dtype("float32")}
    scores = np.asarray(gan.critic.apply(state.critic.variables, batch.samples, train=True), np.float64)
    np.testing.assert_allclose(metrics["critic/real_score"], scores.mean(), rtol=1e-6)
