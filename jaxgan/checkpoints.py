"""Checkpoints of a run: the arrays by orbax, in the background, and a manifest of what they must be.

    checkpoints/00001000/                   a checkpoint, whole or not there: renamed into place last
    checkpoints/00001000/manifest.json      the SHA-256 of every leaf and file, shapes, configuration
    checkpoints/unfinished_00002000/        what a save has written so far, or a killed one has left
    checkpoints/damaged_00001000/           moved aside by a run that resumed from another one

A checkpoint is believed only if it is what its manifest says, file by file and leaf by leaf: orbax
itself restores a flipped bit without an error.
"""

import dataclasses
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxgan.digests import file_digest, json_digest, leaf_digest, leaf_digests
from jaxgan.parallel import agreed
from jaxgan.types import PyTree

_MANIFEST = "manifest.json"
_MANIFEST_BYTES = 2**26  # more is not read


class CheckpointError(ValueError):
    """A checkpoint that isn't there, doesn't fit or couldn't be saved."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was saved."""


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints in one folder, each named by its step.

    Attributes:
        folder: where they are; made at the first save.
        keep: how many of the latest to keep.
        best_metric: None, or the name of a metric: the checkpoint where it was lowest is kept too.
        configuration: what decides what the run computes, JSON values; a checkpoint that was saved with
            others of these is refused. None to accept any.
        highest: whether it is the highest `best_metric` that is best.
    """

    folder: Path
    keep: int = 3
    best_metric: str | None = None
    configuration: Mapping[str, Any] | None = None
    highest: bool = False

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1; got {self.keep}")
        self.folder = Path(self.folder).absolute()
        self._saving: Future | None = None

    def save(self, step: int, state: PyTree, metrics: Mapping[str, float] | None = None, *,
             retries: int = 0, unscored: bool = False) -> None:
        """Copies `state` and saves it in the background, once the last save is finished.

        Args:
            step: its number.
            state: arrays; on several processes the same on all of them, and all call this.
            metrics: numbers to remember with it.
            retries: how often the run had gone back when it got here, to remember with it.
            unscored: whether the metric to be best in may be missing, as at an interruption.

        Raises:
            CheckpointError: the step is there already, the metric to be best in is missing, the disk
                has no room, or this save or the last one failed.
        """
        self.wait()
        metrics = dict(metrics or {})
        if step in self.steps():
            raise CheckpointError(f"there is a checkpoint of step {step} in {self.folder} already")
        if self.best_metric is not None and self.best_metric not in metrics and not unscored:
            raise CheckpointError(f"no metric is called {self.best_metric!r}; there are "
                                  f"{', '.join(sorted(metrics))}")
        self._check_room(step, state)
        host = jax.tree.map(lambda x: np.array(x), state)
        body = {"format": 1, "step": step, "retries": retries, "metrics": metrics,
                "configuration": dict(self.configuration or {})}
        partial = self.folder / f"unfinished_{_name(step)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # By all processes if there are several, each its part of arrays that span all of them.
            self._checkpointer.save(partial, _spanning(host) if jax.process_count() > 1 else host)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._failed(step, error) from error
        self._saving = self._thread.submit(self._finish, step, host, body)

    def _finish(self, step: int, host: PyTree, body: dict[str, Any]) -> None:
        """Waits for orbax, adds the manifest and puts the checkpoint in its place."""
        partial = self.folder / f"unfinished_{_name(step)}"
        try:
            self._checkpointer.wait_until_finished()
            if jax.process_index() == 0:
                body["leaves"] = _described(host)
                body["sha256"] = json_digest(body["leaves"])
                body["files"] = {name: [path.stat().st_size, file_digest(path)]
                                 for name, path in _files(partial).items()}
                with (partial / _MANIFEST).open("w") as file:
                    json.dump({"sha256": json_digest(body), "manifest": body}, file, indent=1)
                os.replace(partial, self.folder / _name(step))
                self._drop_old()
        except Exception as error:
            raise self._failed(step, error) from error

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        shutil.rmtree(self.folder / f"unfinished_{_name(step)}", ignore_errors=True)  # its space
        self.discard_unfinished()
        return CheckpointError(f"the checkpoint of step {step} could not be saved in {self.folder} "
                               f"({_first_line(error)}); earlier ones are good")

    def wait(self) -> None:
        """Waits until what was saved is on the disk.

        Raises:
            CheckpointError: it could not be saved; nothing is left of it.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        try:
            self.wait()
        finally:
            if "_checkpointer" in self.__dict__:
                self._checkpointer.close()
                self._thread.shutdown()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in ascending order; whether it is good is not looked at."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir()
                      if path.name.isascii() and path.name.isdigit() and path.is_dir()
                      and path.name == _name(int(path.name)))

    def best_step(self) -> int | None:
        """The step where `best_metric` was lowest, or `highest`; None if no checkpoint has it."""
        scored = []
        for step in self.steps() if self.best_metric is not None else []:
            try:
                metrics = self.manifest(step)["metrics"]
            except DamagedError:
                continue
            if self.best_metric in metrics:
                value = metrics[self.best_metric]
                scored.append((-value if self.highest else value, step))
        return min(scored)[1] if scored else None

    def manifest(self, step: int) -> dict[str, Any]:
        """Reads what the checkpoint of a step must be.

        Raises:
            DamagedError: there is no manifest, or not the one that was saved.
        """
        path = self.folder / _name(step) / _MANIFEST
        try:
            if path.stat().st_size > _MANIFEST_BYTES:
                raise ValueError("it is too large")
            content = json.loads(path.read_text())
            body = content["manifest"]
            if content["sha256"] != json_digest(body):
                raise ValueError("it was changed")
            if body["format"] != 1 or body["step"] != step:
                raise ValueError(f"it is of format {body['format']} and step {body['step']}")
            for name in ("metrics", "configuration", "leaves", "files"):
                if not isinstance(body[name], dict):
                    raise ValueError(f"{name} is no table")
            if not all(isinstance(leaf, list) and len(leaf) == 3 for leaf in body["leaves"].values()):
                raise ValueError("leaves are not described by shape, dtype and digest")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError(f"the checkpoint of step {step} in {self.folder} is damaged: "
                               f"{_MANIFEST}: {_first_line(error)}") from error
        return body

    def load(self, step: int | None = None) -> dict[str, Any]:
        """Returns the state of a step, or of the latest one, as nested dicts of NumPy's arrays.

        For who has no template: a field's name, a dict's key or a list's index is a key here.

        Raises:
            DamagedError: it is not what was saved.
            CheckpointError: there is none.
        """
        step, manifest = self._find(step)
        nested: dict[str, Any] = {}
        try:
            leaves = self._read(step)
            for path, (_, _, digest) in manifest["leaves"].items():
                *folders, name = ["".join(part) for part in _PARTS.findall(path)]
                leaf = leaves["/".join([*folders, name])]
                if leaf_digest(leaf) != digest:
                    raise ValueError(f"{path} is not what was saved")
                inside = nested
                for folder in folders:
                    inside = inside.setdefault(folder, {})
                inside[name] = leaf
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise DamagedError(f"the checkpoint of step {step} in {self.folder} can't be read "
                               f"({_first_line(error)})") from error
        return nested

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Returns the state of a step, or of the latest one, as arrays of NumPy.

        Args:
            template: a state (or its `jax.eval_shape`) of the same structure, shapes and dtypes.
            step: which; None for the latest.

        Raises:
            DamagedError: it is not what was saved.
            CheckpointError: there is none, or it is of another architecture (the leaves that differ
                are named) or configuration.
        """
        step, manifest = self._find(step)
        what = f"the checkpoint of step {step} in {self.folder}"
        _check_same(manifest["leaves"], _described(template, digests=False), what)
        self._check_configuration(manifest["configuration"], what)
        like = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), template)
        try:
            leaves = self._read(step, _by_path(like))
            state = jax.tree_util.tree_map_with_path(lambda path, _: leaves[_path(path)], like)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise DamagedError(f"{what} can't be read ({_first_line(error)})") from error
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            name = jax.tree_util.keystr(path)
            if leaf_digest(leaf) != manifest["leaves"][name][2]:
                raise DamagedError(f"{what} is damaged: {name} is not what was saved")
        return state

    def restore_newest(self, template: PyTree) -> PyTree | None:
        """Returns the state of the newest good checkpoint, None if there is none.

        Damaged ones that are newer are moved aside, with a warning each; for the run that owns the
        folder only, by all its processes together.

        Raises:
            CheckpointError: it is of another architecture or configuration.
        """
        while True:
            # One process looks and moves; then all restore, as orbax has them wait for each other.
            step, = agreed(self._newest_whole() if jax.process_index() == 0 else -1)
            if step < 0:
                return None
            try:
                return self.restore(template, step)
            except DamagedError as error:
                if jax.process_index() == 0:
                    self._move_aside(step, error)

    def _newest_whole(self) -> int:
        for step in reversed(self.steps()):
            try:
                self._check_files(step, self.manifest(step)["files"])
                return step
            except DamagedError as error:
                self._move_aside(step, error)
        return -1

    def _move_aside(self, step: int, error: DamagedError) -> None:
        aside = _unused(self.folder / f"damaged_{_name(step)}")
        os.replace(self.folder / _name(step), aside)
        warnings.warn(f"{error}; moved to {aside.name}", UserWarning, stacklevel=3)

    def delete(self, step: int) -> None:
        """Deletes the checkpoint of a step."""
        doomed = self.folder / f"unfinished_{_name(step)}"  # what a crash leaves of it is no checkpoint
        os.replace(self.folder / _name(step), doomed)
        shutil.rmtree(doomed)

    def discard_unfinished(self) -> None:
        """Removes what saves that never finished have left; for the run that owns the folder only."""
        for path in self.folder.glob("unfinished_*"):
            shutil.rmtree(path, ignore_errors=True)

    @cached_property
    def _checkpointer(self) -> ocp.StandardCheckpointer:
        return ocp.StandardCheckpointer()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1)

    def _drop_old(self) -> None:
        steps = self.steps()
        for step in {*steps[:-self.keep]} - {self.best_step()}:
            self.delete(step)

    def _check_room(self, step: int, state: PyTree) -> None:
        """Orbax meets a full disk with a flood of tracebacks, so that is looked for beforehand."""
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        needed = 2**20 + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        if free < needed:
            raise CheckpointError(
                f"there is no room in {self.folder} for the checkpoint of step {step}: it needs "
                f"{needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; earlier ones are good: free "
                "some space and go on from the latest")

    def _check_files(self, step: int, expected: dict[str, list]) -> None:
        folder = self.folder / _name(step)
        try:
            files = _files(folder)
            files.pop(_MANIFEST)
            for name in sorted({*files, *expected}):
                if name not in expected:
                    raise ValueError(f"{name} does not belong there")
                if name not in files:
                    raise ValueError(f"{name} is missing")
                if [files[name].stat().st_size, file_digest(files[name])] != expected[name]:
                    raise ValueError(f"{name} is not what was saved")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"the checkpoint of step {step} in {self.folder} is damaged: "
                               f"{_first_line(error)}") from error

    def _find(self, step: int | None) -> tuple[int, dict[str, Any]]:
        """The step, or the latest, and its manifest, whose files are as they were saved."""
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise CheckpointError(f"there is no checkpoint of step {step} in {self.folder}: choose "
                                  f"from {', '.join(map(str, steps))}")
        manifest = self.manifest(step)
        self._check_files(step, manifest["files"])
        return step, manifest

    def _read(self, step: int, expected: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Reads the leaves by their paths, so that empty parts of the state may come and go.

        What the files claim to hold is compared with what is expected before it is read into memory.
        """
        described = self._checkpointer.metadata(self.folder / _name(step)).item_metadata
        if described is None:
            raise ValueError("it has no description of its arrays")
        held = _by_path(described.tree)
        if expected is None:
            expected = {path: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
                        for path, leaf in held.items()}
        for path in sorted({*held, *expected}):
            there, here = (tuple(tree[path].shape) if path in tree else None
                           for tree in (held, expected))
            if there != here:
                raise ValueError(f"{path} has shape {there}, not {here}")
        target = jax.tree_util.tree_map_with_path(lambda path, _: expected[_path(path)], described.tree)
        return _by_path(self._checkpointer.restore(self.folder / _name(step), target))

    def _check_configuration(self, saved: Mapping[str, Any], what: str) -> None:
        if self.configuration is None:
            return
        here = json.loads(json.dumps(self.configuration))
        differences = [f"{name} is {saved.get(name)!r} there and {here.get(name)!r} here"
                       for name in sorted(here) if saved.get(name) != here.get(name)]
        if differences:
            raise CheckpointError(f"{what} is of another configuration ({'; '.join(differences)})")


