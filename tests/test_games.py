"""A game of one's own in the training loop: an autoencoder of two networks that take turns."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import Game, NetworkState, Term, Value, keys, network_state, update
from jaxgan.data import in_memory
from jaxgan.terms import lazy
from jaxgan.training import Interrupted, Plan, early_stopping, train
from tests.tiny import assert_close, same

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).resolve().parents[1]
DATA = np.float32(np.random.default_rng(0).normal(size=(20, 3)) * [2.0, 1.0, 0.1] + 0.5)
PLAN = {"batch_size": 8, "batches_per_step": 2, "log_every": 1, "checkpoint_every": 2, "devices": 1}


class State(NamedTuple):
    step: jax.Array
    encoder: NetworkState
    decoder: NetworkState


class Sight(NamedTuple):
    """What the terms see: no GAN's view."""

    samples: jax.Array
    rebuilt: jax.Array
    codes: jax.Array
    step: jax.Array


def spread(sight, state):
    """How far the codes' mean is from where it used to be."""
    return Value(jnp.square(sight.codes).mean(), {"level": jnp.square(sight.codes).mean(),
                                                  "average": state["average"]})


TERMS = (
    Term("error", lambda sight, state: jnp.square(sight.rebuilt - sight.samples).mean()),
    lazy(Term("spread", spread, 0.01, lambda: {"average": jnp.float32(0.0)},
              lambda state, observed: {"average": 0.5 * state["average"] + 0.5 * observed["level"]}), 2),
)
MODULES = {"encoder": nn.Dense(1), "decoder": nn.Dense(3)}
OPTIMIZER = optax.adam(0.05)


def looking(state, name, samples, key, axis_name):
    """From one network's parameters to what its terms see."""
    noise = 0.1 * keys.normal(keys.example_keys(key, len(samples), axis_name), (1,))

    def see(params):
        encoder, decoder = (params if name == other else getattr(state, other).params
                            for other in MODULES)
        codes = MODULES["encoder"].apply({"params": encoder}, samples)
        rebuilt = MODULES["decoder"].apply({"params": decoder}, codes + noise)
        return Sight(samples, rebuilt, codes, state.step), {}

    return see


def init(key, batch):
    inputs = {"encoder": batch.samples, "decoder": batch.samples[:, :1]}
    bare = State(jnp.int32(0), *(
        network_state(module.init(keys.stream(key, name), inputs[name]), OPTIMIZER)
        for name, module in MODULES.items()))
    return bare._replace(**{name: network_state(
        getattr(bare, name).variables, OPTIMIZER, TERMS, looking(bare, name, batch.samples, key, None),
        name=name) for name in MODULES})


def step(state, batches, key, *, axis_name=None):
    metrics = {}
    for index, name in enumerate(MODULES):
        see = looking(state, name, batches.samples[index], keys.stream(key, name), axis_name)
        network, found = update(getattr(state, name), OPTIMIZER, TERMS, see, name=name,
                                axis_name=axis_name)
        state, metrics = state._replace(**{name: network}), metrics | found
    return state._replace(step=state.step + 1), metrics


GAME = Game(init, step, lambda state: {name: getattr(state, name).params for name in MODULES})


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps that nothing interrupted: its state, its result, its folder."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return *train(GAME, DATA, folder, steps=6, **PLAN), folder


def test_arrays_and_a_path_are_enough(whole):
    state, result, folder = whole
    assert state.step == result["steps"] == 6
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5, 6]
    assert rows(folder)[-1].keys() >= {
        "encoder/loss", "encoder/gradient_norm", "encoder/error", "encoder/error_weight",
        "encoder/spread", "encoder/spread_weight", "encoder/average", "decoder/loss"}
    assert rows(folder)[-1]["encoder/spread_weight"] == pytest.approx(0.02)
    assert json.loads((folder / "result.json").read_text())["params_sha256"] == result["params_sha256"]
    assert not list(folder.glob("samples/*"))  # there is nothing to show of a game that draws none
    assert result["final"]["decoder/error"] < rows(folder)[0]["decoder/error"]
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["sample_shape"] == [3]
    assert settings["batch_size"] == 8


