"""Writes the latents of images, with their classes: what `experiments.gat --file` trains on.

The images are those of a data set or a folder, with what is held out of it. The file, .npz, holds
moments, from which latents are drawn each time anew, or with --means the means alone. What is done is
kept beside it: the same command goes on where it was stopped, and writes the same file.
"""

import dataclasses
import json
import math
import os
import shlex
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from jaxgan import console, files
from jaxgan.data import NAMES, DataNotFoundError, Examples, open_folder
from jaxgan.data.decoding import COLOURS, FITS, TRANSPARENCIES
from jaxgan.data.latents import ABOUT
from jaxgan.data.scaling import BYTES

from . import image_sets, latents, launch
from .commands import called
from .image_sets import Images
from .latents import Codec

_HEADER = 4096  # bytes of what is kept beside the file, before the rows
_BLOCK = 2**24  # numbers that are copied at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to encode, by what, and where to write it."""

    autoencoder: str
    """The folder of an autoencoder's run, or a .safetensors file in the layout of diffusers'
    AutoencoderKL."""
    dataset: Literal[*NAMES, "folder"] = "folder"
    """Which images; a folder of one's own is given by --folder."""
    data_dir: str = ""
    """Where data sets are; by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    folder: str = ""
    """The folder with images, in class folders or not, or a zip or tar file of it."""
    image_size: int | str | None = None
    """The images of a folder are brought to this height and width: 64, or 48x64; None: their own."""
    fit: Literal[*FITS] | None = None
    """How: by cropping about the centre (None), padding with black, or stretching."""
    colour: Literal[*COLOURS] | None = None
    """What they are: grey, RGB, RGBA, or each image in a file a channel; None: grey if all are, else
    RGB."""
    transparency: Literal[*TRANSPARENCIES] | None = None
    """What becomes of it: on white (None), on black, kept as a fourth channel, or dropped."""
    table: str | None = None
    """A CSV or JSON file with the images' classes; None: dataset.json or labels.csv beside them, if
    there is one."""
    means: bool = False
    """Write the means alone, in half the space: each image has one latent then."""
    out: str = "latents.npz"
    """The file, .npz, in a folder that is there."""


def main(options: Options) -> None:
    """Encodes and writes.

    Raises:
        ValueError: the file is there, or images or settings that don't fit.
    """
    out = launch.file_to_write(options.out)
    if out.suffix != ".npz":
        raise ValueError(f"out must end in .npz; got {options.out!r}")
    if out.exists():
        raise ValueError(f"there is {out} already: name another file with --out, or remove it")
    codec, parts = latents.open_codec(options.autoencoder), _open(options)
    shape = _latent_shape(codec, parts["train"], options)
    about = {"autoencoder_sha256": codec.digest, "means": options.means, "shape": shape,
             "data": {split: [len(part), getattr(part, "digest", "")] for split, part in parts.items()}}
    begun = out.with_name(f"{out.name}.begun")
    count = sum(map(len, parts.values()))
    with (_continued(begun, about, [*map(len, parts.values())]) as (file, done),
          console.Bar(count, desc="encoded", unit="image") as bar):
        for rows in _encoded(codec, parts, done, bar, means=options.means):
            file.write(np.ascontiguousarray(rows, "<f4").data)
            file.flush()
            os.fsync(file.fileno())
    whole = np.memmap(begun, "<f4", "r", _HEADER, (count, *shape))
    _write(out, whole, parts, about)
    del whole
    begun.unlink()
    what = "latents" if options.means else "moments of latents"
    console.say(f"{out}: {count} {what}, {'x'.join(map(str, shape))} each; train on them with",
                f"  {called('gat')} --file {shlex.quote(options.out)} --autoencoder "
                f"{shlex.quote(options.autoencoder)}")


def _open(options: Options) -> dict[str, Examples]:
    """The images to train on, and those that are held out, if there are such."""
    data = Images(**{field.name: getattr(options, field.name) for field in dataclasses.fields(options)
                     if field.name not in ("autoencoder", "means", "out")})
    image_sets.check_folder(data)
    if not data.folder and options.image_size is not None:
        raise ValueError(f"image_size {options.image_size} is for a folder's images, and those of "
                         f"{options.dataset} have a size: leave it out")

    def opened(split: str) -> Examples:
        if data.folder:
            return open_folder(data.folder, split, **image_sets.wish(data))
        return image_sets.open_data(data, split)

    parts = {"train": opened("train")}
    with suppress(DataNotFoundError):  # a small folder may have none
        parts["test"] = opened("test")
    return parts


def _images(codec: Codec, part: Examples, rows: np.ndarray) -> np.ndarray:
    """Images as the encoder takes them, in [-1, 1]; of grey ones all colours are the same."""
    images = getattr(part, "scaling", BYTES).to_float(part[rows][0])
    channels = codec.model.channels
    if images.shape[-1] == 1 < channels:
        return np.repeat(images, channels, axis=-1)
    if images.shape[-1] != channels:
        raise ValueError(f"the images have {images.shape[-1]} channels, and {codec.name} encodes images "
                         f"of {channels}: give --colour {'grey' if channels == 1 else 'rgb'}")
    return images


def _latent_shape(codec: Codec, part: Examples, options: Options) -> list[int]:
    """The shape of what is written of one image."""
    first = _images(codec, part, np.arange(1))
    channels = codec.model.latent_channels * (1 if options.means else 2)
    times = codec.image_shape((1, 1, 1))[0]
    if any(side % times for side in first.shape[1:3]):
        raise ValueError(f"{codec.name} encodes images whose height and width are multiples of {times}; "
                         f"got {first.shape[1]}x{first.shape[2]}: give another --image-size")
    return [first.shape[1] // times, first.shape[2] // times, channels]


@contextmanager
def _continued(begun: Path, about: Mapping[str, Any], counts: Sequence[int]
               ) -> Iterator[tuple[IO[bytes], int]]:
    """Opens what is kept beside the file, behind the last whole batch; and how many rows these are.

    Raises:
        ValueError: it is of other images, or of another encoder.
    """
    header = json.dumps(about, sort_keys=True).encode().ljust(_HEADER)
    if not begun.exists():
        with files.replacing(begun) as file:
            file.write(header)
    with files.open_regular(begun) as file:
        if file.read(_HEADER) != header:
            raise ValueError(f"{begun} was begun with other images, another autoencoder or other "
                             "settings: remove it, or name another file with --out")
    size = 4 * math.prod(about["shape"])
    done = _whole((begun.stat().st_size - _HEADER) // size, counts)
    with open(begun, "r+b") as file:
        file.truncate(_HEADER + done * size)
        file.seek(0, os.SEEK_END)
        yield file, done


def _whole(rows: int, counts: Sequence[int]) -> int:
    """Of so many rows those in whole batches; each split, of so many rows, begins a batch."""
    done = 0
    for count in counts:
        if rows < done + count:
            return done + (rows - done) // latents.at_once() * latents.at_once()
        done += count
    return done


def _encoded(codec: Codec, parts: Mapping[str, Examples], done: int, bar: console.Bar, *, means: bool
             ) -> Iterator[np.ndarray]:
    """What is written of the images behind those that are done, in their order."""
    bar.update(done)
    for part in parts.values():
        while done < len(part):
            rows = np.arange(done, min(done + latents.at_once(), len(part)))
            moments = codec.moments(_images(codec, part, rows))
            yield moments[..., :codec.model.latent_channels] if means else moments
            done += len(rows)
            bar.update(len(rows))
        done -= len(part)


def _write(out: Path, whole: np.ndarray, parts: Mapping[str, Examples], about: Mapping[str, Any]
           ) -> None:
    """Writes the file, whole or not at all, and the same bytes each time."""
    names = parts["train"].class_names
    beside = {"held_out": np.repeat([split == "test" for split in parts], [*map(len, parts.values())])}
    if len(names) > 1:
        beside |= {"labels": np.concatenate([_labels(part) for part in parts.values()]),
                   "class_names": np.array(names)}
    beside[ABOUT] = np.array(json.dumps(about, sort_keys=True))
    with files.replacing(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in {"samples": whole, **beside}.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, {
                    "descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False,
                    "shape": array.shape})
                rows = np.atleast_1d(array)
                size = max(1, _BLOCK // math.prod(rows.shape[1:]))
                for first in range(0, len(rows), size):
                    member.write(np.ascontiguousarray(rows[first:first + size]).tobytes())


def _labels(part: Examples) -> np.ndarray:
    return np.asarray(part.labels, np.int32)  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    launch.tool(main, Options)
