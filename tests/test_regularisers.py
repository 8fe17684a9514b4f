"""Regularisers of scores and samples, against values worked by hand."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import losses
from jaxgan.augment import Augmentation, ada, adaptive, instance_noise
from jaxgan.models.gat import as_outputs, last_output
from jaxgan.parallel import data_parallel
from jaxgan.regularisers import (
    Anchors,
    agreement,
    alignment,
    centring,
    consistency,
    latent_consistency,
    lecam,
    normalised,
    transport,
)
from jaxgan.steps import generator_step, init_state, train_step
from jaxgan.terms import Judgement
from tests.tiny import assert_close, points, seen, tiny, view

REAL, FAKE = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.0, 1.0], [0.0, -1.0]])


def judge(samples, condition=None, kind="judge"):
    """D(x) = x_1 + 2 x_2."""
    return Judgement(samples @ jnp.array([1.0, 2.0]), {})


def both():
    return (seen(samples, scores=judge(samples).scores) for samples in (REAL, FAKE))


def test_consistency_by_hand():
    """T(x) = 2 x: of reals the scores 5 and 11 become 10 and 22, of fakes 2 and -2 become 4 and -4."""
    twice = Augmentation(lambda keys, step, state: (), lambda draws, samples: 2 * samples)
    found = consistency(twice).value(view(*both(), judge=judge), ())
    assert float(found) == (25 + 121) / 2 + (4 + 4) / 2


def test_latent_consistency_of_a_linear_generator():
    """G(z) = A z: the images differ by A dz, and the scores by D(A dz), dz ~ N(0, 0.01 I)."""
    matrix = jnp.array([[1.0, 0.0], [2.0, 3.0]])
    latents = jax.random.normal(jax.random.key(1), (4000, 2))

    def generate(latents, condition, kind="generate"):
        return latents @ matrix, {}

    fake = seen(latents @ matrix, scores=judge(latents @ matrix).scores)
    given = view(fake, fake, latents=latents, judge=judge, generate=generate)
    critic, generator = latent_consistency(scale=0.1)
    assert (critic.weight, generator.weight) == (5.0, 0.5)
    slope = np.asarray(matrix) @ [1.0, 2.0]
    assert float(critic.value(given, ())) == pytest.approx(0.01 * slope @ slope, rel=0.1)
    assert float(generator.value(given, ())) == pytest.approx(
        -0.01 * np.square(matrix).sum() / 2, rel=0.1)


def test_lecam_by_hand():
    term = lecam(decay=0.75)
    assert term.init() == (0.0, 0.0)
    found = term.value(view(*both()), Anchors(jnp.float32(1.0), jnp.float32(3.0)))
    assert float(found.loss) == ((5 - 3) ** 2 + (11 - 3) ** 2) / 2 + ((2 - 1) ** 2 + (-2 - 1) ** 2) / 2
    assert term.update(Anchors(1.0, 3.0), found.observed) == (0.75 + 0.25 * 8, 2.25)


def test_centring_by_hand():
    """The scores of pairs add up to 5 + 2 and 11 - 2."""
    assert float(centring(0.5).value(view(*both()), ())) == (7**2 + 9**2) / 2
    assert centring(0.5).weight == 0.5


def test_transport_by_hand():
    """Fakes are (1, 0) and (-2, 0) from their latents."""
    latents = FAKE - jnp.array([[1.0, 0.0], [-2.0, 0.0]])
    real, fake = both()
    assert float(transport().value(view(real, fake, latents=latents), ())) == (1 + 4) / 4
    with pytest.raises(ValueError, match="transport takes latents of the samples' shape"):
        transport().value(view(real, fake, latents=latents[:, :1]), ())


def test_normalised_by_hand():
    """Of -E D(x) with D(x) = x_1 + 2 x_2 flow (-1/2, -1) into each of two fakes: n |g|^2 = 4 * 2.5."""
    loss, term = normalised(losses.wasserstein())
    scores = jnp.array([1.0, 2.0])
    assert loss.generator(scores, scores) == 0
    assert loss.critic(scores, scores + 3) == 3

    def value(samples, mean):
        real, _ = both()
        return term.value(view(real, seen(samples), judge=judge), mean)

    for mean, factor in ((4.0, 0.5), (0.0, 0.0)):
        flow, measured = jax.grad(value, (0, 1))(FAKE, jnp.float32(mean))
        np.testing.assert_allclose(flow, factor * np.array([[-0.5, -1.0]] * 2), rtol=1e-6)
        assert measured == 10
    assert value(FAKE, jnp.float32(4)) == -(2 - 2) / 2
    assert (term.init(), term.absorb(jnp.float32(0), 10.0)) == (0, 10)
    assert term.absorb(jnp.float32(4), 10.0) == pytest.approx(0.9 * 4 + 0.1 * 10)
    tree = seen({"a": FAKE, "b": FAKE[:, 0]})
    measured = jax.grad(lambda mean: term.value(view(seen(scores=scores), tree, judge=lambda x, *_: (
        Judgement(2 * x["b"], {}))), mean))(jnp.float32(1))
    assert measured == 6 * 2  # of six numbers two have a slope, -1


def flowing(loss, weight=1.0, **changes):
    loss, term = normalised(loss)
    return tiny(loss=loss, generator_terms=(term._replace(weight=weight),), penalty=None,
                augment=instance_noise(0.1), **changes)


def test_what_flows_is_the_same_whatever_the_losses_factor_and_the_critics_slope():
    """In the second update; powers of two change no bits. The first one moves nothing."""
    def twice(weight, steepness=1.0):
        gan = flowing(losses.wasserstein(), weight)
        state = init_state(gan, jax.random.key(0), points(4))
        *hidden, last = state.critic.params.items()
        critic = state.critic._replace(params=dict(hidden) | {last[0]: jax.tree.map(
            lambda x: steepness * x, last[1])})
        step = jax.jit(lambda state, key: generator_step(gan, state, points(4), key)[0])
        first = step(state._replace(critic=critic), jax.random.key(1))
        assert_close(first.generator.params, state.generator.params, rtol=0, atol=0)
        return step(first, jax.random.key(2)).generator, first.generator

    (second, first), *others = twice(1.0), twice(64.0), twice(1.0, 8.0)
    for other, _ in others:
        assert_close(other.params, second.params, rtol=0, atol=0)
    moved = jax.tree.map(jnp.subtract, second.params, first.params)
    assert optax.tree.norm(moved) > 1e-3
    assert float(others[0][0].terms["normalised"]) == 64**2 * float(second.terms["normalised"])


@pytest.mark.parametrize("loss", [losses.relativistic(), losses.relativistic_average()])
def test_normalised_on_two_devices_is_as_on_one(loss):
    gan = flowing(loss, critic_terms=(centring(),))
    states = []
    for step in (jax.jit(partial(train_step, gan)),
                 data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)):
        state = init_state(gan, jax.random.key(0), points(8))
        for i in range(3):
            state, _ = step(state, points(1, 8, seed=i), jax.random.key(i))
        states.append(state)
    assert_close(*states, rtol=1e-4, atol=1e-5)
    assert float(states[0].generator.terms["normalised"]) > 0


def test_agreement_by_hand_and_the_last_output_stays():
    """Outputs (0, 1), (2, 3) and last (4, 5): 16 and 4 away, in every number."""
    outputs = jnp.arange(6.0).reshape(1, 3, 2)

    def value(outputs):
        return agreement().value(view(seen(), seen(outputs)), ())

    assert value(outputs) == (16 + 4) / 2
    slope = jax.grad(value)(outputs)
    np.testing.assert_allclose(slope[0], [[-2, -2], [-1, -1], [0, 0]])  # 2 * difference / 4
    for bad in (outputs[:, :1], outputs[:, :, 0], {"a": outputs}):
        with pytest.raises(ValueError, match=r"agreement takes samples of several outputs, \[batch, o"):
            value(bad)


def test_alignment_by_hand():
    """Tokens (3, 4) and (1, 0) beside (4, 3) and (-2, 0): their cosines are 24/25 and -1."""
    tokens, wanted = jnp.array([[[3.0, 4.0], [1.0, 0.0]]]), jnp.array([[[4.0, 3.0], [-2.0, 0.0]]])
    real = seen(wanted, tokens=tokens)
    assert float(alignment(lambda x: x).value(view(real, real), ())) == pytest.approx(
        1 - (24 / 25 - 1) / 2)
    pooled = alignment(lambda x: x[:, 0])  # compared with the first token alone
    assert float(pooled.value(view(real, real), ())) == pytest.approx(1 / 25, rel=1e-5)
    slope = jax.grad(lambda x: alignment(lambda y: y * x).value(view(real, real), ()))(2.0)
    assert slope == 0  # nothing flows into the features
    still = seen(wanted, tokens=jnp.zeros_like(tokens))
    assert alignment(lambda x: x).value(view(still, still), ()) == 1
    with pytest.raises(ValueError, match=r"the critic's tokens with features of their shape; got \(1, "):
        alignment(lambda x: x[:, :1]).value(view(real, real), ())


class Several(nn.Module):
    """Latents to three points each."""

    @nn.compact
    def __call__(self, latents, condition=None, *, train):
        return nn.Dense(6)(latents).reshape(-1, 3, 2)


class Tokens(nn.Module):
    """Three points to a score, and to a token for each and one before."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        x = jnp.concatenate([samples.mean(1, keepdims=True), samples], 1)
        return nn.Dense(1)(x[:, 0])[:, 0], {"tokens": nn.Dense(2)(x)}


