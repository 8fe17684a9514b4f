"""A run's folder: configuration, metrics, samples, curves, result.

    config.json               every resolved setting, versions, devices, the command
    metrics.jsonl             one line a log point
    digests.jsonl             the parameters' digests there, to tell where two runs part
    events.out.tfevents.*     the same, and the samples, for TensorBoard
    samples/step_00001000.png a grid from the same latents each time; real.png once; .txt if text
    curves.png                the metrics over the steps
    checkpoints/              the last few states and the best one
    result.json               what came out
    evaluation.json           numbers by their protocols
    lock                      held by the process that writes here, and free when it dies
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import sys
import zlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from textwrap import indent
from typing import Any

import jax
import numpy as np

from jaxgan.pictures import load_png, save_curves, save_png

FORMAT = 2  # of config.json; the first one had no number
_LOCK = "lock"
_SHORT = 16  # digits of a digest in digests.jsonl


class RunError(ValueError):
    """A run folder that can't be used as asked."""


class Run:
    """A folder that one run writes to, by its first process; nothing is written before `lock`.

    Args:
        folder: where; made by `lock` if it isn't there.
        settings: every resolved setting, to be found again in `config.json`; JSON values.
        identity: the names of the settings that must be the same when a folder is used again: those
            that decide what the run computes, not for how long or how often it reports.

    Raises:
        RunError: the folder holds something else, or a run whose settings differ.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], identity: Iterable[str]):
        self.folder = Path(folder)
        self.identity = {name: settings.get(name) for name in sorted({"experiment", *identity})}
        existing = read_config(self.folder)["settings"] if self.config_path.exists() else None
        if existing is not None:
            differing = [f"{name} is {existing.get(name)!r} there and {value!r} here"
                         for name, value in self.identity.items() if existing.get(name) != value]
            if differing:
                raise RunError(f"{self.folder} holds a run with another configuration "
                               f"({'; '.join(differing)}): choose another --run-dir")
            check_data(self.folder, existing, settings)
        elif self.folder.exists() and not _is_unused(self.folder):
            raise RunError(f"{self.folder} is not an empty folder nor a run's: choose another --run-dir")
        self._config = _json({"format": FORMAT, "settings": settings} | environment())
        self._board: Any = None  # tensorboardX's writer
        self._lock_file: Any = None

    @property
    def config_path(self) -> Path:
        """Where the configuration is."""
        return self.folder / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def lock(self) -> None:
        """Claims the folder for this process until `close`, or until it dies.

        Raises:
            RunError: another process has it, or it can't be written to.
        """
        if jax.process_index() > 0:
            return
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.folder / _LOCK).open("a+")
        except OSError as error:
            raise RunError(f"{self.folder} can't be written to ({error.strerror}): "
                           "choose another --run-dir") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.seek(0)
            holder = self._lock_file.read(100).strip() or "another process"
            self._lock_file.close()
            raise RunError(f"{self.folder} is being written to by {holder}: wait for it, or choose "
                           "another --run-dir") from None
        self._lock_file.truncate(0)
        self._lock_file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._lock_file.flush()

    def start(self, step: int) -> None:
        """Opens the logs for what follows `step`, and drops what an earlier try logged beyond it.

        TensorBoard's file is written anew from the metrics and samples, as its writer's last lines are
        lost when a process is killed.

        Raises:
            RunError: the folder can't be written to.
        """
        if jax.process_index() > 0:
            return
        from tensorboardX import SummaryWriter

        self._close_board()
        try:
            _write(self.config_path, self._config)
            self._result_path.unlink(missing_ok=True)  # until this run has its own
            for path in (self._metrics_path, self._digests_path):
                rows = [row for row in _rows(path) if row["step"] <= step]
                _write(path, "".join(json.dumps(row) + "\n" for row in rows))
            saved = _samples(self.folder / "samples")
            for sampled_step in [later for later in saved if later > step]:
                saved.pop(sampled_step).unlink()
            for path in self.folder.glob("events.out.tfevents.*"):
                path.unlink()
        except OSError as error:
            raise RunError(f"{self.folder} can't be written to ({error.strerror}): "
                           "choose another --run-dir") from error
        self._board = SummaryWriter(str(self.folder), flush_secs=10)
        for row in self.metrics():
            self._show(row)
        for sampled_step, path in saved.items():
            self._show_samples(sampled_step, path.read_text(encoding="utf-8") if path.suffix == ".txt"
                               else load_png(path))

    def log(self, step: int, metrics: dict[str, float], digests: dict[str, str]) -> None:
        """Appends a line of metrics, and one of the parameters' digests by leaf.

        Raises:
            OSError: the disk is full; as of the methods below.
        """
        if self._board is None:
            return
        self._check_room()
        _append(self._metrics_path, {"step": step, **metrics})
        _append(self._digests_path, {"step": step} | {
            name: digest[:_SHORT] for name, digest in digests.items()})
        self._show({"step": step, **metrics})

    def _show(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, row["step"])

    def _show_samples(self, step: int, samples: np.ndarray | str) -> None:
        if isinstance(samples, str):
            self._board.add_text("samples", indent(samples, " " * 4), step)  # Markdown, verbatim
        else:
            self._board.add_image("samples", samples, step, dataformats="HWC")

    def save_real(self, samples: np.ndarray | str) -> None:
        """Saves real samples: a picture, uint8 [height, width, 3], or text."""
        self._save_samples("real", samples)

    def save_samples(self, step: int, samples: np.ndarray | str) -> None:
        """Saves samples: a picture, uint8 [height, width, 3], or text."""
        self._save_samples(f"step_{step:08d}", samples)
        if self._board is not None:
            self._show_samples(step, samples)

    def _save_samples(self, name: str, samples: np.ndarray | str) -> None:
        if self._board is None:
            return
        self._check_room()
        path = self.folder / "samples" / name
        if isinstance(samples, str):
            _write(path.with_suffix(".txt"), samples)
        else:
            save_png(path.with_suffix(".png"), samples)

    def metrics(self) -> list[dict[str, float]]:
        """The logged lines; a last one cut short by a crash is left out."""
        return _rows(self._metrics_path)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes `result.json` and `curves.png`."""
        if self._board is None:
            return
        save_curves(self.folder / "curves.png", self.metrics())
        _write(self._result_path, _json(result))

    def close(self) -> None:
        """Closes the logs and lets go of the folder."""
        self._close_board()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _close_board(self) -> None:
        if self._board is not None and self._has_room():
            self._board.close()
        self._board = None

    def _has_room(self) -> bool:
        """Whether a log and samples fit: the event file's thread dies of a full disk, and `close`
        would wait for it for ever.
        """
        return shutil.disk_usage(self.folder).free > 2**20

    def _check_room(self) -> None:
        if not self._has_room():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    @property
    def _metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def _digests_path(self) -> Path:
        return self.folder / "digests.jsonl"

    @property
    def _result_path(self) -> Path:
        return self.folder / "result.json"


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads a run's `config.json`.

    Args:
        folder: the run's, or the file itself.

    Raises:
        RunError: there is none, it isn't a run's, or a later version wrote it.
    """
    path = Path(folder)
    path = path if path.is_file() else path / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{folder} is not a run's folder: it has no config.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{path} can't be read ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise RunError(f"{path} is not a run's configuration: it has no settings")
    if config.get("format", 1) not in range(1, FORMAT + 1):
        raise RunError(f"{path} has the format {config['format']!r}, and this version of jaxgan reads "
                       f"those up to {FORMAT}: use the version that wrote it, or a later one")
    return config


def check_data(folder: str | Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compares the data of a run's settings with other ones; those that aren't known are not compared.

    Raises:
        RunError: the data differ.
    """
    digests = there.get("data_sha256"), here.get("data_sha256")
    if None not in digests and digests[0] != digests[1]:
        raise RunError("{} was trained on other data than these: their SHA-256 was {!s:.12}, and is "
                       "{!s:.12}; bring them back, or train anew".format(folder, *digests))


