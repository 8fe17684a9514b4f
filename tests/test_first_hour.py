"""What a new user meets: what is said before, beside and after a run, and what a slip leaves behind."""

import io
import json
import re
import shutil
import warnings

import jax
import numpy as np
import pytest

from experiments import (
    classifier,
    compare,
    convert_inception,
    evaluate,
    launch,
    list,
    opening,
    reproduce,
    sample,
)
from jaxgan import console
from jaxgan.outlook import About, Outlook, duration
from jaxgan.plans import Plan
from tests.test_measuring import QUICK, tool
from tests.test_training import TINY, result, run_here

pytestmark = pytest.mark.usefixtures("own_cache")
LOOKS_AT_CURVES = True


# The progress bar.

SAID = "critic/loss -0.0123, generator/loss 1.23, critic/wasserstein 0.231"


def shown(ncols, total=1000, count=450, said=SAID, **options):
    """The last line of a bar so wide, after ten seconds."""
    stream = io.StringIO()
    with console.Bar(total, file=stream, ncols=ncols, disable=False, mininterval=0, leave=False,
                     ascii=" #", postfix=said, **options) as bar:
        bar._time = lambda: bar.start_t + 10
        bar.update(count)
        line = stream.getvalue().split("\r")[-1]
    assert len(line) <= ncols
    return line


@pytest.mark.parametrize(("ncols", "left"), [(60, 1), (80, 1), (110, 2), (130, 3)])
@pytest.mark.parametrize(("total", "count"), [(1000, 450), (200_000, 10_003), (200_000, 3)])
def test_a_bar_keeps_what_matters_and_drops_whole_words(ncols, left, total, count):
    line = shown(ncols, total, count, unit="step")
    assert re.search(r"\|[ #]{4,}\|", line)
    assert re.search(r"\d+\.\d\d(step/s|s/step)", line)
    assert re.search(r"<[\d:]+,|[\d:]+ left,", line)
    said = re.sub(r"^.*?(critic/loss)", r"\1", line).rstrip(" ]").split(", ")
    assert said == SAID.split(", ")[:len(said)]
    assert len(said) >= min(left, 2 if total > 1000 else left)


def test_a_wide_bar_says_all_and_counts():
    assert shown(160).endswith(f"{SAID}]")
    assert " 450/1000 [00:10<00:12, 45.00it/s, critic/loss" in shown(160)


def test_a_bar_is_not_shown_before_it_has_a_pace():
    stream = io.StringIO()
    with console.Bar(None, file=stream, ncols=80, disable=False, mininterval=0, delay=1e-9,
                     desc="reals", unit="sample") as bar:
        assert stream.getvalue() == ""
        bar.update(64)
        assert "reals: 64sample [00:00, " in stream.getvalue()
        assert "?" not in stream.getvalue()


# What is said before and beside a run.

@pytest.mark.parametrize(("seconds", "said"), [
    (0.2, "0.2 seconds"), (119, "119 seconds"), (120, "2 minutes"), (754, "13 minutes"),
    (9000, "2.5 hours"), (86400, "24 hours"), (2.26e6, "26 days")])
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_how_long_it_takes_is_said_once(capsys):
    """Steps of 2 seconds: 98 of them are left when the second one is done."""
    outlook = Outlook(Plan(steps=100, batch_size=8), About())
    for step, counted, seconds in ((1, 0, 0.0), (2, 1, 2.0), (3, 2, 4.0)):
        outlook(step, counted, seconds)
    assert capsys.readouterr().err == "time      about 3.3 minutes for 98 steps more, 0.5 a second\n"


@pytest.mark.parametrize(("platform", "seconds", "is_long"), [
    ("cpu", 0.8, False), ("cpu", 1.0, True), ("gpu", 1.0, False), ("gpu", 7.0, True)])
def test_days_are_warned_of_with_what_makes_them_fewer(platform, seconds, is_long, monkeypatch):
    """A hundred thousand steps; a day has 86,400 seconds."""
    device = type("Device", (), {"platform": platform})
    outlook = Outlook(Plan(steps=100_002, batch_size=8), About(shorter="--preset laptop"))
    monkeypatch.setattr(jax, "devices", lambda: [device])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        outlook(2, 1, seconds)
    assert [str(warning.message) for warning in warned] == (
        [f"this will take {duration(1e5 * seconds)}: make it shorter with --preset laptop"] * is_long)


