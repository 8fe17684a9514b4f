"""Experiments: each a script, `python -m experiments.NAME --help`; `open_run` opens a run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .opening import OpenRun, open_run

__all__ = ["OpenRun", "open_run"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import opening  # it needs what not every command does
    return getattr(opening, name)
