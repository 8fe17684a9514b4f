"""Tables of what is known of images: `dataset.json`, as StyleGAN's tools write it, and CSV files."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxgan.data.dataset import DataNotFoundError
from jaxgan.files import parse_json, read, reason

NAMES = ("dataset.json", "labels.csv")  # which are looked for beside the images
_MOST_BYTES = 2**28
_FILE, _LABEL = ("file", "filename", "file_name", "path", "image"), ("label", "class")
_NAMED = 3  # files in a message


class Table(NamedTuple):
    """What is known of every image, by its file.

    Attributes:
        name: the table's file.
        labels: the name of the class of each file; None if the table doesn't say.
        numbers: further numbers, as many for each file; None if there are none.
        columns: what these are called; () if that isn't known.
    """

    name: str
    labels: Mapping[str, str] | None
    numbers: Mapping[str, Sequence[float]] | None
    columns: tuple[str, ...] = ()

    def check(self, files: Iterable[str]) -> None:
        """Raises ValueError if it isn't of these files: some have no row, or some rows no file."""
        files, rows = set(files), (self.labels or self.numbers or {}).keys()
        if lost := rows - files:
            raise ValueError(f"{self.name}: {len(lost)} of its {len(rows)} files "
                             f"{'is' if len(lost) == 1 else 'are'} not there, {_some(lost)}: bring "
                             "them, or take out their rows")
        if bare := files - rows:
            raise ValueError(f"{self.name}: {len(bare)} of {len(files)} images "
                             f"{'has' if len(bare) == 1 else 'have'} no row, {_some(bare)}: add "
                             f"{'it' if len(bare) == 1 else 'them'}, or take the "
                             f"image{'' if len(bare) == 1 else 's'} out")

    def numbers_of(self, files: Sequence[str]) -> np.ndarray | None:
        """The numbers of files, float32 [files, numbers]."""
        if self.numbers is None:
            return None
        return np.array([self.numbers[file] for file in files], np.float32).reshape(len(files), -1)


def open_given(path: str | os.PathLike) -> Table:
    """Reads a table, whose name ends in .csv or .json.

    - *CSV*: the first line names the columns: `file` (or filename, path, image), each image's path below
      the folder; `label` (or class), the name of its class; all others are numbers.
    - *JSON*: `{"labels": [["00000/img.png", 6], ...]}`, where 6 may also be a list of numbers.

    Raises:
        DataNotFoundError: it can't be read.
        ValueError: it is something else, or holds no labels.
    """
    try:
        table = parse(str(path), read(Path(path).expanduser(), _MOST_BYTES))
    except OSError as error:
        raise DataNotFoundError(f"{path}: the table can't be read ({reason(error)}): say where it is"
                                ) from error
    if table is None:
        raise ValueError(f"{path}: it holds no labels")
    return table


def open_beside(name: str, file: BinaryIO) -> Table | None:
    """Reads a table that was found beside images; None if it holds no labels; errors as above."""
    data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{name}: it is larger than {_MOST_BYTES} bytes")
    return parse(name, data)


def parse(name: str, data: bytes) -> Table | None:
    """Reads a table's bytes; errors as above."""
    kinds: dict[str, Callable[[str, bytes], Table | None]] = {".json": _of_json, ".csv": _of_csv}
    suffix = Path(name).suffix.lower()
    if suffix not in kinds:
        raise ValueError(f"{name}: a table's name ends in .csv or .json")
    try:
        return kinds[suffix](name, data)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: it is no {suffix[1:].upper()} in UTF-8 ({error})") from error


def _of_json(name: str, data: bytes) -> Table | None:
    try:
        content = parse_json(data)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{name}: it is no JSON ({error})") from error
    rows = content.get("labels") if isinstance(content, dict) else None
    if rows is None:
        return None
    wanted = f'{name}: "labels" must be a list of pairs like ["00000/img.png", 6]'
    if not isinstance(rows, list):
        raise ValueError(f"{wanted}; got {rows!r:.80}")
    found: dict[str, list[float]] = {}
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)
                and (_is_label(row[1]) or (isinstance(row[1], list) and row[1]
                                           and all(map(_is_number, row[1]))))):
            raise ValueError(f"{wanted}; got {row!r:.80}")
        _add(name, found, row[0], row[1])
    if not found:
        return None
    are_vectors = {isinstance(label, list) for label in found.values()}
    if len(are_vectors) > 1:
        raise ValueError(f"{name}: some of its labels are numbers and others lists of them")
    if are_vectors == {False}:
        return Table(name, {file: str(label) for file, label in found.items()}, None)
    lengths = {len(label) for label in found.values()}
    if len(lengths) > 1:
        raise ValueError(f"{name}: its labels differ in length: some have {min(lengths)} numbers, "
                         f"others {max(lengths)}")
    return Table(name, dict.fromkeys(found, "images"), found)  # folders are no classes then


def _of_csv(name: str, data: bytes) -> Table:
    text = data.decode("utf-8-sig")
    first = text.partition("\n")[0].strip()
    for mark in (mark for mark in ";\t|" if mark in first):
        if {*_FILE} & {column.strip(' "').lower() for column in first.split(mark)}:
            raise ValueError(f"{name}: its columns are separated by {mark!r}, {first!r:.80}: save it "
                             "with commas between them")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [column.strip() for column in next(rows, [])]
    lower = [column.lower() for column in header]
    at = next((lower.index(column) for column in _FILE if column in lower), None)
    if at is None:
        raise ValueError(f"{name}: its first line must name a column 'file', and 'label' or columns of "
                         f"numbers; got {', '.join(header)!r:.80}")
    label_at = next((lower.index(column) for column in _LABEL if column in lower), None)
    others = [i for i in range(len(header)) if i not in (at, label_at)]
    if label_at is None and not others:
        raise ValueError(f"{name}: it has no column besides {header[at]!r}: add 'label', or numbers")
    labels, numbers = {}, {}
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"{name}: line {rows.line_num} has {len(row)} values, the first one has "
                             f"{len(header)}")
        if label_at is not None:
            if not row[label_at].strip():
                raise ValueError(f"{name}: line {rows.line_num} has no {header[label_at]}: give one")
            _add(name, labels, row[at], row[label_at])
        if others:
            _add(name, numbers, row[at], [_number(name, rows.line_num, header[i], row[i])
                                          for i in others])
    if not labels and not numbers:
        raise ValueError(f"{name}: it has no rows")
    return Table(name, labels if label_at is not None else None, numbers if others else None,
                 tuple(header[i] for i in others))


def _add(name: str, found: dict[str, Any], file: str, value: Any) -> None:
    file = "/".join(part for part in file.replace("\\", "/").split("/") if part not in ("", "."))
    if file in found:
        raise ValueError(f"{name}: it has two rows for {file}: leave one")
    found[file] = value


def _number(name: str, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not _is_number(value):
        raise ValueError(f"{name}: {column!r} in line {line} must be a number; got {text!r:.80}: leave "
                         "the column out, or call it label")
    return value


def _is_label(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    """Whether it is a number that float32 holds."""
    return type(value) in (int, float) and abs(value) <= float(np.finfo(np.float32).max)


def _some(files: Iterable[str]) -> str:
    named = sorted(files)
    return ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
