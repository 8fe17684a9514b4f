"""Trains one setting after the other for as long, and tells which came how far.

    python -m benchmarks.choosing --data-dir DIR --cifar10 FOLDER --runs runs/choosing

README.md says what is compared and how.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.run import positive, say, show_number, show_table
from benchmarks.worker import Failed, carried_out, write

METRICS = {"classifier/fd": "Frechet distance", "classifier/accuracy": "accuracy",
           "classifier/precision": "precision", "classifier/recall": "recall"}
_PACE = "50"  # steps in which the pace is found first
_QUIET = ("--eval-every", "0", "--checkpoint-every", "0", "--sample-every", "0")


class Choice(NamedTuple):
    """A setting.

    Attributes:
        title: what the table calls it.
        words: of its command, besides the data's and the steps.
        decays: whether the learning rate, or another number, falls over the steps.
        in_latents: whether it trains on the latents of an autoencoder of its own.
    """

    title: str
    words: tuple[str, ...]
    decays: bool = False
    in_latents: bool = False


def _choice(title: str, command: str, **options: bool) -> Choice:
    return Choice(title, tuple(command.split()), **options)


CHOICES = {
    "dcgan": _choice("DCGAN, WGAN-GP and AC-GAN", "conditional", decays=True),
    "r3gan": _choice("R3GAN", "r3gan --classes 10 --batch-size 32 --width 64,32,16,8", decays=True),
    "stylegan2": _choice("StyleGAN2", "stylegan2 --classes 10"),
    "gat": _choice("GAT in pixels", "gat --patch 4"),
    "gat_latents": _choice("GAT in latents", "gat", in_latents=True),
    "flow": _choice("adversarial flow", "adversarial_flow", decays=True),
    "drifting": _choice("drifting", "drifting --classes 10 --model dcgan --width 32 --latent-size 128 "
                                    "--n-critic 4", decays=True),
}
STAGE = _choice("autoencoder", "autoencoder --preset digits --width 16,32,32 --latent-channels 4 "
                               "--steps 600 --decay-steps 600 --adversarial-start 200")
SETS = {"mnist": "MNIST, padded to 32x32", "cifar10": "CIFAR-10 (JPEG)"}


def main(arguments: list[str] | None = None) -> int:
    """Trains what isn't trained yet, and writes the report; returns the exit status."""
    options = _parser().parse_args(arguments)
    return carried_out(lambda: compare(options), options.out)


def compare(options: argparse.Namespace) -> None:
    """Trains and measures one after the other; a row is kept as soon as it is there.

    Raises:
        Failed: a command failed.
    """
    about = machine.describe({"platform": "cpu"})
    folders = {"mnist": options.data_dir and options.runs / "mnist_images", "cifar10": options.cifar10}
    for name in options.sets if options.choices else ():
        if folders[name] is None:
            raise Failed(f"where is {SETS[name]}? Give --data-dir DIR for MNIST and --cifar10 FOLDER "
                         "for CIFAR-10, or fewer --sets")
    kept = options.out.with_suffix(".json")
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    missing = [(name, choice, seed) for seed in options.seeds for name in options.sets
               for choice in options.choices if f"{name}/{choice}/{seed}" not in rows]
    data = {}
    for name in dict.fromkeys(name for name, _, _ in missing):
        if name == "mnist":
            as_folder(options.data_dir, folders[name])
        data[name] = ["--dataset", "folder", "--folder", str(folders[name]), "--image-size", "32"]
    paces = {(name, choice): _pace(CHOICES[choice], data[name], options.runs / name, choice)
             for name, choice in dict.fromkeys((name, choice) for name, choice, _ in missing)}
    for name, choice, seed in missing:
        say(f"training {name}/{choice}/{seed}")
        found = _trained(CHOICES[choice], data[name], options.runs / name, choice, seed,
                         paces[name, choice], options.minutes)
        rows[f"{name}/{choice}/{seed}"] = found | {"about": about}
        write(kept, [json.dumps(rows, indent=1)])
        write(options.out, report(rows))
    write(options.out, report(rows))


def as_folder(data_dir: str, folder: Path) -> None:
    """Writes MNIST as a folder of images, padded to 32x32, unless it is there."""
    if folder.exists():
        return
    import numpy as np
    from PIL import Image

    from jaxgan.data import load

    say("writing MNIST as images")
    partial = folder.with_name(folder.name + ".partial")
    for split in ("train", "test"):
        part = load("mnist", split, data_dir=data_dir)
        for label in range(10):
            (partial / split / str(label)).mkdir(parents=True, exist_ok=True)
        for i, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            Image.fromarray(np.pad(image[..., 0], 2)).save(partial / split / str(label) / f"{i:05}.png")
    os.rename(partial, folder)


