"""Several runs at once, each of which is what it is alone."""

import dataclasses
import os
import signal

import jax
import numpy as np
import optax
import pytest

from experiments import opening
from jaxgan import Batch, penalties
from jaxgan import game as game_of
from jaxgan.data import Dataset, in_memory, streaming
from jaxgan.lanes import Lane, Together, alike, train_lanes, train_seeds
from jaxgan.runs import read_logs
from jaxgan.terms import lazy
from jaxgan.training import Interrupted, NotFiniteError, Plan, train
from tests.tiny import points, tiny

POINTS = np.asarray(points(40).samples)
GENTLE = tiny(penalty=penalties.gradient_penalty(0.5))
SHORT = {"batch_size": 8, "n_critic": 2, "log_every": 2, "checkpoint_every": 4, "devices": 1}


def alone(gan, folder, source=POINTS, **planned):
    """A run by itself: its final state and what came out."""
    return train(gan, source, folder, **SHORT | planned)


def steps(folder):
    """Those of which a run has checkpoints."""
    return [int(path.name) for path in sorted(folder.glob("checkpoints/0*"))]


def largest_difference(one, other):
    """Over all the parameters of two states."""
    pairs = zip(jax.tree.leaves(game_of(tiny()).networks(one)),
                jax.tree.leaves(game_of(tiny()).networks(other)), strict=True)
    return max(float(abs(a - b).max()) for a, b in pairs)


def test_one_after_the_other_each_has_the_bits_that_it_has_alone(tmp_path):
    done = train_seeds(GENTLE, POINTS, tmp_path / "all", (3, 0), steps=6, **SHORT)
    assert [*done] == ["seed_3", "seed_0"]
    for seed in (0, 3):
        _, expected = alone(GENTLE, tmp_path / f"alone_{seed}", steps=6, seed=seed)
        assert done[f"seed_{seed}"][1]["params_sha256"] == expected["params_sha256"]
        assert read_logs(tmp_path / "all" / f"seed_{seed}") == read_logs(tmp_path / f"alone_{seed}")
    assert done["seed_0"][1]["params_sha256"] != done["seed_3"][1]["params_sha256"]


