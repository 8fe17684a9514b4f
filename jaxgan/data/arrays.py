"""Files of arrays as data: vectors, series, images and volumes of any type of number.

The files aren't trusted: nothing is unpickled, nothing outside of them is opened, and what they declare
is checked before memory is taken.
"""

import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.data.dataset import DataNotFoundError
from jaxgan.data.scaling import Scaling, check_finite, found
from jaxgan.files import open_regular, reason
from jaxgan.memory import check_fits

KINDS = {"vectors": 1, "series": 2, "images": 3, "volumes": 4}  # by the axes of a sample
SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
_CHANNELS = 16  # a last axis that is longer is taken for an axis of space or time
_SAMPLES = ("samples", "images", "x", "data", "arr_0")  # what arrays of samples are called
_BLOCK = 2**24  # numbers that are read at once
_ENTRIES = 10_000  # of a file
_HOLDS_OUT = 10  # of so many examples the last is a test example


class Stored(NamedTuple):
    """An array in a file.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        open: returns what gives rows by their numbers, which ascend: the array itself, or what reads
            them from disk.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    open: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples of any shape, in memory or on disk, as `jaxgan.data.Examples`.

    Attributes:
        name: what they are.
        source: what gives rows of the array that they are in.
        rows: which of these the examples are, ascending, [examples].
        shaped: rows as they are stored -> samples, [batch, ..., channels].
        sample_shape: the shape of one.
        kind: of `KINDS`.
        channels: where the axis of channels is in the file: "first", "last", or "none" if one was added.
        labels: int32, [examples], in [0, len(class_names)); 0 if there are no classes.
        class_names: the name of every class, in the order of the labels; () if there are none.
        numbers: None, or what else is known of every example, float32 [examples, numbers].
        weights: None, or how often they are to be drawn, [examples].
        scaling: what the samples' values stand for.
        number_scaling: the same of the numbers.
    """

    name: str
    source: Any
    rows: np.ndarray
    shaped: Callable[[np.ndarray], np.ndarray]
    sample_shape: tuple[int, ...]
    kind: str
    channels: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    numbers: np.ndarray | None
    weights: np.ndarray | None
    scaling: Scaling
    number_scaling: Scaling | None

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        wanted, back = np.unique(self.rows[index], return_inverse=True)
        samples = self.shaped(np.asarray(self.source[wanted], self.scaling.dtype))
        is_ascending = len(wanted) == len(back) and (back[:-1] < back[1:]).all()
        return samples if is_ascending else samples[back], self.labels[index]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the samples and what belongs to them."""
        digest = hashlib.sha256(f"{len(self)} {self.sample_shape} {self.scaling.dtype}\n".encode())
        for first in range(0, len(self), step := _rows_a_block(self.sample_shape)):
            digest.update(np.ascontiguousarray(self[first:first + step][0]).data)
        for beside in (self.labels, self.numbers):
            digest.update(b"" if beside is None else np.ascontiguousarray(beside).data)
        return digest.hexdigest()


class Split(NamedTuple):
    """The examples of a file: those to train on and those that are held out."""

    train: Arrays
    test: Arrays


def open_arrays(path: str | os.PathLike, *, samples: str = "", condition: str = "", weights: str = "",
                kind: str = "", channels: str = "", value_range: tuple[float, float] | None = None,
                by_channel: bool | None = None) -> Split:
    """Opens the samples in a .npy, .npz or HDF5 file, and what else is known of them.

    Of every ten examples, the last is held out for tests. What is stored without an axis of channels
    gets one: a last axis of more than 16 is taken for one of space or time.

    Args:
        path: the file. Of a .npy file, and of HDF5, what is on disk stays there until it is needed.
        samples: which array in the file the samples are; by default the only one beside condition and
            weights, or the first that is called samples, images, x, data or arr_0.
        condition: what samples are drawn for, an array in the same file, or a .npy file: integers or
            words are classes, [examples]; floating-point numbers [examples] or [examples, numbers]
            (vectors, boxes) are themselves.
        weights: how often each example is drawn, [examples], named likewise.
        kind: "vectors", "series" [length, channels], "images" [height, width, channels] or "volumes"
            [depth, height, width, channels]; by default what the shape suggests.
        channels: "first" if the axis of channels comes before those of space, "last" if it comes behind
            them, "none" if there is none.
        value_range: the values that become -1 and 1; by default the lowest and the highest that there
            are among the training samples, or of uint8 images 0 and 255.
        by_channel: whether each channel (of vectors, each variable) has its own range; by default of
            vectors and series.

    Raises:
        DataNotFoundError: there is no such file.
        ValueError: it is damaged, there is no such array in it, or it can't be trained on.
    """
    path = Path(path).expanduser()
    stored = stored_in(path)
    name = samples or the_samples(path, stored, (condition, weights))
    array = named(path, stored, name)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name or 'its array'} is of {array.dtype}: samples must be numbers")
    count = array.shape[0] if array.shape else 0
    if count < 2 or 0 in array.shape:
        raise ValueError(f"{path}: {name or 'its array'} has the shape {list(array.shape)}: at least "
                         "two samples are needed, one after the other along the first axis")
    kind, shape, channels, shaped = _arranged(str(path), array.shape[1:], kind, channels)
    labels, class_names, numbers = read_condition(path, stored, condition, count)
    drawn = _weights(path, stored, weights, count)
    source, is_test = array.open(), held_out(count)
    if len(untrained := np.setdiff1d(labels, labels[~is_test])):
        raise ValueError(f"{path}: all samples of the class {class_names[untrained[0]]} are held out, "
                         "as the last of every ten is: shuffle the samples")
    by_channel = kind in ("vectors", "series") if by_channel is None else by_channel

    def part(what: str, chosen: np.ndarray, scalings: Mapping[str, Any]) -> Arrays:
        return Arrays(f"{path} {what}", source, np.flatnonzero(chosen), shaped, shape, kind, channels,
                      labels[chosen], class_names, None if numbers is None else numbers[chosen],
                      None if drawn is None else drawn[chosen], **scalings)

    dtype = str(array.dtype.newbyteorder("="))  # however they are stored
    unscaled = {"scaling": Scaling(dtype=dtype), "number_scaling": None}
    train = part("train", ~is_test, unscaled)
    try:
        check_finite(_InBlocks(part("", np.ones(count, bool), unscaled)))
        if value_range is None:
            scaling = found(_InBlocks(train), by_channel=by_channel)
        else:
            low, high = map(float, value_range)
            scaling = Scaling((low,), (high,), dtype)
        number_scaling = None if numbers is None else found(numbers[~is_test], by_channel=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    scalings = {"scaling": scaling, "number_scaling": number_scaling}
    return Split(replace(train, **scalings), part("test", is_test, scalings))


def held_out(count: int) -> np.ndarray:
    """Returns which of so many examples are held out for tests, bool [count]: the last of every ten."""
    found = np.arange(count) % _HOLDS_OUT == _HOLDS_OUT - 1
    found[-1] = True  # there is one
    return found


class _InBlocks(NamedTuple):
    """The samples of `Arrays` as an array that is read block by block."""

    of: Arrays

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.of), *self.of.sample_shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.of.scaling.dtype)

    def read(self, index: slice) -> np.ndarray:
        return self.of[index][0]


def stored_in(path: Path) -> dict[str, Stored]:
    """Returns what arrays there are in a file, by name; that of a .npy file is called "".

    Raises:
        DataNotFoundError: there is no such file.
        ValueError: it is of another kind, damaged, or needs a package that isn't installed.
    """
    if not path.is_file():
        raise DataNotFoundError(f"{path} is a folder: name the file in it" if path.is_dir() else
                                f"there is no file {path}: say where it is, of a run's by --data-dir")
    readers = {".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}: save the arrays by numpy.save, for "
                         "example")
    try:
        stored = readers[path.suffix.lower()](path)
    except DataNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError,
            zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} can't be read ({reason(error)})") from error
    if not stored:
        raise ValueError(f"there are no arrays of numbers in {path}")
    return stored


def _npy(path: Path) -> dict[str, Stored]:
    with open_regular(path) as file:  # a pipe would never end
        shape, dtype = _header(file)
        if file.tell() + _bytes(shape, dtype) > path.stat().st_size:
            raise ValueError(f"it is cut off: its {list(shape)} of {dtype} take more bytes than it has")
    return {"": Stored(shape, dtype, lambda: np.load(path, mmap_mode="r", allow_pickle=False))}


def _npz(path: Path) -> dict[str, Stored]:
    stored = {}
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _ENTRIES:
            raise ValueError(f"it has {len(members)} entries")
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as content:
                    shape, dtype = _header(content)
                    if content.tell() + _bytes(shape, dtype) != member.file_size:
                        raise ValueError(f"{member.filename} is not what it declares")
                name = member.filename.removesuffix(".npy")
                stored[name] = Stored(shape, dtype, partial(_member, path, member.filename))
    return stored


def _member(path: Path, name: str) -> np.ndarray:
    """Reads an array of a .npz file into memory, which it has to fit."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive, archive.open(name) as content:
        shape, dtype = _header(content)
        size = _bytes(shape, dtype)
    check_fits(f"{path}: {name.removesuffix('.npy')} takes",
               np.broadcast_to(np.zeros((), np.uint8), (size,)),
               "the number of samples, or save them as .npy, which is read from disk")
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive, archive.open(name) as content:
            return np.lib.format.read_array(content, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {name} can't be read ({reason(error)})") from error


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype that an array's header declares.

    Raises:
        ValueError: it is damaged, or of objects, which would have to be unpickled.
    """
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"it is of version {version} of NumPy's format, which isn't read")
    shape, _, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read because they can run code: save "
                         "arrays of numbers")
    return shape, dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(map(int, shape)) * dtype.itemsize


def _hdf5(path: Path) -> dict[str, Stored]:
    try:
        import h5py
    except ImportError:
        raise DataNotFoundError(f"{path} is HDF5, which needs h5py: pip install h5py") from None
    stored, seen = {}, 0

    def visit(name: str, group: Any) -> None:
        nonlocal seen
        for key in group:
            seen += 1
            link = group.get(key, getlink=True)
            if seen > _ENTRIES or not isinstance(link, h5py.HardLink):  # others lead out of the file
                continue
            found = group[key]
            inner = f"{name}/{key}".lstrip("/")
            if isinstance(found, h5py.Group) and inner.count("/") < 8:
                visit(inner, found)
            elif isinstance(found, h5py.Dataset) and not (found.is_virtual or found.external):
                text = h5py.check_string_dtype(found.dtype) is not None
                if found.shape is not None and (text or not found.dtype.hasobject):
                    stored[inner] = Stored(found.shape, found.dtype, partial(_Hdf5, path, inner, text))

    with open_regular(path), h5py.File(path, "r") as file:
        visit("", file)
    return stored


class _Hdf5:
    """An array in an HDF5 file, whose rows are read when they are asked for."""

    def __init__(self, path: Path, name: str, text: bool):
        import h5py

        array: Any = h5py.File(path, "r")[name]
        self._array: Any = array.asstr() if text else array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        first, last = int(rows[0]), int(rows[-1]) + 1
        if last - first <= 2 * len(rows):  # many single rows take HDF5 much longer than all between them
            return np.asarray(self._array[first:last])[rows - first]
        return np.asarray(self._array[rows])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self._array[()], dtype)


def the_samples(path: Path, stored: Mapping[str, Stored], others: Sequence[str] = ()) -> str:
    """Which array the samples are, if that isn't said; `others` are what is known to be something else.

    Raises:
        ValueError: it can't be told.
    """
    left = [name for name in stored if not name or name not in others]
    named = [name for name in _SAMPLES if name in left]
    if len(left) == 1 or named:
        return named[0] if named else left[0]
    largest = max(stored, key=lambda name: math.prod(stored[name].shape))
    raise ValueError(f"{path} has the arrays {_listed(stored)}: say which are the samples, "
                     f"--samples {largest} for example")


def named(path: Path, stored: Mapping[str, Stored], name: str) -> Stored:
    """Returns the array of a name; ValueError if there is none."""
    name = name if name in stored else name.lstrip("/")
    if name not in stored:
        there = _listed(stored) if "" not in stored else "one without a name"
        raise ValueError(f"there is no array {name!r} in {path}, which has {there}")
    return stored[name]


def _listed(stored: Mapping[str, Stored]) -> str:
    shown = [f"{name} {list(array.shape)} of {array.dtype}"
             for name, array in sorted(stored.items())[:10]]
    return ", ".join(shown) + (", ..." if len(stored) > 10 else "")


def _beside(path: Path, stored: Mapping[str, Stored], name: str) -> np.ndarray:
    """Reads what belongs to samples, an array of the same file or of a .npy file."""
    if name not in stored and name.endswith(".npy"):
        return np.asarray(stored_in(Path(name).expanduser())[""].open())
    return np.asarray(named(path, stored, name).open())


def read_condition(path: Path, stored: Mapping[str, Stored], name: str, count: int
                   ) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Returns labels, the names of classes and numbers, as `Arrays` has them.

    Args:
        path: the file.
        stored: what is in it.
        name: of an array in it, or a .npy file; "" for none.
        count: how many samples there are.

    Raises:
        ValueError: there is none of this name, it is of another number, or neither classes nor numbers.
    """
    none = np.zeros(count, np.int32)
    if not name:
        return none, (), None
    values = _beside(path, stored, name)
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind not in "f":
        values = values[:, 0]
    if values.shape[:1] != (count,):
        raise ValueError(f"{name} has {len(values) if values.ndim else 0} values, and there are {count} "
                         f"samples in {path}: there must be one for each")
    if values.dtype.kind == "f" and values.ndim <= 2:
        values = values.reshape(count, -1)
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32)
        try:
            check_finite(values)
            if not np.isfinite(numbers).all():
                raise ValueError(f"there are numbers beyond {np.finfo(np.float32).max:.3g}: scale them")
            found(numbers, by_channel=True)
        except ValueError as error:
            raise ValueError(f"{name} in {path} can't be a condition: {error}") from error
        return none, (), numbers
    if values.dtype.kind in "biuUSO" and values.ndim == 1:
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8", "replace")
        names, labels = np.unique(values, return_inverse=True)
        if values.dtype.kind in "iu" and names[0] == 0 and names[-1] < 2 * len(names):
            names, labels = np.arange(int(names[-1]) + 1), values  # some classes are empty here
        if len(names) > count // 2 and len(names) > 100:
            raise ValueError(f"{path}: {name} has {len(names)} different values for {count} samples, "
                             "too many to be classes: save numbers to be conditions as floating point")
        return labels.astype(np.int32), tuple(map(str, names)), None
    raise ValueError(f"{name} in {path} must be a class for each sample, [{count}] integers or words, "
                     f"or floating-point numbers, [{count}] or [{count}, numbers]; got {values.dtype}"
                     f"{list(values.shape)}")


