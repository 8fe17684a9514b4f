"""Data sets read from a directory that TensorFlow Datasets has prepared."""

import importlib.util
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from jaxgan import files
from jaxgan.data.dataset import DataNotFoundError, Dataset, Size, canonical, check_pixels
from jaxgan.extras import needs
from jaxgan.files import open_regular

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IMAGE = "tensorflow_datasets.core.features.image_feature.Image"
_LABEL = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_PLAIN = re.compile(r"\w[\w.-]{0,199}", re.ASCII)  # names that lead nowhere else
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_AT_ONCE = 1000  # records
_HEADER, _BETWEEN, _BLOCK = 40, 24, 2**16  # bytes of Riegeli files
_KINDS = (b"s", b"m", b"p", b"r", b"t")  # of their chunks
_MOST_TIMES = 100  # as long as its file a record may be: images are compressed already
_MOST_CLASSES = 2**20
_MOST_BYTES = 2**24  # of a description


class _Damage(ValueError):
    """What is wrong with the records of a set."""


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the directory of the newest prepared version of the set, None if there is none.

    Args:
        name: a data set's name, or name/configuration.
        data_dir: the folder that TensorFlow Datasets calls by this name.

    Raises:
        ValueError: the set has several configurations there.
    """
    def versions(folder: Path) -> list[Path]:
        found = [path.parent for path in folder.glob("*/features.json")
                 if path.parent.name.replace(".", "").isdecimal()]
        return sorted(found, key=lambda path: [int(part) for part in path.name.split(".")])

    root = data_dir / name
    if found := versions(root):
        return found[-1]
    configurations = [path for path in sorted(root.glob("*")) if versions(path)]
    if len(configurations) > 1:
        names = ", ".join(f"{name}/{path.name}" for path in configurations)
        raise ValueError(f"{name} has several configurations in {root}: name one of {names}")
    return versions(configurations[0])[-1] if configurations else None


def read(directory: Path, name: str, split: str, image_size: Size | None = None) -> Dataset:
    """Returns a split of a prepared data set in its canonical order.

    The array_record format needs no TensorFlow; tfrecord does, and others aren't read.

    Raises:
        DataNotFoundError: the format needs TensorFlow, which is not installed.
        ValueError: the set has no image and label, or no such split, or its files are damaged.
    """
    needs("tensorflow_datasets", "array_record", "PIL")
    channels, class_names = _features(directory, name)
    form, files = _shards(directory, name, split)
    if form not in _READERS:
        raise ValueError(f"{directory} is in the {form} format, which isn't read: prepare it with "
                         "file_format='array_record'")
    if form == "tfrecord" and not _has_tensorflow():
        raise DataNotFoundError(f"{directory} is in the {form} format, which needs "
                                "TensorFlow: prepare it with file_format='array_record'")
    try:
        images, labels = _read_records(files, _READERS[form])
        pixels = decode(images, channels)
        return canonical(name, pixels, labels, class_names, image_size)
    except _Damage as error:
        raise ValueError(f"{directory} is damaged ({error}): prepare it again") from error


def prepare(name: str, split: str, data_dir: Path, image_size: Size | None = None) -> Dataset:
    """Has TensorFlow Datasets download and prepare a set of its catalogue, and returns a split.

    Raises:
        DataNotFoundError: TensorFlow, which preparing needs, is not installed.
        ValueError: the set has no image and label, or no such split.
    """
    if not _has_tensorflow():
        raise DataNotFoundError("preparing it needs TensorFlow, which is not installed")
    import tensorflow_datasets as tfds

    # The set's own code alone: `tfds.builder` may also follow what the files in `data_dir` name.
    base, _, configuration = name.partition("/")
    make_builder = cast("Callable[..., Any]", tfds.builder_cls(base))
    builder = make_builder(config=configuration or None, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return read(Path(builder.data_dir), name, split, image_size)


def catalogue() -> list[str]:
    """Returns the names of the data sets that TensorFlow Datasets knows."""
    needs("tensorflow_datasets")
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def decode(files: list[bytes], channels: int) -> Iterator[np.ndarray]:
    """Yields the pixels of PNG or JPEG files, each [height, width, channels].

    Small PNGs of one size are decoded many at a time: one by one, opening them costs far more
    than their pixels do.

    Raises:
        ValueError: one is damaged, or has more pixels than Pillow's MAX_IMAGE_PIXELS.
    """
    try:
        yield from _decoded(files, channels)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise _Damage(str(error) or type(error).__name__) from error


def _decoded(files: list[bytes], channels: int) -> Iterator[np.ndarray]:
    from PIL import Image

    header = files[0][:33]  # signature, size, depth, colour type and their checksum
    if _is_plain(header, channels) and all(file.startswith(header) for file in files):
        width, height = struct.unpack_from(">II", header, 16)
        check_pixels(width, height)
        count = max(1, 2**24 // (width * (height + 1)))
        for first in range(0, len(files), count):
            yield from _decode_strip(files[first:first + count])
    else:
        for file in files:
            image = Image.open(io.BytesIO(file), formats=("PNG", "JPEG"))
            check_pixels(*image.size)
            if image.mode != "I;16":  # which convert() would clip at 255; Dataset refuses it
                image = image.convert(_MODES[channels])
            yield np.asarray(image).reshape(image.height, image.width, -1)


def _is_plain(header: bytes, channels: int) -> bool:
    """Says whether a PNG of this header has 8-bit grey or RGB pixels and is not interlaced."""
    colour_type = {1: 0, 3: 2}.get(channels)
    return header.startswith(_SIGNATURE) and len(header) == 33 and (
        header[24], header[25], header[28]) == (8, colour_type, 0)


def _decode_strip(files: list[bytes]) -> np.ndarray:
    """Returns the pixels of plain PNGs of one header, [files, height, width, channels].

    Their scan lines are put below each other in one tall PNG. A line may be stored relative to
    the one above it, so a line of zeros goes before each image: that is what the format says the
    first line is relative to.
    """
    from PIL import Image

    width, height = struct.unpack_from(">II", files[0], 16)
    channels = 1 if files[0][25] == 0 else 3
    line = 1 + width * channels
    lines = [bytes(line) + _scan_lines(file, line * height) for file in files]
    header = struct.pack(">II", width, (height + 1) * len(files)) + files[0][24:29]
    strip = b"".join((_SIGNATURE, _chunk(b"IHDR", header),
                      _chunk(b"IDAT", zlib.compress(b"".join(lines), 0)), _chunk(b"IEND", b"")))
    pixels = np.asarray(Image.open(io.BytesIO(strip), formats=("PNG",)))
    return pixels.reshape(len(files), height + 1, width, channels)[:, 1:]


def _scan_lines(file: bytes, length: int) -> bytes:
    """Returns a PNG's decompressed data: every line's filter type and filtered pixels.

    Raises:
        ValueError: they are damaged, or not of so many bytes.
    """
    parts, at = [], len(_SIGNATURE)
    while at + 8 <= len(file):
        size, kind = struct.unpack_from(">I4s", file, at)
        if kind == b"IDAT":
            parts.append(file[at + 8:at + 8 + size])
        at += size + 12  # the size, the kind, the data and their checksum
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(b"".join(parts), length + 1)
    if len(data) != length or not decompressor.eof:
        raise ValueError("a PNG does not hold as many pixels as its header says")
    return data


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", checksum)


def _read_records(files: dict[Path, int], read: Callable[[Path], Iterator[bytes]]
                  ) -> tuple[list[bytes], list[int]]:
    """Returns the encoded images and the labels of files with so many records.

    Raises:
        _Damage: they aren't there, or hold something else.
    """
    from tensorflow_datasets.proto import tf_example_generated_pb2

    # protobuf makes the class when the module is imported.
    example = tf_example_generated_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
    images, labels, expected = [], [], 0
    for path, count in files.items():
        expected += count
        try:
            with open_regular(path) as file:
                if read is _array_records:
                    _check_chunks(file)
            for record in islice(read(path), count + 1):
                feature = example.FromString(record).features.feature
                images.append(feature["image"].bytes_list.value[0])
                labels.append(feature["label"].int64_list.value[0])
        except Exception as error:  # what array_record and protobuf raise has no common class
            raise _Damage(str(error)) from error
        if len(images) != expected:
            raise _Damage(f"{path.name} doesn't hold {count} records")
    return images, labels


def _array_records(path: Path) -> Iterator[bytes]:
    # A compiled module, of which no types are known.
    from array_record.python import (
        array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
    )

    reader = array_record_module.ArrayRecordReader(str(path))
    try:
        count = reader.num_records()
        for first in range(0, count, _AT_ONCE):  # one by one takes three times as long
            yield from reader.read(first, min(first + _AT_ONCE, count))
    finally:
        reader.close()


def _check_chunks(file: BinaryIO) -> None:
    """Refuses an array_record file that says it decompresses to far more than its own length.

    It is a Riegeli file: chunks, each behind a header of 40 bytes, with 24 bytes of another kind in
    between wherever a block of 64 KiB begins. Source: riegeli_records_file_format.md in google/riegeli.

    Raises:
        ValueError: it does, or isn't such a file.
    """
    size, start, decoded = os.fstat(file.fileno()).st_size, 0, 0
    while start < size:
        file.seek(start)
        raw, block = file.read(_HEADER + _BETWEEN), -start % _BLOCK
        header = raw[:block] + raw[block + _BETWEEN:]
        if len(header) < _HEADER or header[24:25] not in _KINDS:
            raise ValueError("it is no array_record file")
        length, kind, inflated = struct.unpack_from("<8xQ8xQQ", header)
        length, decoded = length + _HEADER, decoded + inflated
        blocks = (length + (start + _BLOCK - _BETWEEN - 1) % _BLOCK) // (_BLOCK - _BETWEEN)
        start += max(length + blocks * _BETWEEN, kind >> 8)  # at least a byte for each record
    if decoded > _MOST_TIMES * size:
        raise ValueError(f"its {size} bytes decompress to {decoded}")


def _tf_records(path: Path) -> Iterator[bytes]:
    import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]: not installed everywhere

    yield from cast("Iterator[bytes]", tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


_READERS = {"array_record": _array_records, "tfrecord": _tf_records}


def _features(directory: Path, name: str) -> tuple[int, list[str]]:
    """Returns the images' channels and the names of the classes.

    TensorFlow Datasets would import what `features.json` names. Here the names are compared with those
    of the two features that are understood, and nothing else is looked at.

    Raises:
        ValueError: there are no such features, or the file is damaged.
    """
    path = directory / "features.json"
    with _described(path):
        features = _read_json(path)["featuresDict"]["features"]
        kinds = {key: features[key].get("pythonClassName") for key in sorted(features)}
    if kinds.get("image") != _IMAGE or kinds.get("label") != _LABEL:
        found = ", ".join(f"{key} ({str(kind).rpartition('.')[2]})" for key, kind in kinds.items())
        raise ValueError(f"{name} must have an 'image' and a class 'label'; it has {found[:200]!r} in "
                         f"{path}")
    with _described(path):
        channels = int(features["image"]["image"]["shape"]["dimensions"][-1])
        count = int(features["label"]["classLabel"]["numClasses"])
        if channels not in _MODES or not 1 <= count <= _MOST_CLASSES:
            raise ValueError(f"{channels} channels, {count} classes")
    try:
        text = files.read(directory / "label.labels.txt", _MOST_BYTES).decode()
    except FileNotFoundError:
        return channels, [str(label) for label in range(count)]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{directory / 'label.labels.txt'} is damaged ({error}): prepare it again"
                         ) from error
    class_names = [line.strip() for line in text.split("\n") if line.strip()]
    if len(class_names) != count:
        raise ValueError(f"{directory / 'label.labels.txt'} is damaged: it names {len(class_names)} "
                         f"classes, not {count}: prepare it again")
    return channels, class_names


def _shards(directory: Path, name: str, split: str) -> tuple[str, dict[Path, int]]:
    """Returns the format, and the number of records in each file of the split.

    Raises:
        ValueError: there is no such split, or `dataset_info.json` is damaged.
    """
    path = directory / "dataset_info.json"
    with _described(path):
        info = _read_json(path)
        form = info.get("fileFormat") or "tfrecord"
        splits = {part["name"]: part for part in info["splits"]}
        for text in (form, *splits, info["name"]):
            _check_plain(text)
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(splits)[:200]}")
    with _described(path):
        counts = [int(count) for count in splits[split]["shardLengths"]]
        if not counts or min(counts) < 0:
            raise ValueError("no records")
        template = splits[split].get("filepathTemplate") or _TEMPLATE
        values = {"DATASET": info["name"], "SPLIT": split, "FILEFORMAT": form}
        width = max(5, len(str(len(counts))))
        return form, {directory / _filled(template, values | {
            "SHARD_INDEX": f"{i:0{width}}", "NUM_SHARDS": f"{len(counts):0{width}}",
            "SHARD_X_OF_Y": f"{i:0{width}}-of-{len(counts):0{width}}"}): count
            for i, count in enumerate(counts)}


def _filled(template: str, values: dict[str, str]) -> str:
    """A file's name after its template, in which braces hold the names of values."""
    name = re.sub(r"{(\w+)}", lambda found: values[found[1]], template)
    _check_plain(name)
    return name


def _check_plain(name: str) -> None:
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"the name {name[:50]!r}")


def _read_json(path: Path) -> Any:
    return json.loads(files.read(path, _MOST_BYTES))


@contextmanager
def _described(path: Path):
    """Turns whatever is wrong with a description into one sentence."""
    try:
        yield
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or describes no data set that is understood "
                         f"({type(error).__name__}: {str(error)[:100]}): prepare it again") from error


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