def read_result(folder: str | Path) -> dict[str, Any] | None:
    """Reads a run's `result.json`; None if the run isn't finished."""
    path = Path(folder) / "result.json"
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def read_evaluations(folder: str | Path) -> list[dict[str, Any]]:
    """Reads a run's evaluations, the newest last; [] if there are none.

    Raises:
        RunError: the file is damaged.
    """
    path = Path(folder) / "evaluation.json"
    try:
        evaluations = json.loads(path.read_text())["evaluations"]
        if not all(isinstance(found["protocol"], dict) and isinstance(found["step"], int)
                   and isinstance(found["metrics"], dict) for found in evaluations):
            raise ValueError("its evaluations lack protocol, step or metrics")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} can't be read ({error}): delete it and evaluate again") from error
    return evaluations


def write_evaluation(folder: str | Path, evaluation: dict[str, Any]) -> None:
    """Adds an evaluation to a run's `evaluation.json`.

    Its metrics join those of an earlier one of the same parameters, step and protocol.

    Args:
        folder: the run's.
        evaluation: `step`, `params_sha256`, `protocol`, `metrics` and more, JSON values.

    Raises:
        RunError: the file that is there is damaged.
        OSError: it can't be written.
    """
    def is_same(found: dict[str, Any]) -> bool:
        return all(found.get(name) == evaluation[name] for name in ("step", "params_sha256", "protocol"))

    found = read_evaluations(folder)
    metrics = {name: value for old in found if is_same(old) for name, value in old["metrics"].items()}
    evaluation = evaluation | {"metrics": metrics | evaluation["metrics"]}
    kept = [old for old in found if not is_same(old)]
    _write(Path(folder) / "evaluation.json", _json({"evaluations": [*kept, evaluation]}))


def read_logs(folder: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads a run's logged metrics and digests."""
    return _rows(Path(folder) / "metrics.jsonl"), _rows(Path(folder) / "digests.jsonl")


def environment() -> dict[str, Any]:
    """What may decide the last bits of a result besides the settings, and the command."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count()
    return {
        "versions": {"python": platform.python_version()} | {
            name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "processor": processor(),
        "cores": cores,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command": sys.orig_argv,
    }


def processor() -> str:
    """The type of the machine's processor: what is compiled for another may differ, or not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described = sorted({line for line in lines
                            if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        described = [platform.processor()]
    return f"{platform.machine()}-{zlib.crc32(repr(described).encode()):08x}"


def _is_unused(folder: Path) -> bool:
    """Whether nothing is in it but what a run leaves that ended before its configuration was there."""
    return folder.is_dir() and all(
        path.name in (_LOCK, "config.json.partial") or (path.name == "samples" and path.is_dir()
        and not any(path.iterdir())) for path in folder.iterdir())


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log up to the first that was cut short."""
    rows = []
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return rows
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def _samples(folder: Path) -> dict[int, Path]:
    """The files of samples by step."""
    return {int(path.stem[5:]): path for path in sorted(folder.glob("step_*"))
            if path.suffix in (".png", ".txt") and path.stem[5:].isdecimal()}


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
