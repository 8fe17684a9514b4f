"""The specification, the initial state, sampling and the average."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Critic, Generator, Linear, assert_close, points, same, tiny

from jaxgan import generate, generator_step, init_state, sample
from jaxgan.gan import draw_latents, has_batch_statistics
from jaxgan.types import Batch

KEY = jax.random.key(5)


class Spectral(nn.Module):
    """A linear critic under spectral normalisation."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        del condition
        return nn.SpectralNorm(nn.Dense(1))(samples, update_stats=train).squeeze(-1)


@pytest.fixture(scope="module")
def trained():
    """A GAN with an average that differs from its generator, statistics included."""
    gan = tiny(generator=Generator(norm=True), ema_decay=0.9)
    state = init_state(gan, KEY, points(4))
    return gan, state._replace(ema=jax.tree.map(lambda x: 1.5 * x + 0.25, state.ema))


def kernels(network):
    return [leaf for leaf in jax.tree.leaves(network.params) if leaf.ndim == 2]


# The initial state.

def test_initial_state_is_a_function_of_the_key():
    gan = tiny(ema_decay=0.9)
    init = jax.jit(partial(init_state, gan))
    state = init(KEY, points(4))
    assert same(state, init(KEY, points(4, seed=8)))
    assert_close(state.generator, init_state(tiny(critic=Linear()), KEY, points(7)).generator)
    assert_close(state.critic, init_state(tiny(generator=Linear(2)), KEY, points(7)).critic)
    other = init(jax.random.key(6), points(4))
    for a, b in ((state.generator, other.generator), (state.critic, other.critic)):
        for x, y in zip(kernels(a), kernels(b), strict=True):
            assert not np.isclose(x, y).any()
    assert state.step == 0
    assert state.step.dtype == jnp.int32
    assert init_state(tiny(), KEY, points(4)).ema is None


def test_networks_start_from_keys_of_their_own():
    """The same layers in both places don't get the same weights."""
    state = init_state(tiny(latent_size=2, generator=Linear(2), critic=Linear()), KEY, points(4))
    generator, critic = (network.params["Dense_0"]["kernel"]
                         for network in (state.generator, state.critic))
    assert not np.isclose(generator[:, :1], critic).any()
    twins = init_state(tiny(latent_size=2, generator=Generator(), critic=Critic()), KEY, points(4))
    first = [network.params["Dense_0"]["kernel"] for network in (twins.generator, twins.critic)]
    assert first[0].shape == first[1].shape
    assert not np.isclose(*first).any()


def test_optimisers_start_afresh():
    gan = tiny(generator_optimizer=optax.adam(1e-3), critic_optimizer=optax.sgd(0.1, momentum=0.5))
    state = init_state(gan, KEY, points(4))
    adam, trace = state.generator.opt_state[0], state.critic.opt_state[0].trace
    assert adam.count == 0
    for moment in (adam.mu, adam.nu):
        assert same(moment, jax.tree.map(jnp.zeros_like, state.generator.params))
    assert same(trace, jax.tree.map(jnp.zeros_like, state.critic.params))


def test_average_starts_as_a_copy():
    """Buffers that are one could not both be donated."""
    state = init_state(tiny(ema_decay=0.9), KEY, points(4))
    assert same(state.ema, state.generator.variables)
    for a, b in zip(jax.tree.leaves(state.ema["params"]), jax.tree.leaves(state.generator.params),
                    strict=True):
        assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()


def test_variables_are_what_apply_takes(trained):
    gan, state = trained
    assert state.generator.variables.keys() == {"params", "batch_stats"}
    assert state.critic.variables.keys() == {"params"}
    assert gan.critic.apply(state.critic.variables, points(3).samples, train=False).shape == (3,)


def test_spectral_norm_is_no_batch_statistic():
    state = init_state(tiny(critic=Spectral()), KEY, points(4))  # penalised, and not refused
    assert "batch_stats" in state.critic.stats
    assert not has_batch_statistics(state.critic.stats)
    batch_norm = init_state(tiny(critic=Critic(norm=True), penalty=None), KEY, points(4))
    assert has_batch_statistics(batch_norm.critic.stats)


# Sampling.

def test_sample_i_does_not_depend_on_how_many(trained):
    gan, state = trained
    few, many = (sample(gan, state, KEY, count) for count in (3, 8))
    assert many.shape == (8, 2)
    np.testing.assert_allclose(few, many[:3], rtol=1e-5)
    np.testing.assert_array_equal(draw_latents(gan, KEY, 3), draw_latents(gan, KEY, 8)[:3])
    assert len(np.unique(np.asarray(many), axis=0)) == 8
    assert same(many, sample(gan, state, KEY, 8))
    assert not np.isclose(many, sample(gan, state, jax.random.key(6), 8)).all(axis=1).any()


