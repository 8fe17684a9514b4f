"""What decides what a run computes is recorded, compared when a run goes on, and named if it differs."""

import functools
import json
import subprocess
import sys
import warnings
from importlib.metadata import distributions, version
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from experiments import changing, compare, launch, opening, reproduce, settings
from jaxgan import GAN, Term, keys, losses, penalties, reporting, tasks, training
from jaxgan.augment import instance_noise
from jaxgan.checkpoints import CheckpointError
from jaxgan.descriptions import are_comparable, describe, differences
from jaxgan.digests import json_digest
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.runs import RunError, jax_settings
from jaxgan.training import early_stopping, train
from tests.test_experiments import tool
from tests.test_training import TINY, environment, result, run_here

POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
PLAN = {"batch_size": 8, "devices": 1, "sample_every": 0}


def make(**changes):
    """A small GAN; two calls with the same arguments make what can't be told apart."""
    fields = {"generator": MLPGenerator(hidden=(8,)), "critic": MLPCritic(hidden=(8,)), "latent_size": 2,
              "loss": losses.non_saturating(), "generator_optimizer": optax.adam(1e-3),
              "critic_optimizer": optax.adam(1e-3), "penalty": penalties.gradient_penalty(0.1)}
    return GAN(**fields | changes)


# Descriptions.

@pytest.mark.parametrize(("changes", "path", "there", "here"), [
    ({"generator_optimizer": optax.adam(2e-3)}, "generator_optimizer", -1e-3, -2e-3),
    ({"critic_optimizer": optax.adam(1e-3, b1=0.5)}, "critic_optimizer", 0.9, 0.5),
    ({"penalty": penalties.gradient_penalty(0.2)}, "penalty.weight", 0.1, 0.2),
    ({"penalty": None}, "penalty.name", "penalty", None),
    ({"loss": losses.non_saturating(0.1)}, "loss", 0.0, 0.1),
    ({"ema_decay": 0.9}, "ema_decay", None, 0.9),
    ({"generator": MLPGenerator(hidden=(9,))}, "generator.hidden.0", 8, 9),
    ({"augment": instance_noise(lambda step: 0.25)}, "augment", None, 0.25),
    ({"tasks": (tasks.classification(critic_weight=0.5),)}, "tasks.0.critic.weight", None, 0.5),
    ({"critic_terms": (Term("own", lambda view, state: view.fake.scores.mean()),)},
     "critic_terms.0.name", None, "own"),
])
def test_another_specification_is_described_as_another(changes, path, there, here):
    found = differences(describe(make()), describe(make(**changes)))
    assert [there, here] in [pair for name, pair in found.items() if name.startswith(path)] or (
        "augment" in path and found)  # a function of one's own is told by its code


def test_the_same_specification_is_described_alike_and_as_json():
    described = describe(make(), data={"x": POINTS}, plan={"seed": 0})
    assert described == json.loads(json.dumps(described))
    assert differences(described, describe(make(), data={"x": POINTS.copy()}, plan={"seed": 0})) == {}
    assert list(differences(described, describe(make(), data={"x": POINTS + 1}, plan={"seed": 0}))) == [
        "data.x.sha256"]
    other = {**described, "versions": {**described["versions"], "flax": "0.1"}}
    assert are_comparable(described, describe(make()))
    assert not are_comparable(described, other)


def test_a_package_that_is_not_installed_has_no_version():
    """This one, where it is used from its folder."""
    there = describe(make())["versions"]["jaxgan"]
    assert there == (version("jaxgan") if is_installed("jaxgan") else "")
    assert describe(make())["versions"]["optax"] == version("optax")


def is_installed(name):
    return any(distribution.name == name for distribution in distributions())


def scaled(function, scale):
    @functools.wraps(function)
    def inner(x):
        return scale * function(x)

    return inner


SCALE = 1.0


def uses_a_global(x):
    return SCALE * x