def _weights(path: Path, stored: Mapping[str, Stored], name: str, count: int) -> np.ndarray | None:
    if not name:
        return None
    values = _beside(path, stored, name)
    if values.shape != (count,) or values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be one weight for each of the {count} samples in {path}; got "
                         f"{values.dtype}{list(values.shape)}")
    return values.astype(np.float64)


def _arranged(path: str, shape: tuple[int, ...], kind: str, channels: str
              ) -> tuple[str, tuple[int, ...], str, Callable[[np.ndarray], np.ndarray]]:
    """Returns of which kind samples are, the shape of one, where channels are, and what shapes rows so.

    Raises:
        ValueError: they are of no kind, or it can't be told where the channels are.
    """
    if (kind and kind not in KINDS) or channels not in ("", "first", "last", "none"):
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, and channels first, last or none; "
                         f"got {kind!r} and {channels!r}")
    axes = len(shape)
    if axes > 4 or (axes == 4 and channels == "none"):
        raise ValueError(f"{path}: samples of shape {list(shape)} have too many axes: vectors have one, "
                         "series two, images three, volumes four, the last one for channels")
    if axes <= 1:  # one number a sample, or a vector, or a series of one channel
        if kind == "series" and axes == 1:
            return kind, (*shape, 1), "none", lambda x: x[..., None]
        if kind not in ("", "vectors"):
            raise ValueError(f"{path}: samples of shape {list(shape)} are no {kind}")
        return "vectors", shape or (1,), "last" if shape else "none", lambda x: x.reshape(len(x), -1)
    if kind == "vectors":
        return kind, (math.prod(shape),), "last", lambda x: x.reshape(len(x), -1)
    wanted = KINDS[kind] if kind else 0
    if not channels:
        if wanted:
            channels = "none" if wanted == axes + 1 else "last"
        elif axes >= 3 and shape[0] <= 4 < _CHANNELS < shape[-1]:
            raise ValueError(f"{path}: samples of shape {list(shape)} seem to have their channels "
                             "first: give --channels first, or last or none if they haven't")
        else:
            channels = "none" if shape[-1] > _CHANNELS else "last"
    rank = axes + (channels == "none")
    if wanted not in (0, rank) or rank > 4:
        raise ValueError(f"{path}: samples of shape {list(shape)}, with channels {channels}, are no "
                         f"{kind or 'series, images or volumes'}: give another --kind or --channels")
    kind = next(name for name, axes in KINDS.items() if axes == rank)
    if channels == "none":
        return kind, (*shape, 1), channels, lambda x: x[..., None]
    if channels == "first":
        return kind, (*shape[1:], shape[0]), channels, lambda x: np.moveaxis(x, 1, -1)
    return kind, shape, channels, lambda x: x


def as_stored(samples: np.ndarray, channels: str) -> np.ndarray:
    """Returns samples with their axis of channels where a file has it, see `Arrays.channels`."""
    if channels == "none":
        return samples[..., 0]
    return np.moveaxis(samples, -1, 1) if channels == "first" else samples


def _rows_a_block(shape: tuple[int, ...]) -> int:
    return max(1, _BLOCK // math.prod(shape))
