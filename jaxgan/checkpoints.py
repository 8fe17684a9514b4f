"""Checkpoints of a run, by orbax: asynchronous, atomic, the last few and the best one kept."""

import dataclasses
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxgan.types import PyTree


class CheckpointError(ValueError):
    """A checkpoint that isn't there or doesn't fit."""


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints in one folder, each named by its step.

    Attributes:
        folder: where they are; made at the first save.
        keep: how many of the latest to keep.
        best_metric: None, or the name of a metric: the checkpoint where it was lowest is kept too.
    """

    folder: Path
    keep: int = 3
    best_metric: str | None = None

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1; got {self.keep}")

    @cached_property
    def _manager(self) -> ocp.CheckpointManager:
        policies = [LatestN(n=self.keep)]
        if self.best_metric is not None:
            policies.append(BestN(n=1, reverse=True, keep_checkpoints_without_metrics=False,
                                  get_metric_fn=lambda metrics: metrics[self.best_metric]))
        return ocp.CheckpointManager(
            Path(self.folder).absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                step_format_fixed_length=8, best_mode="min",
                # Without a best_fn, orbax keeps the metrics in memory only.
                best_fn=self.best_metric and (lambda metrics: metrics[self.best_metric])),
            item_names=("state", "description"),
        )

    def discard_unfinished(self) -> None:
        """Removes what saves that never finished have left; for the run that owns the folder only."""
        for path in Path(self.folder).glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

    def save(self, step: int, state: PyTree, metrics: dict[str, float] | None = None) -> None:
        """Starts saving `state` in the background; a step that is already there is left as it is.

        Raises:
            CheckpointError: the metric to be best in is missing, the disk has no room, or orbax
                refused the save.
        """
        if step in self.steps():
            return
        self._check_room(step, state)
        metrics = metrics or {}
        if self.best_metric is not None and self.best_metric not in metrics:
            raise CheckpointError(f"no metric is called {self.best_metric!r}; there are "
                                  f"{', '.join(sorted(metrics))}")
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state),
                                    description=ocp.args.JsonSave(_description(state))),
            metrics=metrics or None,
        )
        if not saved:
            raise CheckpointError(f"the checkpoint of step {step} was not saved: {self.folder} "
                                  f"holds steps {self.steps()}")

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Returns the state of a step, or of the latest one.

        Args:
            template: a state (or its `jax.eval_shape`) of the same structure, shapes and dtypes.
            step: which; None for the latest.

        Raises:
            CheckpointError: there is none, it can't be read, or it is of another architecture (the
                leaves that differ are named).
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise CheckpointError(f"there is no checkpoint of step {step} in {self.folder}: choose "
                                  f"from {', '.join(map(str, steps))}")
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), template)
        try:
            saved = self._manager.restore(
                step, args=ocp.args.Composite(description=ocp.args.JsonRestore())).description
            _check_same(saved, _description(template), f"the checkpoint of step {step}")
            return self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template))).state
        except CheckpointError:
            raise
        except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
            raise CheckpointError(f"the checkpoint of step {step} in {self.folder} can't be read "
                                  f"({_first_line(error)}): resume from another step") from error

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in ascending order."""
        return sorted(self._manager.all_steps()) if Path(self.folder).is_dir() else []

    def best_step(self) -> int | None:
        """The step where `best_metric` was lowest; None if no checkpoint has it."""
        if self.best_metric is None:
            return None
        scored = [(self._manager.metrics(step) or {}, step) for step in self.steps()]
        scored = [(metrics[self.best_metric], step) for metrics, step in scored
                  if self.best_metric in metrics]
        return min(scored)[1] if scored else None

    def delete(self, step: int) -> None:
        """Deletes the checkpoint of a step."""
        self._manager.delete(step)

    def wait(self) -> None:
        """Waits until what was saved is on the disk; errors of the background save appear here."""
        if "_manager" in self.__dict__:
            try:
                self._manager.wait_until_finished()
            except Exception as error:  # orbax and tensorstore raise many kinds
                raise CheckpointError(f"the last checkpoint could not be saved in {self.folder} "
                                      f"({_first_line(error)}); earlier ones are good") from error

    def _check_room(self, step: int, state: PyTree) -> None:
        """Orbax meets a full disk with a flood of tracebacks, so that is looked for beforehand."""
        folder = Path(self.folder).absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        needed = 2**20 + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        if free < needed:
            raise CheckpointError(
                f"there is no room in {self.folder} for the checkpoint of step {step}: it needs "
                f"{needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; earlier ones are good: free "
                "some space and go on from the latest")

    def close(self) -> None:
        """Waits and lets go of the folder."""
        if "_manager" in self.__dict__:
            self._manager.close()


def _description(state: PyTree) -> dict[str, list[Any]]:
    """The path, shape and dtype of every leaf."""
    return {jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)]
            for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}


def _check_same(saved: dict[str, list[Any]], expected: dict[str, list[Any]], what: str) -> None:
    differences = [f"{path} is {_leaf(saved.get(path))} there and {_leaf(expected.get(path))} here"
                   for path in sorted({*saved, *expected}) if saved.get(path) != expected.get(path)]
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise CheckpointError(f"{what} is of another architecture: "
                              f"{'; '.join(differences[:3])}{more}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)


def _leaf(entry: list[Any] | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{entry[0]}"
