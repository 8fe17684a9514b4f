"""Clocks, and what a repeated measurement is summed up to."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Unavailable(Exception):
    """A column that can't be measured here, and why."""


class Summary(NamedTuple):
    """A median and its spread: the quartiles.

    Attributes:
        median: of the repeats.
        low: the first quartile.
        high: the third.
        repeats: how many there were.
    """

    median: float
    low: float
    high: float
    repeats: int


def summarise(values: Sequence[float]) -> Summary:
    """The median and the quartiles of at least one value."""
    if len(values) < 2:
        return Summary(values[0], values[0], values[0], len(values))
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high, len(values))


def best_rate(multiply: Callable[..., None], shape: tuple[int, int, int],
              seconds: float = 0.05) -> float:
    """Operations per second of matrix products: the better of two timings of about `seconds` each.

    Args:
        multiply: called with `count=`, multiplies so often, and waits.
        shape: (rows, inner, columns) of a product.
        seconds: how long to time.
    """
    multiply(count=1)  # compile
    count = max(1, int(seconds / elapsed(multiply, count=1)))
    operations = 2 * shape[0] * shape[1] * shape[2] * count
    return operations / min(elapsed(multiply, count=count) for _ in range(2))


def elapsed(function: Callable, *args, **kwargs) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - started
