"""Lists the runs below a folder and their numbers."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from experiments import launch
from jaxgan.runs import RunError, read_config, read_result

COLUMNS = ("run", "experiment", "seed", "loss", "penalty", "steps", "steps/s", "wasserstein", "sha256")


@dataclasses.dataclass(frozen=True)
class Options:
    """Where to look."""

    runs_dir: Annotated[str, tyro.conf.Positional] = "runs"
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
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(folder: Path, run: Path) -> tuple[str, ...] | None:
    try:
        settings = read_config(run)["settings"]
    except RunError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None
    result = read_result(run) or {}
    wasserstein = result.get("final", {}).get("critic/wasserstein")
    pace = result.get("iterations_per_second")
    steps = str(result["steps"]) if "steps" in result else f"unfinished ({settings.get('steps')})"
    return (str(run.relative_to(folder)), *(str(settings.get(name)) for name in (
        "experiment", "seed", "loss", "penalty")), steps, f"{pace:.3g}" if pace else "",
        "" if wasserstein is None else f"{wasserstein:.4g}", result.get("params_sha256", "")[:12])


if __name__ == "__main__":
    launch.tool(main, Options)
