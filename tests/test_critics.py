"""A critic trained alone between two distributions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import wasserstein_distance

from jaxgan import critic_step, init_state, penalties
from jaxgan.critics import critic_game, score_function
from jaxgan.data import in_memory
from jaxgan.losses import wasserstein
from jaxgan.models import FunnelCritic
from jaxgan.training import example_batch, train
from jaxgan.types import Batch
from jaxgan.views import Fakes
from tests.tiny import TINY, Critic


def pairs(count=64):
    real, fake = jax.random.normal(jax.random.key(0), (2, count, 2))
    return np.asarray(real), np.asarray(fake) + 3


def test_a_step_is_the_critic_step_of_a_gan_on_the_same_fakes():
    real, fake = pairs(8)
    penalty, optimizer = penalties.gradient_penalty(2.0), optax.sgd(0.1)
    game = critic_game(Critic(), optimizer, penalty=penalty)
    state = game.init(jax.random.key(1), Batch((real, fake)))
    batches = Batch((real[None], fake[None]))
    after, metrics = jax.jit(game.step)(state, batches, jax.random.key(2))

    gan = dataclasses.replace(TINY, penalty=penalty, critic_optimizer=optimizer, loss=wasserstein())
    start = init_state(gan, jax.random.key(1), Batch(jnp.asarray(real)))
    key = jax.random.fold_in(jax.random.key(2), 0)
    by_gan, there = critic_step(gan, start._replace(critic=state.critic), Batch(jnp.asarray(real)), key,
                                fakes=Fakes(jnp.asarray(fake), {}, ()))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.critic.params,
                 by_gan.critic.params)
    np.testing.assert_allclose(metrics["critic/penalty"], there["critic/penalty"], rtol=1e-5)
    assert int(after.step) == 1
    assert after.average is None


def test_the_average_follows_the_critic():
    real, fake = pairs(8)
    game = critic_game(Critic(), optax.sgd(0.1), ema_decay=0.9)
    state = game.init(jax.random.key(1), Batch((real, fake)))
    after, _ = game.step(state, Batch((real[None], fake[None])), jax.random.key(2))
    decay = 2 / 11  # (1 + step) / (10 + step) after one step
    expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.critic.params,
                            after.critic.params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
                 after.average["params"], expected)
    scores = score_function(Critic(), after)(real)
    np.testing.assert_allclose(scores, Critic().apply({"params": expected}, real, train=False),
                               rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_it_estimates_the_distance_of_two_clouds_on_a_line(tmp_path):
    draw = np.random.default_rng(0)
    real, fake = draw.normal(size=(2, 256, 1)).astype(np.float32)
    fake = 0.5 * fake + 1.5
    game = critic_game(Critic(), optax.adam(5e-3, b1=0.0), ema_decay=0.9,
                       penalty=penalties.gradient_penalty(100.0, one_sided=True))
    state, result = train(game, (real, fake), tmp_path / "run", steps=1500, batch_size=256,
                          sample_every=0, checkpoint_every=0)
    scores = score_function(Critic(), state)
    known = wasserstein_distance(real.ravel(), fake.ravel())
    np.testing.assert_allclose(scores(real).mean() - scores(fake).mean(), known, rtol=0.05)
    assert result["steps"] == 1500


def test_samples_have_to_be_pairs():
    real, _ = pairs(8)
    with pytest.raises(ValueError, match=r"must be a pair \(real, fake\)"):
        critic_game(Critic(), optax.sgd(0.1)).init(jax.random.key(0), Batch(real))


def test_pairs_in_memory_are_a_source():
    source = in_memory(pairs(16))
    assert [x.shape for x in example_batch(source, 4).samples] == [(4, 2), (4, 2)]


def test_the_generator_of_nothing_has_no_numbers():
    game = critic_game(Critic(), optax.sgd(0.1))
    state = game.init(jax.random.key(0), Batch(pairs(4)))
    assert {*game.networks(state)} == {"critic"}
    assert jax.tree.leaves(state._replace(critic=())) == [0]


def test_a_maximum_of_cones_is_1_lipschitz_and_what_it_says():
    critic = FunnelCritic(8, spread=2.0)
    one, other = jax.random.normal(jax.random.key(0), (2, 500, 3))
    variables = critic.init(jax.random.key(1), one, train=False)
    scores = [critic.apply(variables, x, train=False) for x in (one, other)]
    assert (jnp.abs(scores[0] - scores[1]) <= jnp.linalg.norm(one - other, axis=1) + 1e-5).all()
    cold = critic.apply({"params": variables["params"] | {"log_temperature": jnp.log(1e-3)}}, one,
                        train=False)
    centres, heights = (np.asarray(variables["params"][name]) for name in ("centres", "heights"))
    lengths = np.linalg.norm(np.asarray(one)[:, None] - centres[None], axis=-1) + heights[None]
    np.testing.assert_allclose(cold, -lengths.min(axis=1), atol=1e-3)
    at_a_centre = jax.grad(lambda x: critic.apply(variables, x, train=False).sum())(
        variables["params"]["centres"])
    assert np.isfinite(at_a_centre).all()
