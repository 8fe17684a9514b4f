"""CycleGAN as a game: its losses by hand, its history, several devices, resuming."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import losses
from jaxgan.cycles import cycle_game, remember, translate
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.parallel import data_parallel
from jaxgan.training import Plan, train
from jaxgan.types import Batch
from tests.tiny import assert_close, same

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(2)
SOURCE = np.array([[1.0, 2.0], [-3.0, 0.5]], np.float32)
TARGET = np.array([[0.0, 4.0], [2.0, -1.0]], np.float32)


class Times(nn.Module):
    """Samples times a number that is learned."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        return self.param("scale", nn.initializers.constant(2.0), ()) * samples


class Sum(nn.Module):
    """A sample's sum, times a number that is learned."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        return self.param("scale", nn.initializers.constant(0.5), ()) * samples.sum(-1)


def started(**options):
    """A game of these and its state, with F(x) = 2x, G(y) = 3y, D_X(x) = 0.5 sum(x), D_Y(y) = sum(y)."""
    game = cycle_game(Times(), Sum(), optax.sgd(0.01), optax.sgd(0.0), **options)
    state = game.init(KEY, Batch(TARGET, SOURCE))
    generator, critic = state.generator, state.critic
    return game, state._replace(
        generator=generator._replace(params={"forward": {"scale": jnp.float32(2)},
                                             "backward": {"scale": jnp.float32(3)}}),
        critic=critic._replace(params={"source": {"scale": jnp.float32(0.5)},
                                       "target": {"scale": jnp.float32(1)}}))


def once(game, state, key=KEY, *batches):
    batches = batches or (Batch(TARGET, SOURCE),)
    return jax.jit(game.step)(state, jax.tree.map(lambda *x: jnp.stack(x), *batches), key)


def test_the_losses_and_the_first_update_by_hand():
    game, state = started()
    after, metrics = once(game, state)
    fake_target, fake_source = 2 * SOURCE, 3 * TARGET
    square = np.mean((fake_target.sum(1) - 1)**2) + np.mean((0.5 * fake_source.sum(1) - 1)**2)
    cycle = np.abs(6 * SOURCE - SOURCE).mean() + np.abs(6 * TARGET - TARGET).mean()
    identity = np.abs(2 * TARGET - TARGET).mean() + np.abs(3 * SOURCE - SOURCE).mean()
    assert metrics["generator/adversarial"] == pytest.approx(square / 2)
    assert metrics["generator/cycle"] == pytest.approx(cycle)
    assert metrics["generator/identity"] == pytest.approx(identity)
    assert metrics["generator/loss"] == pytest.approx(square + 10 * cycle + 5 * identity)
    of_critics = (np.mean((TARGET.sum(1) - 1)**2) + np.mean((fake_target.sum(1))**2)
                  + np.mean((0.5 * SOURCE.sum(1) - 1)**2) + np.mean((0.5 * fake_source.sum(1))**2)) / 2
    assert metrics["critic/loss"] == pytest.approx(of_critics)
    assert metrics["critic/real_score"] == pytest.approx(
        (TARGET.sum(1).mean() + 0.5 * SOURCE.sum(1).mean()) / 2)
    slope = 2 * np.mean((fake_target.sum(1) - 1) * SOURCE.sum(1)) + 5 * np.abs(TARGET).mean() + 10 * (
        3 * np.abs(SOURCE).mean() + 3 * np.abs(TARGET).mean())
    assert after.generator.params["forward"]["scale"] == pytest.approx(2 - 0.01 * slope, rel=1e-5)
    assert same(after.critic.params, state.critic.params)
    assert int(after.step) == 1


def test_other_losses_and_weights():
    game, state = started(loss=losses.non_saturating(), adversarial_weight=1.0, cycle_weight=0.5,
                          identity_weight=0.0, history_size=0)
    _, metrics = once(game, state)
    surprise = sum(np.log1p(np.exp(-scores)).mean()
                   for scores in (2 * SOURCE.sum(1), 1.5 * TARGET.sum(1)))
    assert metrics["generator/adversarial"] == pytest.approx(surprise, rel=1e-5)
    assert "generator/identity" not in metrics
    cycle = 5 * (np.abs(SOURCE).mean() + np.abs(TARGET).mean())
    assert metrics["generator/loss"] == pytest.approx(surprise + 0.5 * cycle, rel=1e-5)


def test_samples_are_translations_both_ways_by_the_average_if_there_is_one():
    game, state = started(ema_decay=0.9)
    state = state._replace(ema={"params": {"forward": {"scale": jnp.float32(-1)},
                                           "backward": {"scale": jnp.float32(7)}}})
    np.testing.assert_allclose(game.sample(state, KEY, 2, SOURCE), -SOURCE)
    np.testing.assert_allclose(translate(Times(), state, TARGET, direction="backward"), 7 * TARGET)
    after, _ = once(game, state)
    decay = 2 / 11  # (1 + step) / (10 + step), early on
    assert after.ema["params"]["forward"]["scale"] == pytest.approx(
        decay * -1 + (1 - decay) * float(after.generator.params["forward"]["scale"]), rel=1e-5)
    np.testing.assert_allclose(game.sample(state._replace(ema=None), KEY, 2, SOURCE), 2 * SOURCE)
    with pytest.raises(ValueError, match="give the images to translate as the condition"):
        game.sample(state, KEY, 2)


def test_a_batch_in_parts_is_the_batch():
    """Up to the order of sums; also over two devices, and with the same history."""
    source, target = (jax.random.normal(jax.random.key(i), (8, 2)) for i in (5, 6))
    found = []
    for accumulate, devices in ((1, 1), (2, 1), (4, 1), (2, 2)):
        game, state = started(accumulate=accumulate, history_size=5)
        step = game.step if devices == 1 else data_parallel(
            game.step, devices=jax.devices()[:devices], batch_axis=1)
        batches = jax.tree.map(lambda x: x[None], Batch(target, source))
        for index in range(2):
            state, metrics = jax.jit(step)(state, batches, jax.random.fold_in(KEY, index))
        found.append((state.generator.params, state.critic.params, state.history, metrics))
    for other in found[1:]:
        assert_close(other, found[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="accumulate must be at least 1; got 0"):
        started(accumulate=0)
    with pytest.raises(ValueError, match="across the batch, of which accumulate 2 shows it parts"):
        started(accumulate=2, loss=losses.relativistic_average())


# The history.

def test_the_history_keeps_half_of_what_comes_and_shows_what_it_gives_up():
    new = {"source": jnp.arange(1.0, 201.0), "target": -jnp.arange(1.0, 201.0)}
    history, shown = jax.jit(remember)({name: jnp.zeros(50) for name in new}, new, 0, KEY)
    assert same(shown["source"][:50], new["source"][:50])  # while it fills
    swaps = {}
    for name, values in new.items():
        swaps[name] = np.asarray(shown[name][50:] != values[50:])
        assert 0.35 < swaps[name].mean() < 0.65
        assert (np.abs(shown[name][50:]) <= np.abs(values[50:])).all()
        everything = np.sort(np.concatenate([history[name], shown[name][50:]]))
        np.testing.assert_array_equal(everything, np.sort(values))  # each is shown or still there, once
    assert (swaps["source"] != swaps["target"]).any()  # each domain by chances of its own


def test_the_history_goes_on_where_it_was():
    """In parts as at once while it fills, then with chances that depend on the key alone."""
    new = {"target": jnp.arange(1.0, 41.0)}
    empty = {"target": jnp.zeros(50)}
    first, _ = remember(empty, {"target": new["target"][:30]}, 0, KEY)
    parts, _ = remember(first, {"target": new["target"][30:]}, 30, jax.random.key(8))
    whole, _ = remember(empty, new, 0, KEY)
    assert same(parts, whole)


def test_critics_are_shown_the_past():
    """After many steps of one image, whose translation was another one then."""
    game, state = started(history_size=2)
    state = state._replace(step=jnp.int32(9), history={
        "source": jnp.full((2, 2), 100.0), "target": jnp.full((2, 2), 100.0)})
    step, batches = jax.jit(game.step), Batch(TARGET[None], SOURCE[None])
    scores = [float(step(state, batches, jax.random.key(seed))[1]["critic/fake_score"])
              for seed in range(6)]
    fresh = (2 * SOURCE.sum(1).mean() + 1.5 * TARGET.sum(1).mean()) / 2
    assert max(scores) > fresh + 20


def test_each_batch_is_one_update_of_the_critics_and_fills_the_history_in_turn():
    game, state = started(history_size=4)
    other = Batch(TARGET + 1, SOURCE + 1)
    after, _ = once(game, state, KEY, Batch(TARGET, SOURCE), other)
    np.testing.assert_allclose(after.history["target"], 2 * np.concatenate([SOURCE, SOURCE + 1]))
    np.testing.assert_allclose(after.history["source"], 3 * np.concatenate([TARGET, TARGET + 1]))


# Training.

POINTS = Batch(*np.random.default_rng(0).uniform(-1, 1, (2, 64, 2)).astype(np.float32))


def trained(folder, *, steps=4, devices=1, loss=None, **options):
    game = cycle_game(MLPGenerator((2,), (8,)), MLPCritic((8,)), optax.sgd(0.05), optax.sgd(0.05),
                      loss=loss, history_size=6)
    return train(game, POINTS, folder, Plan(steps=steps, batch_size=8, batches_per_step=2,
                                            devices=devices, log_every=2, checkpoint_every=2),
                 **options)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, losses.relativistic_average()])
def test_two_devices_come_to_what_one_does(loss, tmp_path):
    states = [trained(tmp_path / str(devices), devices=devices, loss=loss)[0] for devices in (1, 2)]
    assert_close(*(state._replace(step=0) for state in states), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_resumed_run_has_the_history_of_one_that_was_not_stopped(tmp_path):
    whole, _ = trained(tmp_path / "whole")
    trained(tmp_path / "parts", steps=2)
    parts, _ = trained(tmp_path / "parts", resume="auto")
    assert same(parts, whole)


@pytest.mark.parametrize(("options", "batch", "message"), [
    ({"history_size": -1}, None, "history_size must not be negative; got -1"),
    ({"cycle_weight": -1.0}, None, "the weight of cycle must be a number from 0 on; got -1.0"),
    ({"identity_weight": np.nan}, None, "the weight of identity must be a number from 0 on; got nan"),
    ({}, Batch(TARGET), r"their condition, as many of the source, .* the condition None"),
    ({}, Batch(TARGET, SOURCE[:, :1]), r"got samples \(2, 2\) and the condition \(2, 1\)")])
def test_what_is_no_game(options, batch, message):
    with pytest.raises(ValueError, match=message):
        cycle_game(Times(), Sum(), optax.sgd(1.0), optax.sgd(1.0), **options).init(KEY, batch)


def test_a_generator_that_makes_other_samples_is_refused():
    with pytest.raises(ValueError, match=r"makes samples of shape \(3,\) of those of shape \(2,\)"):
        cycle_game(MLPGenerator((3,), (4,)), Sum(), optax.sgd(1.0), optax.sgd(1.0)).init(
            KEY, Batch(TARGET, SOURCE))
