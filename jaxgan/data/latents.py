"""Files of latents: what an encoder has made of images, or the moments that latents are drawn from.

`experiments.encode` writes them, and so do others' tools: an array of latents, or of moments, which have
twice the channels, and the images' classes beside it.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgan.data import tables
from jaxgan.data.arrays import (
    Arrays,
    Stored,
    held_out,
    named,
    read_condition,
    stored_in,
    the_samples,
)
from jaxgan.data.order import position_keys
from jaxgan.data.scaling import Scaling, check_finite
from jaxgan.data.sources import Source
from jaxgan.files import parse_json
from jaxgan.keys import normal, stream
from jaxgan.models.autoencoder import LOG_VARIANCES
from jaxgan.types import Array, Batch, Key, PyTree

ABOUT = "about"  # the array that holds a JSON text, in files of `experiments.encode`
_BESIDE = ("labels", "class_names", "held_out", ABOUT)
_LEAST = 1e-6  # of a standard deviation
_BLOCK = 2**24  # numbers that are read at once


class Latents(NamedTuple):
    """Latents in a file.

    Attributes:
        train: those to train on; of moments the means, and behind them the standard deviations.
        test: those that are held out.
        is_moments: whether they are moments, of which latents are to be drawn.
        deviation: the standard deviation of the training latents.
        about: what the file says of them, {} if nothing.
    """

    train: Arrays
    test: Arrays
    is_moments: bool
    deviation: float
    about: Mapping[str, Any]


def open_latents(path: str | os.PathLike, channels: int, *, table: str | None = None) -> Latents:
    """Opens latents in a .npy, .npz or HDF5 file, with their classes.

    Classes are the array `labels` of the file, called as the array `class_names` says, or else those of
    `dataset.json` beside it, a row for each example in their order. Of moments the second half of the
    channels are standard deviations; if one of them is negative, they are taken for logarithms of
    variances. The array `held_out` says which examples are for tests; without it the last of every ten
    is.

    Args:
        path: the file.
        channels: how many a latent has: the array has so many, or twice as many, first or last. Where
            both would do, they are last, unless latents are square only if they are first.
        table: a file like `dataset.json`; None for that beside the file, if there is one.

    Raises:
        DataNotFoundError: there is no such file.
        ValueError: it is damaged, or these are no such latents.
    """
    path = Path(path).expanduser()
    stored = stored_in(path)
    name = the_samples(path, stored, _BESIDE)
    array = named(path, stored, name)
    count, is_first, is_moments = _layout(path, array, channels, is_ours=ABOUT in stored)
    labels, class_names = _classes(path, stored, table, count)
    is_test = held_out(count)
    if "held_out" in stored:
        is_test = np.asarray(stored["held_out"].open())
        if is_test.dtype != bool or is_test.shape != (count,) or is_test.all():
            raise ValueError(f"{path}: held_out must be a truth for each of its {count} samples, and "
                             "false for some")
    source, about = array.open(), _about(stored)
    whole = _Rows(source, np.arange(count), is_first)
    try:
        check_finite(whole)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    is_logarithm = is_moments and any((block[..., channels:] < 0).any() for block in whole.blocks())

    def shaped(rows: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(rows, 1, -1) if is_first else rows
        if not is_logarithm:
            return rows
        mean, log_variance = np.split(rows.astype(np.float32), 2, -1)
        return np.concatenate([mean, np.exp(np.clip(log_variance, *LOG_VARIANCES) / 2)], -1)

    dtype = "float32" if is_logarithm else str(array.dtype.newbyteorder("="))
    shape = (*array.shape[2:], array.shape[1]) if is_first else array.shape[1:]

    def part(what: str, chosen: np.ndarray) -> Arrays:
        return Arrays(f"{path} {what}", source, np.flatnonzero(chosen), shaped, shape, "images",
                      "first" if is_first else "last", labels[chosen], class_names, None, None,
                      Scaling((-1.0,), (1.0,), dtype), None)

    train = part("train", ~is_test)
    deviation = _deviation(train, channels)
    if not deviation > _LEAST:
        raise ValueError(f"{path}: all latents are the same: there is nothing to learn from them")
    return Latents(train, part("test", is_test), is_moments, deviation, about)


def scaled(latents: Arrays, scale: float) -> Arrays:
    """Returns latents that samples are so many times as large as."""
    return dataclasses.replace(latents, scaling=Scaling((-1 / scale,), (1 / scale,),
                                                        latents.scaling.dtype))


def drawn(source: Source) -> Source:
    """Returns a source of latents, drawn from those of moments by each example's key.

    What is drawn depends on the key and the position of an example: it is another one every epoch.

    Args:
        source: of means, and behind them along the last axis, standard deviations.
    """
    *size, channels = source.sample_shape

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        moments, condition = source.draw(arrays, key, epochs, offsets)
        mean, deviation = jnp.split(moments, 2, axis=-1)
        noise = normal(position_keys(stream(key, "latents"), epochs, offsets), mean.shape[1:])
        return Batch(mean + deviation * noise, condition)

    return source._replace(draw=draw, sample_shape=(*size, channels // 2))


def means(samples: np.ndarray, *, is_moments: bool) -> np.ndarray:
    """Returns latents as they are, and of moments the means."""
    return np.split(samples, 2, axis=-1)[0] if is_moments else samples


def _layout(path: Path, array: Stored, channels: int, *, is_ours: bool) -> tuple[int, bool, bool]:
    """How many latents there are, whether their channels come first, and whether they are moments.

    Those of `experiments.encode` have them last.
    """
    if len(array.shape) == 4 and 0 not in array.shape and array.dtype.kind == "f":
        count, second, third, last = array.shape
        is_square_if_first = third == last != second and not is_ours
        for axis in (1, 3) if is_square_if_first else (3, 1):
            if array.shape[axis] in (channels, 2 * channels):
                if count < 2:
                    raise ValueError(f"{path}: at least two latents are needed; got {count}")
                return count, axis == 1, array.shape[axis] == 2 * channels
    raise ValueError(f"{path}: latents for this decoder are floating-point numbers of shape [count, "
                     f"height, width, {channels}], or {2 * channels} channels of moments; got "
                     f"{array.dtype}{list(array.shape)}")


def _classes(path: Path, stored: Mapping[str, Stored], table: str | None, count: int
             ) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels, int32 [count], and the names of the classes, () if there are none."""
    beside = path.parent / tables.NAMES[0]
    if table is None and {"labels", "class_names"} <= stored.keys():
        labels, names = (np.asarray(stored[name].open()) for name in ("labels", "class_names"))
        if labels.shape != (count,) or labels.dtype.kind not in "iu" or names.ndim != 1 or not (
                0 <= labels.min() <= labels.max() < len(names)):
            raise ValueError(f"{path}: labels must be a number for each of its {count} samples, below "
                             f"that of its class_names, {names.size}")
        return labels.astype(np.int32), tuple(map(str, names))
    if table is None and "labels" not in stored and beside.is_file():
        table = str(beside)
    if table is None:
        labels, names, numbers = read_condition(
            path, stored, "labels" if "labels" in stored else "", count)
        if numbers is not None:
            raise ValueError(f"{path}: labels must be whole numbers or words; got "
                             f"{stored['labels'].dtype}")
        return labels, names
    found = tables.open_given(table)
    if found.labels is None or found.numbers is not None:
        raise ValueError(f"{found.name}: latents are drawn for classes, and it has none")
    names = [*found.labels.values()]
    values = np.array([int(name) for name in names] if all(map(str.isdecimal, names)) else names)
    return read_condition(path, {found.name: Stored(values.shape, values.dtype, lambda: values)},
                          found.name, count)[:2]