def test_a_plan_or_its_fields(tmp_path, whole):
    state, _ = train(GAME, in_memory(DATA), tmp_path / "run", Plan(steps=6, **PLAN))
    assert same(state, whole[0])
    for given in ({}, {"plan": Plan(steps=6, **PLAN), "steps": 3}):
        with pytest.raises(ValueError, match="give a Plan or its fields, steps=500 for example; got"):
            train(GAME, DATA, tmp_path / "other", **given)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_killed_run_comes_to_the_same_bits(tmp_path, whole):
    """Killed by the system in the middle, and gone on with here."""
    code = (f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
            "from tests.test_games import train, GAME, DATA, PLAN, killed_at\n"
            f"train(GAME, DATA, {str(tmp_path / 'run')!r}, steps=6, callbacks=[killed_at(5)], **PLAN)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    state, result = train(GAME, DATA, tmp_path / "run", steps=6, resume="auto", **PLAN)
    assert same(state, whole[0])
    assert result["leaves_sha256"] == whole[1]["leaves_sha256"]
    assert rows(tmp_path / "run") == rows(whole[2])


def killed_at(number):
    def callback(moment):
        if moment.step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return callback


def test_many_devices_do_what_one_does(tmp_path, whole):
    state, result = train(GAME, DATA, tmp_path / "run", steps=6, **PLAN | {"devices": 2})
    assert_close(state, whole[0], 1e-4, 1e-5)
    assert_close(result["final"], whole[1]["final"], 1e-3, 1e-4)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state._replace(step=state.step + 0.5),
     r"step returns another state than it is given: \.step is int32\[\] before and float32\[\] after"),
    (lambda state: state._replace(encoder=state.encoder._replace(terms=())),
     r"\.encoder\.terms\['spread'\].* is .* before and absent after"),
    (lambda state: state._replace(decoder=state.decoder._replace(params={
        **state.decoder.params, "bias": jnp.zeros(4)})), r"'\] is float32\[3\] before and float32\[4\]"),
    (lambda state: {"step": state.step}, r"returns another state than it is given"),
], ids=["dtype", "absent", "shape", "structure"])
def test_a_step_that_returns_another_state_is_refused(change, message, tmp_path):
    def other(state, batches, key, *, axis_name=None):
        state, metrics = step(state, batches, key, axis_name=axis_name)
        return change(state), metrics

    with pytest.raises(ValueError, match=message):
        train(GAME._replace(step=other), DATA, tmp_path / "run", steps=2, **PLAN)


def test_a_game_that_does_not_count_its_steps_is_refused(tmp_path):
    """It would train on one batch for ever, and its checkpoints would be of no step."""
    def still(state, batches, key, *, axis_name=None):
        after, metrics = step(state, batches, key, axis_name=axis_name)
        return after._replace(step=state.step), metrics

    with pytest.raises(ValueError, match=r"must add 1 to state\.step; after 1 from 0 it is 0"):
        train(GAME._replace(step=still), DATA, tmp_path / "run", steps=2, **PLAN)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_misspelt_field_of_a_plan_is_named(tmp_path):
    with pytest.raises(ValueError, match="unknown field of a plan 'step': did you mean steps"):
        train(GAME, DATA, tmp_path / "run", step=2)


# Callbacks.