@pytest.mark.parametrize("streams", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_together_they_agree_with_each_alone_after_twenty_steps(streams, tmp_path):
    """With a penalty that is due in every fourth update, and data that come in windows."""
    gan = tiny(penalty=lazy(penalties.gradient_penalty(0.5), 4), ema_decay=0.9)
    source = in_memory(POINTS)
    if streams:
        images = np.random.default_rng(0).integers(256, size=(40, 1, 1, 2), dtype=np.uint8)
        source = streaming(Dataset("dots", images, np.zeros(40, np.int32), ("dot",)))
        source = source._replace(draw=flat(source.draw), sample_shape=(2,))
    done = train_seeds(gan, source, tmp_path / "all", range(3), together=True, steps=20, **SHORT)
    for seed in range(3):
        state, _ = alone(gan, tmp_path / f"alone_{seed}", source, steps=20, seed=seed)
        assert largest_difference(done[f"seed_{seed}"][0], state) < 1e-5
        metrics, _ = read_logs(tmp_path / "all" / f"seed_{seed}")
        expected, _ = read_logs(tmp_path / f"alone_{seed}")
        assert [row["step"] for row in metrics] == [row["step"] for row in expected]
        for row, other in zip(metrics, expected, strict=True):
            assert row == pytest.approx(other, abs=1e-5)


def flat(draw):
    """Draws images of one pixel of two channels as points."""
    def drawn(*arguments):
        batch = draw(*arguments)
        return batch._replace(samples=batch.samples.reshape(-1, 2))
    return drawn


def test_what_is_due_in_some_updates_is_computed_in_no_others():
    """One program of several lanes branches as that of one does."""
    gan = tiny(penalty=lazy(penalties.gradient_penalty(), 4))
    source, plan = in_memory(POINTS), Plan(steps=1, **SHORT)
    game = game_of(gan)
    lanes = [Lane(name, game, "", plan) for name in "ab"]
    states = tuple(game.init(jax.random.key(seed), points(8)) for seed in range(2))
    together = Together(game, source, lanes, None)
    common = alike(states)
    assert sum(common) == 2  # the step, and the updates of the critic, which has a lazy term
    program = jax.make_jaxpr(together.steps, static_argnums=0)(
        (common, None), states, source.arrays, jax.random.split(jax.random.key(0), 2), 1, {})
    assert " cond[" in str(program)


@pytest.mark.parametrize("together", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lanes_go_on_from_where_each_was_saved(together, tmp_path, monkeypatch):
    """One of them was trained further by itself; another is new. Those behind catch up first."""
    step, advanced = Together.__call__, []

    def spy(self, dues, count):
        advanced.append(({due.step for due in dues.values()}, len(dues)))
        return step(self, dues, count)

    monkeypatch.setattr(Together, "__call__", spy)
    how = {"together": together}
    train_seeds(GENTLE, POINTS, tmp_path / "all", (0, 1), steps=4, **how, **SHORT)
    alone(GENTLE, tmp_path / "all" / "seed_1", steps=8, seed=1, resume="latest")
    done = train_seeds(GENTLE, POINTS, tmp_path / "all", range(3), steps=12, options={"resume": "auto"},
                       **how, **SHORT)
    if together:
        at_once = {at: size for steps, size in advanced for at in steps}
        assert (at_once[0], at_once[4], at_once[8]) == (1, 2, 3)
    for seed in range(3):
        state, expected = alone(GENTLE, tmp_path / f"alone_{seed}", steps=12, seed=seed)
        assert [row["step"] for row in read_logs(tmp_path / "all" / f"seed_{seed}")[0]] == [
            2, 4, 6, 8, 10, 12]
        if together:
            assert largest_difference(done[f"seed_{seed}"][0], state) < 1e-5
        else:
            assert done[f"seed_{seed}"][1]["params_sha256"] == expected["params_sha256"]


@pytest.mark.parametrize("together", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_signal_ends_all_lanes_and_each_is_saved(together, tmp_path):
    def end(moment):
        if moment.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    def go(**options):
        return train_seeds(GENTLE, POINTS, tmp_path / "all", (0, 1), steps=12, together=together,
                           options=options, **SHORT)

    with pytest.raises(Interrupted) as stop:
        go(callbacks=[end])
    assert stop.value.resume == "auto"
    # By itself it is told of the signal after its next steps; the second lane, at once.
    saved = {seed: steps(tmp_path / "all" / f"seed_{seed}") for seed in range(2)}
    assert saved == ({0: [4, 6], 1: [4, 6]} if together else {0: [4, 8], 1: []})
    done = go(resume="auto")
    for seed in range(2):
        _, expected = train(GENTLE, POINTS, tmp_path / f"alone_{seed}", steps=12, seed=seed, **SHORT)
        result = done[f"seed_{seed}"][1]
        assert result["steps"] == 12
        assert result["final"] == pytest.approx(expected["final"], abs=1e-5 if together else 0)
        logged, _ = read_logs(tmp_path / "all" / f"seed_{seed}")
        assert [row["step"] for row in logged] == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_a_lane_that_diverges_leaves_the_others_to_go_on(together, tmp_path):
    def make(rate):
        return tiny(penalty=GENTLE.penalty, critic_optimizer=optax.sgd(rate))

    rates = {"good": 0.1, "bad": 1e30, "slow": 0.01}
    lanes = [Lane(name, make(rate), tmp_path / name, Plan(steps=6, **SHORT), {}, {"rate": rate})
             for name, rate in rates.items()]
    ended = {}
    with pytest.raises(NotFiniteError, match=r"^bad: training diverged.* 2 of 3 runs are trained"):
        train_lanes(in_memory(POINTS), lanes, together=together, remake=lambda numbers: make(**numbers),
                    ended=ended.__setitem__)
    assert {*ended} == {"good", "slow"}
    for name in ended:
        _, expected = alone(make(rates[name]), tmp_path / f"{name}_alone", steps=6)
        assert ended[name]["steps"] == 6
        assert ended[name]["final"] == pytest.approx(expected["final"], abs=0 if not together else 1e-5)
    assert ended["good"]["params_sha256"] != ended["slow"]["params_sha256"]


@pytest.mark.slow
def test_a_lane_that_stops_early_leaves_the_others_to_go_on(tmp_path):
    def stop(moment):
        return moment.step == 2

    plan = Plan(steps=6, **SHORT)
    done = train_lanes(in_memory(POINTS), [
        Lane("short", GENTLE, tmp_path / "short", plan, {"callbacks": [stop]}),
        Lane("long", GENTLE, tmp_path / "long", plan)], together=True)
    assert {name: result["steps"] for name, (_, result) in done.items()} == {"short": 2, "long": 6}
    assert done["short"][1]["stopped"]


@pytest.mark.slow
def test_devices_take_lanes_in_turn(tmp_path):
    wide = SHORT | {"devices": 2}
    done = train_seeds(GENTLE, POINTS, tmp_path / "all", range(3), together=True, steps=4, **wide)
    devices = [next(iter(jax.tree.leaves(done[f"seed_{seed}"][0])[0].devices())) for seed in range(3)]
    assert devices == [*jax.devices()[:2], jax.devices()[0]]
    for seed in range(3):
        state, _ = alone(GENTLE, tmp_path / f"alone_{seed}", steps=4, seed=seed)
        assert largest_difference(done[f"seed_{seed}"][0], state) < 1e-5


def test_lines_begin_with_the_name_of_their_lane(tmp_path, capsys):
    train_seeds(GENTLE, POINTS, tmp_path, (0, 1), together=True, steps=2, **SHORT)
    lines = capsys.readouterr().err.splitlines()
    assert {line.partition(": ")[0] for line in lines} == {"seed_0", "seed_1"}
    assert sum(": run  " in line for line in lines) == 1  # one tells of the beginning
    assert [line for line in lines if "seed_1: step 2 of 2" in line]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(("experiment", "preset", "shape", "changes"), [
    ("digits", "dcgan", (8, 8, 1), {"width": 4}),
    ("cifar10", "resnet", (8, 8, 3), {"width": 4}),
    ("r3gan", "", (8, 8, 1), {"width": "8,8"}),
    ("stylegan2", "", (8, 8, 1), {"width": 8, "base": 64, "w_size": 8}),
    ("pix2pix", "", (8, 8, 1), {"width": 4}),
])
def test_networks_with_convolutions_agree_together_too(experiment, preset, shape, changes, tmp_path):
    """Kernels of one lane each, which `vmap` makes those of grouped convolutions."""
    made = opening.load(experiment)
    config = made.configure(preset, **changes, batch_size=4)
    gan = dataclasses.replace(made.make_game(config, shape), critic_optimizer=optax.sgd(1e-3),
                              generator_optimizer=optax.sgd(1e-3), generator_batches=1)
    draw = np.random.default_rng(0).uniform(-1, 1, size=(2, 16, *shape)).astype(np.float32)
    source = in_memory(Batch(draw[0], draw[1]) if experiment == "pix2pix" else draw[0])
    how = SHORT | {"batch_size": 4, "n_critic": 1, "log_every": 20, "steps": 20}
    done = train_seeds(gan, source, tmp_path / "all", range(2), together=True, **how)
    for seed in range(2):
        state, _ = train(gan, source, tmp_path / f"alone_{seed}", seed=seed, **how)
        assert largest_difference(done[f"seed_{seed}"][0], state) < 1e-5


def test_bad_lanes_get_one_sentence(tmp_path):
    source, plan = in_memory(POINTS), Plan(steps=2, **SHORT)
    with pytest.raises(ValueError, match=r"seeds must be .*; got \[\]"):
        train_seeds(GENTLE, POINTS, tmp_path, (), steps=2, **SHORT)
    with pytest.raises(ValueError, match=r"each once; got \[1, 1\]"):
        train_seeds(GENTLE, POINTS, tmp_path, (1, 1), steps=2, **SHORT)
    with pytest.raises(ValueError, match="names of their own"):
        train_lanes(source, [Lane("a", tiny(), tmp_path / "a", plan)] * 2)
    other = Plan(steps=2, **SHORT | {"batch_size": 4})
    with pytest.raises(ValueError, match=r"batches of one size; got \[\(4, 2\), \(8, 2\)\]"):
        train_lanes(source, [Lane("a", tiny(), tmp_path / "a", plan),
                             Lane("b", tiny(), tmp_path / "b", other)])
    lanes = [Lane(name, tiny(), tmp_path / name, plan) for name in "ab"]
    with pytest.raises(ValueError, match="one program must have one game, or differ in numbers"):
        train_lanes(source, lanes, together=True)
    lanes[1] = lanes[1]._replace(numbers={"size": 3.0})
    with pytest.raises(ValueError, match=r"numbers of the same names; got \[\(\), \('size',\)\]"):
        train_lanes(source, lanes, together=True, remake=lambda numbers: tiny())
    lanes = [Lane(name, tiny(), tmp_path / name, plan, {}, {"size": size})
             for name, size in (("a", 3.0), ("b", 4.0))]
    with pytest.raises(ValueError, match=r"size can't differ within one program.*--sequential"):
        train_lanes(source, lanes, together=True, remake=lambda numbers: tiny(
            latent_size=int(numbers["size"])))
