"""The reference from the docstrings: which names stand where, their signatures, their text.

A name stands in one place, where users import it from: the highest module whose `__all__` has it, else
its own. Signatures are as the source writes them, so that a key is called Key and not jax.Array. The
docstrings are plain text with names in single backticks and Google's sections.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from functools import cache
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

import jaxgan

_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_BLOCK = re.compile(r":\n\n(?:(?: +.*)?\n)*(?: +.*)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


@cache
def modules() -> dict[str, ModuleType]:
    """The library's modules by name, those nearest to the top first."""
    names = ["jaxgan", *(found.name for found in pkgutil.walk_packages(jaxgan.__path__, "jaxgan."))]
    return {name: importlib.import_module(name)
            for name in sorted(names, key=lambda name: (name.count("."), name))}


@cache
def places() -> dict[int, str]:
    """The module that a function or a class stands in, by its identity, where that isn't its own."""
    found = {}
    for name, module in modules().items():
        for member in getattr(module, "__all__", ()):
            found.setdefault(id(getattr(module, member)), name)
    return found


def skips(app: Sphinx, kind: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Whether a member is left out; None to leave that to autodoc."""
    if kind == "module" and (inspect.isclass(thing) or inspect.isfunction(thing)):
        here = app.env.current_document.autodoc_module
        return True if places().get(id(thing), thing.__module__) != here else None
    if kind in ("class", "exception"):
        parts = (app.env.current_document.autodoc_module, app.env.current_document.autodoc_class)
        owner = getattr(modules().get(parts[0]), parts[1], None)
        return True if name in getattr(owner, "__annotations__", ()) else None  # the class describes it
    return None


def signature(thing: Any) -> tuple[str, str] | None:
    """Returns arguments and result of a function or class as its source has them, or None."""
    thing = inspect.unwrap(thing)
    try:
        definition = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    except (OSError, TypeError):
        return None
    names = getattr(modules().get(thing.__module__), "__dict__", {})
    if isinstance(definition, ast.FunctionDef):
        arguments = definition.args
        if arguments.args and arguments.args[0].arg == "self":
            del arguments.args[0]
        for one in (*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs,
                    arguments.kwarg):
            if one is not None:
                one.annotation = _linked(one.annotation, names)
        returns = definition.returns
        return f"({ast.unparse(arguments)})", ast.unparse(_linked(returns, names)) if returns else ""
    for inside in definition.body if isinstance(definition, ast.ClassDef) else ():
        if isinstance(inside, ast.FunctionDef) and inside.name == "__init__":
            return signature(thing.__init__)[0], ""
    if not (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
        return None
    return f"({', '.join(_fields(thing))})", ""


def _fields(thing: type) -> list[str]:
    """The fields of a dataclass or a named tuple, each with its type and its default."""
    found: dict[str, str] = {}
    for base in reversed(thing.__mro__):
        if not base.__module__.startswith("jaxgan"):
            continue
        names = modules()[base.__module__].__dict__
        for line in ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body:
            if not isinstance(line, ast.AnnAssign) or "init=False" in ast.unparse(line):
                continue
            default = line.value
            if isinstance(default, ast.Call) and ast.unparse(default.func).endswith("field"):
                given = {word.arg: word.value for word in default.keywords}
                default = given.get("default") or ast.Call(given["default_factory"], [], [])
            name = ast.unparse(line.target)
            found.pop(name, None)
            found[name] = f"{name}: {ast.unparse(_linked(line.annotation, names))}" + (
                f" = {ast.unparse(default)}" if default else "")
    return list(found.values())


class _Linked(ast.NodeTransformer):
    """Gives the library's names in annotations their modules, by which they are found."""

    def __init__(self, names: dict[str, Any]):
        self.names = names

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """A type that is written as a string."""
        return _linked(ast.parse(node.value, mode="eval").body, self.names) if isinstance(
            node.value, str) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """A type of others; the words of a Literal are none."""
        return node if ast.unparse(node.value).endswith("Literal") else self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A name: a class of the library, or one of the types that its layers share."""
        there, shared = self.names.get(node.id), modules()["jaxgan.types"].__dict__
        home = ("jaxgan.types" if node.id in shared and shared[node.id] is there and node.id[0].isupper()
                else getattr(there, "__module__", None) if inspect.isclass(there) else None)
        if not home or not home.startswith("jaxgan"):
            return node
        return ast.UnaryOp(ast.Invert(), ast.parse(f"{home}.{node.id}", mode="eval").body)


def _linked(annotation: ast.expr | None, names: dict[str, Any]) -> ast.expr | None:
    return annotation and ast.fix_missing_locations(_Linked(names).visit(annotation))


def _signature(app: Sphinx, kind: str, name: str, thing: Any, *_: Any) -> tuple[str, str] | None:
    return signature(thing) if kind in ("function", "method", "class", "exception") else None


def as_rst(text: str) -> str:
    """Returns a docstring as reStructuredText: code is code, and all else means nothing but itself.

    An indented block after a colon and an empty line is shown as it is.
    """
    if found := _BLOCK.search(text):
        return as_rst(text[:found.start()]) + f":{found[0]}" + as_rst(text[found.end():])
    parts = _SPAN.split(text)
    for index, part in enumerate(parts):
        if index % 2 == 0:
            part = re.sub(r"([*|\\])", r"\\\1", part)
            part = re.sub(r"(?<=\w)_(?!\w)", r"\_", part)
            if index > 0 and part[:1].isalnum():
                part = r"\ " + part
            if index < len(parts) - 1 and part[-1:].isalnum():
                part += r"\ "
        else:
            part = f":py:obj:`{part}`" if _NAME.fullmatch(part) else f"``{part}``"
        parts[index] = part
    return "".join(parts)


def _docstring(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst("\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects these to autodoc; the text is made before napoleon looks for its sections."""
    app.connect("autodoc-skip-member", skips)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    return {"parallel_read_safe": True}
