"""What the values of samples stand for: data in their own units, and the same between -1 and 1."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from jaxgan.types import Array

_KINDS = "biuf"  # booleans, integers, floating-point numbers
_BLOCK = 2**24  # numbers that are read at once


@dataclass(frozen=True)
class Scaling:
    """How data are turned into samples in [-1, 1], and samples back into data.

    Attributes:
        low: the values that -1 stands for: one for all, or one for each channel (the last axis).
        high: those that 1 stands for.
        dtype: of the data, by its name in NumPy.

    Raises:
        ValueError: there are none, they differ in number, a highest value is not above its lowest one,
            or the dtype is of no numbers.
    """

    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (255.0,)
    dtype: str = "uint8"

    def __post_init__(self):
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"a scaling needs a lowest and a highest value for each channel; got "
                             f"{len(self.low)} and {len(self.high)}")
        for channel, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (np.isfinite([low, high]).all() and low < high):
                of = f" of channel {channel}" if len(self.low) > 1 else ""
                raise ValueError(f"the highest value{of} must be above the lowest; got {low:g} to "
                                 f"{high:g}")
        if np.dtype(self.dtype).kind not in _KINDS:
            raise ValueError(f"data must be numbers; got {self.dtype}")

    def to_samples(self, data: Array) -> Array:
        """Returns data of up to 16 bits, [..., channels], as samples, float32, exact at both ends."""
        axes = () if len(self.low) == 1 else (1,) * (data.ndim - 1) + (-1,)
        low, high = (jnp.asarray(end, jnp.float32).reshape(axes) for end in self._ends())
        return (data.astype(jnp.float32) - low) / (high - low) * 2 - 1

    def to_float(self, data: np.ndarray) -> np.ndarray:
        """Returns data of any width as samples, float32, on the host."""
        low, high = (np.asarray(end, np.float64) for end in self._ends())
        return ((np.asarray(data, np.float64) - low) / (high - low) * 2 - 1).astype(np.float32)

    def to_data(self, samples: Any) -> np.ndarray:
        """Returns samples, [..., channels], in the data's units and dtype, on the host.

        Integers are rounded, and clipped to what their type holds; NaN is the lowest value there.
        """
        low, high = (np.asarray(end, np.float64) for end in self._ends())
        values = (np.asarray(samples, np.float64) + 1) / 2 * (high - low) + low
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return values >= (low + high) / 2
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.nan_to_num(np.rint(values), nan=float(limits.min))
            # Of 64 bits the largest number is no float64: whatever is beyond it becomes it.
            return np.where(values >= float(limits.max), limits.max,
                            np.clip(values, float(limits.min), np.nextafter(float(limits.max), 0))
                            .astype(dtype)).astype(dtype)
        return values.astype(dtype)

    def as_json(self) -> dict[str, Any]:
        """Returns it as `from_json` reads it."""
        return {"low": [*self.low], "high": [*self.high], "dtype": self.dtype}

    def _ends(self) -> tuple[Any, Any]:
        return (self.low[0], self.high[0]) if len(self.low) == 1 else (self.low, self.high)


BYTES = Scaling()


def from_json(value: Any) -> Scaling | None:
    """Returns the scaling that a file says, as `Scaling.as_json` gives it; None for None.

    Raises:
        ValueError: it says none.
    """
    if value is None:
        return None
    try:
        low, high = (tuple(map(float, value[end])) for end in ("low", "high"))
        return Scaling(low, high, str(value["dtype"]))
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"a scaling must have low, high and dtype; got {str(value)[:200]}") from error


class Data(Protocol):
    """Numbers, [examples, ..., channels], that may be on disk and are read in blocks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Their shape."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Their dtype."""
        ...

    def read(self, index: slice) -> np.ndarray:
        """Returns some examples."""
        ...


def found(data: np.ndarray | Data, *, by_channel: bool = False) -> Scaling:
    """Returns the scaling from the lowest to the highest value there is; of uint8, that of all bytes.

    Args:
        data: [examples, ..., channels].
        by_channel: whether each channel has its own range.

    Raises:
        ValueError: a value is NaN or infinite, or all of a channel are the same.
    """
    if data.dtype == np.uint8 and not by_channel:
        return BYTES
    axes = tuple(range(len(data.shape) - 1)) if by_channel and len(data.shape) > 1 else None
    ends = [(np.atleast_1d(block.min(axes)), np.atleast_1d(block.max(axes)))
            for _, block in _blocks(data)]
    lows, highs = zip(*ends, strict=True)
    low, high = tuple(map(float, np.min(lows, axis=0))), tuple(map(float, np.max(highs, axis=0)))
    if not np.isfinite([*low, *high]).all():
        check_finite(data)  # which says where
    what = "variable" if len(data.shape) == 2 else "channel"
    for channel, (least, most) in enumerate(zip(low, high, strict=True)):
        which = f"of {what} {channel} " if len(low) > 1 else ""
        if not np.isfinite(most - least):
            raise ValueError(f"the values {which}reach from {least:g} to {most:g}, further than numbers "
                             "do: scale them")
        if least == most:
            raise ValueError(f"all values {which}are {least:g}: there is nothing to learn from them; "
                             "leave them out, or give a value range")
    return Scaling(low, high, str(data.dtype))


def check_finite(data: np.ndarray | Data) -> None:
    """Raises ValueError if values are NaN or infinite: how many, and where the first one is."""
    if data.dtype.kind != "f":
        return
    count, where = 0, None
    for first, block in _blocks(data):
        bad = ~np.isfinite(block)
        count += int(bad.sum())
        if where is None and bad.any():
            example, *place = (int(i) for i in np.argwhere(bad)[0])
            where = [first + example, *place]
    if count:
        raise ValueError(f"{count} of {math.prod(data.shape)} values are NaN or infinite, the first at "
                         f"{where}: leave these examples out, or replace the values")


def _blocks(data: np.ndarray | Data) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the examples in blocks of bounded size, each with the number of its first one."""
    rows = max(1, _BLOCK // max(1, math.prod(data.shape[1:])))
    for first in range(0, data.shape[0], rows):
        index = slice(first, first + rows)
        yield first, data[index] if isinstance(data, np.ndarray) else data.read(index)