def test_agreement_and_alignment_train_on_two_devices_as_on_one():
    """What the critic is shown of a real is aligned, its noise included."""
    def features(shown):
        return jnp.concatenate([shown.sum(1, keepdims=True), jnp.sin(shown)], 1)

    gan = tiny(generator=Several(), critic=Tokens(), loss=losses.relativistic(), penalty=None,
               lift=partial(as_outputs, 3), lower=last_output, augment=instance_noise(0.1),
               generator_terms=(agreement(),), critic_terms=(alignment(features),))
    state = init_state(gan, jax.random.key(0), points(8))
    step = jax.jit(partial(train_step, gan))
    one, metrics = step(state, points(1, 8), jax.random.key(1))
    found = data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)(
        state, points(1, 8), jax.random.key(1))
    assert_close(found, (one, metrics), rtol=1e-4, atol=1e-5)
    assert 0 < float(metrics["critic/alignment"]) < 2
    _, later = step(one, points(1, 8), jax.random.key(1))
    assert later["critic/alignment"] < metrics["critic/alignment"]
    assert later["generator/agreement"] < metrics["generator/agreement"]


def test_they_train_together_and_anchors_follow_the_scores():
    noise = Augmentation(lambda keys, step, state: keys, lambda keys, samples: samples + 0.1)
    gan = tiny(critic_terms=(consistency(noise), lecam(decay=0.0)), tasks=(latent_consistency(),),
               critic_optimizer=optax.sgd(1e-3), penalty=None)
    step = jax.jit(lambda state: train_step(gan, state, points(1, 4), jax.random.key(1)))
    state, metrics = step(init_state(gan, jax.random.key(0), points(4)))
    anchors = state.critic.terms["lecam"]
    assert float(anchors.real) == pytest.approx(float(metrics["critic/real_score"]), rel=1e-5)
    assert float(anchors.fake) == pytest.approx(float(metrics["critic/fake_score"]), rel=1e-5)
    assert {"critic/bcr", "critic/zcr", "critic/lecam", "generator/zcr"} <= metrics.keys()
    assert metrics["generator/zcr"] < 0 < metrics["critic/zcr"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: consistency(ada(probability=adaptive())), "an augmentation without a state"),
    (lambda: latent_consistency(scale=0.0), "scale must be above 0; got 0"),
    (lambda: lecam(decay=1.0), r"decay must be in \[0, 1\); got 1"),
    (lambda: normalised(losses.wasserstein(), decay=-0.1), r"decay must be in \[0, 1\); got -0.1"),
    (lambda: normalised(losses.top_k(losses.wasserstein(), 1, 0.5, 0.5)), "leave top_k out"),
])
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
