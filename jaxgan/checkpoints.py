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
import math
import os
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxgan import files
from jaxgan.descriptions import are_comparable, differences
from jaxgan.digests import file_digest, json_digest, leaf_digest, leaf_digests
from jaxgan.keys import is_key, on_host
from jaxgan.parallel import agreed
from jaxgan.types import Array, PyTree

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
        specification: what is trained, as `jaxgan.descriptions.describe` says it; a checkpoint of
            another one is refused, or warned of if other versions described it. None for not to look.
        may_change: the names of what may be another one than when a checkpoint was saved: of the
            configuration, or of the specification.
        before: what the configuration's names stand for in checkpoints that lack them.
        changed: what of this was found to be another one by the last `restore`: name -> [there, here].
    """

    folder: Path
    keep: int = 3
    best_metric: str | None = None
    configuration: Mapping[str, Any] | None = None
    highest: bool = False
    specification: Mapping[str, Any] | None = None
    may_change: Collection[str] = ()
    before: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    changed: dict[str, list[Any]] = dataclasses.field(default_factory=dict, init=False)

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1; got {self.keep}")
        self.folder = Path(self.folder).absolute()
        self._saving: Future | None = None
        self._has_warned = False

    def save(self, step: int, state: PyTree, metrics: Mapping[str, float] | None = None, *,
             retries: int = 0, unscored: bool = False) -> None:
        """Copies `state` and saves it in the background, once the last save is finished.

        Args:
            step: its number.
            state: arrays, typed random keys too; on several processes the same on all of them, and all
                call this.
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
        rating = metrics.get(self.best_metric or "", 0.0)
        if not math.isfinite(rating) and not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{self.best_metric} is {rating} at step {step}: such a step is never best",
                          UserWarning, stacklevel=2)
        host = jax.tree.map(_copied, state)
        body = {"format": 1, "step": step, "retries": retries, "metrics": metrics,
                "configuration": dict(self.configuration or {}),
                **({"specification": self.specification} if self.specification else {})}
        unfinished = self.folder / f"unfinished_{_name(step)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # By all processes if there are several, each its part of arrays that span all of them.
            stored = jax.tree.map(on_host, host)
            self._checkpointer.save(unfinished, _spanning(stored) if jax.process_count() > 1 else stored)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._failed(step, error) from error
        self._saving = self._thread.submit(self._finish, step, host, body)

    def _finish(self, step: int, host: PyTree, body: dict[str, Any]) -> None:
        """Waits for orbax, adds the manifest and puts the checkpoint in its place."""
        unfinished = self.folder / f"unfinished_{_name(step)}"
        try:
            self._checkpointer.wait_until_finished()
            if jax.process_index() == 0:
                body["leaves"] = _described(host)
                body["sha256"] = json_digest(body["leaves"])
                body["files"] = {name: [path.stat().st_size, file_digest(path)]
                                 for name, path in _files(unfinished).items()}
                with (unfinished / _MANIFEST).open("w") as file:
                    json.dump({"sha256": json_digest(body), "manifest": body}, file, indent=1)
                place = self.folder / _name(step)
                if place.is_symlink():  # to one that isn't there, else its step would be among `steps`
                    place.unlink()
                os.replace(unfinished, place)
                self._drop_old()
        except Exception as error:
            raise self._failed(step, error) from error

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        self.discard_unfinished()  # for its space
        return CheckpointError(f"the checkpoint of step {step} could not be saved in {self.folder} "
                               f"({files.reason(error)}); earlier ones are good")

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
        """The step where `best_metric` was lowest, or `highest`; None if no checkpoint has it, or has
        a number.
        """
        scored = []
        for step in self.steps() if self.best_metric is not None else []:
            try:
                metrics = self.manifest(step)["metrics"]
            except DamagedError:
                continue
            value = metrics.get(self.best_metric)
            if isinstance(value, int | float) and math.isfinite(value):
                scored.append((-value if self.highest else value, step))
        return min(scored)[1] if scored else None

    def manifest(self, step: int) -> dict[str, Any]:
        """Reads what the checkpoint of a step must be.

        Raises:
            DamagedError: there is no manifest, or not the one that was saved.
        """
        path = self.folder / _name(step) / _MANIFEST
        try:
            content = files.read_json(path, _MANIFEST_BYTES)
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
            if type(body["retries"]) is not int:
                raise ValueError("retries is no number")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"the checkpoint of step {step} in {self.folder} is damaged: "
                               f"{_MANIFEST}: {files.reason(error)}") from error
        return body

    def load(self, step: int | None = None) -> dict[str, Any]:
        """Returns the state of a step, or of the latest one, as nested dicts of NumPy's arrays.

        For who has no template: a field's name, a dict's key or a list's index is a key here. Random
        keys come back as such.

        Raises:
            DamagedError: it is not what was saved.
            CheckpointError: there is none.
        """
        step, manifest = self._find(step)
        nested: dict[str, Any] = {}
        try:
            leaves = self._read(step)
            for path, (_, dtype, digest) in manifest["leaves"].items():
                *folders, name = ["".join(part) for part in _PARTS.findall(path)]
                leaf = _as_key(leaves["/".join([*folders, name])], dtype)
                if leaf_digest(leaf) != digest:
                    raise ValueError(f"{path} is not what was saved")
                inside = nested
                for folder in folders:
                    inside = inside.setdefault(folder, {})
                inside[name] = leaf
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise DamagedError(f"the checkpoint of step {step} in {self.folder} can't be read "
                               f"({files.reason(error)})") from error
        return nested

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Returns the state of a step, or of the latest one, as arrays of NumPy, and typed keys.

        Args:
            template: a state (or its `jax.eval_shape`) of the same structure, shapes and dtypes.
            step: which; None for the latest.

        Raises:
            DamagedError: it is not what was saved.
            CheckpointError: there is none, or it is of another architecture (the leaves that differ
                are named), configuration or specification.
        """
        step, manifest = self._find(step)
        what = f"the checkpoint of step {step} in {self.folder}"
        _check_same(manifest["leaves"], _described(template, digests=False), what)
        self.changed = {}
        self._check_configuration(manifest["configuration"], what)
        self._check_specification(manifest.get("specification"), what)
        stored = jax.tree.map(lambda x: jax.eval_shape(jax.random.key_data, x) if is_key(x) else x,
                              template)
        like = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), stored)
        try:
            leaves = self._read(step, _by_path(like))
            state = jax.tree_util.tree_map_with_path(
                lambda path, leaf: _as_key(leaves[_path(path)], str(leaf.dtype)), template)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise DamagedError(f"{what} can't be read ({files.reason(error)})") from error
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
        files.remove(doomed)
        os.replace(self.folder / _name(step), doomed)  # of a link, the link
        files.remove(doomed)

    def discard_unfinished(self) -> None:
        """Removes what saves that never finished have left; for the run that owns the folder only."""
        for path in self.folder.glob("unfinished_*"):
            with suppress(OSError):
                files.remove(path)

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
            found = _files(folder)
            found.pop(_MANIFEST)
            for name in sorted({*found, *expected}):
                if name not in expected:
                    raise ValueError(f"{name} does not belong there")
                if name not in found:
                    raise ValueError(f"{name} is missing")
                size, digest = expected[name]
                if found[name].stat().st_size != size or file_digest(found[name]) != digest:
                    raise ValueError(f"{name} is not what was saved")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"the checkpoint of step {step} in {self.folder} is damaged: "
                               f"{files.reason(error)}") from error

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
        here, saved = json.loads(json.dumps(self.configuration)), {**self.before, **saved}
        differing = {name: [saved.get(name), here[name]] for name in sorted(here)
                     if saved.get(name) != here[name]}
        self._settle(differing, f"{what} is of another configuration")

    def _check_specification(self, saved: Any, what: str) -> None:
        if self.specification is None or saved is None:
            return
        try:
            differing = differences(saved, self.specification)
            comparable = are_comparable(saved, self.specification)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{what} is damaged: its specification can't be read") from error
        if differing and not comparable:
            warnings.warn(f"{what} was saved by other versions ({saved['versions']}), which describe "
                          f"the specification in another way ({_spelt(differing)})", UserWarning,
                          stacklevel=4)
        elif differing:
            self._settle(differing, f"{what} is of another specification")

    def _settle(self, differing: Mapping[str, list[Any]], what: str) -> None:
        """Takes note of the differences that are meant.

        Raises:
            CheckpointError: there are others.
        """
        for name, values in differing.items():
            if {name, name.partition(".")[0]} & {*self.may_change}:
                self.changed[name] = values
        others = {name: values for name, values in differing.items() if name not in self.changed}
        if others:
            raise CheckpointError(f"{what} ({_spelt(others)}): if that is meant, name it with change")


_PARTS = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]")  # of a path as a manifest spells it


def _copied(leaf: Array) -> Array | np.ndarray:
    """A copy, which outlives the state's buffers: on the host, unless it is of typed keys."""
    return jnp.array(leaf) if is_key(leaf) else np.array(leaf)


def _as_key(leaf: np.ndarray, dtype: str) -> Array | np.ndarray:
    """What was stored, as the typed keys that it was if its dtype was theirs."""
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        if dtype == str(jax.eval_shape(partial(jax.random.key, impl=name), 0).dtype):
            return jax.random.wrap_key_data(jnp.asarray(leaf), impl=name)
    return leaf


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {_path(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _name(step: int) -> str:
    return f"{step:08d}"


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}_{i}") if i else path for i in range(10**6))
    return next(candidate for candidate in numbered if not os.path.lexists(candidate))


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


def _spelt(differing: Mapping[str, list[Any]]) -> str:
    """The first few differences."""
    shown = [f"{name} is {there!r} there and {here!r} here"
             for name, (there, here) in list(differing.items())[:3]]
    return "; ".join(shown) + (f"; and {len(differing) - 3} more" if len(differing) > 3 else "")


def _leaf(entry: list[Any] | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{entry[0]}"


def _spanning(host: PyTree) -> PyTree:
    """The same arrays, replicated over all devices of all processes."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "devices")
    return multihost_utils.host_local_array_to_global_array(host, mesh, jax.sharding.PartitionSpec())