def test_callbacks_are_told_what_was_done(tmp_path):
    told = []

    def tell(moment):
        told.append((moment.kind, moment.step))
        assert int(moment.state.step) == moment.step
        assert [row["step"] for row in moment.rows] == [2, 4, 6][:moment.step // 2]
        assert ("score" in moment.metrics) == (moment.step in (4, 6))
        assert moment.rows[-1].items() >= {"step": moment.step}.items()
        assert "encoder/loss" in moment.metrics

    _, result = train(GAME, DATA, tmp_path / "run", steps=6, callbacks=[tell, tell],
                      evaluate=lambda state, tick: {"score": float(state.step)}, eval_every=4,
                      **PLAN | {"log_every": 2, "checkpoint_every": 4})
    assert told[::2] == told[1::2]
    assert told[::2] == [("log", 2), ("log", 4), ("evaluation", 4), ("checkpoint", 4),
                         ("log", 6), ("evaluation", 6), ("checkpoint", 6)]
    assert "stopped" not in result


def test_a_callback_stops_the_run_with_a_checkpoint(tmp_path, whole):
    asked = []

    def enough(moment):
        asked.append(moment.step)
        return moment.step == 3

    state, result = train(GAME, DATA, tmp_path / "run", steps=6, callbacks=[enough], **PLAN)
    assert state.step == result["steps"] == 3
    assert result["stopped"] is True
    # It is finished, for those who stop it, and goes on for those who don't.
    asked.clear()
    again, found = train(GAME, DATA, tmp_path / "run", steps=6, callbacks=[enough], resume="auto",
                         **PLAN)
    assert same(again, state)
    assert found == result
    assert asked == []
    longer, found = train(GAME, DATA, tmp_path / "run", steps=6, resume="latest", **PLAN)
    assert same(longer, whole[0])
    assert "stopped" not in found
    assert rows(tmp_path / "run") == rows(whole[2])


SCORES = {0: 5.0, 2: 3.0, 4: 1.0, 6: 2.0, 8: 1.5, 10: 0.5, 12: 0.1}  # the best before a pause is at 4


def scored(state, tick):
    return {"score": SCORES[int(state.step)]}


STOPPING = PLAN | {"steps": 12, "eval_every": 2, "log_every": 2, "evaluate": scored}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that is stopped early, at step 8."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    return *train(GAME, DATA, folder, callbacks=[early_stopping("score", 2)], **STOPPING), folder


def test_early_stopping(stopped, tmp_path):
    state, result, folder = stopped
    assert state.step == result["steps"] == 8
    assert [row["score"] for row in rows(folder)] == [3.0, 1.0, 2.0, 1.5]
    _, highest = train(GAME, DATA, tmp_path / "run",
                       callbacks=[early_stopping("score", 1, highest=True)], **STOPPING)
    assert highest["steps"] == 4


def crash(kind, number):
    def callback(moment):
        if (moment.kind, moment.step) == (kind, number):
            raise RuntimeError("the machine is gone")

    return callback


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number", "checkpoint_every"), [
    ("evaluation", 6, 5), ("checkpoint", 6, 2), ("log", 8, 2), ("evaluation", 8, 5),
    ("checkpoint", 8, 2), ("checkpoint", 8, 5)])
def test_early_stopping_of_a_run_that_crashed(kind, number, checkpoint_every, stopped, tmp_path):
    """It counts in what was logged: it stops where it would have."""
    options, stop = STOPPING | {"checkpoint_every": checkpoint_every}, early_stopping("score", 2)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        train(GAME, DATA, tmp_path / "run", callbacks=[crash(kind, number), stop], **options)
    state, result = train(GAME, DATA, tmp_path / "run", callbacks=[stop], resume="auto", **options)
    assert result["steps"] == 8
    assert same(state, stopped[0])
    assert rows(tmp_path / "run") == rows(stopped[2])


@pytest.mark.parametrize(("number", "best_metric"), [(2, None), (6, "score"), (8, None), (8, "score")])
def test_early_stopping_of_a_run_that_was_told_to_stop(number, best_metric, stopped, tmp_path):
    """By a signal in an evaluation, which the resumed run begins with."""
    def told(state, tick):
        if state.step == number:
            os.kill(os.getpid(), signal.SIGTERM)
            tick()
        return scored(state, tick)

    stop, options = early_stopping("score", 2), STOPPING | {"best_metric": best_metric}
    with pytest.raises(Interrupted) as caught:
        train(GAME, DATA, tmp_path / "run", callbacks=[stop], **options | {"evaluate": told})
    assert (caught.value.step, caught.value.signal) == (number, signal.SIGTERM)
    state, result = train(GAME, DATA, tmp_path / "run", callbacks=[stop], resume="auto", **options)
    assert result["steps"] == 8
    assert same(state, stopped[0])
    assert rows(tmp_path / "run") == rows(stopped[2])


