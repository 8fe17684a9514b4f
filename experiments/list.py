"""Lists the runs below a folder and their numbers."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxgan import console
from jaxgan.checkpoints import Checkpoints
from jaxgan.runs import RunError, read_config, read_logs, read_result

from . import launch

COLUMNS = ("run", "experiment", "seed", "loss", "penalty", "steps", "steps/s", "wasserstein", "sha256")
_SHOWN = 40  # letters of a setting


@dataclasses.dataclass(frozen=True)
class Options:
    """Where to look."""

    runs_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]")] = "runs"
    """The folder that holds the runs."""


def main(options: Options) -> None:
    """Prints the table."""
    folder = Path(options.runs_dir)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    rows = [_row(folder, path.parent) for path in sorted(folder.rglob("config.json"))]
    rows = [row for row in rows if row is not None]
    if not rows:
        raise ValueError(f"there are no runs in {folder}")
    console.say(*console.aligned([COLUMNS, *rows]))


def _row(folder: Path, run: Path) -> tuple[str, ...] | None:
    try:
        settings = read_config(run)["settings"]
    except RunError as error:
        console.warn(f"warning: {error}")
        return None
    try:
        result = read_result(run) or {}
    except RunError as error:
        console.warn(f"warning: {error}")
        result = {}
    wasserstein = result.get("final", {}).get("critic/wasserstein")
    pace = result.get("iterations_per_second")
    steps = str(result["steps"]) if result else f"{_reached(run)} of {settings.get('steps')!s:.{_SHOWN}}"
    return (str(run.relative_to(folder)), *(f"{settings.get(name)!s:.{_SHOWN}}" for name in (
        "experiment", "seed", "loss", "penalty")), steps, f"{pace:.3g}" if pace else "",
        "" if wasserstein is None else f"{wasserstein:.4g}", result.get("params_sha256", "")[:12])


def _reached(run: Path) -> int:
    """The last step that a run has logged or saved."""
    try:
        logged = [row["step"] for row in read_logs(run)[0]]
    except RunError as error:
        console.warn(f"warning: {error}")
        logged = []
    return max((0, *logged, *Checkpoints(run / "checkpoints").steps()))


if __name__ == "__main__":
    launch.tool(main, Options)
