"""Several runs of one command: --seeds and --sweep, as a user meets them."""

import json
import statistics
from pathlib import Path

import pytest

from experiments import compare, launch, opening, sample, several
from jaxgan.runs import read_config, read_result
from tests.test_experiments import tool

TINY = ("--width", "8", "--batch-size", "8", "--n-critic", "2", "--log-every", "2", "--devices", "1",
        "--sample-every", "0", "--eval-every", "0")
EXPERIMENT = opening.load("gaussians")


def start(*flags):
    """Trains by flags: the exit status."""
    return launch.guarded(launch.start, EXPERIMENT, [*TINY, *map(str, flags)])


def result(folder):
    found = read_result(folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds, four steps long."""
    folder = tmp_path_factory.mktemp("several") / "all"
    assert start("--steps", 4, "--seeds", "0,2", "--run-dir", folder) == 0
    return folder


def test_each_run_is_what_it_is_alone(runs, tmp_path):
    assert {path.name for path in runs.iterdir() if path.is_dir()} == {"seed_0", "seed_2"}
    assert start("--steps", 4, "--seed", 2, "--run-dir", tmp_path / "a") == 0
    there, here = runs / "seed_2", tmp_path / "a"
    assert result(there)["params_sha256"] == result(here)["params_sha256"]
    settings = [read_config(folder)["settings"] for folder in (there, here)]
    assert {name for name in settings[0] if settings[0][name] != settings[1][name]} == {"run_dir"}
    assert [path.name for path in sorted(there.iterdir()) if "tfevents" not in path.name] == [
        path.name for path in sorted(here.iterdir()) if "tfevents" not in path.name]


def test_the_runs_are_summed_up(runs, capsys):
    """Mean and standard deviation, worked out from the results by hand."""
    told = (runs / "compare.txt").read_text().splitlines()
    assert told[0] == "[1] gaussians: 2 runs, step 4"
    assert told[1].strip() == "[1]"  # and nothing of held-out reals
    line = next(line for line in told if line.startswith("critic/loss"))
    values = [result(runs / f"seed_{seed}")["final"]["critic/loss"] for seed in (0, 2)]
    assert f"{statistics.fmean(values):.4g} +- {statistics.stdev(values):.2g}" in line
    assert (runs / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert tool(compare, runs / "seed_0") == 2  # which is for evaluations
    assert "run python -m experiments.evaluate" in capsys.readouterr().err


def test_a_run_of_several_is_sampled_like_any_other(runs, tmp_path):
    out = tmp_path / "samples.png"
    assert tool(sample, runs / "seed_0", "--out", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_they_go_on_and_others_join_them(tmp_path, capsys):
    flags = ("--run-dir", tmp_path / "all")
    assert start("--steps", 2, "--seeds", "0,1", *flags) == 0
    before = result(tmp_path / "all" / "seed_1")["params_sha256"]
    assert start("--steps", 2, "--seeds", "0,1", *flags) == 2
    assert "holds a run at step 2: go on with --resume latest" in capsys.readouterr().err
    assert start("--steps", 2, "--seeds", "1", *flags, "--resume", "latest") == 0
    assert result(tmp_path / "all" / "seed_1")["params_sha256"] == before
    assert start("--steps", 4, "--decay-steps", 4, "--seeds", "0,1,2", *flags, "--resume", "auto") == 2
    assert "decay_steps" in capsys.readouterr().err
    assert start("--steps", 4, "--seeds", "0,1,2", *flags, "--resume", "auto") == 0
    assert [result(tmp_path / "all" / f"seed_{seed}")["steps"] for seed in range(3)] == [4, 4, 4]
    assert start("--steps", 4, "--seed", 1, "--run-dir", tmp_path / "alone") == 0
    assert result(tmp_path / "all" / "seed_1")["params_sha256"] == result(
        tmp_path / "alone")["params_sha256"]


def test_what_runs_have_in_common_is_made_once(tmp_path, monkeypatch):
    """Seeds with the same numbers are one compiled program; each measures for itself."""
    trained = []
    monkeypatch.setattr(launch, "train_lanes", lambda source, lanes, **_: trained.extend(lanes))
    assert start("--steps", 2, "--eval-every", 2, "--seeds", "0,1", "--sweep", "learning_rate=1e-3,2e-3",
                 "--run-dir", tmp_path / "all") == 0
    slow, slow_too, fast, fast_too = trained
    assert slow.game is slow_too.game
    assert fast.game is fast_too.game
    assert slow.game is not fast.game
    assert [lane.numbers for lane in trained] == [{"learning_rate": 1e-3}] * 2 + [
        {"learning_rate": 2e-3}] * 2
    assert len({id(lane.options["evaluate"]) for lane in trained}) == 4


@pytest.mark.slow
def test_numbers_together_are_those_of_each_run_alone(tmp_path):
    sweep = ("--sweep", "learning_rate=1e-3,3e-3", "--sweep", "penalty_weight=0.1,1")
    flags = ("--steps", 3, *sweep, "--optimizer", "rmsprop")
    assert start(*flags, "--together", "--run-dir", tmp_path / "one") == 0
    assert start(*flags, "--sequential", "--run-dir", tmp_path / "other") == 0
    folders = sorted(path.name for path in (tmp_path / "other").iterdir() if path.is_dir())
    assert folders == [f"learning_rate_{rate}_penalty_weight_{weight}" for rate in ("1e-3", "3e-3")
                       for weight in ("0.1", "1")]
    finals = []
    for folder in folders:
        there, here = (result(tmp_path / way / folder)["final"] for way in ("one", "other"))
        assert there == pytest.approx(here, rel=1e-3, abs=1e-4)
        finals.append(here["critic/loss"])
    assert len({*finals}) == 4


@pytest.mark.slow
def test_words_are_one_program_each(tmp_path):
    sweep = ("--sweep", "loss=wasserstein,hinge", "--sweep", "ema_decay=0.9,0.99")
    assert start("--steps", 2, *sweep, "--seeds", "0,1", "--together", "--run-dir",
                 tmp_path / "all") == 0
    each = several.each(launch.parse(EXPERIMENT, []), several.Runs(sweep=sweep[1::2], seeds="0,1"))
    assert [[one.name for one in group] for group in several.grouped(each)] == [
        [f"loss_{loss}_ema_decay_{decay}_seed_{seed}" for decay in ("0.9", "0.99") for seed in range(2)]
        for loss in ("wasserstein", "hinge")]
    for one in each:
        settings = read_config(tmp_path / "all" / one.name)["settings"]
        assert settings["loss"] == one.config.loss.loss
        assert settings["ema_decay"] == one.config.optimiser.ema_decay
        assert settings["seed"] == one.config.schedule.seed


@pytest.mark.slow
def test_evaluations_are_summed_up_as_compare_does(tmp_path, capsys):
    flags = ("--steps", 2, "--eval-every", 2, "--eval-metrics", "modes")
    assert start(*flags, "--seeds", "0,1", "--run-dir", tmp_path / "all") == 0
    told = capsys.readouterr().out.splitlines()
    folders = [tmp_path / "all" / f"seed_{seed}" for seed in (0, 1)]
    assert tool(compare, *folders) == 0
    assert capsys.readouterr().out.splitlines() == told
    values = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    assert len(values) == 2
    assert any("high quality" in line or "modes" in line for line in told)


@pytest.mark.parametrize(("flags", "said"), [
    (("--seeds", ""), "sequential is for several runs"),
    (("--seeds", "0,a"), "seeds must be whole numbers with commas between, like 0,1,2,3; got '0,a'"),
    (("--seeds", "1,2,1"), "seeds holds 1 twice"),
    (("--seeds", "-1"), "seed must be"),
    (("--sweep", "learning_rate"), "sweep must be a setting and its values"),
    (("--sweep", "learning_rat=1"), "unknown setting 'learning_rat'"),
    (("--sweep", "learning_rate=fast"), "learning_rate must be a float; got 'fast'"),
    (("--sweep", "learning_rate=1,1"), "two runs would have the folder learning_rate_1"),
    (("--sweep", "loss=hinge", "--sweep", "loss=minimax"), "sweep names loss twice"),
    (("--sweep", "log_every=1,2"), "log_every doesn't decide what is trained"),
    (("--sweep", "seed=1,2"), "give --seeds"),
    (("--seeds", "0,1", "--together"), "give --sequential or --together, not both"),
    (("--seeds", "0,1", "--distributed"), "several runs at once are for one process"),
], ids=lambda value: "_".join(value) if isinstance(value, tuple) else "")
def test_what_is_amiss_gets_one_sentence(flags, said, tmp_path, capsys):
    """Before anything is written."""
    assert start("--steps", 1, "--sequential", *flags, "--run-dir", tmp_path / "all") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "all").exists()


@pytest.mark.slow
def test_architectures_are_swept_one_after_the_other_alone(tmp_path, capsys):
    flags = ("--steps", 1, "--sweep", "width=8,4")
    assert start(*flags, "--run-dir", tmp_path / "all") == 2
    assert "width is a whole number, which decides what is compiled: give --sequential" in (
        capsys.readouterr().err)
    assert not (tmp_path / "all").exists()
    assert start(*flags, "--sequential", "--run-dir", tmp_path / "all") == 0
    assert {path.name for path in Path(tmp_path / "all").iterdir() if path.is_dir()} == {
        "width_8", "width_4"}


@pytest.mark.slow
def test_a_run_that_diverges_leaves_the_others_to_go_on(tmp_path, capsys):
    flags = ("--steps", 4, "--sweep", "learning_rate=1e-3,1e30", "--sweep", "loss=wasserstein,hinge")
    assert start(*flags, "--run-dir", tmp_path / "all") == 2
    printed = capsys.readouterr()
    said, = (line for line in printed.err.splitlines() if line.startswith("error"))
    for loss in ("wasserstein", "hinge"):
        assert f"learning_rate_1e30_loss_{loss}: training diverged" in said
        assert result(tmp_path / "all" / f"learning_rate_1e-3_loss_{loss}")["steps"] == 4
    assert printed.out.splitlines()[:2] == ["[1] loss wasserstein: 1 run, step 4",
                                            "[2] loss hinge: 1 run, step 4"]


def test_numbers_that_decide_what_is_computed_are_refused_together(tmp_path, capsys):
    flags = ("--steps", 1, "--sweep", "clip=0,0.01", "--run-dir", tmp_path / "all")
    assert start(*flags, "--together") == 2
    assert "clip can't differ within one program" in capsys.readouterr().err
