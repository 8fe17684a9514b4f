"""Every experiment comes to the same bits however often it is interrupted, and its rerun says so."""

import importlib
import json
import shutil
import warnings

import jax
import numpy as np
import pytest

from experiments import commands, domains, image_sets, launch, opening, reproduce
from jaxgan.data import Dataset
from tests.faults import processes

STEPS = 5
SIZES = {"mnist": (28, 28, 1), "stacked_mnist": (28, 28, 1), "cifar10": (32, 32, 3),
         "images": (32, 32, 3), "inpainting": (8, 8, 1), "digits": (8, 8, 1), "conditional": (8, 8, 1),
         "detection": (8, 8, 1), "r3gan": (8, 8, 1), "stylegan2": (8, 8, 1),
         "pix2pix": (8, 8, 1), "cyclegan": (8, 8, 1), "adversarial_flow": (8, 8, 1),
         "drifting": (8, 8, 1)}
FLAGS = {"arrays": ("--conditions", "angle", "--weights", "weight", "--eval-every", "2",
                    "--eval-metrics", "swd"),
         "conditional": ("--eval-every", "0", "--generator-labels", "uniform",
                         "--weighting", "gradnorm", "--critic-fake-weight", "0.5"),
         "detection": ("--eval-every", "0", "--labelled", "5"),
         "digits": ("--eval-every", "2", "--eval-metrics", "swd", "--accumulate", "2"),
         "images": ("--folder", "any", "--image-size", "32", "--ema-decay", "0.9", "--model", "dcgan"),
         "cifar10": ("--decay-steps", "10", "--attention", "8"),
         "r3gan": ("--eval-every", "0", "--classes", "10", "--augment", "ada",
                   "--augment-operations", "hue,scale,noise"),
         "stylegan2": ("--eval-every", "0", "--augment", "ada", "--base", "64", "--penalty-every", "3",
                       "--path-every", "2"),
         "pix2pix": ("--eval-every", "2", "--eval-metrics", "translation", "--flip", "--decay", "late",
                     "--decay-steps", "10"),
         "cyclegan": ("--eval-every", "2", "--eval-metrics", "translation", "--blocks", "1",
                      "--history-size", "6", "--ema-decay", "0.9"),
         "text": ("--length", "8", "--blocks", "1", "--max-vocabulary", "20", "--eval-every", "2",
                  "--top-k", "0.5", "--top-k-decay", "0.7", "--top-k-steps", "2"),
         "inpainting": ("--eval-every", "2", "--eval-metrics", "inpainting", "--mask", "boxes"),
         "multitask": ("--eval-every", "2", "--eval-metrics", "inpainting", "--weighting", "ratio"),
         "adversarial_flow": ("--eval-every", "0", "--heads", "1", "--depth", "1", "--classes", "10"),
         "drifting": ("--eval-every", "2", "--eval-metrics", "swd", "--space", "pixels"),
         "gaussians": ("--loss", "relativistic", "--input-noise", "0.1", "--input-noise-steps", "5",
                       "--pack", "2", "--eval-every", "2")}


@pytest.fixture
def trained(monkeypatch, capsys, tmp_path):
    """Runs an experiment in this process, on a few made-up images in place of the downloads."""
    def train(name, folder, *flags, devices=1):
        module = importlib.import_module(f"experiments.{name}")
        if name == "arrays":
            rng = np.random.default_rng(0)
            np.savez(tmp_path / "a.npz", x=rng.normal(size=(20, 16, 2)), angle=rng.normal(size=20),
                     weight=rng.uniform(size=20))
            flags = ("--file", tmp_path / "a.npz", *flags)
        if name in SIZES:
            made_up = Dataset(name, np.random.default_rng(0).integers(
                0, 256, (11, *SIZES[name]), dtype=np.uint8), np.arange(11, dtype=np.int32) % 10,
                tuple("0123456789"))
            for opens in (module, image_sets, domains):
                monkeypatch.setattr(opens, "load", lambda *_, **__: made_up, raising=False)
        config = launch.parse(module.experiment, [*map(str, (
            "--width", 8, "--batch-size", 4, "--n-critic", 2, "--log-every", 1, "--devices", devices,
            "--sample-every", 0, "--no-keep-programs", "--run-dir", folder, *FLAGS.get(name, ()),
            *flags))])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert launch.guarded(launch.run, module.experiment, config) == 0, capsys.readouterr().err

    yield train
    jax.clear_caches()  # many programs for two devices: a process may only map so much memory


