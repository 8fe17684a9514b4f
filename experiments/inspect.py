"""Says what a folder of images holds, or a zip or tar file, and how to train on it, and draws some."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from experiments import launch
from jaxgan import console
from jaxgan.data.decoding import Header
from jaxgan.data.folder import Wish, settle
from jaxgan.data.survey import Survey, is_cut, some, suited, survey
from jaxgan.pictures import grid, save_png

_LISTED, _NAMED = 6, 5  # kinds in a line; files that are named
_DRAWN = 64  # images in the picture
_LONGEST = 64  # of the sides of a size that is suggested
_KINDS = {"uint8": "", "uint16": " of 16 bits", "float32": " in floating-point numbers"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to look at."""

    path: Annotated[str, tyro.conf.Positional]
    """A folder of images, or a zip or tar file of one."""
    table: str | None = None
    """A CSV or JSON file with the images' classes and numbers, if it doesn't lie beside them."""
    out: str = "inspect.png"
    """The picture of some of the images, a .png file."""


class Found(NamedTuple):
    """What there is to say of data: lines, and a picture, uint8 [height, width, 3], if there is one."""

    lines: list[str]
    picture: np.ndarray | None


def main(options: Options) -> None:
    """Looks, prints and draws; nothing is written of what isn't there."""
    out = Path(options.out)
    if out.suffix != ".png":
        raise ValueError(f"out must end in .png; got {options.out!r}")
    found = of_images(options.path, options.table)
    console.say(*found.lines)
    if found.picture is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
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
    rows.append(("can't be read", _named([f"{file} ({why})" for file, why in seen.broken.items()])))
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
    lines = [" ".join(("python -m experiments.images", *words))]
    if (classes := len(seen.splits.get("train", ()))) > 1:
        lines.append(" ".join(("python -m experiments.conditional --dataset folder", *words,
                               "--num-classes", str(classes))))
    return lines


def _kind(header: Header) -> str:
    grey = header.mode in ("1", "L", "LA", "F") or header.mode.startswith("I")
    return f"{'grey' if grey else header.mode}{_KINDS[header.dtype]}"


def _columns(seen: Survey) -> str:
    table = seen.table
    count = len(next(iter(table.numbers.values()))) if table.numbers else 0
    numbers = f"{count} numbers" + (f" ({', '.join(table.columns)})" if table.columns else "")
    return " and ".join(["classes"] * (table.labels is not None) + [numbers] * bool(count))


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
