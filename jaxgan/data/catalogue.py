"""Data sets by name."""

import difflib
import os
from pathlib import Path
from typing import Any

from jaxgan.data import folder, originals, prepared
from jaxgan.data.dataset import DataNotFoundError, Dataset, Size, canonical, sides
from jaxgan.data.toy import MIXTURES
from jaxgan.extras import needs

NAMES = ("digits", *originals.FILES)
_SPLITS = ("train", "test", "all")  # the last one of folders


def load(name: str, split: str = "train", *, data_dir: str | os.PathLike | None = None,
         image_size: Size | None = None, **wish: Any) -> Dataset:
    """Returns a data set's images and labels, always the same and in the same order.

    - "digits": 1,797 digits of 8x8 pixels that scikit-learn brings along; needs no files.
    - "mnist", "fashion_mnist", "cifar10": from a directory that TensorFlow Datasets prepared in
      `data_dir`, else from the original files in `data_dir`/downloads/manual, else downloaded.
    - any other set of TensorFlow Datasets with an image and a label: prepared in `data_dir` in the
      array_record format, or prepared there now where TensorFlow is installed.
    - "folder:PATH": images of one's own, a folder or an archive of them, see `jaxgan.data.folder.load`.

    Args:
        name: the name of the set, or "folder:PATH".
        split: "train" or "test", or of a folder "all".
        data_dir: where TensorFlow Datasets keeps its sets, a folder that exists; by default
            $TFDS_DATA_DIR, or else ~/tensorflow_datasets.
        image_size: None for the images' own size, or the side of squares, or height and width, to crop
            and resize them to, about the centre and antialiased; "folder:PATH" must have one if its
            images are not of one size.
        **wish: of "folder:PATH" alone: what else its images are to be, fields of
            `jaxgan.data.folder.Wish`.

    Raises:
        DataNotFoundError: the set is known, but its data are not to be had.
        ValueError: the name, the split or the size is not one that exists, or a file is damaged.
    """
    _check(split, image_size, _SPLITS if name.startswith("folder:") else _SPLITS[:2])
    if name.startswith("folder:"):
        return folder.load(name.removeprefix("folder:"), split,
                           folder.Wish(image_size=image_size, **wish))
    if wish:
        raise ValueError(f"{', '.join(wish)} is for images of one's own, folder:PATH, and not for "
                         f"{name}: leave it out")
    if name == "digits":
        return _digits(split, image_size)
    if name in MIXTURES or name == "swissroll":
        raise ValueError(f"{name} is drawn, not loaded: call mixture({name!r})")
    given = data_dir or os.environ.get("TFDS_DATA_DIR")
    data_dir = Path(given or "~/tensorflow_datasets").expanduser()
    if given and not data_dir.is_dir():  # or a misspelt path would become a folder of downloads
        raise DataNotFoundError(f"there is no folder {data_dir} to look for {name} in: if the data are "
                                "to be downloaded to it, create it first")

    notes = []
    try:
        if directory := prepared.find(name, data_dir):
            return prepared.read(directory, name, split, image_size)
        notes.append(f"no prepared directory {data_dir / name}")
    except DataNotFoundError as error:
        notes.append(str(error))
    try:
        if name in originals.FILES:
            images, labels = originals.read(name, split, data_dir)
            return canonical(name, images, labels, originals.CLASS_NAMES[name], image_size)
        if name.partition("/")[0] not in (known := prepared.catalogue()):
            raise ValueError(_unknown(name, [*NAMES, *MIXTURES, "swissroll", *known]))
        return prepared.prepare(name, split, data_dir, image_size)
    except DataNotFoundError as error:
        notes.append(str(error))
    originals_remedy = (f"put the original files into {data_dir / 'downloads' / 'manual'}, "
                        if name in originals.FILES else "")
    raise DataNotFoundError(
        f"{name} was not found: {'; '.join(notes)}. Prepare it with TensorFlow Datasets "
        f"(file_format='array_record') in {data_dir}, {originals_remedy}"
        "or use 'digits', which needs no files")


def open_folder(path: str | os.PathLike, split: str = "train", *, image_size: Size | None = None,
                **wish: Any) -> folder.Files:
    """Returns the examples of `load("folder:PATH")`, read when asked for: they need no memory.

    Args:
        path: the folder, or an archive.
        split: "train", "test" or "all".
        image_size: as for `load`.
        **wish: as for `load`.

    Raises:
        DataNotFoundError, ValueError: as for `jaxgan.data.folder.on_demand`.
    """
    _check(split, image_size, _SPLITS)
    return folder.on_demand(path, split, folder.Wish(image_size=image_size, **wish))


def _check(split: str, image_size: Size | None, splits: tuple[str, ...]) -> None:
    if split not in splits:
        raise ValueError(f"split must be {' or '.join(map(repr, splits))}; got {split!r}")
    if image_size is not None:
        sides(image_size)


def _digits(split: str, image_size: Size | None) -> Dataset:
    """Returns scikit-learn's digits; of every five in its order, the last is a test example.

    Their values are 0 to 16; 255/16 times that, rounded half up, is 0 to 255, every step distinct.
    """
    needs("sklearn")
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = ((values.astype(int) * 255 + 8) // 16).astype("uint8").reshape(-1, 8, 8, 1)
    chosen = [i for i in range(len(labels)) if (i % 5 == 4) == (split == "test")]
    return canonical("digits", pixels[chosen], labels[chosen], "0123456789", image_size)


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else \
        f"the simplest are {', '.join(map(repr, NAMES))} and 'folder:PATH'"
    return f"unknown data set {name!r}: {hint}"