@pytest.mark.parametrize(("one", "other"), [
    (lambda x: x + 1, lambda x: x - 1),
    (lambda x: x + 1, lambda x: x + 2),
    (lambda x=1: x, lambda x=2: x),
    (lambda *, x=1: x, lambda *, x=2: x),
    (lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}),
    (functools.partial(jnp.sum, axis=0), functools.partial(jnp.sum, axis=1)),
    (scaled(jnp.sin, 1.0), scaled(jnp.sin, 2.0)),
    (jax.jit(lambda x: x + 1), jax.jit(lambda x: x - 1)),
    (np.float32([1, 2]), np.float32([1, 3])),
    (jnp.float32([1, 2]), jnp.float16([1, 2])),
    (jax.random.key(0), jax.random.key(1)),
    (nn.Dense(3).apply, nn.Dense(4).apply),
    (float("inf"), float("-inf")),
    ({1: [2, (3, None)]}, {1: [2, (4, None)]}),
    (nn.relu, nn.gelu),
    (True, None),
])
def test_what_a_specification_may_hold_is_told_apart(one, other):
    assert differences(describe(make(), one=one), describe(make(), one=other))
    assert differences(describe(make(), one=one), describe(make(), one=one)) == {}


def test_a_variable_that_a_function_reads_belongs_to_it(monkeypatch):
    before = describe(make(), own=uses_a_global)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert differences(before, describe(make(), own=uses_a_global)) == {"own.SCALE": [1.0, 2.0]}


def test_what_holds_itself_is_described():
    endless = []
    endless.append(endless)
    assert describe(make(), own=endless)["specification"]["own"] == ["..."]


# Runs from Python.

@pytest.mark.slow
def test_a_run_goes_on_with_another_specification_only_if_it_is_named(tmp_path):
    folder = tmp_path / "run"
    train(make(), POINTS, folder, steps=2, **PLAN)

    def go_on(gan, points=POINTS, steps=4, change=(), **plan):
        return train(gan, points, folder, steps=steps, resume="latest", change=change, **PLAN | plan)

    with pytest.raises(CheckpointError, match=r"another specification \(penalty.weight is 0.1 there and "
                                              r"0.2 here\): if that is meant, name it"):
        go_on(make(penalty=penalties.gradient_penalty(0.2)))
    with pytest.raises(RunError, match="was trained on other data than these"):
        go_on(make(), POINTS + 1)
    with pytest.raises(RunError, match="batch_size is 8 there and 16 here"):
        go_on(make(), batch_size=16)
    with pytest.raises(CheckpointError, match="generator_optimizer"):
        go_on(make(generator_optimizer=optax.adam(1e-4), penalty=None), change=["penalty"])
    assert "changes" not in json.loads((folder / "config.json").read_text())
    go_on(make(penalty=penalties.gradient_penalty(0.2)), POINTS + 1, change=["penalty", "data"])
    entry, = json.loads((folder / "config.json").read_text())["changes"]
    assert entry["step"] == 2
    assert entry["changed"]["penalty.weight"] == [0.1, 0.2]
    assert {*entry["changed"]} == {"penalty.weight", "data", "data_sha256"}
    with pytest.raises(CheckpointError, match=r"penalty\.weight is 0.2 there and 0.1 here"):
        go_on(make(), POINTS + 1, 6)
    go_on(make(), batch_size=16, steps=6, change=["specification"])
    manifest = json.loads((folder / "checkpoints" / "00000002" / "manifest.json").read_text())
    assert manifest["manifest"]["specification"]["specification"]["penalty"]["weight"] == 0.1


