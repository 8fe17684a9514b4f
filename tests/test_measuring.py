"""`evaluate`, `compare` and evaluations in training, as a user meets them."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tyro
from PIL import Image

from experiments import compare, evaluate, gaussians, launch, measuring, open_run, settings, showing
from jaxgan import evaluation
from jaxgan.data import DataNotFoundError, load
from jaxgan.pictures import load_png
from tests.test_training import TINY, result, rows, run_here

pytestmark = pytest.mark.usefixtures("own_cache")
QUICK = ("--eval-metrics", "fd,swd", "--features", "raw")


def tool(module, *arguments):
    """Runs a command in this process: the exit status."""
    try:
        options = tyro.cli(module.Options, args=list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code
    return launch.guarded(module.main, options)


@pytest.fixture(scope="module")
def run(tmp_path_factory, own_cache):
    """A finished run of four steps, evaluated every two."""
    folder = tmp_path_factory.mktemp("runs") / "seed 0"
    assert run_here("digits", *TINY, *QUICK, "--steps", 4, "--eval-every", 2, "--best-metric", "raw/fd",
                    "--run-dir", folder) == 0
    return folder


def stored(folder):
    return json.loads((folder / "evaluation.json").read_text())["evaluations"]


def test_evaluations_are_logged_kept_and_mark_the_best_checkpoint(run):
    names = {"raw/fd", "swd", "critic/overfitting", "critic/held_out_wasserstein",
             "critic/train_wasserstein", "critic/input_gradient_q05", "critic/input_gradient_q50",
             "critic/input_gradient_q95"}
    assert all(names <= row.keys() for row in rows(run))
    assert not any("swd_8" in row for row in rows(run))  # which would be the same number
    (found,) = stored(run)
    assert found["step"] == 4
    assert found["params_sha256"] == result(run)["params_sha256"]
    assert found["metrics"]["raw/fd"]["value"] == rows(run)[-1]["raw/fd"]
    protocol = found["protocol"]
    assert (protocol["num_real"], protocol["num_fake"], found["floor_count"]) == (1438, 359, 359)
    assert protocol["dataset_digest"] == load("digits").digest
    # Untrained noise is further from digits than digits are.
    assert found["metrics"]["raw/fd"]["value"] > 2 * found["metrics"]["raw/fd"]["floor"] > 0
    steps = {path.name for path in (run / "checkpoints").iterdir()}
    assert steps == {"00000002", "00000004"}  # one at each evaluation


def test_the_result_has_the_evaluation_beside_the_last_iterations_metrics(run):
    found, last = result(run), rows(run)[-1]
    assert last == {"step": 4, **found["final"], **found["evaluation"]}
    assert not found["final"].keys() & found["evaluation"].keys()
    assert {"raw/fd", "swd", "critic/overfitting"} <= found["evaluation"].keys()
    assert {"critic/loss", "generator/loss", "critic/wasserstein"} <= found["final"].keys()


def test_a_finished_run_that_is_not_to_be_evaluated_keeps_what_there_is(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    assert run_here("digits", *TINY, *QUICK, "--steps", 4, "--eval-every", 0, "--run-dir",
                    tmp_path / "run", "--resume", "auto") == 0
    assert stored(tmp_path / "run") == stored(run)


@pytest.mark.slow
def test_a_run_that_lacks_but_its_result_comes_to_the_same_one(run, tmp_path):
    """As if it was killed between the last evaluation and the end."""
    flags = (*TINY, *QUICK, "--steps", 4, "--eval-every", 2, "--best-metric", "raw/fd", "--run-dir",
             tmp_path / "run", "--resume", "auto")
    shutil.copytree(run, tmp_path / "run")
    for name in ("result.json", "evaluation.json"):
        (tmp_path / "run" / name).unlink()
    assert run_here("digits", *flags) == 0
    again = result(tmp_path / "run")
    assert (again["final"], again["evaluation"]) == (result(run)["final"], result(run)["evaluation"])
    assert stored(tmp_path / "run")[0]["metrics"] == stored(run)[-1]["metrics"]
    assert rows(tmp_path / "run") == rows(run)

    # A finished run of the first release, which put all into one.
    path = tmp_path / "run" / "result.json"
    path.write_text(json.dumps({name: value for name, value in again.items() if name != "evaluation"}
                               | {"final": again["final"] | again["evaluation"]}))
    before = stored(tmp_path / "run")
    assert run_here("digits", *flags) == 0
    assert stored(tmp_path / "run") == before
    report = (tmp_path / "run" / "report.txt").read_text()
    assert report.count("raw Frechet distance") == 1
    assert "raw/fd" not in report


@pytest.mark.slow
def test_an_experiments_own_metric_is_measured_shown_and_marks_the_best_checkpoint(tmp_path,
                                                                                   monkeypatch):
    falling = iter((0.125, 0.5, 0.25))  # of the held-out reals and of the two steps
    monkeypatch.setattr(gaussians, "mode_coverage", lambda *_: {
        "modes": 8, "high_quality": next(falling), "modes_kl": 0.0})
    folder = tmp_path / "run"
    assert run_here("gaussians", "--dataset", "8gaussians", "--width", 8, "--steps", 2, "--keep", 1,
                    "--eval-every", 1, "--eval-metrics", "modes,kid", "--best-metric", "high_quality",
                    "--sample-every", 0, "--run-dir", folder) == 0
    (found,), lines = stored(folder), (folder / "report.txt").read_text().splitlines()
    assert [*found["metrics"]] == ["modes", "high_quality", "modes_kl", "raw/kd", "raw/kd_std"]
    shown = {line.partition("  ")[0]: line for line in lines[lines.index(next(
        line for line in lines if line.startswith("2500 samples"))) + 2:]}
    assert [*shown] == ["modes of 8", "samples within 3 sigma of a mode", "KL of modes from even (nats)",
                        "raw kernel distance"]
    assert [line.endswith("higher is better") for line in shown.values()] == [True, True, False, False]
    assert " +- " in shown["raw kernel distance"]
    opened = open_run(folder, "best")
    assert launch.plan(opened.config, opened.reference).best_is_highest
    lowest = settings.replace(opened.config, best_metric="modes_kl")
    assert not launch.plan(lowest, opened.reference).best_is_highest
    assert [row["high_quality"] for row in rows(folder)] == [0.5, 0.25]
    assert int(opened.state.step) == 1


def test_evaluating_does_not_change_what_is_trained(run, tmp_path):
    assert run_here("digits", *TINY, "--steps", 4, "--run-dir", tmp_path / "run") == 0
    assert result(tmp_path / "run")["params_sha256"] == result(run)["params_sha256"]


@pytest.mark.parametrize("flags", [("--batch-size", 100), ("--batch-size", 333, "--devices", 4)])
def test_evaluate_gives_the_numbers_of_training_in_any_batches(run, flags, capsys):
    before = stored(run)[0]["metrics"]
    assert tool(evaluate, run, "--metrics", "fd,swd", "--features", "raw", *flags) == 0
    printed = capsys.readouterr().out
    assert "359 samples (held-out reals: 359) against 1438 reals of digits train" in printed
    (after,) = stored(run)  # in place of the one of the same parameters and protocol
    assert after["metrics"].keys() == before.keys()
    for name, numbers in after["metrics"].items():
        assert numbers["value"] == pytest.approx(before[name]["value"], rel=1e-6)
        assert numbers["floor"] == pytest.approx(before[name]["floor"], rel=1e-6)


def test_evaluate_twice_prints_the_same_and_best_is_a_checkpoint(run, capsys):
    printed = []
    for _ in range(2):
        assert tool(evaluate, run, "--checkpoint", "best", "--metrics", "swd") == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""
    best = min(rows(run), key=lambda row: row["raw/fd"])["step"]
    assert stored(run)[-1]["step"] == best


def test_images_of_another_program(run, tmp_path, capsys):
    """The held-out digits as PNG files are as far from the training set as the floor."""
    for number, image in enumerate(load("digits", "test").images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    out = tmp_path / "numbers.json"
    assert tool(evaluate, "--images", tmp_path, "--dataset", "digits", "--metrics", "fd,swd",
                "--features", "raw", "--out", out) == 0, capsys.readouterr().err
    found = json.loads(out.read_text())["metrics"]
    assert found["raw/fd"]["value"] == pytest.approx(found["raw/fd"]["floor"], rel=1e-9)
    Image.fromarray(np.full((8, 8, 3), (1, 2, 3), np.uint8)).save(tmp_path / "colour.png")
    assert tool(evaluate, run, "--images", tmp_path, "--metrics", "swd") == 2
    assert "are in colour, but they are to be compared with grey ones" in capsys.readouterr().err


def test_a_handful_of_images_is_measured_by_what_it_is_enough_for(tmp_path, capsys):
    for number, image in enumerate(load("digits", "test").images[:2]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    words = ("--images", tmp_path, "--dataset", "digits", "--features", "raw")
    with pytest.warns(UserWarning, match=r"samples: 2\): pr \(precision, recall\) needs 4 of each"):
        evaluate.main(tyro.cli(evaluate.Options, args=[*map(str, words), "--metrics", "pr,kid,swd"]))
    said = capsys.readouterr().out
    assert "2 samples (held-out reals: 2) against 1438 reals" in said
    assert "raw kernel distance" in said
    assert "precision" not in said
    assert tool(evaluate, *words, "--metrics", "pr") == 2
    assert "error: nothing can be measured of so few" in capsys.readouterr().err
    assert tool(evaluate, *words, "--metrics", "swd", "--num", "3") == 2
    assert "3 samples are asked for" in capsys.readouterr().err


def test_what_is_measured_by_default_is_what_there_are_reals_and_targets_for():
    def opens(split):
        if split == "test":
            raise DataNotFoundError
        return load("digits", split)

    samples = evaluation.Samples("images", 9, lambda rows: rows)
    for opened, expected in ((opens, "fd"), (partial(load, "digits"), "fd,copying")):
        reference = measuring.of_images(opened, metrics="fd,accuracy,copying")
        protocol = measuring.make_protocol("default", reference)
        assert measuring.default_metrics(reference, protocol, samples) == expected
    asked = samples._replace(targets=lambda rows: {"label": rows})
    assert measuring.default_metrics(reference, protocol, asked) == "fd,accuracy,copying"


def test_a_run_is_measured_against_another_data_set(run, tmp_path, capsys):
    """The digits as a folder, in place of the run's own digits, give the same distance."""
    for split in ("train", "test"):
        (tmp_path / "all" / split).mkdir(parents=True)
        for number, image in enumerate(load("digits", split).images):
            Image.fromarray(image[..., 0]).save(tmp_path / "all" / split / f"{number}.png")
    numbers, other = [], ("--dataset", f"folder:{tmp_path / 'all'}")
    for flags in ((), other):
        assert tool(evaluate, run, "--metrics", "fd", "--features", "raw", *flags) == 0
        numbers.append(stored(run)[-1]["metrics"]["raw/fd"])
    assert numbers[0]["value"] == pytest.approx(numbers[1]["value"], rel=1e-9)
    assert numbers[0]["floor"] == pytest.approx(numbers[1]["floor"], rel=1e-9)
    Image.fromarray(np.full((8, 8, 3), (1, 2, 3), np.uint8)).save(tmp_path / "all/train/colour.png")
    for flags, message in (
            (other, "have the shape (8, 8, 1), and those of folder:"),
            ((*other, "--image-size", "8"), "image_size goes with --images and --dataset"),
            ((*other, "--images", tmp_path), "or against --dataset: leave one out")):
        assert tool(evaluate, run, "--features", "raw", *flags) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3, 4])
