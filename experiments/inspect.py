"""Says what a folder, an archive or a file of arrays holds and how to train on it, and draws some."""

import dataclasses
import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from jaxgan import console
from jaxgan.data import Split, open_arrays
from jaxgan.data.arrays import SUFFIXES, read_condition, stored_in, the_samples
from jaxgan.data.decoding import Header
from jaxgan.data.folder import PARTS, Wish, settle
from jaxgan.data.survey import Survey, is_cut, some, suited, survey
from jaxgan.pictures import grid, save_png

from . import launch
from .commands import called
from .showing import drawn

_LISTED, _NAMED = 6, 5  # kinds in a line; files that are named
_DRAWN = 64  # images in the picture
_LONGEST = 64  # of the sides of a size that is suggested
_ARRAYS, _AT_ONCE = 20, 1000  # that are listed; samples that are read together
_LONG = 16  # variables of a vector; more may be a series
_KINDS = {"uint8": "", "uint16": " of 16 bits", "float32": " in floating-point numbers"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to look at."""

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A folder of images, a zip or tar file of one, or a .npy, .npz or HDF5 file of arrays."""
    samples: str = ""
    """Of a file of several arrays: which of them the samples are."""
    table: str | None = None
    """A CSV or JSON file with the images' classes and numbers, if it doesn't lie beside them."""
    out: str = "inspect.png"
    """The picture of some of them, a .png file in a folder that is there."""


class Found(NamedTuple):
    """What there is to say of data: lines, and a picture, uint8 [height, width, 3], if there is one."""

    lines: list[str]
    picture: np.ndarray | None


def main(options: Options) -> None:
    """Looks, prints and draws; nothing is written of what isn't there."""
    out = launch.file_to_write(options.out)
    if out.suffix != ".png":
        raise ValueError(f"out must end in .png; got {options.out!r}")
    is_of_arrays = Path(options.path).suffix.lower() in SUFFIXES
    if options.samples and not is_of_arrays:
        raise ValueError(f"samples is for files of arrays, {', '.join(SUFFIXES)}: leave it out")
    found = (of_arrays(options.path, options.samples) if is_of_arrays else
             of_images(options.path, options.table))
    console.say(*found.lines)
    if found.picture is not None:
        save_png(out, found.picture)
        console.say(f"{out}: some of them")


def of_images(path: str, table: str | None = None) -> Found:
    """What a folder or an archive of images holds."""
    seen = survey(path, table)
    if not seen.headers:
        return Found(_described(path, seen), None)
    flags = suggested(seen)
    wish = Wish(**{name: flags[name] for name in ("image_size", "colour", "fit")})
    images = some(seen, settle(f"folder:{path}", seen.tree, [*seen.headers], wish), _DRAWN)
    commands = [] if seen.problem else ["train with:", *(f"  {line}" for line in
                                                         _commands(path, table, seen, flags))]
    return Found([*_described(path, seen), *commands], grid(images) if len(images) else None)


def of_arrays(path: str, samples: str = "") -> Found:
    """What a file of arrays holds."""
    place = Path(path).expanduser()
    stored = stored_in(place)
    heads = [f"{path}: {len(stored)} array{'s' if len(stored) > 1 else ''}", *console.aligned([
        (f"  {name or 'samples'}", f"{list(array.shape)} of {array.dtype}")
        for name, array in [*stored.items()][:_ARRAYS]])]
    try:
        name = samples or the_samples(place, stored)
        split = open_arrays(path, samples=name)
    except ValueError as error:
        return Found([*heads, f"  can't be trained on so: {error}"], None)
    train, scaling, command = split.train, split.train.scaling, [called("arrays"), "--file",
                                                                 shlex.quote(path)]
    command += ["--samples", shlex.quote(name)] if len(stored) > 1 else []
    count = len(train) + len(split.test)
    rows = [("samples", f"{count} {train.kind} of shape {'x'.join(map(str, train.sample_shape))}"
             f"{f', from {name}' if name else ''}; {len(split.test)} held out"),
            ("values", f"{train.scaling.dtype}, from {min(scaling.low):g} to {max(scaling.high):g}"
             + (f", each {'variable' if train.kind == 'vectors' else 'channel'} with a range of its own"
                if len(scaling.low) > 1 else "")),
            ("copies", _same_samples(split))]
    commands = [" ".join(command)]
    if train.kind == "vectors" and train.sample_shape[0] > _LONG:
        commands[0] += "   # for series or spectra: --kind series"
    for other in (other for other in stored if other != name):
        try:
            labels, classes, numbers = read_condition(place, stored, other, count)
        except ValueError as error:  # it may belong to something else
            rows.append((other, f"no condition: {error}"))
        else:
            rows.append((other, _as_condition(labels, classes, numbers)))
            commands.append(" ".join([*command, "--conditions", shlex.quote(other)]))
    shown = scaling.to_float(train[:min(_DRAWN, len(train))][0])
    picture = drawn(shown, {"value_range": (-1, 1), "scaling": scaling.as_json(),
                            "sample_shape": train.sample_shape})
    return Found([*heads, *console.aligned([(f"  {name}", text) for name, text in rows]), "train with:",
                  *(f"  {line}" for line in commands)], picture)


def _same_samples(split: Split) -> str:
    """How many samples are copies of others."""
    seen = {hashlib.blake2b(sample.tobytes(), digest_size=16).digest()
            for part in split for first in range(0, len(part), _AT_ONCE)
            for sample in part[first:first + _AT_ONCE][0]}
    count = sum(map(len, split)) - len(seen)
    return f"{count} of another sample" if count else "none"


def _as_condition(labels: np.ndarray, classes: tuple[str, ...], numbers: np.ndarray | None) -> str:
    if numbers is not None:
        return (f"{numbers.shape[1]} number{'s' if numbers.shape[1] > 1 else ''} for each sample, from "
                f"{numbers.min():g} to {numbers.max():g}")
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)), strict=True))
    return f"{console.counted(len(classes), 'class', 'es')}: {_counted_as(counts)}"