def test_what_other_versions_described_is_warned_of(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(make(), POINTS, folder, steps=2, **PLAN)
    monkeypatch.setattr("jaxgan.descriptions.version", lambda name: "99")
    with pytest.warns(UserWarning, match=r"saved by other versions .*\(penalty\.weight is 0.1 there"):
        train(make(penalty=penalties.gradient_penalty(0.2)), POINTS, folder, steps=4, resume="latest",
              **PLAN)


# Runs of experiments.

@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A run that was begun, and went on twice with other settings."""
    folder = tmp_path_factory.mktemp("changed") / "run"
    flags = ("--preset", "paper", *TINY, "--log-every", 1, "--run-dir", folder)
    assert run_here("gaussians", *flags, "--steps", 2) == 0
    assert run_here("gaussians", *flags, "--steps", 4, "--resume", "latest",
                    "--change", "learning_rate=1e-2, loss=hinge") == 0
    assert run_here("gaussians", *flags, "--steps", 5, "--resume", "latest") == 0
    assert run_here("gaussians", *flags, "--steps", 6, "--resume", "auto", "--change",
                    "learning_rate=0.02") == 0
    return folder, flags


@pytest.mark.slow
def test_a_change_is_recorded_and_stays(changed):
    config = json.loads((changed[0] / "config.json").read_text())
    assert config["changes"] == [
        {"step": 2, "changed": {"learning_rate": [1e-4, 1e-2], "loss": ["wasserstein", "hinge"]}},
        {"step": 5, "changed": {"learning_rate": [1e-2, 2e-2]}}]
    assert config["settings"]["learning_rate"] == 2e-2
    opened = opening.open_run(changed[0])
    assert opened.config.loss.loss == "hinge"
    manifest = json.loads((changed[0] / "checkpoints" / "00000004" / "manifest.json").read_text())
    assert manifest["manifest"]["configuration"]["learning_rate"] == 1e-2


@pytest.mark.slow
def test_a_changed_run_is_reproduced(changed, capsys):
    assert tool(reproduce, changed[0]) == 0
    assert "identical: 6 logged steps, up to step 6" in capsys.readouterr().out


def test_what_is_not_named_is_refused(changed, capsys):
    _, flags = changed
    assert run_here("gaussians", *flags, "--steps", 8, "--resume", "latest", "--beta1", 0.1,
                    "--change", "loss=minimax") == 2
    assert "(beta1 is 0.5 there and 0.1 here)" in capsys.readouterr().err
    assert run_here("gaussians", *flags, "--steps", 8, "--resume", "latest", "--learning-rate", 3.0) == 2
    assert "(learning_rate is 0.02 there and 3.0 here)" in capsys.readouterr().err


BEFORE = {"decay": "linear", "pack": 1, "rmsprop_eps": "inside"}  # of runs that lack these settings


def forget(folder, step):
    """Takes these settings from a run's files."""
    config = json.loads((folder / "config.json").read_text())
    for name in BEFORE:
        del config["settings"][name]
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "checkpoints" / f"{step:08d}" / "manifest.json"
    body = json.loads(path.read_text())["manifest"]
    for name in BEFORE:
        del body["configuration"][name]
    path.write_text(json.dumps({"manifest": body, "sha256": json_digest(body)}))


@pytest.mark.slow
def test_a_run_that_lacks_later_settings_goes_on_as_it_did(tmp_path, capsys):
    """Without being asked to, and with the arithmetic of then."""
    flags = ("--preset", "paper", *TINY, "--optimizer", "rmsprop", "--log-every", 1)
    whole, old = tmp_path / "whole", tmp_path / "old"
    for folder, steps in ((whole, 2), (old, 1)):
        assert run_here("gaussians", *flags, "--rmsprop-eps", "inside", "--steps", steps, "--run-dir",
                        folder) == 0
    forget(old, 1)
    flags = (*flags, "--run-dir", old, "--resume", "latest")
    assert run_here("gaussians", *flags, "--steps", 2) == 0, capsys.readouterr().err
    assert result(old)["params_sha256"] == result(whole)["params_sha256"]
    config = json.loads((old / "config.json").read_text())
    assert BEFORE.items() <= config["settings"].items()
    assert "changes" not in config
    assert run_here("gaussians", *flags, "--steps", 4, "--decay", "cosine", "--decay-steps", 9) == 2
    assert "decay is 'linear' there and 'cosine' here" in capsys.readouterr().err

    def rule(*more):  # when it goes on once more
        asked = launch.parse(opening.load("gaussians"), [*map(str, flags), *more])
        return changing.effective(asked, {})[0].optimiser.rmsprop_eps

    assert rule() == "inside"
    assert rule("--change", "rmsprop_eps=outside") == "outside"
    assert run_here("gaussians", *flags, "--steps", 4, "--rmsprop-eps", "outside") == 2
    assert "rmsprop_eps is 'inside' there and 'outside' here" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    ("lerning_rate=1", "unknown setting 'lerning_rate': did you mean learning_rate?"),
    ("learning_rate=fast", "learning_rate must be a float; got 'fast'"),
    ("n_critic=1.5", "n_critic must be a int; got '1.5'"),
    ("loss=hing", "loss must be one of wasserstein, "),
    ("remat=yes", "remat must be a bool; got 'yes'"),
    ("learning_rate", "change must be a list like learning_rate=1e-4,n_critic=2; got 'learning_rate'"),
    ("steps=9", "steps may be another one without being named: give --steps"),
    ("loss=hinge", "change is for a run that goes on, and there is no checkpoint in "),
])
def test_changes_that_cannot_be(change, message, tmp_path, capsys):
    assert run_here("gaussians", *TINY, "--steps", 2, "--resume", "auto", "--change", change,
                    "--run-dir", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "value"), [
    ("critic_beta1=0.25", 0.25), ("critic_beta1=None", None), ("remat=True", True),
    ("remat=False", False), ("n_critic=3", 3), ("loss=hinge", "hinge"),
])
def test_a_changed_setting_is_of_its_type(text, value):
    config = opening.load("gaussians").configure(change=text)
    found, = changing.asked(config).values()
    assert found == value
    assert type(found) is type(value)
    name = text.partition("=")[0]
    assert settings.flat(settings.replace(config, **{name: found}))[name] == value


