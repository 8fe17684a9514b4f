"""Where drawn samples go: a picture, a picture of each, an animation, arrays, a table, lines of text.

But for a picture and an animation, samples are written as they are drawn: there can be any number.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from jaxgan import files
from jaxgan.data.arrays import as_stored
from jaxgan.extras import needs
from jaxgan.pictures import save_png
from jaxgan.types import PyTree

from .experiment import AsLines
from .showing import as_pixels, drawn, in_units

ANIMATED = (".gif", ".mp4")
_DIGITS = 6  # of the names of single pictures

Parts = Iterable[np.ndarray]


def check(path: Path, shape: tuple[int, ...], *, is_text: bool) -> None:
    """Checks that samples of a shape can go to a file, or to a folder of single pictures.

    Raises:
        ValueError: they can't, or it is there already and something else.
        MissingExtra: what writes such a file isn't installed.
    """
    is_image = len(shape) == 3
    suffixes = (".txt" if is_text else ".png", ".npy", ".npz", *[".csv"] * (len(shape) == 1),
                *ANIMATED * is_image)
    if path.suffix not in (*suffixes, *[""] * is_image):
        folder = ", or be a folder for single pictures" if is_image else ""
        raise ValueError(f"out must end in {', '.join(suffixes[:-1])} or {suffixes[-1]} for samples of "
                         f"this run{folder}; got {str(path)!r}")
    if path.suffix == ".png" and not 1 <= len(shape) <= 4:
        raise ValueError(f"there are no pictures of samples of shape {shape}: save them with --out "
                         "samples.npy")
    if path.suffix == ".mp4":
        needs("av")
    if path.suffix and path.is_dir():
        raise ValueError(f"{path} is a folder: name a file, or a folder without a suffix")
    if not path.suffix and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"there is {path} already, and it is no empty folder: name another one")


def save(path: Path, parts: Parts, count: int, settings: Mapping[str, Any], *,
         condition: PyTree = None, as_lines: AsLines | None = None, columns: int | None = None,
         frames: int = 0, rate: int = 0) -> None:
    """Saves samples in the way that the file's name asks for; a file whole or not at all.

    Args:
        path: of `check`.
        parts: the samples, [some, ...] each, in their order.
        count: how many there are.
        settings: the run's.
        condition: what they were drawn for, leaves [count, ...]; goes into a .npz file.
        as_lines: of text, what makes lines of samples.
        columns: of a picture, samples in a row; None for as square as can be.
        frames: of an animation, how many; the samples are so many to a row.
        rate: of an animation, frames a second.
    """
    stored = (as_stored(in_units(part, settings), settings.get("channels", "last")) for part in parts)
    if not path.suffix:
        _save_each(path, parts, settings)
    elif path.suffix in ANIMATED:
        _animate(path, parts, settings, frames, rate)
    elif path.suffix == ".png":
        save_png(path, drawn(np.concatenate([*parts]), settings, columns))
    else:
        with files.replacing(path) as file:
            if path.suffix == ".npy":
                _write_array(file, stored, count)
            elif path.suffix == ".npz":
                _write_arrays(file, stored, count, condition)
            elif path.suffix == ".csv":
                for part in parts:
                    np.savetxt(file, in_units(part, settings), fmt="%.9g", delimiter=",")
            else:
                assert as_lines is not None
                for part in parts:
                    file.write("".join(f"{line}\n" for line in as_lines(part)).encode())


def _write_array(file: IO[bytes], parts: Parts, count: int) -> None:
    """Writes an array as `numpy.save` does, part by part."""
    for index, part in enumerate(parts):
        if index == 0:
            np.lib.format.write_array_header_1_0(file, {
                "descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False,
                "shape": (count, *part.shape[1:])})
        file.write(np.ascontiguousarray(part).data)


def _write_arrays(file: IO[bytes], parts: Parts, count: int, condition: PyTree) -> None:
    """Writes the samples, and what they were drawn for, as `numpy.savez_compressed` does."""
    if condition is None:
        beside = {}
    elif isinstance(condition, Mapping):
        beside = condition
    else:
        is_label = np.issubdtype(condition.dtype, np.integer) and condition.ndim == 1
        beside = {"labels" if is_label else "condition": condition}
    arrays: dict[str, Parts] = {"samples": parts} | {
        name: [np.asarray(values)] for name, values in beside.items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, of_name in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_array(member, of_name, count)


def _save_each(folder: Path, parts: Parts, settings: Mapping[str, Any]) -> None:
    """Saves images one by one, as they are, 000000.png and so on."""
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(image for part in parts for image in _images(part, settings)):
        save_png(folder / f"{index:0{_DIGITS}}.png", image)


def _images(samples: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Bytes, [count, height, width], or [count, height, width, 3 or 4]."""
    images = as_pixels(samples, settings)
    return images if images.shape[3] in (3, 4) else images[..., 0]


def _animate(path: Path, parts: Parts, settings: Mapping[str, Any], frames: int, rate: int) -> None:
    """Saves ways from one sample to another, all of them beside each other, there and back."""
    samples = np.concatenate([*parts])
    ways = samples.reshape(-1, frames, *samples.shape[1:])
    there = [drawn(ways[:, frame], settings) for frame in range(frames)]
    with files.replacing(path) as file:
        _WRITERS[path.suffix](file, [*there, *there[-2:0:-1]], rate)


def _write_gif(file: IO[bytes], pictures: list[np.ndarray], rate: int) -> None:
    needs("PIL")
    from PIL import Image

    first, *others = (Image.fromarray(picture) for picture in pictures)
    first.save(file, format="gif", save_all=True, append_images=others, duration=1000 / rate, loop=0)


def _write_mp4(file: IO[bytes], pictures: list[np.ndarray], rate: int) -> None:
    """H.264 with halved colours, which browsers play; its sides have to be even."""
    needs("av")
    import av

    height, width = (side + side % 2 for side in pictures[0].shape[:2])
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            missing = [(0, whole - there) for whole, there in
                       zip((height, width), picture.shape, strict=False)]
            frame = av.VideoFrame.from_ndarray(np.pad(picture, [*missing, (0, 0)], "edge"), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


_WRITERS: dict[str, Callable[[IO[bytes], list[np.ndarray], int], None]] = {
    ".gif": _write_gif, ".mp4": _write_mp4}


def parts_of(draw: Callable[..., Any], made_of: PyTree, count: int, at_once: int = 100
             ) -> Iterator[np.ndarray]:
    """Draws samples, so many at once, of what they are made of, leaves [count, ...]."""
    for first in range(0, count, at_once):
        yield np.asarray(draw(*jax.tree.map(lambda x, first=first: x[first:first + at_once], made_of)))
