"""What is trained to choose from: commands that experiments take, and a report of means by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import choosing
from experiments import launch, opening, settings

FOLDER = ["--dataset", "folder", "--folder", "DIR", "--image-size", "32"]


@pytest.mark.parametrize("choice", [*choosing.CHOICES.values(), choosing.STAGE],
                         ids=[*choosing.CHOICES, "stage"])
def test_experiments_take_the_words(choice):
    name, *words = choice.words
    experiment = opening.load(name)
    data = ["--file", "F", "--autoencoder", "DIR"] if choice.in_latents else FOLDER
    decay = ["--decay-steps", "70"] * choice.decays
    config = launch.parse(experiment, [*words, *data, *decay])
    assert settings.flat(config)["decay_steps"] == (70 if choice.decays else
                                                    600 if choice is choosing.STAGE else 0)
    if choice is not choosing.STAGE:
        flat = settings.flat(config)
        assert flat.get("classes", 0) == 10 or flat["num_classes"] == 10


def row(distance, **changes):
    metrics = {metric: {"value": distance, "floor": 1.5} for metric in choosing.METRICS}
    return {"metrics": metrics, "steps": 70, "command": "gat --seed 0",
            "samples": 640.0, "peak": 2**30, "params_sha256": "0123456789abcdef",
            "about": ["- Date: 2026-01-01", "- Machine: a machine"], "minutes": 10.0} | changes


def test_the_report_has_means_and_deviations_beside_the_floor():
    lines = choosing.report({"mnist/gat/0": row(2.0), "mnist/gat/1": row(4.0),
                             "mnist/flow/0": row(7.0)})
    spread = " | ".join(["3 +- 1.4"] * 4)
    assert f"| GAT in pixels | 2 | {spread} | 640 +- 0 | 1,024 +- 0 |" in lines
    assert "| adversarial flow | 1 | 7 | 7 | 7 | 7 | 640 | 1,024 |" in lines
    assert "| R3GAN | 0 | - | - | - | - | - | - |" in lines
    assert "| held-out reals |  | 1.5 | 1.5 | 1.5 | 1.5 |  |  |" in lines
    assert "## CIFAR-10 (JPEG)" not in lines
    assert any(line.startswith("| mnist/flow/0 | `gat --seed 0` | 70 | 10 | 0123456789ab | Date: 2026")
               for line in lines)


def test_what_is_there_is_not_trained_again(tmp_path, capsys):
    out = tmp_path / "CHOOSING.md"
    out.with_suffix(".json").write_text(json.dumps({"cifar10/gat/0": row(2.0)}))
    words = ["--sets", "cifar10", "--choices", "gat", "--out", str(out), "--runs",
             str(tmp_path / "runs")]
    assert choosing.main(words) == 1
    assert "where is CIFAR-10 (JPEG)? Give --data-dir DIR for MNIST and" in capsys.readouterr().err
    assert choosing.main([*words, "--cifar10", str(tmp_path)]) == 0
    assert "| GAT in pixels | 1 | 2 |" in out.read_text()
    assert choosing.main([*words, "--cifar10", str(tmp_path / "nothing"), "--seeds", "1"]) == 1
    assert "experiments.gat" in capsys.readouterr().err
    assert json.loads(out.with_suffix(".json").read_text()).keys() == {"cifar10/gat/0"}


@pytest.mark.slow
def test_a_row_is_a_run_that_was_measured(tmp_path, monkeypatch):
    """A pace, a training of as many steps as the minutes have, an evaluation."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for label in range(10):
            (tmp_path / "images" / split / str(label)).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(25 * label, 25 * label + 25, (32, 32), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / str(label) / f"{i}.png")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out, runs = tmp_path / "CHOOSING.md", tmp_path / "runs"
    assert choosing.main(["--sets", "cifar10", "--choices", "drifting", "--cifar10",
                          str(tmp_path / "images"), "--minutes", "0.05", "--runs", str(runs), "--out",
                          str(out)]) == 0
    row = json.loads(out.with_suffix(".json").read_text())["cifar10/drifting/0"]
    pace = json.loads((runs / "cifar10/drifting_pace/result.json").read_text())["iterations_per_second"]
    assert row["samples"] == pytest.approx(128 * pace)
    assert row["steps"] == pytest.approx(3 * pace, rel=0.05, abs=1)
    trained = json.loads((runs / "cifar10/drifting_0/result.json").read_text())
    assert (trained["steps"], trained["params_sha256"]) == (row["steps"], row["params_sha256"])
    assert row["metrics"].keys() == choosing.METRICS.keys()
    assert "| drifting | 1 |" in out.read_text()