def test_values_follow_the_history():
    history = [{"step": 2, "changed": {"a": [0, 1]}}, {"step": 5, "changed": {"a": [1, 2], "b": [7, 8]}}]
    assert [changing.values_at(history, step) for step in (0, 2, 4, 5, 9)] == [
        {"a": 0, "b": 7}, {"a": 1, "b": 7}, {"a": 1, "b": 7}, {"a": 2, "b": 8}, {"a": 2, "b": 8}]


@pytest.mark.parametrize("changes", [
    3, [3], [{"step": "x", "changed": {}}], [{"step": 1, "changed": 3}],
    [{"step": 1, "changed": {"a": [1]}}], [{"step": -1, "changed": {}}],
])
def test_a_history_that_is_none(changes, changed, tmp_path):
    content = json.loads((changed[0] / "config.json").read_text()) | {"changes": changes}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="must be a list of steps and of settings"):
        changing.read_history(tmp_path)


@pytest.mark.slow
@pytest.mark.slow
def test_runs_that_changed_or_of_other_lengths_are_no_seeds_of_one(changed, tmp_path, capsys):
    flags = (*TINY, "--eval-every", 2, "--eval-metrics", "swd", "--loss", "hinge")
    folders = [tmp_path / str(i) for i in range(4)]
    for folder, steps, seed in zip(folders, (2, 2, 4, 4), (0, 1, 0, 1), strict=True):
        assert run_here("gaussians", *flags, "--steps", steps, "--seed", seed, "--run-dir", folder) == 0
    config = json.loads((folders[3] / "config.json").read_text())
    config["changes"] = [{"step": 2, "changed": {"loss": ["minimax", "hinge"]}}]
    (folders[3] / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert tool(compare, *folders, "--out", tmp_path / "c.png") == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "[1] gaussians, step 2: 2 runs, step 2", "[2] gaussians, step 4: 1 run, step 4",
        "[3] changed at 2: 1 run, step 4"]


# Settings of jax, and seeds.

def test_keys_whose_draws_depend_on_the_batch_are_refused():
    key = jax.random.key(0, impl="rbg")
    together = jax.vmap(jax.random.normal)(jax.random.split(key, 2))
    alone = jax.vmap(jax.random.normal)(jax.random.split(key, 2)[1:])
    assert together[1] != alone[0]  # why
    with pytest.raises(ValueError, match="keys of the kind rbg don't draw by example"):
        keys.stream(key, "data")


