"""Images of two kinds, A and B, of which one is to be translated into the other, in pairs or not."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.data import folder
from jaxgan.data.dataset import DataNotFoundError, Dataset
from jaxgan.data.decoding import Form, quiet
from jaxgan.data.folder import Files, Wish
from jaxgan.data.sources import Part, Source
from jaxgan.keys import stream
from jaxgan.types import Array, Batch, Key, PyTree

_NAMED = 5  # files, in a message


def translating(source: Source, target: Source, *, paired: bool) -> Source:
    """Returns a source of samples of one kind, whose condition is samples of another kind.

    Args:
        source: what is to be translated, the condition.
        target: what it is to become, the samples. An epoch is one of these.
        paired: whether the i-th of both belong together and come together. Otherwise each kind comes in
            an order of its own, and the smaller set is gone through more often.

    Raises:
        ValueError: pairs of two sets that are not of one length.
    """
    if paired and source.size != target.size:
        raise ValueError("pairs are as many images of one kind as of the other; got "
                         f"{source.size} and {target.size}")
    if source.size is None or target.size is None:
        raise ValueError("sources of two kinds must have an end; got the sizes "
                         f"{source.size} and {target.size}")
    sizes = source.size, target.size

    def of_source(key: Key, epochs: Any, offsets: Any) -> tuple[Key, Any, Any]:
        """Where the source is, when the target is at these positions."""
        if paired:
            return key, epochs, offsets
        positions = epochs * np.uint32(sizes[1]) + offsets
        return stream(key, "source"), positions // np.uint32(sizes[0]), positions % np.uint32(sizes[0])

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        return Batch(target.draw(arrays["target"], key, epochs, offsets).samples,
                     source.draw(arrays["source"], *of_source(key, epochs, offsets)).samples)

    made = target._replace(arrays={"source": source.arrays, "target": target.arrays}, draw=draw)
    of_a, of_b = source.window, target.window
    if of_a is None or of_b is None:
        return made

    def window(key: Key, epochs: Any, offsets: Any, part: Part) -> PyTree:
        return {"source": of_a(*of_source(key, epochs, offsets), part),
                "target": of_b(key, epochs, offsets, part)}

    return made._replace(window=window)


def outlines(images: np.ndarray) -> np.ndarray:
    """Returns the outlines of bright shapes: 255 where a bright pixel has a dark neighbour, else 0.

    A pixel is bright from 128 on; its neighbours are the four beside it, and dark outside of the image.

    Args:
        images: uint8 [count, height, width, channels].

    Returns:
        The same shape and type; each channel has outlines of its own.
    """
    bright = np.pad(images >= 128, ((0, 0), (1, 1), (1, 1), (0, 0)))
    inside = bright[:, :-2, 1:-1] & bright[:, 2:, 1:-1] & bright[:, 1:-1, :-2] & bright[:, 1:-1, 2:]
    return np.where(bright[:, 1:-1, 1:-1] & ~inside, np.uint8(255), np.uint8(0))


def open_domains(path: str | os.PathLike, split: str, *, paired: bool, **wish: Any
                 ) -> tuple[Dataset, Dataset]:
    """Returns the images of a folder's two sub-folders, A and B.

    These are called `A` and `B`, or `trainA` and `trainB`, and each is read as `jaxgan.data.folder.load`
    reads a folder, by its own `train` and `test` or by the digests of the file names; or the test split
    is `testA` and `testB` beside `trainA` and `trainB`. Both are read in the same size and colours, in
    RGB if one of them is. "train" looks at `testA` and `testB` as well, if there are such, so that what
    can be trained on can be evaluated.

    Args:
        path: the folder.
        split: "train" or "test".
        paired: whether each image of A has a partner in B, a file of the same name (another ending will
            do). The i-th of both are partners then, and are in the split that that of A is in.
        **wish: fields of `jaxgan.data.folder.Wish`.

    Raises:
        DataNotFoundError: there are no two such folders, or no images in one of them.
        ValueError: an image has no partner, the two kinds are not of one size though no image_size is
            given, or they are no images of 8 bits; and as for `jaxgan.data.folder.load`.
    """
    paths, inner = _places(Path(path).expanduser(), split)
    if split == "train" and inner == "all":
        open_domains(path, "test", paired=paired, **wish)
    asked = Wish(**wish)
    found = [folder.open_root(place) for place in paths]
    if paired:
        _check_partners(paths, [files for _, files in found])
    with quiet():
        forms = [folder.settle(f"folder:{place}", *opened, asked)
                 for place, opened in zip(paths, found, strict=True)]
    asked = _agreed(paths, forms, asked)
    if not paired:
        one, other = (folder.load(place, inner, asked) for place in paths)
        return one, other
    one, other = folder.on_demand(paths[0], inner, asked), folder.on_demand(paths[1], "all", asked)
    partner = {_stem(file): row for row, file in enumerate(other.files)}
    rows = [row for row, file in enumerate(one.files) if _stem(file) in partner]  # both can be read
    if not rows:
        raise DataNotFoundError(f"folder:{path}: no pair of images can be read")
    return _dataset(one, rows), _dataset(other, [partner[_stem(one.files[row])] for row in rows])


def _places(root: Path, split: str) -> tuple[list[Path], str]:
    """Where A and B are, and which split of what is there."""
    if root.is_file():
        raise DataNotFoundError(f"folder:{root} is a file: unpack it, and give the folder that holds A "
                                "and B")
    has_test = [name for name in ("testA", "testB") if (root / name).is_dir()]
    for names in (("A", "B"), ("trainA", "trainB")):
        if all((root / name).is_dir() for name in names):
            if names[0] == "A" or not has_test:  # a part of these is held out
                return [root / name for name in names], split
            if len(has_test) == 1:
                raise DataNotFoundError(f"folder:{root}: of testA and testB there is {has_test[0]} "
                                        "alone: add the other one, or take it away")
            return [root / f"{split}{name}" for name in "AB"], "all"
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    raise DataNotFoundError(
        f"folder:{root}: there must be two folders of images in it, A and B (or trainA and trainB); "
        + (f"there are {', '.join(there[:_NAMED])}" if there else "there is none"))


def _agreed(paths: list[Path], forms: list[Form], asked: Wish) -> Wish:
    """The same wish for both."""
    if forms[0].size != forms[1].size:
        sizes = " and ".join("{}x{}".format(*form.size) for form in forms)
        raise ValueError(f"folder:{paths[0].parent}: the images of {paths[0].name} and {paths[1].name} "
                         f"are of {sizes}: give an image_size")
    if {form.dtype for form in forms} != {"uint8"}:
        raise ValueError(f"folder:{paths[0].parent}: only images of 8 bits are translated; give colour "
                         "rgb, of which the upper 8 bits are taken")
    colours = {form.colour for form in forms}
    return dataclasses.replace(asked, colour=colours.pop() if len(colours) == 1 else "rgb")


def _check_partners(paths: list[Path], files: list[list[str]]) -> None:
    stems = [{_stem(file): file for file in some} for some in files]
    for path, some, by_stem in zip(paths, files, stems, strict=True):
        if twice := [file for file in some if by_stem[_stem(file)] != file]:
            raise ValueError(f"folder:{path}: {twice[0]} and {by_stem[_stem(twice[0])]} are of one "
                             "name: rename one, so that it is known which is whose partner")
    alone = [f"{path.name}/{here[stem]}" for path, here, there in (
        (paths[0], *stems), (paths[1], *stems[::-1])) for stem in sorted(here.keys() - there.keys())]
    if alone:
        has = "image has" if len(alone) == 1 else "images have"
        raise ValueError(f"folder:{paths[0].parent}: {len(alone)} {has} no partner of the same name: "
                         f"{', '.join(alone[:_NAMED])}{', ...' * (len(alone) > _NAMED)}; remove "
                         "them, or add their partners")


def _stem(file: str) -> str:
    return os.path.splitext(file)[0]


def _dataset(files: Files, rows: list[int]) -> Dataset:
    images, labels = files[np.array(rows)]
    return Dataset(files.name, images, labels, files.class_names)
