"""What is trained to choose from: commands that experiments take, and a report of means by hand."""

import json

import pytest

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