def _pace(choice: Choice, data: list[str], runs: Path, name: str) -> float:
    """How many iterations a second there are, without compiling."""
    folder = runs / f"{name}_pace"
    if not (folder / "result.json").exists():
        say(f"finding the pace of {folder}")
        _run(*choice.words, *_inputs(choice, data, runs), *_QUIET, "--steps", _PACE,
             "--run-dir", str(folder), "--resume", "auto")
    return json.loads((folder / "result.json").read_text())["iterations_per_second"]


def _trained(choice: Choice, data: list[str], runs: Path, name: str, seed: int, pace: float,
             minutes: float) -> dict[str, Any]:
    """Trains for as many iterations as those minutes have, and measures."""
    steps = str(int(float(f"{pace * 60 * minutes:.2g}")))
    words = [*choice.words, "--seed", str(seed), *(["--decay-steps", steps] * choice.decays)]
    folder = runs / f"{name}_{seed}"
    peak = _run(*words, *_inputs(choice, data, runs), *_QUIET, "--steps", steps,
                "--run-dir", str(folder), "--resume", "auto")
    _run("evaluate", str(folder), "--metrics", "accuracy,fd,pr")
    result = json.loads((folder / "result.json").read_text())
    batch = json.loads((folder / "config.json").read_text())["settings"]["batch_size"]
    measured = json.loads((folder / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    return {"metrics": {metric: measured[metric] for metric in METRICS}, "steps": int(steps),
            "command": shlex.join(words), "minutes": minutes, "samples": pace * batch, "peak": peak,
            "params_sha256": result["params_sha256"]}


def _inputs(choice: Choice, data: list[str], runs: Path) -> list[str]:
    return _latents(data, runs) if choice.in_latents else data


def _latents(data: list[str], runs: Path) -> list[str]:
    """What trains on the latents of these data, which are made unless they are there."""
    stage, file = runs / "stage", runs / "latents.npz"
    if not file.exists():
        _run(*STAGE.words, *data, *_QUIET, "--run-dir", str(stage), "--resume", "auto")
        _run("encode", "--autoencoder", str(stage), *data, "--out", str(file))
    return ["--file", str(file), "--autoencoder", str(stage)]


def _run(name: str, *words: str) -> int:
    """Runs an experiment, or a tool; returns the largest resident memory, in bytes.

    Raises:
        Failed: it failed.
    """
    command = [f"experiments.{name}", *words]
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"python -m {shlex.join(command)} ended with status {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def report(rows: dict[str, Any]) -> list[str]:
    """The report's lines: a table for each set, of means over the seeds that are there."""
    lines = ["# Which to choose", "",
             "Small networks of each kind, which draw images for classes, each trained for as many",
             "steps as the same minutes have; [README.md](README.md#which-to-choose) says how. **Larger",
             "networks trained for longer rank otherwise.** Means over the seeds, +- their standard",
             "deviation.", ""]
    for name, title in SETS.items():
        parts = {choice: [row for key, row in rows.items() if key.startswith(f"{name}/{choice}/")]
                 for choice in CHOICES}
        if any(parts.values()):
            lines += [f"## {title}", "", *_table(parts), ""]
    lines += ["## Runs", "", *show_table(
        ["run", "command", "steps", "minutes", "`params_sha256`", "made on"],
        [[key, f"`{row['command']}`", str(row["steps"]), f"{row['minutes']:g}",
          row["params_sha256"][:12], "; ".join(line.lstrip("- ") for line in row["about"])]
         for key, row in sorted(rows.items())])]
    return lines


def _table(parts: dict[str, list[dict[str, Any]]]) -> list[str]:
    header = ["", "seeds", *METRICS.values(), "samples a second, in training", "peak memory, MiB"]
    table = []
    for choice, rows in parts.items():
        measured = [_spread([row["metrics"][metric]["value"] for row in rows]) for metric in METRICS]
        table.append([CHOICES[choice].title, str(len(rows)), *measured, *(
            _spread([row[name] / unit for row in rows]) for name, unit in (("samples", 1),
                                                                         ("peak", 2**20)))])
    for title, in_latents in (("held-out reals", False), ("held-out reals, decoded", True)):
        floors = [row["metrics"] for choice, rows in parts.items() for row in rows
                  if CHOICES[choice].in_latents == in_latents]
        if floors:
            table.append([title, "", *(show_number(floors[0][metric]["floor"]) for metric in METRICS)])
    return show_table(header, table)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return show_number(mean)
    deviation = (sum((value - mean)**2 for value in values) / (len(values) - 1))**0.5
    return f"{show_number(mean)} +- {deviation:.2g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choosing", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choices", nargs="*", choices=CHOICES, default=[*CHOICES],
                        help="none: only write the report")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=positive(float), default=10.0, help="of each training")
    parser.add_argument("--data-dir", metavar="DIR", help="TensorFlow Datasets' folder, for MNIST")
    parser.add_argument("--cifar10", type=Path, metavar="FOLDER",
                        help="CIFAR-10 as images, train/CLASS/*.png and test/CLASS/*.png")
    parser.add_argument("--runs", type=Path, default=Path("runs/choosing"), metavar="FOLDER",
                        help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("CHOOSING.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