def test_sample_prefers_the_average(trained):
    gan, state = trained
    latents = draw_latents(gan, KEY, 4)
    averaged = gan.generator.apply(state.ema, latents, train=False)
    raw = gan.generator.apply(state.generator.variables, latents, train=False)
    assert not np.allclose(averaged, raw)
    np.testing.assert_allclose(sample(gan, state, KEY, 4), averaged, rtol=1e-6)
    np.testing.assert_allclose(sample(gan, state, KEY, 4, use_ema=False), raw, rtol=1e-6)
    np.testing.assert_allclose(sample(gan, state._replace(ema=None), KEY, 4), raw, rtol=1e-6)
    np.testing.assert_allclose(generate(gan, state, latents), averaged, rtol=1e-6)
    np.testing.assert_allclose(generate(gan, state, latents, use_ema=False), raw, rtol=1e-6)


def test_sample_with_a_condition(trained):
    gan, state = trained
    shift = jnp.arange(4.0)
    np.testing.assert_allclose(sample(gan, state, KEY, 4, shift),
                               sample(gan, state, KEY, 4) + shift[:, None], rtol=1e-5)


def test_latents_are_standard_normal():
    latents = np.asarray(draw_latents(tiny(), KEY, 4000))
    assert latents.shape == (4000, 3)
    np.testing.assert_allclose(latents.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(latents.T), np.eye(3), atol=0.12)
    np.testing.assert_allclose(np.mean(latents**4, 0), 3, atol=0.6)
    np.testing.assert_allclose(np.mean(np.abs(latents) > 1.96, 0), 0.05, atol=0.015)


# The average.

def average(decay, old, new):
    return jax.tree.map(lambda o, n: decay * o + (1 - decay) * np.float64(n), old, new)


def test_average_by_hand():
    """Parameters and batch statistics, with the warm-up while (1 + step) / (10 + step) is less."""
    gan = tiny(generator=Generator(norm=True), ema_decay=0.25)
    state = init_state(gan, KEY, points(4))
    expected = jax.tree.map(partial(np.asarray, dtype=np.float64), state.generator.variables)
    step = jax.jit(partial(generator_step, gan))
    for done, decay in ((1, 2 / 11), (2, 3 / 12), (3, 0.25), (4, 0.25)):
        before = state
        state, _ = step(state, points(4), jax.random.fold_in(KEY, done))
        assert state.step == done
        expected = average(decay, expected, state.generator.variables)
        assert_close(state.ema, expected)
        assert not same(state.generator.stats, before.generator.stats)
    assert state.ema.keys() == {"params", "batch_stats"}
    late, _ = step(state._replace(step=jnp.int32(10**6)), points(4), KEY)
    assert_close(late.ema, average(0.25, expected, late.generator.variables))


# Errors.

@pytest.mark.parametrize(("changes", "message"), [
    ({"latent_size": 0}, "latent_size must be at least 1; got 0"),
    ({"generator_batches": 0}, "generator_batches must be at least 1; got 0"),
    ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\); got 1.0"),
    ({"ema_decay": -0.1}, r"ema_decay must be in \[0, 1\); got -0.1"),
    ({"ema_decay": float("nan")}, r"ema_decay must be in \[0, 1\); got nan"),
])
def test_specifications_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_specifications_at_the_edge():
    assert tiny(latent_size=1, generator_batches=1, ema_decay=0.0).ema_decay == 0.0
    assert tiny(ema_decay=0.9999).ema_decay == 0.9999


@pytest.mark.parametrize(("changes", "message"), [
    ({"generator": Linear(3)}, r"samples of shape \(3,\), the data has \(2,\): give the generator"),
    ({"critic": Linear(1)}, r"one score per sample, shape \(4,\); got \(4, 1\): squeeze the last axis"),
    ({"critic": Critic(norm=True)}, "use layer or spectral normalisation, or no penalty"),
])
def test_networks_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        init_state(tiny(**changes), KEY, points(4))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32])
def test_samples_must_be_floating_point(dtype):
    name = jnp.dtype(dtype).name
    with pytest.raises(TypeError, match=f"samples must be floating point; got {name}: scale the pixels"):
        init_state(tiny(), KEY, Batch(jnp.zeros((4, 2), dtype)))


def test_sampling_errors(trained):
    gan, state = trained
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"num_samples must be at least 1; got {count}"):
            sample(gan, state, KEY, count)
    for shape in ((4, 2), (3,), (2, 4, 3)):
        with pytest.raises(ValueError, match=r"latents must have shape \[batch, 3\]; got \("):
            generate(gan, state, jnp.zeros(shape))
    with pytest.raises(TypeError, match=r"typed key, jax.random.key\(seed\); got uint32 numbers"):
        sample(gan, state, jax.random.key_data(KEY), 4)
