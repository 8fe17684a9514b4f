"""Runs a run again from its configuration alone, and says whether it comes to the same bits."""

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from experiments import launch, open_run, opening, settings
from experiments.experiment import Experiment
from jaxgan.runs import environment, read_config, read_logs, read_result


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run again."""

    run_dir: Annotated[str, tyro.conf.Positional]
    """The run's folder; nothing is written there."""
    out: str = ""
    """The new run's folder; by default one that is removed at the end."""
    data_dir: str = ""
    """Where the data are, if not where they were: data sets, or the run's folder of images, or text."""
    experiment: str = ""
    """Of a run of your own experiment: the Python file that holds it."""


def main(options: Options) -> int:
    """Runs it up to the last step that was logged and compares; 1 if there is a difference."""
    run = open_run(options.run_dir, None, experiment=options.experiment, data_dir=options.data_dir)
    config = run.config
    logs = read_logs(options.run_dir)
    if not logs[0]:
        raise ValueError(f"{options.run_dir} has no logged step to compare with")
    launch.prepare(config)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or f"{temporary}/run"
        rollback = config.schedule.on_nan == "rollback"
        launch.run(run.experiment, settings.replace(
            config, run_dir=out, resume="", steps=logs[0][-1]["step"], max_hours=0.0,
            eval_every=0, best_metric="", patience=0, distributed=False, coordinator="",
            # Where a run goes back to when it diverges decides what it computes; else they don't matter.
            checkpoint_every=config.run.checkpoint_every if rollback else 0), again=options.run_dir)
        difference = _first_difference(logs, read_logs(out))
        results = [read_result(folder) for folder in (options.run_dir, out)]
    if difference is None and None not in results and results[0]["steps"] == results[1]["steps"]:
        difference = _leaf_difference(*(result["leaves_sha256"] for result in results))
    if difference is None:
        print(f"identical: {len(logs[0])} logged steps, up to step {logs[0][-1]['step']}")
        return 0
    print(f"different: {difference}")
    for name, there, here in (*_experiment_differences(run.experiment, run.settings),
                              *_environment_differences(options.run_dir)):
        print(f"environment: {name} was {there}, is {here}")
    return 1


def _first_difference(there: tuple[list, list], here: tuple[list, list]) -> str | None:
    """The first step that both logged and where a metric or a parameter's digest differs, and which."""
    found = []
    for kind, old_rows, new_rows in zip(("metric", "parameter"), there, here, strict=True):
        new_rows = {row["step"]: row for row in new_rows}
        found += [(old["step"], kind, name) for old in old_rows if (new := new_rows.get(old["step"]))
                  for name in old.keys() & new.keys() if old[name] != new[name]]
    if not found:
        return None
    step = min(found)[0]
    names = [f"{kind} {name}" for at, kind, name in sorted(found) if at == step]
    shown = [next((name for name in names if name.startswith(kind)), None)
             for kind in ("metric", "parameter")]
    return f"first at step {step}: {', '.join(name for name in shown if name)}; {len(names)} in all"


def _leaf_difference(there: dict[str, str], here: dict[str, str]) -> str | None:
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    return f"at the end: parameter {names[0]}; {len(names)} in all" if names else None


def _experiment_differences(experiment: Experiment, recorded: Mapping[str, Any]
                            ) -> list[tuple[str, Any, Any]]:
    """The digest of the file of a user's own experiment, there and here, if it is another one."""
    name = "experiment_sha256"
    return ([(name, recorded.get(name), experiment.recorded()[name])]
            if opening.is_edited(experiment, recorded) else [])


def _environment_differences(run_dir: str) -> list[tuple[str, Any, Any]]:
    there, here = read_config(run_dir), environment()
    return [(name, there.get(name), here[name]) for name in here
            if name != "command" and there.get(name) != here[name]]


if __name__ == "__main__":
    launch.tool(main, Options)
