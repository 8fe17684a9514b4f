"""Changes that are meant: settings that a run goes on with in place of those it was begun with.

A run's `config.json` holds the settings that it has by now, and in `changes`, for each step at which
some became others, `{"step": ..., "changed": {name: [before, after]}}`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgan.checkpoints import Checkpoints
from jaxgan.runs import changes_of, read_config

from . import settings
from .flags import Config

History = Sequence[Mapping[str, Any]]


def asked(config: Config) -> dict[str, Any]:
    """What --change names: settings and their new values.

    Raises:
        ValueError: it isn't NAME=VALUE, or there is no such setting, or none that needs naming.
    """
    found = {}
    for part in filter(None, (part.strip() for part in (config.run.change or "").split(","))):
        name, _, value = part.partition("=")
        if not value:
            raise ValueError(f"change must be a list like learning_rate=1e-4,n_critic=2; got {part!r}")
        found[name] = settings.parsed(config, name, value)
        if name not in settings.identity(config) | settings.names(config.data):
            raise ValueError(f"{name} may be another one without being named: give "
                             f"--{name.replace('_', '-')} in place of --change")
    return found


def given(config: Config, name: str, value: Any) -> str:
    """How a setting is given another value: by its flag, or of a run that goes on by --change."""
    if recorded(config) is not None and name in settings.identity(config):
        return f"--change {name}={value}"
    return f"--{name.replace('_', '-')} {value}"


def effective(config: Config, changes: Mapping[str, Any]) -> tuple[Config, set[str]]:
    """The configuration that a run is to go on with, and the names of what may have become another one.

    What changed before the step that it goes on from stays changed; and what has become another default
    since the run was begun stays as the run has it.

    Args:
        config: what the flags say.
        changes: settings to go on with, besides those of --change.

    Raises:
        ValueError: there is nothing to change; or as of `asked`.
    """
    new, step = asked(config) | {**changes}, _resumed_step(config)
    if step is None:
        if new:
            raise ValueError(f"change is for a run that goes on, and there is no checkpoint in "
                             f"{config.run.run_dir}: give the setting its flag, or --resume")
        return config, set()
    history = read_history(config.run.run_dir)
    current, flags = values_at(history, step), settings.flat(config)
    known = {name: [value for entry in history for value in entry["changed"].get(name, ())]
             for name in current}
    kept = {name: value for name, value in current.items()
            if name in settings.identity(config) and flags[name] in known[name]}
    names = {*kept, *new}
    there = settings.before(config) | read_config(config.run.run_dir)["settings"] | current
    kept = {name: there[name] for name in settings.moved(config)} | kept
    if names & settings.names(config.data):  # other data: what is known of them may differ
        names.add("data")
    return settings.replace(config, **kept | new), names


def read_history(folder: str | Path) -> list[dict[str, Any]]:
    """A run's changes, by their steps; ValueError if they are not what a run writes."""
    return changes_of(read_config(folder), f"{folder}/config.json")


def replayed(config: Config, history: History, last: int) -> tuple[Config, list[tuple[dict, int]]]:
    """What a run was begun with, and what it went on with, each change with the step that it led to.

    Args:
        config: that of its folder, which it has by now.
        history: its changes.
        last: its last step.

    Raises:
        ValueError: something else than settings was changed.
    """
    unknown = {name for entry in history for name in entry["changed"]} - {
        *settings.flat(config), "data_sha256"}
    if unknown:
        raise ValueError(f"{config.run.run_dir} went on with another {min(unknown)}, which is no "
                         "setting: it can't be trained again from its configuration")

    def of_settings(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name != "data_sha256"}

    changes = [{}, *(of_settings({name: after for name, (_, after) in entry["changed"].items()})
                     for entry in history)]
    ends = [*(entry["step"] for entry in history), last]
    begun = settings.replace(config, **of_settings(values_at(history, -1)))
    return begun, list(zip(changes, ends, strict=True))


def values_at(history: History, step: int) -> dict[str, Any]:
    """The values, from a step on, of everything that is ever changed."""
    values = {}
    for entry in history:
        for name, (before, after) in entry["changed"].items():
            values.setdefault(name, before)
            if entry["step"] <= step:
                values[name] = after
    return values


def recorded(config: Config) -> dict[str, Any] | None:
    """The settings of the run that a configuration goes on with, as of there; None if it begins one."""
    step = _resumed_step(config)
    if step is None:
        return None
    history = read_history(config.run.run_dir)
    return read_config(config.run.run_dir)["settings"] | values_at(history, step)


def _resumed_step(config: Config) -> int | None:
    """The step that a run goes on from; None if it begins."""
    resume, folder = config.run.resume, Path(config.run.run_dir)
    steps = Checkpoints(folder / "checkpoints").steps()
    if not resume or not steps or not (folder / "config.json").exists():
        return None
    return int(resume) if resume.isdecimal() else steps[-1]
