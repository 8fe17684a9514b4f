"""Experiments: each a script, `python -m experiments.NAME --help`; `open_run` opens a run."""

from experiments.opening import OpenRun, open_run

__all__ = ["OpenRun", "open_run"]
