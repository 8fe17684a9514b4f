"""Which of a folder's images are for training and which are held out, and of which classes they are."""

import hashlib
import os
import re
from collections.abc import Sequence

from jaxgan.data.dataset import DataNotFoundError
from jaxgan.data.tables import Table

_SPLIT = re.compile(r"(train|test|val)(ing|id(ation)?)?[\W\d_]*(set|data|images)?[\W\d_]*", re.I)


def arranged(name: str, files: Sequence[str], split: str, table: Table | None
             ) -> tuple[dict[str, str], list[str]]:
    """Returns the files of the split with their classes, and the names of all classes."""
    parts = _parts(name, files)
    if parts.keys() <= {"", "train"}:  # nothing is held out by its folder
        (whole,) = parts.values()
        chosen = {file: rest for file, rest in whole.items()
                  if split == "all" or _held_out(file) == (split == "test")}
        if not chosen:
            raise DataNotFoundError(f"{name}: none of its {len(files)} images falls into the split "
                                    f"{split!r}: make folders train and test in it")
        training, relevant = whole, [whole]
    elif split == "all":
        chosen = {file: rest for part in parts.values() for file, rest in part.items()}
        training, relevant = None, [*parts.values()]
    else:
        test = parts.get("test") or parts.get("val") or {}
        chosen = parts.get("train") if split == "train" else test
        if not chosen:
            raise DataNotFoundError(f"{name}: there are folders for {' and '.join(parts)} in it, none "
                                    f"for {split}: make it")
        training, relevant = parts.get("train", chosen), [parts.get("train", {}), test]
    if table is not None and table.labels is not None:
        return ({file: table.labels[file] for file in sorted(chosen)},
                sorted({*table.labels.values()}, key=_as_counted))
    if training is None:
        training = {} if len({_is_nested(name, part) for part in relevant}) > 1 else relevant[0]
    if not _is_nested(name, training):
        return dict.fromkeys(sorted(chosen), "images"), ["images"]
    if not _is_nested(name, chosen):
        raise DataNotFoundError(f"{name}: {min(chosen)} lies in no class folder, as the images for "
                                "training do: put those of its split into folders of the same names")
    class_names = {rest.partition("/")[0] for part in relevant for rest in part.values() if "/" in rest}
    return ({file: chosen[file].partition("/")[0] for file in sorted(chosen)},
            sorted(class_names, key=_as_counted))


def _parts(name: str, files: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the files by split, each with its path in the split's folder; all as "" if there is none.

    Raises:
        ValueError: it can't be told which folders are splits and which are classes.
    """
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    split_in = {top: split_of(top) for top in sorted(tops)}
    below = {file.split("/")[1] for file in files if file.count("/") > 1}
    if len({*map(split_of, below)} - {""}) > 1:
        raise ValueError(f"{name}: its folders {_listed(tops)} hold splits, {_listed(below)}"
                         ": give the folder that holds these alone, with the classes inside")
    splits = [split for split in split_in.values() if split]
    if len(splits) < 2 and len(splits) < len(tops) and not any(
            split_in[file.partition("/")[0]] for file in files if file.count("/") > 1):
        return {"": {file: file for file in files}}  # a class may be called train
    if len({*splits}) < len(tops):
        raise ValueError(f"{name}: it can't be told which of its folders are splits: there are "
                         f"{_listed(tops)}; let it hold train, val and test alone, with the classes "
                         "inside, or rename what is a class")
    parts = {split: {} for split in splits}
    for file in files:
        top, _, rest = file.partition("/")
        parts[split_in[top]][file] = rest
    return parts


def split_of(folder: str) -> str:
    """Which split a folder is called after: train, test or val; "" for none."""
    found = _SPLIT.fullmatch(folder)
    return found[1].lower() if found else ""


def _is_nested(name: str, part: dict[str, str]) -> bool:
    """Whether images lie in class folders.

    Raises:
        ValueError: some do and others don't.
    """
    flat = [file for file, rest in part.items() if "/" not in rest]
    if flat and len(flat) < len(part):
        raise ValueError(f"{name}: images must lie all in class folders or all beside each other; "
                         f"{flat[0]} lies beside folders of images")
    return not flat and bool(part)


def _listed(folders: set[str]) -> str:
    named = sorted(folder or "images beside them" for folder in folders)
    return ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")


def _as_counted(name: str) -> tuple[list, str]:
    """What names are sorted by so that 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _held_out(file: str) -> bool:
    digest = hashlib.blake2b(os.fsencode(file), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10 == 0
