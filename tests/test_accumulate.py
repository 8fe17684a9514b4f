"""A batch in parts, one after the other, is the batch up to the order of sums, in less memory."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Critic, Generator, points, tiny

from jaxgan import (
    critic_step,
    data_parallel,
    generator_step,
    init_state,
    keys,
    losses,
    network_state,
    penalties,
    train_step,
    update,
)
from jaxgan.augment import chain, instance_noise, packed
from jaxgan.critics import critic_game
from jaxgan.networks import part_of
from jaxgan.nn.norms import weight_layer
from jaxgan.regularisers import latent_consistency, lecam
from jaxgan.tasks import feature_matching, localisation
from jaxgan.terms import Term, lazy
from jaxgan.types import Batch
from jaxgan.weighting import gradnorm, uncertainty
from tests.test_flags import make as make_by_flags
from tests.test_terms import Judge, Maker, example, make, tracked
from tests.test_training import TINY, run_here

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(5)
COUNT = 8


class Mixing(nn.Module):
    """Scores that are compared with the batch's mean."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        scores = nn.Dense(1)(samples).squeeze(-1)
        return scores - 0.5 * scores.mean()


class Spectral(nn.Module):
    """Scores by dense layers under spectral normalisation."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        x = nn.softplus(weight_layer("spectral", nn.Dense(6), samples, train=train))
        return weight_layer("spectral", nn.Dense(1), x, train=train).squeeze(-1)


def close(found, expected):
    """Asserts that no array of a state differs by more than two millionths of its largest value."""
    for (a, b), tolerance in zip(zip(found, expected, strict=True), (2e-6, 2e-5), strict=True):
        jax.tree.map(lambda x, y, tolerance=tolerance: np.testing.assert_allclose(
            x, y, rtol=0, atol=tolerance * max(1.0, np.abs(y).max())), a, b)


def box(condition):
    return condition["box"]


BY_SCORES = {  # of points, without a condition
    "hinge, r1 + r2, in packs": {
        "loss": losses.hinge(), "augment": chain([instance_noise(0.3), packed(2)]),
        "penalty": penalties.combine(penalties.r1(0.5), penalties.r2(0.3))},
    "spectral, lecam, zcr": {
        "loss": losses.least_squares(), "penalty": None, "critic": Spectral(), "ema_decay": 0.5,
        "critic_terms": (lecam(decay=0.5),), "tasks": (latent_consistency(),), "generator_batches": 2},
    "gradient penalty": {},
    "relativistic, lazy dragan": {"loss": losses.relativistic(),
                                  "penalty": lazy(penalties.dragan(0.3), 2)},
}
WITH_HEADS = {
    "fed by the backward pass": make(critic_terms=(tracked(),), critic=Judge(drop="by example"),
                                     generator=Maker(noise=0.3)),
    "uncertainty": make(weighting=uncertainty(0.1), tasks=(localisation(box=box),)),
    "gradnorm": make(weighting=gradnorm(), tasks=(localisation(box=box),)),
}
CASES = {name: (tiny(**changes), points) for name, changes in BY_SCORES.items()} | {
    name: (gan, lambda *shape, seed: example(seed, *shape[:-1])) for name, gan in WITH_HEADS.items()}
QUICK = {"gradient penalty"}


def trained(gan, state, draw, devices=1, steps=2):
    """The state after some iterations of two critic updates, and the last one's metrics."""
    step, metrics = partial(train_step, gan), {}
    step = (jax.jit(step) if devices == 1
            else data_parallel(step, devices=jax.devices()[:devices], batch_axis=1))
    for index in range(steps):
        state, metrics = step(state, draw(2, COUNT, seed=index), jax.random.fold_in(KEY, index))
    return state, metrics


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
                                  for name in CASES])
def test_parts_give_what_the_batch_gives(name):
    """Parameters, statistics, averages, the states of terms and weightings, and the metrics."""
    whole, draw = CASES[name]
    gan = dataclasses.replace(whole, accumulate=2 if "packs" in name else 4)
    first = jax.jit(partial(init_state, gan))(KEY, draw(COUNT, seed=0))
    expected = trained(whole, first, draw)
    for network in ("critic", "generator"):
        assert optax.tree.norm(jax.tree.map(jnp.subtract, *(
            getattr(state, network).params for state in (first, expected[0])))) > 1e-3
    close(trained(gan, first, draw), expected)
    if "packs" in name:
        close(trained(dataclasses.replace(gan, accumulate=2), first, draw, devices=2), expected)


def test_each_part_draws_as_its_place_in_the_batch_says():
    """The keys of a part are the batch's, and a device's part follows the device's others."""
    whole = jax.random.key_data(keys.example_keys(KEY, 12))
    for part in range(3):
        np.testing.assert_array_equal(jax.random.key_data(keys.example_keys(KEY, 4, None, part, 3)),
                                      whole[4 * part:4 * part + 4])
    found = jax.pmap(lambda _: jax.random.key_data(keys.example_keys(KEY, 2, "devices", 1, 3)),
                     "devices", devices=jax.devices()[:2])(jnp.arange(2))
    np.testing.assert_array_equal(found, [whole[2:4], whole[8:10]])
    apart = {jax.random.key_data(keys.device_key(KEY, None, part, 3)).tobytes() for part in range(3)}
    assert len(apart) == 3


