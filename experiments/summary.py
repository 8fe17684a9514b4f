"""What is said of a finished run: five lines on the screen, and all of it in its report."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxgan import console
from jaxgan.outlook import duration
from jaxgan.profiling import pace
from jaxgan.runs import newest_samples, read_config, report_path

from . import measuring
from .commands import called
from .measuring import Reference

_SHOWN = 3  # numbers on the screen
# Those to be looked at first: of an evaluation, by whatever features, and of what training logs.
_TELLING = ("fd", "precision", "recall")
_TELLING_LOGGED = ("critic/wasserstein", "critic/input_gradient_mean", "critic/gradient_norm")


def lines(folder: Path, result: Mapping[str, Any], found: Mapping[str, Any] | None,
          reference: Reference) -> list[str]:
    """Returns where to look, and the three numbers that say most, as five lines; or a judge's table.

    Args:
        folder: the run's.
        result: its result.
        found: its last evaluation, as `measuring.entry` gives it; None if there is none.
        reference: what its samples are measured against.
    """
    picture, html = newest_samples(folder) or folder / "curves.png", folder / "report.html"
    also = f" and {html}" if html.exists() else ""
    numbers = [*_evaluated(found, reference), *_logged(result)][:_SHOWN]
    said = (measuring.table(found, reference)
            if found and reference.judge and reference.judge.table else console.aligned(numbers))
    return [f"{_headline(folder, result)}, params_sha256 {result['params_sha256'][:12]}",
            f"look at {picture}{also}; all numbers are in {report_path(folder)}",
            *said]


def report(folder: Path, result: Mapping[str, Any], found: Mapping[str, Any] | None,
           reference: Reference) -> list[str]:
    """Returns all numbers of a finished run; arguments as of `lines`."""
    tabulated = found["metrics"] if found else {}
    numbers = {name: value for name, value in (result["final"] | result.get("evaluation", {})).items()
               if name not in tabulated}
    evaluation = ["", f"evaluation of step {found['step']}:",
                  *measuring.table(found, reference)] if found else []
    return [_headline(folder, result), *_cost(result), f"params_sha256 {result['params_sha256']}",
            f"to run it again and compare: {called('reproduce')} {folder}{_own(folder)}", "",
            "last step:", *console.aligned([(name, f"{value:.5g}") for name, value in numbers.items()]),
            *evaluation]


def _own(folder: Path) -> str:
    """What a command needs that opens a run of a user's own experiment; "" of another's."""
    file = read_config(folder)["settings"].get("experiment_file")
    return f" --experiment {shlex.quote(file)}" if file else ""


def _headline(folder: Path, result: Mapping[str, Any]) -> str:
    pace = result["iterations_per_second"]
    return (f"{folder}: {result['steps']} steps in {duration(result['duration_seconds'])}"
            + (f", {pace:.3g} a second" if pace else ""))


def _cost(result: Mapping[str, Any]) -> Iterator[str]:
    """What the device did, where it is known."""
    operations, rate = result.get("operations_per_iteration"), result["iterations_per_second"]
    if operations:
        least, most = (f"{count / 1e9:.4g}" for count in operations)
        counts = least if least == most else f"{least} to {most}"
        yield (f"{counts} GFLOP an iteration in products and convolutions"
               + (f", {pace(operations[0] * rate, jax.devices()[0])}" if rate else ""))
    if peak := result.get("peak_device_bytes"):
        yield f"{peak / 2**20:.0f} MiB of the device's memory at most"


def _evaluated(found: Mapping[str, Any] | None, reference: Reference) -> Iterator[tuple[str, ...]]:
    """The numbers of an evaluation: what they are called, of samples, of held-out reals."""
    metrics = found["metrics"] if found else {}
    for name in _first(_TELLING, metrics, lambda name: name.rpartition("/")[2]):
        values, number = metrics[name], measuring.find(reference, name)
        floor = values.get("floor")
        if not number.deviation_of:
            yield (number.title, f"{values['value']:.4g}",
                   "" if floor is None else f"{measuring.held_out(found)} {floor:.4g}")


def _logged(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The numbers of the last step, those that say most first."""
    final = result["final"]
    for name in _first(_TELLING_LOGGED, final, str):
        yield name, f"{final[name]:.4g}", ""


def _first(telling: Sequence[str], names: Iterable[str], short: Callable[[str], str]) -> list[str]:
    """The names, those that are telling first, in their order."""
    order = {name: place for place, name in enumerate(telling)}
    return sorted(names, key=lambda name: order.get(short(name), len(telling)))
