"""What is said of a run before its first step, and how long it will take once that is known."""

import dataclasses
import math
import warnings
from typing import Any, NamedTuple

import jax

from jaxgan import console
from jaxgan.data import Source
from jaxgan.plans import Plan
from jaxgan.profiling import pace
from jaxgan.runs import Run, cores
from jaxgan.types import PyTree

_MEASURED_SECONDS = 0.5  # of training, before the pace is taken for that of the whole run
# Days that nobody means to wait without having been told: a laptop is left alone overnight, and on
# accelerators the longest published runs of one device take about a week.
_PROCESSOR_DAYS, _ACCELERATOR_DAYS = 1, 7


class About(NamedTuple):
    """What is said of a run besides what the loop sees of it.

    Attributes:
        data: what the data are called.
        shorter: what would make the run shorter; it is named if the run would take very long.
        warning: what may not be meant in its settings; "" for nothing.
    """

    data: str = "arrays"
    shorter: str = "fewer steps, a smaller batch_size or smaller networks"
    warning: str = ""


def introduce(run: Run, plan: Plan, source: Source, networks: dict[str, PyTree], step: int,
              about: About, has_pictures: bool) -> None:
    """Says what is trained on what, and where it can be looked at.

    Args:
        run: the run.
        plan: its plan.
        source: its data.
        networks: the trained parameters by network, or their shapes.
        step: what it starts from.
        about: what else is said of it.
        has_pictures: whether there will be any, or lines of text.
    """
    if jax.process_index() > 0:
        return
    begin = f"goes on from step {step}" if step else "begins"
    sizes = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
             for name, params in networks.items()}
    size = "samples without end," if source.size is None else f"{source.size} samples"
    drawn_for = (f", each with {console.counted(len(source.numbers.low), 'number')}"
                 if source.numbers else
                 f", {source.num_classes} classes" if (source.num_classes or 0) > 1 else "")
    pictures = f"{run.folder}/samples, " if has_pictures else ""
    console.warn(
        f"run       {run.folder} {begin}, {plan.steps} steps in all",
        f"data      {about.data}: {size} of shape {_shape(source.sample_shape)}{drawn_for}",
        f"networks  {', '.join(f'{name} {count:,} parameters' for name, count in sizes.items())}",
        f"device    {_devices(plan)}",
        f"look at   {pictures}tensorboard --logdir {run.folder}",
        *[f"warning: {about.warning}"] * bool(about.warning))


@dataclasses.dataclass
class Outlook:
    """Says once how long a run will take, as soon as its pace is known.

    Attributes:
        plan: the run's plan.
        about: what else is said of it.
    """

    plan: Plan
    about: About
    _is_told: bool = False

    def __call__(self, step: int, counted: int, seconds: float, operations: float | None = None) -> None:
        """Called after a dispatch.

        Args:
            step: the last finished one.
            counted: steps whose time was taken, without the first dispatch, which compiles.
            seconds: what these took.
            operations: of one step, on one device, if they are known.
        """
        if self._is_told or seconds < _MEASURED_SECONDS or jax.process_index() > 0:
            return
        self._is_told = True
        left = self.plan.steps - step
        expected = left * seconds / counted
        besides = " besides evaluations" if self.plan.eval_every else ""
        at = f", {pace(operations * counted / seconds, jax.devices()[0])}" if operations else ""
        console.warn(f"time      about {duration(expected)}{besides} for {left} steps more, "
                     f"{counted / seconds:.3g} a second{at}")
        is_processor = jax.devices()[0].platform == "cpu"
        if expected > 86400 * (_PROCESSOR_DAYS if is_processor else _ACCELERATOR_DAYS):
            warnings.warn(f"this will take {duration(expected)}: make it shorter with "
                          f"{self.about.shorter}", UserWarning, stacklevel=3)


def duration(seconds: float) -> str:
    """A duration in the largest unit that it has at least two of."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 10 * length else (
                f"{seconds / length:.0f} {unit}")
    return f"{seconds:.2g} seconds" if seconds < 1.5 else f"{seconds:.0f} seconds"


def _shape(shape: Any) -> str:
    if not isinstance(shape, tuple) or not shape:
        return str(shape)
    if all(isinstance(size, int) for size in shape):
        return "x".join(map(str, shape))
    return " and ".join(map(_shape, shape))


def _devices(plan: Plan) -> str:
    devices = jax.devices()[:plan.devices or None]
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    of = f", {cores()} cores" if devices[0].platform == "cpu" else ""
    processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{count}{devices[0].device_kind}{of}{processes}"
