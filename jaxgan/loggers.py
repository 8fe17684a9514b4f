"""Callbacks that write a run's metrics elsewhere as well: a CSV file, Weights & Biases.

A logger is a function of a `Moment`; one of one's own is passed to `train(callbacks=...)` alike.
"""

import csv
import io
import os
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxgan import files
from jaxgan.extras import needs
from jaxgan.reporting import Callback, Moment

_ID_BYTES = 100


def csv_logger(folder: str | Path) -> Callback:
    """Returns a callback that keeps `metrics.csv` in a run's folder.

    A line is a log point; what wasn't measured there is blank. The file is written anew when a run
    resumes and when there is a new column, as at the first evaluation.
    """
    path = Path(folder) / "metrics.csv"
    columns: list[str] = []
    written = 0

    def callback(moment: Moment) -> None:
        nonlocal columns, written
        if not _is_due(moment):
            return
        names = [name for row in moment.rows[written:] for name in row]
        known = [*dict.fromkeys(["step", *columns, *names])]
        if known == columns and written == len(moment.rows) - 1:
            with files.open_to_append(path) as file:
                file.write(_lines(moment.rows[-1:], columns))
        else:
            files.write(path, ",".join(known) + "\n" + _lines(moment.rows, known))
        columns, written = known, len(moment.rows)

    return callback


def _is_due(moment: Moment) -> bool:
    return moment.kind == "log" and jax.process_index() == 0  # of several processes the first writes


def _lines(rows: list[dict[str, float]], columns: list[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


def wandb_logger(folder: str | Path, settings: Mapping[str, Any] | None = None) -> Callback:
    """Returns a callback that sends metrics, and pictures of samples, to Weights & Biases.

    The project is `$WANDB_PROJECT`, or jaxgan. With `WANDB_MODE=offline` in the environment nothing is
    sent before `wandb sync`. A run that resumes goes on there, too: its id is kept in `wandb_id`. Where
    nothing can be sent, a warning says so, and the run goes on.

    Args:
        folder: the run's.
        settings: what is shown as the run's configuration.

    Raises:
        MissingExtra: wandb isn't installed.
    """
    needs("wandb")
    folder = Path(folder)
    opened: list[Any] = []  # the run there; None if there is none

    def begin(is_new: bool) -> Any:
        import wandb

        try:
            return wandb.init(project=os.environ.get("WANDB_PROJECT", "jaxgan"), name=folder.name,
                              dir=str(folder), config=dict(settings or {}), resume="allow",
                              id=_run_id(folder / "wandb_id", is_new), reinit="create_new")
        except wandb.Error as error:
            warnings.warn(f"Weights & Biases can't be reached ({files.reason(error)}); the run goes on "
                          "without it: WANDB_MODE=offline keeps what it logs on disk", UserWarning,
                          stacklevel=2)

    def callback(moment: Moment) -> None:
        if not _is_due(moment):
            return
        import wandb

        if not opened:
            opened.append(begin(len(moment.rows) < 2))
        if opened[0] is not None:
            picture = folder / "samples" / f"step_{moment.step:08d}.png"
            pictures = {"samples": wandb.Image(str(picture))} if picture.exists() else {}
            opened[0].log({**moment.metrics, **pictures}, step=moment.step)

    return callback


def _run_id(path: Path, is_new: bool) -> str:
    """The run's id there, drawn when it begins."""
    if not is_new and path.exists():
        return files.read(path, _ID_BYTES).decode()
    files.write(path, made := secrets.token_hex(4))
    return made