def test_pages_are_no_colours(count, tmp_path):
    pages = np.random.default_rng(0).integers(0, 256, (8, 9, count), np.uint8)
    first, *others = map(Image.fromarray, np.moveaxis(pages, -1, 0))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    taken = measuring.of_folder(str(tmp_path), pages.shape, colour="pages").take(np.arange(1))
    np.testing.assert_array_equal(taken, pages[None])
    settings = {"value_range": (0, 255), "colour": "pages"}
    shown = showing.drawn(taken.astype(np.float32), settings)[1:33, 1:37]  # enlarged fourfold
    np.testing.assert_array_equal(shown[::4, ::4], np.repeat(pages[..., :1], 3, axis=-1))


@pytest.mark.slow
def test_compare_groups_seeds_and_refuses_other_protocols(run, tmp_path, capsys):
    folders = [run]
    for seed, loss in ((1, "wasserstein"), (0, "hinge")):
        folders.append(tmp_path / f"{loss} {seed}")
        assert run_here("digits", *TINY, *QUICK, "--steps", 4, "--eval-every", 2, "--seed", seed,
                        "--loss", loss, "--run-dir", folders[-1]) == 0
    assert tool(evaluate, run, "--metrics", "fd,swd", "--features", "raw") == 0  # the newest counts
    capsys.readouterr()
    assert tool(compare, *folders, "--out", tmp_path / "compare.png") == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[1] loss wasserstein: 2 runs, step 4", "[2] loss hinge: 1 run, step 4"]
    values = [stored(folder)[-1]["metrics"]["raw/fd"]["value"] for folder in folders]
    row = next(line for line in lines if line.startswith("raw Frechet distance")).split("  ")
    row = [cell.strip() for cell in row]
    assert f"{np.mean(values[:2]):.4g} +- {np.std(values[:2], ddof=1):.2g}" in row
    assert f"{values[2]:.4g}" in row
    assert load_png(tmp_path / "compare.png").shape == (300, 900, 3)  # two panels

    assert tool(evaluate, folders[1], "--metrics", "fd,swd", "--features", "raw", "--seed", 5) == 0
    assert tool(compare, *folders) == 2
    message = capsys.readouterr().err
    assert "were measured by different protocols (seed is 0 and 5)" in message
    shutil.copytree(run, tmp_path / "bare")
    (tmp_path / "bare" / "evaluation.json").unlink()
    assert tool(compare, tmp_path / "bare") == 2
    assert "has no evaluation.json: run python -m experiments.evaluate" in capsys.readouterr().err
    # A run of before, which doesn't say its networks, is of the same group as one that does.
    config = json.loads((run / "config.json").read_text())
    for name, model in (("then", {}), ("now", {"model": "dcgan"})):
        shutil.copytree(run, tmp_path / name)
        settings = {key: value for key, value in config["settings"].items() if key != "model"} | model
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"settings": settings}))
    assert tool(compare, tmp_path / "then", tmp_path / "now", "--out", tmp_path / "two.png") == 0
    assert capsys.readouterr().out.startswith("[1] digits: 2 runs, step 4")
    # A run that this version can't open is compared too: only what its experiment brought has no title.
    config = json.loads((run / "config.json").read_text())
    del config["settings"]["n_critic"]
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    old = [found | {"metrics": found["metrics"] | {"modes": {"value": 7.0, "floor": None},
                                                   "raw/kd_std": {"value": 9.0, "floor": 9.0}}}
           for found in stored(run)]
    (tmp_path / "bare" / "evaluation.json").write_text(json.dumps({"evaluations": old}))
    assert tool(compare, tmp_path / "bare", "--out", tmp_path / "bare.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines[2:5]] == [
        "raw Frechet distance", "sliced Wasserstein distance", "modes"]
    assert not any("std" in line for line in lines)
    old = [found | {"protocol": {"name": "old"}} for found in stored(run)]
    (tmp_path / "bare" / "evaluation.json").write_text(json.dumps({"evaluations": old}))
    assert tool(compare, run, tmp_path / "bare") == 2
    assert "by a protocol that this version doesn't know" in capsys.readouterr().err
    (tmp_path / "bare" / "evaluation.json").write_text('{"evaluations": [{}]}')
    assert tool(compare, tmp_path / "bare") == 2
    assert "can't be read" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "message"), [
    (("--metrics", "fid"), "unknown metric 'fid' for such samples: did you mean"),
    (("--protocol", "mimicri"), "invalid choice 'mimicri'"),
    (("--features", "clasifier"), "invalid choice 'clasifier'"),
    (("--metrics", "modes"), "unknown metric 'modes' for such samples: choose from fd, kid, is"),
    (("--metrics", "is", "--features", "raw"), "'is' needs a feature network that classifies, and raw"),
    (("--protocol", "mimicry", "--features", "raw"), "50000 samples are asked for, but digits"),
    (("--features", "inception"), "pt_inception-2015-12-05-6726825d.pth"),
    (("--checkpoint", "7"), "there is no checkpoint of step 7"),
    (("--checkpoint", "worst"), "checkpoint must be latest, best or a step; got 'worst'"),
    (("--images", "nowhere"), "there is no such folder"),
])
def test_bad_flags_get_one_sentence(run, flags, message, monkeypatch, capsys):
    monkeypatch.delenv("JAXGAN_INCEPTION", raising=False)
    assert tool(evaluate, run, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_batch_of_no_samples_is_refused_before_anything_is_read(run, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "open_run", lambda *_, **__: pytest.fail("reads the run"))
    assert tool(evaluate, run, "--batch-size", "0") == 2
    assert "batch_size must be at least 1; got 0" in capsys.readouterr().err


def test_neither_run_nor_images_is_refused(capsys):
    assert tool(evaluate) == 2
    assert "give a run's folder, or --images FOLDER and --dataset NAME" in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_that_was_abandoned_comes_first_when_the_run_goes_on(run, tmp_path, monkeypatch,
                                                                           capsys):
    """As if the signal came while samples were observed."""
    import os
    import signal

    flags = (*TINY, *QUICK, "--steps", 4, "--eval-every", 2, "--best-metric", "raw/fd", "--run-dir",
             tmp_path / "run")
    whole, seen = measuring.evaluation.Extractor.observe, []

    def interrupted(self, samples, count, **options):
        seen.append(samples.name)
        if samples.name == "step 2" and seen.count("step 2") == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, samples, count, **options)

    monkeypatch.setattr(measuring.evaluation.Extractor, "observe", interrupted)
    assert run_here("digits", *flags) == 128 + signal.SIGTERM
    assert "stopped at step 2; go on with: " in capsys.readouterr().err
    assert rows(tmp_path / "run") == []
    assert run_here("digits", *flags, "--resume", "auto") == 0
    assert seen.count("step 2") == 2
    assert rows(tmp_path / "run") == rows(run)
    saved = [json.loads((folder / "checkpoints" / "00000002" / "manifest.json").read_text())["manifest"]
             for folder in (tmp_path / "run", run)]
    assert saved[0]["metrics"] == saved[1]["metrics"]