def _about(stored: Mapping[str, Stored]) -> Mapping[str, Any]:
    """What a file of `experiments.encode` says of itself; {} for any other."""
    if ABOUT not in stored or stored[ABOUT].dtype.kind != "U" or stored[ABOUT].shape:
        return {}
    try:
        about = parse_json(str(np.asarray(stored[ABOUT].open())).encode())
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


class _Rows(NamedTuple):
    """Rows of an array as `jaxgan.data.scaling.Data`, their channels last."""

    source: Any
    rows: np.ndarray
    is_first: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.read(slice(0, 1)).shape[1:]

    @property
    def dtype(self) -> np.dtype:
        return self.read(slice(0, 1)).dtype

    def read(self, index: slice) -> np.ndarray:
        found = np.asarray(self.source[self.rows[index]])
        return np.moveaxis(found, 1, -1) if self.is_first else found

    def blocks(self):
        size = max(1, _BLOCK // int(np.prod(self.shape[1:])))
        return (self.read(slice(first, first + size)) for first in range(0, len(self.rows), size))


def _deviation(train: Arrays, channels: int) -> float:
    """The standard deviation of latents, all channels together, with that of their moments."""
    total = squares = count = 0.0
    size = max(1, _BLOCK // int(np.prod(train.sample_shape)))
    for first in range(0, len(train), size):
        block = np.asarray(train[first:first + size][0], np.float64)
        mean = block[..., :channels]
        total, count = total + mean.sum(), count + mean.size
        squares += np.square(block).sum()  # of moments those of the deviations as well
    mean = total / count
    return float(np.sqrt(max(squares / count - mean**2, 0.0)))