def test_early_stopping_of_a_run_whose_time_was_over(stopped, tmp_path):
    stop = early_stopping("score", 2)
    with pytest.raises(Interrupted) as caught:
        train(GAME, DATA, tmp_path / "run", callbacks=[stop], max_hours=1e-9, **STOPPING)
    assert caught.value.signal is None
    state, result = train(GAME, DATA, tmp_path / "run", callbacks=[stop], resume="auto", **STOPPING)
    assert result["steps"] == 8
    assert same(state, stopped[0])


def test_what_early_stopping_cannot_watch(tmp_path):
    with pytest.raises(ValueError, match="patience must be at least 1; got 0"):
        early_stopping("score", 0)
    with pytest.raises(ValueError, match=r"no metric is called 'scoer': did you mean score\?"):
        train(GAME, DATA, tmp_path / "run", callbacks=[early_stopping("scoer", 1)], **STOPPING)


# A first state of one's own.

@pytest.mark.slow
def test_the_first_state_may_be_changed(tmp_path, whole):
    def centred(state):
        params = {**state.decoder.params, "bias": jnp.full(3, 0.5)}
        return state._replace(decoder=state.decoder._replace(params=params))

    state, _ = train(GAME, DATA, tmp_path / "run", steps=2, initial=centred, **PLAN)
    assert not same(state.decoder.params, whole[0].decoder.params)
    parts, _ = train(GAME, DATA, tmp_path / "run", steps=4, initial=centred, resume="latest", **PLAN)
    straight, _ = train(GAME, DATA, tmp_path / "straight", steps=4, initial=centred, **PLAN)
    assert same(parts, straight)
    assert float(jnp.abs(straight.decoder.params["bias"] - 0.5).max()) < 0.5  # 4 steps of Adam


def test_the_first_state_may_come_from_numpy(tmp_path, whole):
    """From a file, say: numbers that are no tracer's."""
    def restored(state):
        kernel = np.asarray(state.decoder.params["kernel"])
        return state._replace(decoder=state.decoder._replace(
            params={**state.decoder.params, "kernel": kernel}))

    state, _ = train(GAME, DATA, tmp_path / "run", steps=6, initial=restored, **PLAN)
    assert same(state, whole[0])


@pytest.mark.parametrize("change", [
    lambda state: state._replace(step=jnp.float32(0)),
    lambda state: state.encoder,
    lambda state: state._replace(encoder=state.encoder._replace(params={
        **state.encoder.params, "bias": jnp.zeros(2)})),
], ids=["dtype", "structure", "shape"])
def test_another_first_state_is_refused(change, tmp_path):
    with pytest.raises(ValueError, match="initial must return a state of the same structure, shapes"):
        train(GAME, DATA, tmp_path / "run", steps=2, initial=change, **PLAN)


@pytest.mark.parametrize(("data", "error", "message"), [
    (np.zeros((0, 3), np.float32), ValueError, "arrays of one length, at least 1; got the shapes"),
    (np.zeros((20, 3), complex), TypeError, "samples must be numbers; got complex128"),
    (np.zeros((20, 3), np.int32), ValueError, "all values are 0: there is nothing to learn from them"),
    (DATA[:4], ValueError, "batch_size 8 is larger than the data set, which has 4 examples"),
])
def test_arrays_that_cannot_be_trained_on(data, error, message, tmp_path):
    with pytest.raises(error, match=message):
        train(GAME, data, tmp_path / "run", steps=2, **PLAN)


def test_a_lazy_term_needs_to_see():
    with pytest.raises(ValueError, match="the term spread is due once in 2 updates: give"):
        network_state({"params": {}}, OPTIMIZER, TERMS)
