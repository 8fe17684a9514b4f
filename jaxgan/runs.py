"""A run's folder: configuration, metrics, sample pictures, curves, result.

    config.json               every resolved setting, versions, devices, the command
    metrics.jsonl             one line a log point
    events.out.tfevents.*     the same, and the pictures, for TensorBoard
    samples/step_00001000.png a grid from the same latents each time; real.png once
    curves.png                the metrics over the steps
    checkpoints/              the last few states and the best one
    result.json               what came out
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgan.pictures import save_curves, save_png
from jaxgan.types import PyTree


class RunError(ValueError):
    """A run folder that can't be used as asked."""


class Run:
    """A folder that one run writes to; nothing is written before `start`.

    Args:
        folder: where; made by `start` if it isn't there.
        settings: every resolved setting, to be found again in `config.json`; JSON values.
        identity: the names of the settings that must be the same when a folder is used again: those
            that decide what the run computes, not for how long or how often it reports.

    Raises:
        RunError: the folder holds something else, or a run whose settings differ.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], identity: Iterable[str]):
        self.folder = Path(folder)
        existing = read_config(self.folder)["settings"] if self.config_path.exists() else None
        if existing is not None:
            names = sorted({"experiment", *identity})
            differing = [f"{name} is {existing.get(name)!r} there and {settings.get(name)!r} here"
                         for name in names if existing.get(name) != settings.get(name)]
            if differing:
                raise RunError(f"{self.folder} holds a run with another configuration "
                               f"({'; '.join(differing)}): choose another --run-dir")
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise RunError(f"{self.folder} is not an empty folder nor a run's: choose another --run-dir")
        self._config = _json({"settings": settings} | _environment())
        self._board = None

    @property
    def config_path(self) -> Path:
        """Where the configuration is."""
        return self.folder / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def start(self, step: int) -> None:
        """Opens the logs for what follows `step`, and drops what an earlier try logged beyond it.

        Raises:
            RunError: the folder can't be written to.
        """
        from tensorboardX import SummaryWriter

        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            _write(self.config_path, self._config)
            self._result_path.unlink(missing_ok=True)  # until this run has its own
        except OSError as error:
            raise RunError(f"{self.folder} can't be written to ({error.strerror}): "
                           "choose another --run-dir") from error
        rows = [row for row in self.metrics() if row["step"] <= step]
        _write(self._metrics_path, "".join(json.dumps(row) + "\n" for row in rows))
        self._board = SummaryWriter(str(self.folder), purge_step=step + 1, write_to_disk=True)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a line of metrics.

        Raises:
            OSError: the disk is full; as of `save_real` and `save_picture`.
        """
        self._check_room()
        with self._metrics_path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def save_real(self, picture: np.ndarray) -> None:
        """Saves a picture of real samples, uint8 [height, width, 3]."""
        self._check_room()
        save_png(self.folder / "samples" / "real.png", picture)

    def save_picture(self, step: int, picture: np.ndarray) -> None:
        """Saves a picture of samples, uint8 [height, width, 3]."""
        self._check_room()
        save_png(self.folder / "samples" / f"step_{step:08d}.png", picture)
        self._board.add_image("samples", picture, step, dataformats="HWC")

    def metrics(self) -> list[dict[str, float]]:
        """The logged lines; a last one cut short by a crash is left out."""
        if not self._metrics_path.exists():
            return []
        rows = []
        for line in self._metrics_path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def finish(self, result: dict[str, Any]) -> None:
        """Writes `result.json` and `curves.png`."""
        _write(self._result_path, _json(result))
        save_curves(self.folder / "curves.png", self.metrics())

    def close(self) -> None:
        """Closes the logs."""
        if self._board is not None and self._has_room():
            self._board.close()

    def _has_room(self) -> bool:
        """Whether a log and a picture fit: the event file's thread dies of a full disk, and `close`
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
    def _result_path(self) -> Path:
        return self.folder / "result.json"


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads a run's `config.json`.

    Raises:
        RunError: there is none, or it isn't a run's.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{folder} is not a run's folder: it has no config.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path} can't be read ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise RunError(f"{path} is not a run's configuration: it has no settings")
    return config


def read_result(folder: str | Path) -> dict[str, Any] | None:
    """Reads a run's `result.json`; None if the run isn't finished."""
    path = Path(folder) / "result.json"
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def params_digest(*params: PyTree) -> str:
    """The SHA-256 of parameters: of each leaf's path, dtype, shape and bytes, in order of paths."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _environment() -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version()} | {
            name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "command": sys.orig_argv,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
