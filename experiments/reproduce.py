"""Runs a run again from its configuration alone, and says whether it comes to the same bits."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro

from jaxgan import console
from jaxgan.runs import environment, read_config, read_logs, read_result

from . import changing, launch, opening, settings
from .experiment import Experiment
from .opening import open_run


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run again."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run's folder; nothing is written there."""
    out: str = ""
    """The new run's folder; by default one that is removed at the end."""
    data_dir: str = ""
    """Where the data are, if not where they were: data sets, or the run's folder of images, or text."""
    experiment: str = ""
    """Of a run of your own experiment: the Python file that holds it."""


def main(options: Options) -> int:
    """Runs it up to the last step that was logged and compares; 1 if there is a difference.

    Raises:
        ValueError: there is nothing to compare.
    """
    run = open_run(options.run_dir, None, experiment=options.experiment, data_dir=options.data_dir)
    config = run.config
    logs, result = read_logs(options.run_dir), read_result(options.run_dir)
    if not logs[0]:
        raise ValueError(f"{options.run_dir} has no logged step to compare with")
    launch.prepare(config)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or f"{temporary}/run"
        rollback = config.schedule.on_nan == "rollback"
        config = settings.replace(
            config, max_hours=0.0, profile=0, eval_every=0, best_metric="", patience=0,
            distributed=False, coordinator="", change=None,
            # Where a run goes back to when it diverges decides what it computes; else they don't matter.
            checkpoint_every=config.run.checkpoint_every if rollback else 0)
        begun, parts = changing.replayed(config, changing.read_history(options.run_dir),
                                         logs[0][-1]["step"])
        for changes, steps in parts:
            part = settings.replace(begun, run_dir=out, resume="auto", steps=steps)
            launch.train(run.experiment, part, changes,
                         again=options.run_dir if changes == parts[-1][0] else "")
        compared = list(_compared(logs, read_logs(out)))
        again = read_result(out)
    leaves = []
    if result is not None and again is not None and result["steps"] == again["steps"]:
        leaves = sorted({*result["leaves_sha256"], *again["leaves_sha256"]})
    if not compared and not leaves:
        raise ValueError(f"nothing of what {options.run_dir} has logged is logged when it is run again: "
                         "there is nothing to compare")
    difference = _first_difference(compared) or _leaf_difference(leaves, result, again)
    if difference is None:
        steps = {step for step, *_ in compared}
        console.say(f"identical: {len(steps)} logged steps, up to step {max(steps, default=0)}"
                    if steps else f"identical: the parameters of step {logs[0][-1]['step']}")
        return 0
    console.say(f"different: {difference}")
    for name, there, here in (*_experiment_differences(run.experiment, run.settings),
                              *_environment_differences(options.run_dir)):
        console.say(f"environment: {name} was {there}, is {here}")
    return 1


def _compared(there: tuple[list, list], here: tuple[list, list]) -> Iterator[tuple[int, str, str, bool]]:
    """What both logged: step, "metric" or "parameter", its name, and whether it is the same."""
    for kind, old_rows, new_rows in zip(("metric", "parameter"), there, here, strict=True):
        new_rows = {row["step"]: row for row in new_rows}
        for old in old_rows:
            new = new_rows.get(old["step"], {})
            for name in sorted((old.keys() & new.keys()) - {"step"}):
                yield old["step"], kind, name, repr(old[name]) == repr(new[name])  # NaN is NaN here


def _first_difference(compared: Sequence[tuple[int, str, str, bool]]) -> str | None:
    """The first step where a metric or a parameter's digest differs, and which."""
    found = sorted((step, kind, name) for step, kind, name, is_same in compared if not is_same)
    if not found:
        return None
    step = found[0][0]
    names = [f"{kind} {name}" for at, kind, name in found if at == step]
    shown = [next((name for name in names if name.startswith(kind)), None)
             for kind in ("metric", "parameter")]
    return f"first at step {step}: {', '.join(name for name in shown if name)}; {len(names)} in all"


def _leaf_difference(leaves: Sequence[str], there: Any, here: Any) -> str | None:
    names = [name for name in leaves
             if there["leaves_sha256"].get(name) != here["leaves_sha256"].get(name)]
    return f"at the end: parameter {names[0]}; {len(names)} in all" if names else None


def _experiment_differences(experiment: Experiment, recorded: Mapping[str, Any]
                            ) -> list[tuple[str, Any, Any]]:
    """The digest of the file of a user's own experiment, there and here, if it is another one."""
    name = "experiment_sha256"
    return ([(name, recorded.get(name), experiment.recorded()[name])]
            if opening.is_edited(experiment, recorded) else [])


def _environment_differences(run_dir: str) -> list[tuple[str, Any, Any]]:
    there, here = read_config(run_dir), environment()
    found = []
    for name, value in here.items():
        if name == "command" or there.get(name, value) == value:
            continue
        before = there[name]
        if isinstance(value, dict) and isinstance(before, dict):
            found += [(part, before.get(part), value.get(part)) for part in {**before, **value}
                      if before.get(part) != value.get(part)]
        else:
            found.append((name, before, value))
    return found


if __name__ == "__main__":
    launch.tool(main, Options)
