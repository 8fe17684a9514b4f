"""Tabulates and plots several runs' evaluations, seeds grouped as mean and standard deviation."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxgan import console

from . import comparing, launch


@dataclasses.dataclass(frozen=True)
class Options:
    """Which runs."""

    run_dirs: Annotated[tuple[str, ...], tyro.conf.Positional,
                        tyro.conf.arg(metavar="RUN_DIR [RUN_DIR ...]")]
    """The runs' folders."""
    out: str = ""
    """The picture of what was measured in training, over the steps, a .png; the table is beside it, as
    .txt. By default compare.png in the folder that the runs are in."""


def main(options: Options) -> None:
    """Prints the table, and saves it and the plot."""
    if not options.run_dirs:
        raise ValueError("give the folders of the runs to compare")
    if options.out and not options.out.endswith(".png"):
        raise ValueError(f"out must end in .png; got {options.out!r}")
    out = launch.file_to_write(options.out) if options.out else _beside(options.run_dirs)
    console.say(*comparing.compare([*dict.fromkeys(options.run_dirs)], out))


def _beside(folders: Sequence[str]) -> Path:
    """The picture's place, if none is asked for: in the folder that all the runs are in."""
    parents = [os.path.dirname(os.path.abspath(folder)) for folder in folders]
    common, here = Path(os.path.commonpath(parents)), Path.cwd()
    return (common.relative_to(here) if common.is_relative_to(here) else common) / "compare.png"


if __name__ == "__main__":
    launch.tool(main, Options)
