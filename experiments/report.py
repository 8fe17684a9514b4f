"""Writes a page about runs: curves, samples, evaluations, all in one HTML file that needs nothing else.

For several runs it lays the curves over each other and tabulates means and standard
deviations over seeds.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxgan import console

from . import launch, page


@dataclasses.dataclass(frozen=True)
class Options:
    """Which runs, and where to write."""

    run_dirs: Annotated[tuple[str, ...], tyro.conf.Positional,
                        tyro.conf.arg(metavar="RUN_DIR [RUN_DIR ...]")]
    """The runs' folders, or the common folder of several runs that one command trained by --seeds."""
    out: str = ""
    """The .html file to write; by default report.html in the given folder, if there is only one."""
    neighbours: bool = True
    """For a single run on images: show the training images that are nearest to some samples. This opens
    the data and the last checkpoint, and trains the classifier that evaluations use if none is kept."""
    experiment: str = ""
    """For a run of your own experiment: the Python file that holds it."""
    data_dir: str = ""
    """Where the data are, if they have moved: data sets, or the run's folder of images."""


def main(options: Options) -> None:
    """Writes the page.

    Raises:
        ValueError: a folder isn't a run's, or it isn't said where to write.
    """
    if not options.run_dirs:
        raise ValueError("give the folders of the runs to report on")
    if options.out and not options.out.endswith(".html"):
        raise ValueError(f"out must end in .html; got {options.out!r}")
    if not options.out and len(options.run_dirs) > 1:
        raise ValueError("there are several folders: say with --out FILE.html where to write")
    folders = [folder for given in dict.fromkeys(options.run_dirs) for folder in runs_in(given)]
    out = (launch.file_to_write(options.out) if options.out else
           Path(options.run_dirs[0]) / "report.html")
    page.write(folders, out, experiment=options.experiment, data_dir=options.data_dir,
               neighbours=options.neighbours)
    console.say(f"{out}: {console.counted(len(folders), 'run')}, {out.stat().st_size / 2**20:.1f} MiB")


def runs_in(folder: str) -> Sequence[str]:
    """The folder of a run itself, or those in it, if one command has trained several."""
    inside = sorted(str(path.parent) for path in Path(folder).glob("*/config.json"))
    return inside if inside and not (Path(folder) / "config.json").exists() else [folder]


if __name__ == "__main__":
    launch.tool(main, Options)