def test_only_the_first_process_speaks(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    Outlook(Plan(steps=100, batch_size=8), About())(2, 1, 1e6)
    with console.Bar(3) as bar:
        assert bar.disable
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "words", "data", "preset"), [
    ("mnist", (), "mnist", "--preset laptop, "), ("digits", (), "digits", ""),
    ("images", ("--folder", "pictures"), "pictures", "--preset laptop, "),
    ("arrays", ("--file", "a.npy"), "a.npy", "")])
def test_what_experiments_say_of_themselves(name, words, data, preset):
    experiment = opening.load(name)
    assert launch.about(experiment, launch.parse(experiment, words)) == (
        data, f"{preset}fewer --steps or a smaller --width or --batch-size", "")


FLAGS = (*TINY, *QUICK, "--eval-every", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory, own_cache):
    """The folder of a run of two steps, which went on for two more."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert run_here("digits", *FLAGS, "--steps", 2, "--run-dir", folder) == 0
    assert run_here("digits", *FLAGS, "--steps", 4, "--resume", "auto", "--run-dir", folder) == 0
    return folder


def test_a_run_says_first_what_it_trains_on_what(tmp_path, capsys):
    folder = tmp_path / "run"
    for steps, begin, flag in ((2, "begins", "--decay-steps 2"),
                               (4, "goes on from step 2", "--change decay_steps=4")):
        assert run_here("digits", *TINY, "--steps", steps, "--resume", "auto", "--run-dir", folder) == 0
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"run       {folder} {begin}, {steps} steps in all"
        assert lines[1] == "data      digits: 1438 samples of shape 8x8x1, 10 classes"
        state = opening.open_run(folder).state
        sizes = [sum(leaf.size for leaf in jax.tree.leaves(network.params))
                 for network in (state.critic, state.generator)]
        assert lines[2] == "networks  critic {:,} parameters, generator {:,} parameters".format(*sizes)
        assert re.fullmatch(r"device    cpu, \d+ cores", lines[3])
        assert lines[4] == f"look at   {folder}/samples, tensorboard --logdir {folder}"
        assert lines[5] == ("warning: the learning rate falls to 0 over 6000 steps, and the run ends at "
                            f"step {steps}: give {flag} as well, to have it fall in time")


def test_a_run_ends_with_five_lines_and_a_report(run, capsys):
    """A finished run says them again."""
    assert run_here("digits", *FLAGS, "--steps", 4, "--resume", "auto", "--run-dir", run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    found = result(run)
    assert lines[0].startswith(f"{run}: 4 steps in ")
    assert lines[0].endswith(f", params_sha256 {found['params_sha256'][:12]}")
    picture, report = re.fullmatch(r"look at (.*?)(?: and .*/report.html)?; all numbers are in (.*)",
                                   lines[1]).groups()
    assert picture == str(run / "samples" / "step_00000004.png")
    evaluated = json.loads((run / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    for line, title, name in ((lines[2], "raw Frechet distance", "raw/fd"),
                              (lines[3], "sliced Wasserstein distance", "swd")):
        assert re.split(" {2,}", line) == [title, f"{evaluated[name]['value']:.4g}",
                                           f"held-out reals {evaluated[name]['floor']:.4g}"]
    assert lines[4].split() == ["critic/wasserstein", f"{found['final']['critic/wasserstein']:.4g}"]
    assert report == str(run / "report.txt")
    text = (run / "report.txt").read_text()
    assert f"params_sha256 {found['params_sha256']}\n" in text
    for name, value in (found["final"] | found["evaluation"]).items():
        number = re.escape(f"{value:.5g}")
        assert re.search(number if name in evaluated else rf"^{name} +{number}$", text, re.MULTILINE)
    assert "359 samples (held-out reals: 359) against 1438 reals of digits train" in text


def test_a_run_without_evaluations_ends_with_what_training_says_of_itself(tmp_path, capsys):
    assert run_here("gaussians", *TINY, "--steps", 2, "--run-dir", tmp_path / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    final = result(tmp_path / "run")["final"]
    assert [re.split(" {2,}", line) for line in lines[2:]] == [
        [name, f"{final[name]:.4g}"]
        for name in ("critic/wasserstein", "critic/input_gradient_mean", "critic/gradient_norm")]


# Files.

def test_comparisons_are_beside_the_runs(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert tool(compare, run) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert printed.endswith(f"\n{run.parent / 'compare.png'}\n")
    assert (run.parent / "compare.txt").read_text() == printed.removesuffix(
        f"{run.parent / 'compare.png'}\n")
    assert (run.parent / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert [*tmp_path.iterdir()] == []


def test_comparisons_in_the_current_folder_are_named_from_there(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "runs" / "a")
    for given in ("runs/a", tmp_path / "runs" / "a"):
        assert tool(compare, given) == 0
        assert capsys.readouterr().out.endswith("\nruns/compare.png\n")


def there(*folders):
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.mark.parametrize(("name", "words"), [
    ("digits", ("--run-dir", "typo/run", "--resume", "latest")),
    ("digits", ("--run-dir", "typo/run", "--resume", "3")),
    ("digits", ("--run-dir", "typo/run", "--resume", "auto", "--change", "seed=1")),
    ("digits", ("--init-from", "typo/run")),
    ("digits", ("--config", "typo/config.json")),
    ("digits", ("--eval-every", "1", "--features", "inception", "--inception", "typo/weights.pth")),
    ("images", ("--folder", "typo")),
    ("conditional", ("--dataset", "folder", "--folder", "typo")),
    ("inpainting", ("--dataset", "folder", "--folder", "typo")),
    ("text", ("--text-file", "typo.txt")),
    ("arrays", ("--file", "typo.npy")),
    ("mnist", ("--data-dir", "typo")),
    ("cifar10", ("--data-dir", "typo")),
    (list, ("typo",)),
    (sample, ("typo/run",)),
    (sample, ("RUN", "--out", "typo/samples.png")),
    (evaluate, ("typo/run",)),
    (evaluate, ("RUN", "--data-dir", "typo", "--images", "typo")),
    (evaluate, ("RUN", "--features", "inception", "--inception", "typo/weights.pth")),
    (evaluate, ("--images", "typo", "--dataset", "digits")),
    (evaluate, ("--images", ".", "--dataset", "folder:typo")),
    (evaluate, ("--images", ".", "--dataset", "digits", "--out", "typo/numbers.json")),
    (evaluate, ("--images", ".", "--dataset", "mnist", "--data-dir", "typo")),
    (compare, ("typo/run",)),
    (compare, ("RUN", "typo/run")),
    (compare, ("RUN", "--out", "typo/compare.png")),
    (reproduce, ("typo/run",)),
    (classifier, ("--dataset", "digits", "--out", "typo/classifier.npz")),
    (classifier, ("--dataset", "folder:typo",)),
    (classifier, ("--dataset", "mnist", "--data-dir", "typo")),
    (convert_inception, ("typo.pth", "weights.npz")),
    (convert_inception, ("RUN/config.json", "typo/weights.npz")),
])
def test_a_mistyped_path_leaves_nothing_behind(name, words, run, tmp_path, monkeypatch, capsys):
    """But a sentence that names it."""
    def offline(*_):
        raise OSError("offline")

    monkeypatch.setattr("jaxgan.data.originals._connect", offline)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    before = there(tmp_path, run.parent)
    words = [word.replace("RUN", str(run)) for word in words]
    if isinstance(name, str):
        status = run_here(name, *TINY, "--steps", "1", *words)
    else:
        status = tool(name, *words)
    printed = capsys.readouterr().err
    assert status == 2, printed
    assert "typo" in printed
    assert len(printed.splitlines()) == 1
    assert there(tmp_path, run.parent) == before


def test_curves_have_held_out_reals_beside(run, tmp_path, monkeypatch):
    """Each number has the floor that its evaluation gave it, and no legend lies over its panel."""
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig",
                        lambda figure, file, **_: figures.append(figure))
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    assert run_here("digits", *FLAGS, "--steps", 4, "--resume", "auto", "--run-dir",
                    tmp_path / "run") == 0
    figure, = figures
    figure.canvas.draw()
    floor = json.loads((run / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    lines = {line.get_label(): (line, axes) for axes in figure.axes for line in axes.lines}
    for name in floor:
        line, axes = lines[name]
        assert line.get_marker() == "o"
        np.testing.assert_array_equal(line.get_xdata(), [2, 4])
        assert any(other.get_linestyle() == "--" and other.get_color() == line.get_color()
                   and [*other.get_ydata()] == [floor[name]["floor"]] * 2 for other in axes.lines)
    for axes in figure.axes:
        assert not axes.get_legend().get_window_extent().overlaps(axes.patch.get_window_extent())