@pytest.mark.slow
def test_a_run_under_other_settings_of_jax_is_refused_and_named(tmp_path, capsys):
    flags = (*TINY, "--log-every", 1, "--run-dir", tmp_path / "run")
    assert run_here("gaussians", *flags, "--steps", 2) == 0
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    assert config["jax_settings"] == jax_settings()
    with jax.threefry_partitionable(not jax_settings()["threefry_partitionable"]):
        assert run_here("gaussians", *flags, "--steps", 4, "--resume", "latest") == 2
        assert "for jax's setting jax_threefry_partitionable, which is False here: set JAX_THREEFRY_" \
            "PARTITIONABLE=True" in capsys.readouterr().err
        assert tool(reproduce, path.parent) == 1
    assert "environment: threefry_partitionable was True, is False" in capsys.readouterr().out
    del config["jax_settings"]  # a run of the first release doesn't say
    path.write_text(json.dumps(config))
    assert run_here("gaussians", *flags, "--steps", 4, "--resume", "latest") == 0


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5, 2**63, 2**64])
def test_seeds_that_jax_takes_for_others_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed must be from 0 to 4294967295; got {seed}"):
        keys.of_seed(seed)
    with pytest.raises(ValueError, match="seed must be from 0 to"):
        training.Plan(steps=1, seed=seed, devices=1)


def test_the_last_seed_is_one_of_its_own():
    assert jax.random.key_data(keys.of_seed(2**32 - 1)).tolist() == [0, 2**32 - 1]


# Schedules that end before the run.

def test_a_longer_run_has_its_learning_rate_fall_to_its_end():
    digits = opening.load("digits")
    with pytest.warns(UserWarning, match="decay_steps is 20000, as steps is: by default it is 6000"):
        assert launch.parse(digits, ["--steps", "20000"]).optimiser.decay_steps == 20000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in (["--steps", "20000", "--decay-steps", "6000"],
                          ["--steps", "20000", "--decay_steps=6000"], ["--steps", "200"], []):
            assert launch.parse(digits, arguments).optimiser.decay_steps == 6000