def suggested(seen: Survey) -> dict[str, Any]:
    """Settings to train with: as the images are, in a size that networks take and learn soon."""
    headers = [*seen.headers.values()]
    pages = {header.pages for header in headers}
    is_grey = all(header.is_grey for header in headers)
    count = Counter(header.size for header in headers)
    size = suited(count, _LONGEST)
    most = max(1, sum(seen.splits.get("train", {}).values()))
    return {"image_size": size, "fit": "pad" if is_cut(count, size) else "crop",
            "batch_size": min(64, 2 ** (most.bit_length() - 1)),
            "colour": ("pages" if len(pages) == 1 and min(pages) > 1 else "grey") if is_grey else "rgb"}


def _described(path: str, seen: Survey) -> list[str]:
    """What there is, as lines."""
    headers = [*seen.headers.values()]
    rows = [("formats", _counted(header.format for header in headers)),
            ("pixels", _counted(map(_kind, headers))),
            ("sizes", _counted(f"{header.size[0]}x{header.size[1]}" for header in headers)
             + " (height x width)"),
            ("transparent", str(sum(header.is_transparent for header in headers)))]
    if any(header.pages > 1 for header in headers):
        rows.append(("images in a file", _counted(str(header.pages) for header in headers)))
    for split in () if seen.problem else ("train", "test"):
        classes = seen.splits.get(split, {})
        in_classes = f" in {len(classes)} classes: {_counted_as(classes)}" if len(classes) > 1 else ""
        rows.append((split, f"{sum(classes.values())}{in_classes}"))
    if seen.table is not None:
        rows.append(("table", f"{seen.table.name}: {_columns(seen)}"))
    rows.append(("copies", _copies(seen.copies)))
    rows.append((f"can't be read{', left out' * bool(seen.broken and not seen.problem)}",
                 _named([f"{file} ({_part(seen, file)}{why})" for file, why in seen.broken.items()])))
    if seen.problem:
        rows.append(("to be mended", seen.problem))
    return [f"{path}: {len(headers)} images that can be read",
            *console.aligned([(f"  {name}", text) for name, text in rows])]


def _commands(path: str, table: str | None, seen: Survey, flags: Mapping[str, Any]) -> list[str]:
    height, width = flags["image_size"]
    words = ["--folder", shlex.quote(path), "--image-size",
             str(height) if height == width else f"{height}x{width}", "--fit", flags["fit"],
             "--colour", flags["colour"], "--batch-size", str(flags["batch_size"])]
    words += ["--table", shlex.quote(table)] if table else []
    known = [("classes", len(seen.splits.get("train", ())) > 1),
             ("numbers", seen.table is not None and bool(seen.table.numbers))]
    return [" ".join((called("images"), *words, *given)) for given in (
        (), *(("--conditions", name) for name, is_known in known if is_known))]


def _part(seen: Survey, file: str) -> str:
    """Which part of the images a file is in, with a colon; "" if it isn't known, or it is in none."""
    return f"{PARTS[seen.parts[file]]}: " if file in seen.parts else ""


def _kind(header: Header) -> str:
    grey = header.mode in ("1", "L", "LA", "F") or header.mode.startswith("I")
    return f"{'grey' if grey else header.mode}{_KINDS[header.dtype]}"


def _columns(seen: Survey) -> str:
    table = seen.table
    classes, found = len({*(table.labels or {}).values()}), []
    if classes > 1 or not table.numbers:  # vectors of a dataset.json make one class of all
        found.append(console.counted(classes, "class", "es"))
    if table.numbers:
        numbers = console.counted(len(next(iter(table.numbers.values()))), "number")
        found.append(numbers + (f" ({', '.join(table.columns)})" if table.columns else ""))
    return " and ".join(found)


def _counted(names: Iterable[str]) -> str:
    return _counted_as(dict(Counter(names).most_common()))


def _counted_as(count: Mapping[str, int]) -> str:
    listed = [f"{name} {number}" for name, number in count.items()]
    return ", ".join(listed[:_LISTED]) + (f", and {len(listed) - _LISTED} others"
                                          if len(listed) > _LISTED else "")


def _copies(copies: Iterable[Iterable[str]]) -> str:
    same = [" = ".join(files) for files in copies]
    return f"{_named(same)}" if same else "none"


def _named(names: list[str]) -> str:
    return "; ".join([str(len(names)), *names[:_NAMED]]) + ("; ..." if len(names) > _NAMED else "")


if __name__ == "__main__":
    launch.tool(main, Options)
