"""Weights of another run, taken over, and weights that stay, bit for bit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Critic, Generator, points, same, tiny

from jaxgan import critic_step, game, init_state, penalties, train_step
from jaxgan.training import train
from jaxgan.transfer import fit, freeze, warm_start

KEY = jax.random.key(3)
GAN = tiny(generator=Generator(norm=True), ema_decay=0.9, critic_optimizer=optax.adam(0.1))


@cache
def first(seed):
    """A first state that nothing has trained, but for the statistics, which are told apart."""
    state = jax.jit(partial(init_state, GAN))(jax.random.key(seed), points(4))
    stats = jax.tree.map(lambda x: x + seed, state.generator.stats)
    return state._replace(generator=state.generator._replace(stats=stats))


# Starting from another run.

def test_all_of_a_network_is_taken_over():
    state, other = first(1), first(2)
    started = warm_start({"generator": other.ema, "critic": other.critic.variables})(state)
    assert same(started.critic.variables, other.critic.variables)
    assert same(started.generator.variables, other.ema)
    assert same(started.ema, other.ema)  # from the new generator
    assert started.ema["params"]["Dense_0"]["bias"] is not started.generator.params["Dense_0"]["bias"]
    for network in ("generator", "critic"):
        assert same(getattr(started, network).opt_state, getattr(state, network).opt_state)
    alone = warm_start({"critic": other.critic.variables})(state)
    assert same(alone._replace(critic=state.critic), state)


def test_a_part_is_taken_over_with_a_warning_for_each_misfit():
    state, other = first(1), first(2)
    variables = jax.tree.map(np.asarray, other.generator.variables)
    variables["params"]["Dense_0"] |= {"kernel": np.ones((7, 8), np.float32), "more": np.ones(3)}
    variables["params"]["Dense_1"]["bias"] = variables["params"]["Dense_1"]["bias"].astype(np.float16)
    del variables["batch_stats"]
    with pytest.raises(ValueError, match=r"the weights for the generator fit only in part: .*\['mean'\] "
                                         r"is absent there and float32\[8\] here; .* \(and 2 more\): "
                                         "take those that fit with partial=True"):
        warm_start({"generator": variables})(state)
    with pytest.warns(UserWarning, match="generator: .*") as caught:
        started = warm_start({"generator": variables}, partial=True)(state)
    said = sorted(str(warning.message) for warning in caught)
    assert len(said) == 5
    for words in ("['mean'] is absent there and float32[8] here: left as it was drawn",
                  "['kernel'] is float32[7, 8] there and float32[3, 8] here: left as it was drawn",
                  "['more'] is float64[3] there and absent here",
                  "['bias'] is float16[2] there and float32[2] here: left as it was drawn"):
        assert any(words in line for line in said), (words, said)
    params, here, there = (s.generator.params for s in (started, state, other))
    assert same(params["Dense_0"]["kernel"], here["Dense_0"]["kernel"])
    assert same(params["Dense_0"]["bias"], there["Dense_0"]["bias"])
    assert same(params["Dense_1"]["kernel"], there["Dense_1"]["kernel"])
    assert same(params["Dense_1"]["bias"], here["Dense_1"]["bias"])
    assert same(started.generator.stats, state.generator.stats)
    assert same(started.ema, started.generator.variables)


@pytest.mark.parametrize("only_part", [False, True])
def test_what_fits_nowhere_is_refused(only_part):
    strange = {"params": {"Conv_0": {"kernel": np.ones((3, 3))}}}
    with pytest.raises(ValueError, match=r"weights for the critic fit nowhere: .*Dense_0.* is absent"):
        warm_start({"critic": strange}, partial=only_part)(first(1))
    with pytest.raises(ValueError, match="the state has no network 'critc': choose from step, gener"):
        warm_start({"critc": strange}, partial=only_part)(first(1))


def test_what_fits_is_found_by_path_shape_and_dtype():
    fitted, misfits = fit({"a": jnp.zeros(2), "b": {"c": jnp.zeros(1)}},
                          {"a": np.ones(2, np.float32), "b": {"d": np.ones(1)}})
    assert same(fitted, {"a": jnp.ones(2), "b": {"c": jnp.zeros(1)}})
    assert misfits == ["['b']['c'] is absent there and float32[1] here",
                       "['b']['d'] is float64[1] there and absent here"]


def test_a_run_starts_from_the_weights_of_another(tmp_path):
    data, plan = points(16).samples, {"batch_size": 4, "devices": 1, "steps": 1}
    before, _ = train(GAN, data, tmp_path / "before", **plan)
    asked = []

    def initial(state):
        asked.append(state)
        return warm_start({"critic": before.critic.variables, "generator": before.ema})(state)

    after, _ = train(tiny(generator=Generator(norm=True), ema_decay=0.9, critic_optimizer=optax.sgd(0.0),
                          generator_optimizer=optax.sgd(0.0)), data, tmp_path / "after", seed=1,
                     initial=initial, **plan)
    assert len(asked) >= 1
    assert same(after.critic.params, before.critic.params)
    assert same(after.generator.params, before.ema["params"])


# What stays.

OPTIMIZERS = {
    "sgd": optax.sgd(0.1), "adam": optax.adam(0.1), "momentum": optax.sgd(0.1, momentum=0.9),
    "clipped": optax.chain(optax.rmsprop(0.1), penalties.clip_weights(0.05)),
    "decayed": optax.adamw(0.1, weight_decay=0.5),
}


def bits(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf).tobytes()
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_stay_bit_for_bit(name):
    """Those that are -0.0 as well, which -0.0 + 0.0 would turn into 0.0."""
    gan = tiny(critic=Critic(), critic_optimizer=freeze(OPTIMIZERS[name], "Dense_0"))
    state = init_state(gan, KEY, points(4))
    params = state.critic.params
    params = params | {"Dense_0": {"kernel": params["Dense_0"]["kernel"].at[0].set(-0.0),
                                   "bias": params["Dense_0"]["bias"].at[:3].set(-0.0)}}
    state = state._replace(critic=state.critic._replace(params=params))
    step, after = jax.jit(partial(critic_step, gan)), state
    for index in range(3):
        after, metrics = step(after, points(4, seed=index), jax.random.fold_in(KEY, index))
    before, found = bits(params), bits(after.critic.params)
    assert np.signbit(after.critic.params["Dense_0"]["bias"][:3]).all()
    for path, there in before.items():
        if path.startswith("Dense_0"):
            assert found[path] == there, path
        elif path.endswith("kernel"):
            assert found[path] != there, path
    assert float(metrics["critic/gradient_norm"]) > 0


def test_the_others_move_as_without_it():
    plain, frozen = (tiny(critic_optimizer=optimizer) for optimizer in (
        optax.adam(0.1), freeze(optax.adam(0.1), "Dense_0/kernel")))
    states = [init_state(gan, KEY, points(4)) for gan in (plain, frozen)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])  # checkpoints fit either
    done = [critic_step(gan, state, points(4), KEY)[0].critic.params
            for gan, state in zip((plain, frozen), states, strict=True)]
    assert same(done[0]["Dense_1"], done[1]["Dense_1"])
    assert same(done[0]["Dense_0"]["bias"], done[1]["Dense_0"]["bias"])
    assert same(states[0].critic.params["Dense_0"]["kernel"], done[1]["Dense_0"]["kernel"])


@pytest.mark.parametrize(("patterns", "name", "still"), [
    ("Dense_*", "", {"Dense_0/kernel", "Dense_0/bias", "Dense_1/kernel", "Dense_1/bias"}),
    ("*/bias", "", {"Dense_0/bias", "Dense_1/bias"}),
    (("Dense_0/kernel", "Dense_1"), "", {"Dense_0/kernel", "Dense_1/kernel", "Dense_1/bias"}),
    ("Dense_?/kernel", "", {"Dense_0/kernel", "Dense_1/kernel"}),
    ("critic/Dense_0", "critic", {"Dense_0/kernel", "Dense_0/bias"}),
])
def test_patterns(patterns, name, still):
    params = init_state(tiny(), KEY, points(4)).critic.params
    optimizer = freeze(optax.sgd(1.0), patterns, name=name)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert {path for path, leaf in zip(bits(updates), jax.tree.leaves(updates), strict=True)
            if not leaf.any()} == still


@pytest.mark.parametrize(("patterns", "name", "message"), [
    ("Conv_*", "", r"no parameter matches 'Conv_\*': there are Dense_0/bias, Dense_0/kernel, Dense_1"),
    (("Dense_0", "Dense_0/kernl"), "", "no parameter matches 'Dense_0/kernl'"),
    ("dense_0", "", "no parameter matches 'dense_0'"),
    ("Dense_0", "critic", "no parameter matches 'Dense_0': there are critic/Dense_0/bias"),
])
def test_a_pattern_that_matches_nothing_is_refused(patterns, name, message):
    gan = tiny(critic_optimizer=freeze(optax.sgd(0.1), patterns, name=name))
    with pytest.raises(ValueError, match=message):
        init_state(gan, KEY, points(4))


@pytest.mark.slow
def test_a_frozen_run_is_resumed(tmp_path):
    """In two parts it comes to the bits of one, and the frozen ones are those of the first state."""
    gan = tiny(critic_optimizer=freeze(optax.adam(0.1), "Dense_0"))
    data, plan = points(16).samples, {"batch_size": 4, "devices": 1, "sample_every": 0}
    whole, result = train(gan, data, tmp_path / "whole", steps=4, **plan)
    train(gan, data, tmp_path / "parts", steps=2, **plan)
    parts, resumed = train(gan, data, tmp_path / "parts", steps=4, resume="latest", **plan)
    assert same(whole, parts)
    assert resumed["params_sha256"] == result["params_sha256"]
    begun = game(gan).init(jax.random.key(0), points(4)).critic.params
    assert not same(begun, whole.critic.params)
    moved, _ = train(gan, data, tmp_path / "moved", steps=1, **plan)
    assert same(moved.critic.params["Dense_0"], whole.critic.params["Dense_0"])
    assert not same(moved.critic.params["Dense_1"], whole.critic.params["Dense_1"])


def test_a_frozen_critic_still_teaches():
    gan = tiny(critic_optimizer=freeze(optax.sgd(0.1), "*"))
    state = init_state(gan, KEY, points(4))
    after, _ = train_step(gan, state, points(2, 4), KEY)
    assert same(after.critic.params, state.critic.params)
    assert not same(after.generator.params, state.generator.params)


def test_a_warm_started_run_leaves_the_other_ones_arrays_alone(tmp_path):
    """The loop gives its state's memory away, which was that of the weights that were taken."""
    samples = points(32).samples
    first, _ = train(tiny(), samples, tmp_path / "a", steps=1, batch_size=8, devices=1)
    before = jax.tree.map(lambda x: x.copy(), first.generator.variables)
    train(tiny(), samples, tmp_path / "b", steps=2, batch_size=8, devices=1,
          initial=warm_start({"generator": first.generator.variables}))
    assert same(first.generator.variables, before)