def test_an_effect_that_ends_before_the_run_is_said(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run_here("gaussians", *TINY, "--steps", 4, "--decay-steps", 2, "--input-noise", 0.1,
                        "--input-noise-steps", 3, "--run-dir", tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "warning: the learning rate is 0 from step 2 on, and the run goes on to step 4" in said
    assert "warning: the input noise is 0 from step 3 on, and the run goes on to step 4" in said


def test_a_run_that_goes_on_ends_where_it_was_to_and_what_is_recommended_works(tmp_path, capsys):
    flags = (*TINY, "--run-dir", tmp_path / "run")
    digits = opening.load("digits")
    assert run_here("digits", *flags, "--steps", 3) == 0
    again = (*flags, "--resume", "latest")
    capsys.readouterr()
    assert launch.parse(digits, [*map(str, again)]).schedule.steps == 3
    assert capsys.readouterr().err == (
        "the run goes on to step 3, as it was to: give --steps for another end\n")
    assert launch.parse(digits, [*map(str, again), "--steps=5"]).schedule.steps == 5
    assert launch.parse(digits, [*map(str, flags), "--resume", "auto", "--run-dir", "new"]
                        ).schedule.steps == digits.Config().schedule.steps
    assert capsys.readouterr().err == ""
    for steps, said in ((4, "falls to 0 over 6000 steps"), (6, "is 0 from step 5 on")):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert run_here("digits", *again, "--steps", steps) == 0
        warned = next(line for line in capsys.readouterr().err.splitlines() if said in line)
        assert f" give --change decay_steps={steps}" in warned
        assert run_here("digits", *again, "--steps", steps + 1, "--change",
                        f"decay_steps={steps + 1}") == 0
        assert "learning rate" not in capsys.readouterr().err


def test_a_longer_run_that_goes_on_keeps_its_schedule(tmp_path, capsys):
    flags = (*TINY, "--run-dir", tmp_path / "run")
    digits = opening.load("digits")
    launch.run(digits, launch.parse(digits, [*map(str, flags), "--steps", "2"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        going_on = launch.parse(digits, [*map(str, flags), "--steps", "7000", "--resume", "latest"])
    assert going_on.optimiser.decay_steps == 6000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("decay_steps", 10**12), ("input_noise_steps", 5 * 10**9)])
def test_schedules_longer_than_any_count(name, steps, tmp_path):
    extra = ("--input-noise", 0.1) if name == "input_noise_steps" else ()
    assert run_here("gaussians", *TINY, *extra, "--steps", 2, f"--{name.replace('_', '-')}", steps,
                    "--run-dir", tmp_path / "run") == 0


# What can't work is found out before the first step.

def refused(message, folder, **options):
    """That the run is refused before anything is trained."""
    with pytest.raises((ValueError, TypeError), match=message):
        train(make(), POINTS, folder, steps=4, **PLAN | options)
    assert not (folder / "checkpoints").exists()
    assert not (folder / "metrics.jsonl").read_text()


def test_a_picture_that_is_none(tmp_path):
    refused(r"must be a picture, uint8 \[height, width, 3\], or text; got float32\[4, 4, 3\]",
            tmp_path / "a", picture=lambda state: np.zeros((4, 4, 3), np.float32))
    refused("or text; got None", tmp_path / "b", picture=lambda state: None)


def test_an_evaluation_that_cannot_work(tmp_path):
    refused("evaluate must return numbers by name; got oops", tmp_path / "a", eval_every=2,
            evaluate=lambda state, tick: "oops")


def test_a_metric_that_is_watched_and_not_there(tmp_path):
    evaluate = {"eval_every": 2, "evaluate": lambda state, tick: {"score": 1.0}}
    refused("no metric is called 'scoer': did you mean score?", tmp_path / "a", best_metric="scoer",
            **evaluate)
    refused("no metric is called 'scoer'", tmp_path / "b", callbacks=[early_stopping("scoer", 1)],
            **evaluate)
    refused("no metric is called 'critic/los': did you mean critic/loss?", tmp_path / "c",
            best_metric="critic/los")
    train(make(), POINTS, tmp_path / "d", steps=4, best_metric="critic/loss", **PLAN)


def test_a_longer_evaluation_is_rehearsed_in_its_own_way(tmp_path):
    called = []

    def evaluate(state, tick):
        called.append(int(state.step))
        return {"score": 1.0}

    evaluate.rehearse = lambda state: {"score"}
    train(make(), POINTS, tmp_path / "run", steps=4, eval_every=2, evaluate=evaluate,
          best_metric="score", **PLAN)
    assert called == [2, 4]


def test_an_experiments_metrics_are_rehearsed(tmp_path, capsys):
    flags = (*TINY, "--steps", 2, "--eval-every", 2, "--eval-metrics", "swd", "--run-dir",
             tmp_path / "r")
    assert run_here("gaussians", *flags, "--best-metric", "sdw") == 2
    assert "no metric is called 'sdw': did you mean swd?" in capsys.readouterr().err
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_another_process_does_not_say_that_an_evaluation_is_missing(tmp_path, monkeypatch):
    """It may have read the log before the first process cut it, or not have it at all."""
    log = SimpleNamespace(metrics=lambda: [{"step": 4}])
    report = reporting.Reporter(None, log, training.Plan(steps=4, eval_every=2, devices=1), None, 0,
                                None, None, None, ())
    assert report.is_behind(2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert not report.is_behind(2)


def test_a_platform_that_is_not_there_is_one_sentence(tmp_path):
    done = subprocess.run([sys.executable, "-m", "experiments.gaussians", *TINY, "--run-dir",
                           tmp_path / "run"], capture_output=True, text=True, check=False, timeout=300,
                          env=environment() | {"JAX_PLATFORMS": "cuda"})
    assert done.returncode == 2
    assert done.stderr.startswith("error: jax has no device of the platform 'cuda', which ")
    assert len(done.stderr.splitlines()) == 1
