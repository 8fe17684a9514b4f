"""Samples for classes or for numbers: what experiments on data of one's own share."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np

from jaxgan import tasks
from jaxgan.data.scaling import BYTES, Scaling
from jaxgan.evaluation import Comparison, Metric, Number, Samples
from jaxgan.features import Reader
from jaxgan.tasks import Task

from . import measuring, settings

_READ = 50_000  # samples that the reader of conditions learns from, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """What samples are drawn for."""

    conditions: str | None = None
    """What they are drawn for; None for nothing."""
    conditioning: Literal["projection", "concatenation", "classes"] | None = None
    """How the critic meets it: its score has a part by projection (None), it sees the condition beside
    the sample, or it classifies (AC-GAN, for classes)."""
    condition_classes: int | None = None
    """How many classes there are; None: as many as the data have."""
    condition_numbers: int | None = None
    """How many numbers; None: as many as the data have."""


def settled(config: Any, num_classes: int, num_numbers: int, data: str) -> Any:
    """Returns a configuration with what the data say of their condition.

    Raises:
        ValueError: its settings say something else, or don't go together.
    """
    found = {"condition_classes": num_classes, "condition_numbers": num_numbers}
    for name, value in found.items():
        asked = getattr(config.conditions, name)
        if asked not in (None, value):
            raise ValueError(f"{name} is {asked}, but the condition in {data} has {value}: leave "
                             f"--{name.replace('_', '-')} out")
    how = config.conditions.conditioning
    if how and not (num_classes or num_numbers):
        raise ValueError("conditioning is for samples that are drawn for something: give --conditions, "
                         "or leave it out")
    if how == "classes" and not num_classes:
        raise ValueError("--conditioning classes is for conditions that are classes: choose projection "
                         "or concatenation")
    return settings.replace(config, **{name: value for name, value in found.items() if value})


def of_networks(config: Any) -> tuple[dict[str, Any], dict[str, Any], tuple[Task, ...]]:
    """Returns the fields by which a generator and a critic meet conditions, and the tasks of both."""
    conditions = config.conditions
    drawn_for = {"num_classes": conditions.condition_classes or 0,
                 "num_numbers": conditions.condition_numbers or 0}
    how = (conditions.conditioning or "projection") if any(drawn_for.values()) else "none"
    return (drawn_for, {**drawn_for, "conditioning": how},
            (tasks.classification(generator_weight=0.1),) if how == "classes" else ())


def with_numbers(samples: Samples, numbers: np.ndarray, scaling: Scaling) -> Samples:
    """Returns samples whose condition is numbers, float32 [count, numbers], scaled to [-1, 1]."""
    scaled = scaling.to_float(numbers)
    return samples._replace(condition=lambda rows: scaled[rows],
                            targets=lambda rows: {"numbers": scaled[rows]})


def requests(config: Any, reals: Callable[[str], Samples]) -> Callable[[str], Samples] | None:
    """What samples are drawn for, by split: the numbers of reals, over and over; None without them."""
    def of_split(split: str) -> Samples:
        found = reals(split)

        def again(of: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
            return lambda rows: of(rows % found.count)

        return found._replace(count=None, take=again(found.take), condition=again(found.condition),
                              targets=again(found.targets))

    return of_split if config.conditions.condition_numbers else None


def metrics(config: Any, reals: Callable[[str], Samples]) -> tuple[Metric, ...]:
    """The metric that compares what a network reads in samples with what they were drawn for, if any."""
    num_classes = config.conditions.condition_classes
    if not (num_classes or config.conditions.condition_numbers):
        return ()
    target = "label" if num_classes else "numbers"

    @cache
    def reader() -> Reader:
        train = reals("train")
        rows = np.arange(min(train.count, _READ))
        return measuring.train_reader(_as_floats(train.take(rows)), train.targets(rows)[target],
                                      num_classes)

    def measure(seen: Comparison) -> dict[str, float]:
        return {"condition": reader().error(_as_floats(seen.fake.samples), seen.fake.targets[target])}

    what = ("samples read as another class" if num_classes else
            "error of the numbers read (of their range)")
    return Metric("condition", measure, (Number("condition", what, False, has_floor=True),),
                  samples=True, targets=(target,), ready=reader),


def _as_floats(samples: np.ndarray) -> np.ndarray:
    return BYTES.to_float(samples) if samples.dtype == np.uint8 else samples
