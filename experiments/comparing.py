"""Several runs' evaluations in one table, seeds grouped as mean and standard deviation."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxgan import console, evaluation, files
from jaxgan.pictures import save_bands
from jaxgan.runs import read_config, read_evaluations, read_logs, read_result

from . import changing, commands, flags, measuring, opening, settings
from .commands import called
from .opening import open_run


def compare(folders: Sequence[str], out: Path, *, logged: bool = False) -> list[str]:
    """Tabulates runs, and saves the table and the plot.

    Args:
        folders: the runs'.
        out: the plot's file, a .png; the table is beside it, as .txt.
        logged: whether to take what the last step logged, where nothing was evaluated.

    Returns:
        The table's lines, and the plot's name if there is one.

    Raises:
        ValueError: a run has no evaluation, or they were measured by different protocols.
    """
    found = compared(folders, logged=logged)
    table = [*found.heads, *console.aligned(found.rows), *[found.described] * bool(found.described)]
    files.write(out.with_suffix(".txt"), "".join(f"{console.printable(line)}\n" for line in table))
    titles = {number.name: number.title for number in found.numbers}
    curves = {label: [_curves(run["folder"], titles) for run in members]
              for label, members in found.groups.items()}
    if any(points for members in curves.values() for run in members for points in run.values()):
        metrics = found.first["metrics"]
        floor = {name: metrics[name]["floor"] for name in titles
                 if metrics[name].get("floor") is not None}
        save_bands(out, curves, titles, floor)
        return [*table, str(out)]
    return table


class Compared(NamedTuple):
    """Runs beside each other.

    Attributes:
        groups: by label, the runs that differ in their seeds alone.
        numbers: what all of them have.
        heads: a line for each group, which says what it is.
        rows: of the table, its head first.
        described: by what all were measured; "" if nothing was.
    """

    groups: dict[str, list[Mapping[str, Any]]]
    numbers: list[evaluation.Number]
    heads: list[str]
    rows: list[tuple[str, ...]]
    described: str

    @property
    def first(self) -> Mapping[str, Any]:
        """The first of the runs."""
        return next(iter(self.groups.values()))[0]


def compared(folders: Sequence[str], *, logged: bool = False) -> Compared:
    """Puts runs beside each other; arguments and errors as of `compare`."""
    runs = [_read(folder, logged) for folder in folders]
    _check_same_protocol(runs)
    groups = _grouped(runs)
    numbers = [number for number in map(_namer(runs[0]["folder"]), runs[0]["metrics"])
               if all(number.name in run["metrics"] for run in runs) and not number.deviation_of]
    heads = [f"[{position}] {label}: {len(members)} run{'s' * (len(members) > 1)}, step "
             f"{members[0]['step']}" for position, (label, members) in enumerate(groups.items(), 1)]
    is_measured = bool(runs[0]["protocol"])
    rows = [("", *(f"[{position}]" for position in range(1, len(groups) + 1)),
             measuring.held_out(runs[0]) if is_measured else "", "")]
    for number in numbers:
        floor = runs[0]["metrics"][number.name].get("floor")
        rows.append((number.title, *(_mean([run["metrics"][number.name]["value"] for run in members])
                                     for members in groups.values()),
            "" if floor is None else _mean([floor]), measuring.direction(number)))
    return Compared(groups, numbers, heads, rows, measuring.described(runs[0]) if is_measured else "")


def _read(folder: str, logged: bool) -> dict[str, Any]:
    evaluations = read_evaluations(folder)
    if logged and not evaluations and (result := read_result(folder)):
        evaluations = [{"step": result["steps"], "protocol": {}, "floor_count": 0,
                        "metrics": {name: {"value": value} for name, value in result["final"].items()}}]
    changed = changing.read_history(folder)
    there = read_config(folder)["settings"]
    values = settings.before(config_of(there)) | there
    if values.get("optimizer") != "rmsprop":
        del values["rmsprop_eps"]
    if not evaluations:
        raise ValueError(f"{folder} has no evaluation.json: run {called('evaluate')} {folder}")
    return {**evaluations[-1], "folder": folder, "settings": values,
            "changed": [entry["step"] for entry in changed]}


def _namer(folder: str) -> Callable[[str], evaluation.Number]:
    """Returns what gives a number by its name, whatever version the run is of."""
    try:
        find = partial(measuring.find, open_run(folder, None).reference)
    except ValueError:  # a run that this version can't open: its experiment's own numbers have no title
        find = partial(evaluation.find, known=evaluation.METRICS.values())
    return lambda name: find(name=name) or evaluation.Number(name, name, None)


def _check_same_protocol(runs: Sequence[Mapping[str, Any]]) -> None:
    if not any(run["protocol"] for run in runs):  # judged without samples
        return
    first, *others = ((run["folder"], _protocol(run)) for run in runs)
    for folder, protocol in others:
        if differing := evaluation.differences(first[1], protocol):
            raise ValueError(
                f"{first[0]} and {folder} were measured by different protocols "
                f"({'; '.join(differing)}): numbers of different protocols don't compare; evaluate both "
                "by the same one")


def _protocol(run: Mapping[str, Any]) -> evaluation.Protocol:
    try:
        return evaluation.protocol_from_json(run["protocol"])
    except ValueError as error:
        raise ValueError(f"{run['folder']} was measured by a protocol that this version doesn't know: "
                         f"run {called('evaluate')} {run['folder']} again") from error


def _grouped(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The runs by those of their settings that differ between them, but for the seed.

    Runs of one kind that were measured at other steps, or in which settings were changed at other steps,
    are no seeds of one experiment either.
    """
    ignored = {"seed", "experiment_file"}.union(*map(_not_compared, runs))
    names = {name for run in runs for name in run["settings"]} - ignored
    differing = sorted(name for name in names
                       if len({repr(run["settings"].get(name)) for run in runs}) > 1)
    groups = {}
    for run in runs:
        label = [f"{name} {run['settings'].get(name)}" for name in differing]
        label += [f"changed at {', '.join(map(str, run['changed']))}"] * bool(run["changed"])
        label = ", ".join(label) or str(run["settings"].get("experiment"))
        groups.setdefault((label, run["step"]), []).append(run)
    labels = [label for label, _ in groups]
    return {label if labels.count(label) == 1 else f"{label}, step {step}": members
            for (label, step), members in groups.items()}


def _not_compared(run: Mapping[str, Any]) -> set[str]:
    """The names of settings that don't decide what is computed."""
    config = config_of(run["settings"])
    return settings.flat(config).keys() - settings.identity(config)


def config_of(values: Mapping[str, Any]) -> flags.Config:
    """The defaults of a run's experiment, or what experiments have in common if it isn't ours."""
    name = values.get("experiment")
    is_ours = name in commands.experiments() and "experiment_file" not in values
    return opening.load(name).Config() if is_ours else flags.Config()


def _mean(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4g}"
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return mean
    return f"{mean} +- {statistics.stdev(values):.2g}"


def _curves(folder: str, names: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
    rows, _ = read_logs(folder)
    return {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
