"""What a specification says, as JSON: to tell whether a run goes on with the one that it was begun with.

A specification holds functions (an optimiser's update, a penalty's measure). What decides what such a
function computes is its name, what it closes over, its defaults, and, of one's own functions, their code
and the module's variables that they read.
"""

import dataclasses
import functools
import hashlib
import json
import math
import platform
import sysconfig
import types
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.digests import leaf_digest
from jaxgan.types import Array

_PARTS = 5000  # of a specification that are described; no real one has as many
_HERE = Path(__file__).parent
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def describe(specification: Any, **more: Any) -> dict[str, Any]:
    """Returns what a specification says, as a JSON value, with the versions that it depends on.

    Args:
        specification: a GAN, a game, or another dataclass or named tuple, which may hold linen modules,
            functions, arrays and plain values; of other objects the public attributes are described.
        more: what else belongs to it, by name.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {"python": python} | {name: _version(name) for name in ("jaxgan", "flax", "optax")}
    describer = _Describer()
    found = {"versions": versions, "specification": describer(specification) | describer(more)}
    return json.loads(json.dumps(found))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns where two descriptions differ: path -> [there, here]."""
    flat = [dict(_flat(tree["specification"], "")) for tree in (there, here)]
    return {path: [tree.get(path) for tree in flat]
            for path in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(path) != flat[1].get(path)}


def are_comparable(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of the same versions: differences are of the specifications then."""
    return there["versions"] == here["versions"]


def _version(name: str) -> str:
    """A package's version; "" of one that is used from its folder, without having been installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


class _Describer:
    """Describes values; one that holds itself, and what is beyond `_PARTS`, is left out."""

    def __init__(self):
        self.within: list[int] = []
        self.count = 0

    def __call__(self, value: Any) -> Any:
        self.count += 1
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)  # JSON has no infinity
        if id(value) in self.within or self.count > _PARTS:
            return "..."
        self.within.append(id(value))
        try:
            return self._compound(value)
        finally:
            self.within.pop()

    def _compound(self, value: Any) -> Any:
        if isinstance(value, Array | np.ndarray | np.generic):
            return _array(value)
        if isinstance(value, np.dtype):
            return str(value)
        if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            return getattr(value, "__qualname__", value.__name__)
        if isinstance(value, functools.partial):
            return self._named(value.func) | self._fields(
                {str(i): argument for i, argument in enumerate(value.args)} | value.keywords)
        if isinstance(value, types.MethodType):
            return self._named(value.__func__) | {"self": self(value.__self__)}
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if dataclasses.is_dataclass(value):
            return self._fields({field.name: found for field in dataclasses.fields(value)
                                 if field.name not in ("parent", "name")  # of a linen module: its place
                                 and not _is(found := getattr(value, field.name, None), field.default)},
                                type(value))
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return self._fields(cast("Any", value)._asdict(), type(value))
        if isinstance(value, Mapping):
            return self._fields(value)
        if isinstance(value, list | tuple | set | frozenset):
            ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            return [self(each) for each in ordered]
        if callable(getattr(value, "__wrapped__", None)):  # jax.jit's
            return self(value.__wrapped__)
        public = {name: each for name, each in getattr(value, "__dict__", {}).items()
                  if not name.startswith("_")}
        return self._fields(public, type(value))

    def _fields(self, fields: Mapping[Any, Any], kind: type | None = None) -> dict[str, Any]:
        return ({} if kind is None else {"is": kind.__qualname__}) | {
            str(name): self(each) for name, each in fields.items()}

    def _named(self, function: Any) -> dict[str, Any]:
        described = self(function)
        return described if isinstance(described, dict) else {"function": described}

    def _function(self, function: types.FunctionType) -> dict[str, Any]:
        is_own = not _is_of_library(function)  # its module may be __main__ one day and imported the next
        found = {"function": function.__qualname__ if is_own else
                 f"{function.__module__}.{function.__qualname__}"}
        closed = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in closed:
            try:
                found[name] = self(cell.cell_contents)
            except ValueError:  # not filled yet
                found[name] = "..."
        for name, default in (function.__kwdefaults__ or {}).items():
            found[name] = self(default)
        if function.__defaults__:
            found["defaults"] = self(function.__defaults__)
        if is_own:
            found["code"] = _code_digest(function.__code__)
            for name in _global_names(function.__code__):
                if name in function.__globals__:
                    found[name] = self(function.__globals__[name])
        return found


def _array(value: Any) -> dict[str, Any]:
    """An array's dtype, shape and digest."""
    described = {"array": f"{value.dtype}{list(value.shape)}"}
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return described | {"sha256": leaf_digest(value)[:16]}


def _is(value: Any, default: Any) -> bool:
    """Whether a field has its default; of arrays and the like, whether it is the same object."""
    return value is default or (isinstance(value, bool | int | float | str | tuple)
                                and type(value) is type(default) and value == default)


def _is_of_library(function: types.FunctionType) -> bool:
    """Whether a function is this package's or an installed one's, which the versions tell of."""
    file = Path(function.__code__.co_filename)
    return any(file.is_relative_to(folder) for folder in (_HERE, *_LIBRARIES))


def _code_digest(code: types.CodeType) -> str:
    """The digest of what a function does, wherever it is written."""
    digest = hashlib.sha256(code.co_code)
    for const in code.co_consts:
        inner = (_code_digest(const) if isinstance(const, types.CodeType) else
                 repr(sorted(const, key=repr) if isinstance(const, frozenset) else const))
        digest.update(inner.encode())
    digest.update(repr((code.co_names, code.co_varnames)).encode())
    return digest.hexdigest()[:16]


def _global_names(code: types.CodeType) -> list[str]:
    """The names that a function, and those that are written in it, may read from their module."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType)
             for name in _global_names(const)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _flat(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for name, each in (tree if isinstance(tree, dict) else dict(enumerate(tree))).items():
            yield from _flat(each, f"{path}.{name}" if path else str(name))
        if not tree:
            yield path, "empty"
    else:
        yield path, tree
