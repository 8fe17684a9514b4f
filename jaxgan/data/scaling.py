"""What the values of samples stand for: data in their own units, and the same between -1 and 1."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgan.types import Array

_KINDS = "biuf"  # booleans, integers, floating-point numbers


@dataclass(frozen=True)
class Scaling:
    """How data are turned into samples in [-1, 1], and samples back into data.

    Attributes:
        low: the values that -1 stands for: one for all, or one for each channel (the last axis).
        high: those that 1 stands for.
        dtype: of the data, by its name in NumPy.

    Raises:
        ValueError: there are none, they differ in number, a highest value is not above its lowest one, or
            the dtype is of no numbers.
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
                raise ValueError(f"the highest value{of} must be above the lowest; got {low:g} to {high:g}")
        if np.dtype(self.dtype).kind not in _KINDS:
            raise ValueError(f"data must be numbers; got {self.dtype}")

    def to_samples(self, data: Array) -> Array:
        """Returns data, [..., channels], as samples, float32, exact at both ends."""
        low, high = (jnp.asarray(end, jnp.float32) for end in self._ends())
        fraction = (data.astype(jnp.float32) - low) / (high - low)
        return fraction * 2 - 1

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

    def _ends(self) -> tuple[Any, Any]:
        return (self.low[0], self.high[0]) if len(self.low) == 1 else (self.low, self.high)


BYTES = Scaling()


def found(data: np.ndarray, *, by_channel: bool = False, block: int = 2**24) -> Scaling:
    """Returns the scaling from the lowest to the highest value there is; of uint8, that of all bytes.

    Args:
        data: [examples, ..., channels], maybe on disk: it is read in blocks.
        by_channel: whether each channel has its own range.
        block: numbers that are read at once.

    Raises:
        ValueError: a value is NaN or infinite, or all of a channel are the same.
    """
    if data.dtype == np.uint8 and not by_channel:
        return BYTES
    axes = tuple(range(data.ndim - 1)) if by_channel and data.ndim > 1 else None
    lows, highs = [], []
    rows = max(1, block // max(1, int(np.prod(data.shape[1:]))))
    for first in range(0, len(data), rows):
        part = np.asarray(data[first:first + rows])
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise ValueError(_not_finite(data, rows))
        lows.append(np.atleast_1d(part.min(axes)))
        highs.append(np.atleast_1d(part.max(axes)))
    low, high = (tuple(map(float, ends)) for ends in (np.min(lows, axis=0), np.max(highs, axis=0)))
    for channel, ends in enumerate(zip(low, high, strict=True)):
        if ends[0] == ends[1]:
            which = f"of channel {channel} " if len(low) > 1 else ""
            raise ValueError(f"all values {which}are {ends[0]:g}: there is nothing to learn from them; "
                             "leave them out, or give a value range")
    return Scaling(low, high, str(data.dtype))


def _not_finite(data: np.ndarray, rows: int) -> str:
    """How many values are NaN or infinite, and where the first one is."""
    count, where = 0, None
    for first in range(0, len(data), rows):
        bad = ~np.isfinite(np.asarray(data[first:first + rows]))
        count += int(bad.sum())
        if where is None and bad.any():
            at = [int(i) for i in np.argwhere(bad)[0]]
            where = [first + at[0], *at[1:]]
    return (f"{count} of {int(np.prod(data.shape))} values are NaN or infinite, the first at {where}: "
            "leave these examples out, or replace the values")
