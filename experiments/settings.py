"""What a setting is: a field of a group of a configuration; and configurations as flat dictionaries."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxgan.evaluation import nearest

ConfigT = TypeVar("ConfigT")
# What a run's folder holds besides its settings.
_RECORDED = {"experiment", "sample_shape", "value_range", "condition", "scaling", "numbers",
             "class_names", "data_sha256", "made_by", "trained_shape"}
_SIMPLE = (bool, int, float, str, types.NoneType)


def reports(default: Any) -> Any:
    """A field that says where a run is, how it is run or how it reports, not what is trained."""
    return dataclasses.field(default=default, metadata={"kind": "reports"})


def may_differ(default: Any) -> Any:
    """A field that says what is trained, and may yet be another one when a run goes on: its length."""
    return dataclasses.field(default=default, metadata={"kind": "may differ"})


def since(default: Any, before: Any) -> Any:
    """A field that came later: runs whose settings lack it did what another value stands for."""
    return dataclasses.field(default=default, metadata={"before": before})


def groups(config: Any) -> dict[str, Any]:
    """The groups of a configuration by name."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def flat(config: Any) -> dict[str, Any]:
    """All settings of a configuration by name, whichever group they are in."""
    return {field.name: getattr(group, field.name) for group, field in _fields(config)}


def names(group: Any) -> set[str]:
    """The names of the settings of a group."""
    return {field.name for field in dataclasses.fields(group)}


def replace(config: ConfigT, **changes: Any) -> ConfigT:
    """Returns a configuration with other settings, named as in `flat`.

    Raises:
        ValueError: there is no setting of such a name.
    """
    known = flat(config)
    for name in changes:
        if name not in known:
            raise ValueError(f"unknown setting {name!r}: {nearest(name, known)}")
    return dataclasses.replace(config, **{
        name: dataclasses.replace(group, **{field.name: changes[field.name]
                                            for field in dataclasses.fields(group)
                                            if field.name in changes})
        for name, group in groups(config).items()})


def identity(config: Any) -> set[str]:
    """The names of the settings that must be the same when a run goes on."""
    return {field.name for _, field in _fields(config) if "kind" not in field.metadata}


def trained(config: Any) -> set[str]:
    """The names of the settings that say what is trained."""
    return {field.name for _, field in _fields(config) if field.metadata.get("kind") != "reports"}


def before(config: Any) -> dict[str, Any]:
    """What the settings that came later stand for in runs that lack them, by name."""
    return {field.name: field.metadata["before"] for _, field in _fields(config)
            if "before" in field.metadata}


def moved(config: Any) -> set[str]:
    """The names of the settings that came later and are as by default, which isn't what runs did."""
    return {field.name for group, field in _fields(config) if "before" in field.metadata
            and getattr(group, field.name) == field.default != field.metadata["before"]}


def read(default: ConfigT, values: Mapping[str, Any], path: str) -> ConfigT:
    """Returns the configuration that a dictionary of settings holds.

    What only reports may be missing, and so may a setting that came later: runs did then what its
    default None stands for, or what `since` says.

    Args:
        default: where missing settings are taken from.
        values: settings by name, JSON values from a file that isn't trusted; others are left alone.
        path: the file's, for errors.

    Raises:
        ValueError: a setting is missing, of another type, or none of its choices.
    """
    missing = sorted(field.name for _, field in _fields(default) if field.name not in values
                     and field.metadata.get("kind") != "reports" and field.default is not None
                     and "before" not in field.metadata)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    known = before(default)
    for group, field in _fields(default):
        if field.name in values:
            _check(f"{field.name} in {path}", values[field.name], _hints(type(group))[field.name])
            known[field.name] = values[field.name]
    return replace(default, **known)


def check(config: Any) -> None:
    """Checks that settings can be told apart by name, and written to JSON and back.

    Raises:
        TypeError: the fields of a configuration are not groups, or a setting is of another type.
        ValueError: two settings have one name.
    """
    for name, group in groups(config).items():
        if not dataclasses.is_dataclass(group):
            raise TypeError(f"{name} of {type(config).__name__} must be a dataclass of settings; got "
                            f"{group!r}")
    seen = set()
    for group, field in _fields(config):
        if field.name in _RECORDED:
            raise ValueError(f"a run's folder says by {field.name!r} what its data are: give the "
                             "setting another name")
        if field.name in seen:
            raise ValueError(f"two groups of {type(config).__name__} have a setting {field.name!r}: "
                             "rename one")
        seen.add(field.name)
        hint = _hints(type(group))[field.name]
        if not all(kind in _SIMPLE or get_origin(kind) is Literal for kind in _kinds(hint)):
            raise TypeError(f"the setting {field.name!r} must be a bool, int, float, str or Literal, or "
                            f"one of these or None; got {hint}")


def parsed(config: Any, name: str, text: str) -> Any:
    """Returns a setting's value from how it is written on a command line.

    Raises:
        ValueError: there is no such setting, or its values are others.
    """
    group = next((group for group, field in _fields(config) if field.name == name), None)
    if group is None:
        raise ValueError(f"unknown setting {name!r}: {nearest(name, flat(config))}")
    hint = _hints(type(group))[name]
    for kind in _kinds(hint):
        for value in get_args(kind) if get_origin(kind) is Literal else (
                (True, False) if kind is bool else (None,) if kind is types.NoneType else ()):
            if str(value) == text:
                return value
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                pass
    _check(name, text, hint)
    return text


def _fields(config: Any) -> Iterator[tuple[Any, dataclasses.Field]]:
    for group in groups(config).values():
        for field in dataclasses.fields(group):
            yield group, field


def _hints(group: type) -> dict[str, Any]:
    return get_type_hints(group)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types that a setting may be of."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _check(name: str, value: Any, hint: Any) -> None:
    kinds = _kinds(hint)
    if any(value in get_args(kind) if get_origin(kind) is Literal else _is(value, kind)
           for kind in kinds):
        return
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    wanted = " or ".join([f"one of {', '.join(map(str, choices))}"] * bool(choices) + [
        "None" if kind is types.NoneType else f"a {kind.__name__}"
        for kind in kinds if get_origin(kind) is not Literal])
    raise ValueError(f"{name} must be {wanted}; got {value!r:.200}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) < 2**63)
    return type(value) is kind
