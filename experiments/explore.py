"""Opens a page on this machine to look at a trained run by hand: seeds, classes, paths between samples.

The page is for a browser on the same machine. It shows samples, the scores that the run's critic
gives them, and the command that draws them again. It needs Panel.
"""

import dataclasses
from typing import Annotated

import tyro

from jaxgan.extras import needs

from . import launch
from .exploring import Asked, Explorer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which run, and where the page is."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run's folder, or a .safetensors file of its networks."""
    port: int = 0
    """The port of the page, at 127.0.0.1; 0: any free one, which is printed."""
    browser: bool = True
    """Open the page in a browser."""
    checkpoint: str = "latest"
    """The checkpoint that is shown first: latest, best or a step."""
    reals: bool = True
    """Open the run's data as well, for real samples beside the generated ones."""
    experiment: str = ""
    """For a run of your own experiment: the Python file that holds it."""
    data_dir: str = ""
    """Where the run's data are, if they have moved."""
    autoencoder: str = ""
    """For a run on latents: where its autoencoder is, if that has moved."""


def main(options: Options) -> None:
    """Draws the first samples, then shows the page until Ctrl-C.

    Raises:
        ValueError: the run has no samples to be looked at, or the port can't be used.
        MissingExtra: Panel isn't installed.
    """
    if not 0 <= options.port < 2**16:
        raise ValueError(f"port must be from 0 to {2**16 - 1}; got {options.port}")
    needs("panel")
    explorer = Explorer(options.run_dir, options.experiment, options.data_dir, options.autoencoder,
                        reals=options.reals)
    first = Asked(count=explorer.controls.count, checkpoint=options.checkpoint)
    explorer.draw(first)  # what is amiss is said here, and the page is there at once
    from . import explore_page

    explore_page.serve(explorer, first, options.port, opens_browser=options.browser)


if __name__ == "__main__":
    launch.tool(main, Options)