def test_batch_normalisation_is_of_the_parts():
    """Its first layer's average mean is the batch's; the mean variance of the parts is less."""
    gan = tiny(generator=Generator(norm=True), penalty=None)
    state = jax.jit(partial(init_state, gan))(KEY, points(COUNT))
    whole, parts = (jax.jit(partial(generator_step, dataclasses.replace(gan, accumulate=count)))(
        state, points(COUNT), KEY)[0].generator.stats["batch_stats"]["BatchNorm_0"] for count in (1, 4))
    np.testing.assert_allclose(parts["mean"], whole["mean"], rtol=1e-5, atol=1e-7)
    assert (parts["var"] < whole["var"]).all()


def test_a_game_of_ones_own_cuts_its_batches():
    """The gradient of mean((w x)^2) by w, which starts at 1, over parts of 0, 1, ..., 5."""
    terms = (Term("square", lambda view, state: jnp.square(view).mean()),)
    network = network_state({"params": {"w": jnp.ones(())}, "counts": {"calls": jnp.int32(7)}},
                            optax.sgd(0.1), terms)

    def see(params, part):
        return params["w"] * part_of(jnp.arange(6.0), part, 3), {"counts": {"calls": 8 + part}}

    after, metrics = jax.jit(lambda network: update(
        network, optax.sgd(0.1), terms, see, name="it", accumulate=3))(network)
    assert float(metrics["it/loss"]) == pytest.approx(55 / 6)
    assert float(after.params["w"]) == pytest.approx(1 - 0.1 * 2 * 55 / 6)
    assert after.stats["counts"]["calls"] == 8  # the first part's


def memory(gan, batch):
    """Bytes that a critic's update takes besides its arguments."""
    state = jax.eval_shape(partial(init_state, gan), KEY, batch)
    return jax.jit(partial(critic_step, gan)).lower(
        state, batch, KEY).compile().memory_analysis().temp_size_in_bytes


def test_parts_take_less_memory():
    whole, parts = (memory(tiny(accumulate=count), points(4096)) for count in (1, 8))
    assert parts < whole / 4


@pytest.mark.parametrize(("gan", "message"), [
    (tiny(loss=losses.relativistic_average(), accumulate=2),
     "the generator's term adversarial can't be computed: it takes what is said of other samples over "
     "the whole batch, which comes in 2 parts one after the other: set accumulate to 1"),
    (make(tasks=(feature_matching(),), accumulate=2),
     "the generator's term feature_matching can't be computed: it takes a mean over the whole batch"),
    (tiny(accumulate=3), "a batch of 8 examples on a device can't be cut into 3 equal parts: choose"),
    (tiny(critic=Mixing(), penalty=None, accumulate=2),
     "the critic's scores depend on the other samples of the batch, of which accumulate 2 shows it"),
])
def test_what_parts_would_change_is_refused(gan, message):
    batch = example(0) if gan.tasks else points(COUNT)
    with pytest.raises(ValueError, match=message):
        init_state(gan, KEY, batch)
    if gan.critic == Mixing():
        init_state(dataclasses.replace(gan, across_batch=True), KEY, batch)


def test_numbers_of_parts_that_cannot_be():
    with pytest.raises(ValueError, match="accumulate must be at least 1; got 0"):
        tiny(accumulate=0)
    with pytest.raises(ValueError, match="accumulate must be at least 1; got 0"):
        update(None, optax.sgd(0.1), (), None, name="it", accumulate=0)
    with pytest.raises(ValueError, match="fakes_at_once takes the memory that accumulate 2 saves"):
        train_step(tiny(accumulate=2), None, points(2, 4), KEY, fakes_at_once=True)


def test_a_critic_alone_and_its_flag():
    """The critic of a pair of sets, and what the experiments make of the flag."""
    whole, parts = (critic_game(Critic(), optax.sgd(0.1), accumulate=count) for count in (1, 2))
    pair = Batch((points(4).samples, points(4, seed=5).samples))
    state = whole.init(KEY, pair)
    found, expected = (jax.jit(game.step)(state, jax.tree.map(lambda x: x[None], pair), KEY)
                       for game in (parts, whole))
    close(found, expected)
    assert make_by_flags(accumulate=4).accumulate == 4


@pytest.mark.parametrize(("words", "message"), [
    (("--accumulate", 3),
     "batch_size 8 on 1 device can't be cut into 3 equal parts, as accumulate says: choose a mult"),
    (("--accumulate", 4, "--pack", 4),
     "batch_size 8 on 1 device in 4 parts can't be shown in packs of 4: choose a multiple of 16"),
    (("--accumulate", 2, "--fakes-at-once"), "fakes_at_once takes the memory that accumulate 2 saves"),
    (("--accumulate", 0), "accumulate must be at least 1; got 0"),
])
def test_flags_that_cannot_be(words, message, tmp_path, capsys):
    assert run_here("gaussians", *TINY, "--batch-size", 8, "--run-dir", tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
