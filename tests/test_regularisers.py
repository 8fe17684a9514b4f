"""Regularisers of scores, against values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan.augment import Augmentation, ada, adaptive
from jaxgan.regularisers import (
    Anchors,
    centring,
    consistency,
    latent_consistency,
    lecam,
    transport,
)
from jaxgan.steps import init_state, train_step
from jaxgan.terms import Judgement
from tests.tiny import points, seen, tiny, view

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
])
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