@pytest.mark.slow
@pytest.mark.parametrize("name", commands.experiments())
def test_resumed_is_as_uninterrupted(name, trained, tmp_path, capsys, quick_compilation):
    """On two devices."""
    trained(name, tmp_path / "whole", "--steps", STEPS, devices=2)
    for stop in (2, STEPS):  # one run, stopped at both
        trained(name, tmp_path / "parts", "--steps", stop, "--resume", "auto", devices=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert processes.result(parts)["leaves_sha256"] == processes.result(whole)["leaves_sha256"]
    for ours, theirs in zip(processes.rows(parts), processes.rows(whole), strict=True):
        assert theirs.items() <= ours.items()  # a run that ends samples, and logs what it finds
    assert (parts / "digests.jsonl").read_text() == (whole / "digests.jsonl").read_text()
    experiment, config, _ = opening.read_run(parts)
    assert (experiment.name, config.networks.width) == (name, 8)
    capsys.readouterr()
    assert reproduce.main(reproduce.Options(str(parts))) == 0
    assert f"identical: {STEPS} logged steps, up to step {STEPS}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_difference_is_named_by_step_and_leaf(trained, tmp_path, capsys):
    run = tmp_path / "run"
    trained("gaussians", run, "--steps", 3)
    config = json.loads((run / "config.json").read_text())
    config["versions"]["jax"] = "0.1"
    (run / "config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in (run / "digests.jsonl").read_text().splitlines()]
    lines[1]["['critic']['Dense_0']['kernel']"] = "0"
    (run / "digests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert reproduce.main(reproduce.Options(str(run))) == 1
    printed = capsys.readouterr().out
    assert "different: first at step 2: parameter ['critic']['Dense_0']['kernel']; 1 in all" in printed
    assert "environment: jax was 0.1, is " in printed


@pytest.mark.slow
def test_logs_that_share_nothing_are_not_identical(trained, tmp_path, capsys):
    run = tmp_path / "run"
    trained("gaussians", run, "--steps", 1)
    (run / "result.json").unlink()
    (run / "digests.jsonl").unlink()
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="there is nothing to compare"):
        reproduce.main(reproduce.Options(str(run)))
    assert "identical" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(trained, tmp_path, capsys):
    for folder in ("whole", "hurt"):
        trained("gaussians", tmp_path / folder, "--steps", 4, "--checkpoint-every", 2)
    latest = tmp_path / "hurt" / "checkpoints" / "00000004"
    shutil.rmtree(latest / "d")
    trained("gaussians", tmp_path / "hurt", "--steps", 4, "--checkpoint-every", 2, "--resume", "auto")
    assert "moved to damaged_00000004" in capsys.readouterr().err
    assert (processes.result(tmp_path / "hurt")["params_sha256"]
            == processes.result(tmp_path / "whole")["params_sha256"])


@pytest.mark.slow
def test_rollback_goes_on_with_other_numbers_and_three_times_at_most(trained, tmp_path, monkeypatch,
                                                                     capsys):
    from jaxgan import training

    check, failing = training._check_finite, [3, 4, 4]  # as if the loss were not finite there

    def diverges(step, *others):
        check(step, *others)
        if failing and step == failing[0]:
            failing.pop(0)
            raise training.NotFiniteError("training diverged: critic/loss is not finite")

    monkeypatch.setattr(training, "_check_finite", diverges)
    flags = ("--steps", 4, "--checkpoint-every", 2, "--eval-every", 0)
    trained("gaussians", tmp_path / "run", *flags, "--on-nan", "rollback")
    assert processes.result(tmp_path / "run")["retries"] == 3
    assert [row["step"] for row in processes.rows(tmp_path / "run")] == [1, 2, 3, 4]
    warned = capsys.readouterr().err
    assert "going on from step 2 with other random numbers, try 1 of 3" in warned
    assert "try 3 of 3" in warned
    trained("gaussians", tmp_path / "calm", *flags, "--on-nan", "rollback")
    ours, calm = processes.rows(tmp_path / "run"), processes.rows(tmp_path / "calm")
    assert ours[:2] == calm[:2]
    assert ours[2] != calm[2]
    failing += [1, 1, 1, 1]
    with pytest.raises(AssertionError, match="training diverged"):
        trained("gaussians", tmp_path / "hopeless", *flags, "--on-nan", "rollback")