@pytest.mark.slow
def test_reaching_the_floor_is_said_once(run, monkeypatch, capsys):
    reals = load("digits", "test").images

    def perfect(*_, **__):
        return lambda state: measuring.Samples(f"step {int(state.step)}", 359, lambda rows: reals[rows])

    monkeypatch.setattr(measuring, "make_sampler", perfect)
    folder = run.parent / "perfect"
    assert run_here("digits", *TINY, *QUICK, "--steps", 4, "--eval-every", 2, "--run-dir", folder) == 0
    floor = stored(folder)[0]["metrics"]["raw/fd"]["floor"]
    message = f"step 2: raw Frechet distance {floor:.3g} has reached the real-data floor ({floor:.3g})\n"
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("has reached") == 1


def test_each_run_says_for_itself_that_it_has_reached_the_floor(monkeypatch, capsys):
    """Of runs that are trained by one command, too."""
    monkeypatch.setattr(measuring, "measure", lambda evaluator, samples, tick: {"fd": 1.0})
    monkeypatch.setattr(measuring, "reached_floor", lambda evaluator, values: ["fd"])
    monkeypatch.setattr(measuring, "make_sampler", lambda *_: lambda state: None)
    monkeypatch.setattr(measuring, "make_judge", lambda *_: lambda state: {})
    evaluator, reference = SimpleNamespace(floor={"fd": 2.0}, protocol=None), None
    monkeypatch.setattr(measuring, "find", lambda reference, name: SimpleNamespace(title=name))
    state = SimpleNamespace(step=3)
    first = measuring.in_training(None, evaluator, reference, {}, [])
    for measured in (first, first, first.anew()):
        assert measured(state, lambda: None) == {"fd": 1.0}
    assert capsys.readouterr().err.splitlines() == [
        "step 3: fd 1 has reached the real-data floor (2)"] * 2
