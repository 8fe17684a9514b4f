"""Data sets read from a directory that TensorFlow Datasets has prepared."""

import importlib.util
import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxgan.data.dataset import DataNotFoundError, Dataset, canonical

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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


def read(directory: Path, name: str, split: str, image_size: int | None = None) -> Dataset:
    """Returns a split of a prepared data set in its canonical order.

    The array_record format needs no TensorFlow; the others do.

    Raises:
        DataNotFoundError: the format needs TensorFlow, which is not installed.
        ValueError: the set has no image and label, or no such split, or its files are damaged.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    class_names = _class_names(builder, name)
    info = cast("Any", builder.info)  # typed as if what a prepared set has could be None
    if split not in info.splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(info.splits)}")
    if info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        images, labels = _read_records(builder, split)
        pixels = decode(images, info.features["image"].shape[-1])
        return canonical(name, pixels, labels, class_names, image_size)
    if not _has_tensorflow():
        raise DataNotFoundError(
            f"{directory} is in the {info.file_format.value} format, which needs "
            "TensorFlow: prepare it with file_format='array_record'")
    return _from_tensorflow(builder, name, split, image_size)


def prepare(name: str, split: str, data_dir: Path, image_size: int | None = None) -> Dataset:
    """Has TensorFlow Datasets download and prepare a set of its catalogue, and returns a split.

    Raises:
        DataNotFoundError: TensorFlow, which preparing needs, is not installed.
        ValueError: the set has no image and label, or no such split.
    """
    if not _has_tensorflow():
        raise DataNotFoundError("preparing it needs TensorFlow, which is not installed")
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return read(Path(builder.data_dir), name, split, image_size)


def catalogue() -> list[str]:
    """Returns the names of the data sets that TensorFlow Datasets knows."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def decode(files: list[bytes], channels: int) -> Iterator[np.ndarray]:
    """Yields the pixels of PNG or JPEG files, each [height, width, channels].

    Small PNGs of one size are decoded many at a time: one by one, opening them costs far more
    than their pixels do.
    """
    header = files[0][:33]  # signature, size, depth, colour type and their checksum
    if _is_plain(header, channels) and all(file.startswith(header) for file in files):
        width, height = struct.unpack_from(">II", header, 16)
        count = max(1, 2**24 // (width * (height + 1)))
        for first in range(0, len(files), count):
            yield from _decode_strip(files[first:first + count])
    else:
        from PIL import Image

        for file in files:
            image = Image.open(io.BytesIO(file), formats=("PNG", "JPEG"))
            if image.mode != "I;16":  # which convert() would clip at 255; Dataset refuses it
                image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
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
    lines = [bytes(line) + _scan_lines(file) for file in files]
    if any(len(part) != line * (height + 1) for part in lines):
        raise ValueError("a PNG does not hold as many pixels as its header says")
    header = struct.pack(">II", width, (height + 1) * len(files)) + files[0][24:29]
    strip = b"".join((_SIGNATURE, _chunk(b"IHDR", header),
                      _chunk(b"IDAT", zlib.compress(b"".join(lines), 0)), _chunk(b"IEND", b"")))
    pixels = np.asarray(Image.open(io.BytesIO(strip), formats=("PNG",)))
    return pixels.reshape(len(files), height + 1, width, channels)[:, 1:]


def _scan_lines(file: bytes) -> bytes:
    """Returns a PNG's decompressed data: every line's filter type and filtered pixels."""
    data, at = b"", len(_SIGNATURE)
    while at + 8 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, at)
        if kind == b"IDAT":
            data += file[at + 8:at + 8 + length]
        at += length + 12  # the length, the kind, the data and their checksum
    return zlib.decompress(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", checksum)


def _read_records(builder, split: str) -> tuple[list[bytes], list[int]]:
    """Returns the encoded images and the labels; ten times faster than decoding every feature."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_generated_pb2

    # protobuf makes the class when the module is imported.
    example = tf_example_generated_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    images, labels = [], []
    try:
        for first in range(0, len(source), 1000):
            keys = range(first, min(first + 1000, len(source)))
            for record in source.__getitems__(list(keys)):
                feature = example.FromString(record).features.feature
                images.append(feature["image"].bytes_list.value[0])
                labels.append(feature["label"].int64_list.value[0])
    except Exception as error:  # what array_record and protobuf raise has no common class
        raise ValueError(f"{builder.data_dir} is damaged ({error}): prepare it again") from error
    return images, labels


def _from_tensorflow(builder, name: str, split: str, image_size: int | None) -> Dataset:
    import tensorflow_datasets as tfds

    examples: Iterable[dict] = list(tfds.as_numpy(builder.as_dataset(split=split)))
    return canonical(name, (example["image"] for example in examples),
                     [example["label"] for example in examples],
                     _class_names(builder, name), image_size)


def _class_names(builder, name: str) -> list[str]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    kinds = {key: type(feature) for key, feature in features.items()}
    if kinds.get("image") != tfds.features.Image or kinds.get("label") != tfds.features.ClassLabel:
        raise ValueError(f"{name} must have an 'image' and a class 'label'; "
                         f"it has {', '.join(sorted(kinds))}")
    return features["label"].names


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