_PARTS = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]")  # of a path as a manifest spells it


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {_path(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _name(step: int) -> str:
    return f"{step:08d}"


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}_{i}") if i else path for i in range(10**6))
    return next(candidate for candidate in numbered if not candidate.exists())


def _files(folder: Path) -> dict[str, Path]:
    """The regular files in a folder by their relative paths.

    Raises:
        ValueError: there is something else in it, a symbolic link for instance.
    """
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path.relative_to(folder)} is neither a file nor a folder")
        found |= {path.relative_to(folder).as_posix(): path for path in (Path(root, n) for n in names)}
    return found


def _described(state: PyTree, *, digests: bool = True) -> dict[str, list[Any]]:
    """The shape, dtype and digest of every leaf by its path."""
    found = leaf_digests(state) if digests else {}
    described = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path)
        described[name] = [list(leaf.shape), str(leaf.dtype), found.get(name)]
    return described


def _check_same(saved: dict[str, list[Any]], expected: dict[str, list[Any]], what: str) -> None:
    differences = [f"{path} is {_leaf(saved.get(path))} there and {_leaf(expected.get(path))} here"
                   for path in sorted({*saved, *expected})
                   if _leaf(saved.get(path)) != _leaf(expected.get(path))]
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise CheckpointError(f"{what} is of another architecture: "
                              f"{'; '.join(differences[:3])}{more}")


def _leaf(entry: list[Any] | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{entry[0]}"


def _spanning(host: PyTree) -> PyTree:
    """The same arrays, replicated over all devices of all processes."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "devices")
    return multihost_utils.host_local_array_to_global_array(host, mesh, jax.sharding.PartitionSpec())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
