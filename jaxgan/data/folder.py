"""Images of one's own as a data set: a folder of them, or a zip or tar file that holds one."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxgan.data import tables
from jaxgan.data.dataset import DataNotFoundError, Dataset, ImagesDigest, Size, sides
from jaxgan.data.decoding import (
    COLOURS,
    FITS,
    SUFFIXES,
    TRANSPARENCIES,
    Form,
    Header,
    decode,
    look,
    quiet,
)
from jaxgan.data.scaling import BYTES, Scaling, found
from jaxgan.data.splits import arranged, split_of
from jaxgan.data.tables import Table
from jaxgan.data.tree import Opener, Single, Tree, open_tree
from jaxgan.extras import needs
from jaxgan.memory import check_fits

_NAMED_AS_LEFT_OUT, _NAMED_AS_REFUSED = 5, 20
PARTS = {"train": "training", "test": "held out"}  # what an image in a split is, in a word
_LEFT_OUT = {"train": "left out of training", "test": "left out of the held-out images",
             "all": "left out"}


@dataclass(frozen=True, eq=False)
class Files:
    """Images that are read from their files each time they are asked for, as `Examples`.

    Attributes:
        name: "folder:PATH".
        tree: where they lie.
        files: the images' paths in it.
        form: what they are turned into.
        labels: int32, [examples], in [0, len(class_names)).
        class_names: the name of every class, in the order of the labels.
        digest: that of the same images as a `Dataset`.
        numbers: None, or what else is known of every image, float32, [examples, numbers].
        scaling: what the images' values stand for.
    """

    name: str
    tree: Tree
    files: tuple[str, ...]
    form: Form
    labels: np.ndarray
    class_names: tuple[str, ...]
    digest: str
    numbers: np.ndarray | None = None
    scaling: Scaling = BYTES

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = [self.files[i] for i in index]
        images, broken = np.empty((len(wanted), *self.form.shape), self.form.dtype), {}
        for rows, block, wrong in _blocks(self.tree, wanted, self.form):
            images[rows] = block
            broken |= wrong
        if broken:
            raise ValueError(f"{self.name}: {_sentence(broken, len(wanted), _NAMED_AS_REFUSED)}; they "
                             "could be when the folder was opened: bring them back")
        return images, self.labels[index]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What images of one's own are to be turned into; None leaves it to what they are.

    Attributes:
        image_size: the side of a square, or height and width; None for their own, if they are of one.
        colour: "grey", "rgb", "rgba", or "pages", where each image in a file is a channel; None for grey
            if all are grey and nothing in them is transparent, else "rgb".
        fit: how they come to that size: "crop" (None) about the centre, "pad" with black, or "stretch".
        transparency: what becomes of it: it lies on "white" (None) or "black", is a fourth channel
            ("keep"), or is ignored ("drop").
        data_range: which values -1 and 1 stand for; None for 0 and 255, and for numbers of more than
            8 bits the lowest and the highest of all, of each channel if there are several.
        table: a CSV or JSON file, see `jaxgan.data.tables.open_given`; None for `dataset.json` or
            `labels.csv` beside the images, if there is one.

    Raises:
        ValueError: there is no such choice, or two don't go together.
    """

    image_size: Size | None = None
    colour: str | None = None
    fit: str | None = None
    transparency: str | None = None
    data_range: tuple[float, float] | None = None
    table: str | os.PathLike | None = None

    def __post_init__(self):
        if self.image_size is not None:
            sides(self.image_size)
        for name, choices in (("colour", COLOURS), ("fit", FITS), ("transparency", TRANSPARENCIES)):
            if getattr(self, name) not in (None, *choices):
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got "
                                 f"{getattr(self, name)!r}")
        if self.transparency == "keep" and self.colour not in (None, "rgba"):
            raise ValueError(f"transparency is kept in a fourth channel, which colour {self.colour} has "
                             "not: choose rgba, or another transparency")
        if self.colour == "rgba" and self.transparency not in (None, "keep"):
            raise ValueError(f"colour rgba keeps the transparency; got {self.transparency!r}: leave it "
                             "out, or choose rgb")


def load(path: str | os.PathLike, split: str, wish: Wish) -> Dataset:
    """Returns the images below a folder, or in an archive of one, in the order of their paths.

    - *Archives*: zip files (stored or deflated) and tar files, which may be compressed; they are not
      unpacked. If all lies in one folder there, that is the folder.
    - *Classes*: the sub-folders of the folder, sorted by name and as people count, 2 before 10,
      however deep a file lies in them; without sub-folders every label is 0. A table with labels takes
      their place.
    - *Splits*: if the folder holds just `train`, `test` and `val`, or some of them, those, with the
      classes inside. `training`, `testing`, `valid` and `validation` will do, in any case and with
      a number or `set`, `data` or `images` behind; `val` is the test split where there is no `test`,
      and else left out. If it holds just `train`, or classes, or images, "test" is the tenth of the
      files whose relative path has a digest divisible by ten, so that a file stays in its split when
      others come and go.
    - *Files*: PNG, JPEG, WebP, GIF, BMP, TIFF and PPM; the content decides which, not the name. Of
      several images in a file, the first, unless they are channels.
    - *Pixels*: turned upright by their EXIF orientation, cropped about the centre and resized,
      antialiased (Lanczos), or as `wish` says. Transparent images lie on white. What the images are is
      told by all of the folder's, whatever the split: grey if all are, else RGB, where grey ones are
      repeated in the three channels; grey of 16 bits or floating-point numbers if all are, and else
      the upper 8 of 16 bits are kept.
    - *Left out*: hidden files and files that do not end like an image, silently; images that
      cannot be read, are of another format, or have more pixels than Pillow's MAX_IMAGE_PIXELS, with
      one warning. If these are more than 1 % of the images of both splits, the folder is refused:
      "train" looks at the held-out ones as well, so that what can be trained on can be evaluated.

    Args:
        path: the folder; symbolic links in it are followed, each folder is entered once. Or an archive,
            where links are left out; or a single image.
        split: "train", "test" or "all".
        wish: what the images are to be turned into.

    Raises:
        DataNotFoundError: there is no such folder, or no image in it or in the split that can be read;
            or the images of the split lie in no class folders though those of `train` do.
        ValueError: there is no image_size and they aren't of one, images lie both beside and in
            sub-folders, it can't be told whether sub-folders are splits or classes, more than 1 % of
            the images cannot be read, an archive is damaged, or a table isn't of these images.
    """
    files, images = _open(path, split, wish, keep=True)
    return Dataset(files.name, images, files.labels, files.class_names, files.numbers, files.scaling)


def on_demand(path: str | os.PathLike, split: str, wish: Wish) -> Files:
    """Returns the examples of `load`, read once to leave out the same, and again when asked for.

    Raises:
        DataNotFoundError, ValueError: as for `load`; or it is a compressed tar file.
    """
    return _open(path, split, wish, keep=False)[0]


def open_root(path: str | os.PathLike) -> tuple[Tree, list[str]]:
    """Opens a folder or an archive: the files in it, and the names of those that end like images.

    Raises:
        DataNotFoundError: there is none, or no image in it.
        ValueError: it is something else, or damaged.
    """
    needs("PIL")
    root = Path(path).expanduser()
    if not root.exists():
        raise DataNotFoundError(f"{path}: there is no such folder: say where it is now")
    if root.is_file() and _is_image(root.name):
        tree = Single(root)
    else:
        tree = open_tree(root, lambda file: _is_image(file) or file in tables.NAMES)
    if not root.is_dir():
        while len(tops := {file.partition("/")[0] for file in tree.names}) == 1 and not split_of(
                top := tops.pop()) and f"{top}/" in tree.names[0]:
            tree = tree.within(top)
    files = [file for file in tree.names if _is_image(file)]
    if not files:
        raise DataNotFoundError(f"{path}: there is no image file in the folder, none that ends in "
                                f"{', '.join(SUFFIXES[:5])} or the like")
    return tree, files


def open_table(tree: Tree, files: Sequence[str], path: str | os.PathLike | None = None) -> Table | None:
    """Opens the table of a folder's images: the one at a path, or the one beside them; None for none.

    Raises:
        ValueError: it can't be read, is no table, or not of these images; or there are two.
    """
    if path is not None:
        table = tables.open_given(path)
    else:
        beside = [name for name in tables.NAMES if name in tree.names]
        if len(beside) > 1:
            raise ValueError(f"{tree.path}: there are {' and '.join(beside)} beside the images: give "
                             "one of them as the table")
        if not beside:
            return None
        with tree.open(beside[0]) as file:
            table = tables.open_beside(beside[0], file)
    if table is not None:
        table.check(files)
    return table


def _is_image(file: str) -> bool:
    return file.lower().endswith(SUFFIXES)


def _open(path: str | os.PathLike, split: str, wish: Wish, keep: bool) -> tuple[Files, np.ndarray]:
    """Returns the files that can be read, and their images if these are to be kept."""
    name, (tree, files) = f"folder:{path}", open_root(path)
    if tree.is_sequential and not keep:
        raise ValueError(f"{name}: on demand, each look for an image would read through the compressed "
                         "tar file: make it a zip file or a plain tar file")
    table = open_table(tree, files, wish.table)
    class_of, class_names = arranged(name, files, split, table)
    parts = split_in(name, files, table) if split != "all" else dict.fromkeys(class_of, "all")
    with quiet():
        form = settle(name, tree, files, wish)
        images, digest, broken, scaling = _read(name, tree, files, split, parts, form, wish, keep)
        good = tuple(file for file in class_of if file not in broken)
        if not good:
            raise DataNotFoundError(f"{name}: {_sentence(broken, len(class_of), _NAMED_AS_REFUSED)}, "
                                    f"and there is no other one in the split {split!r}: mend them")
        if broken and not keep:  # the digest is of more than is left
            digest = ImagesDigest((len(good), *form.shape))
            for _, block, _ in _blocks(tree, good, form):
                digest.update(block)
    if broken:
        warnings.warn(f"{name}: {_sentence(broken, len(class_of), _NAMED_AS_LEFT_OUT)}; "
                      f"{_LEFT_OUT[split]}", UserWarning, stacklevel=4)
        if keep:
            images = images[[file not in broken for file in class_of]]
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels = np.array([number[class_of[file]] for file in good], np.int32)
    numbers = table.numbers_of(good) if table else None
    return Files(name, tree, good, form, labels, tuple(class_names), digest.of(labels, numbers), numbers,
                 scaling), images


def split_in(name: str, files: Sequence[str], table: Table | None) -> dict[str, str]:
    """Returns in which split, "train" or "test", each file is that is in one of them.

    Raises:
        ValueError: it can't be told.
    """
    found = {}
    for split in ("train", "test"):
        with suppress(DataNotFoundError):  # a small folder may hold none out
            found |= dict.fromkeys(arranged(name, files, split, table)[0], split)
    return found


def _read(name: str, tree: Tree, files: list[str], split: str, parts: Mapping[str, str], form: Form,
          wish: Wish, keep: bool) -> tuple[np.ndarray, ImagesDigest, dict[str, str], Scaling]:
    """Reads a split's images: all of them or else their digest, which are broken, and their scaling.

    The others are read too where the scaling depends on all; and held-out ones with the training images.

    Args:
        name: what the folder is called in errors.
        tree: where they lie.
        files: all of them.
        split: which are meant.
        parts: the split of each, as `split_in` says.
        form: what they are turned into.
        wish: what that was made of.
        keep: whether to return the images.
    """
    chosen = [file for file, part in parts.items() if part == split]
    ends, place = [], {file: row for row, file in enumerate(chosen)}
    is_open = form.dtype != "uint8" and wish.data_range is None
    wanted = files if is_open else [*parts] if split == "train" else chosen
    shape = (len(chosen) if keep else 0, *form.shape)
    check_fits(f"{name}: its {len(chosen)} images take", jax.ShapeDtypeStruct(shape, form.dtype),
               "their size, or read them on demand")
    images = np.empty(shape, form.dtype)
    digest, broken = ImagesDigest((len(chosen), *form.shape)), {}
    for rows, block, wrong in _blocks(tree, wanted, form):
        names = [wanted[row] for row in rows]
        if is_open and (good := [i for i, file in enumerate(names) if file not in wrong]):
            ends += [block[good].min((0, 1, 2)), block[good].max((0, 1, 2))]
        mine = [i for i, file in enumerate(names) if file in place]
        broken |= {file: why for file, why in wrong.items() if file in parts}
        part = block if len(mine) == len(names) else block[mine]
        if keep:
            images[[place[names[i]] for i in mine]] = part  # a `Dataset` has a digest of its own
        else:
            digest.update(part)
    if is_refused(len(broken), len(parts)):
        where = {file: f"{PARTS[parts[file]]}: " if split != "all" else "" for file in broken}
        told = {file: f"{where[file]}{why}" for file, why in broken.items()}
        raise ValueError(f"{name}: {_sentence(told, len(parts), _NAMED_AS_REFUSED)}; more than 1 %: "
                         "mend or remove them")
    broken = {file: why for file, why in broken.items() if file in place}
    try:
        if wish.data_range is not None:
            low, high = wish.data_range
            return images, digest, broken, Scaling((low,), (high,), form.dtype)
        scaling = found(np.stack(ends), by_channel=form.channels > 1) if is_open else BYTES
        return images, digest, broken, scaling
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def settle(name: str, tree: Tree, files: Sequence[str], wish: Wish) -> Form:
    """Returns the form that a wish leaves to the images, by their headers; no more of these are read
    than it takes.

    Raises:
        ValueError: there is no image_size, and they aren't of one.
    """
    colour = "rgba" if wish.transparency == "keep" else wish.colour
    size = None if wish.image_size is None else sides(wish.image_size)
    sizes, dtypes, pages, is_grey = set(), set(), Counter(), True
    for header in headers(tree, files, pages=colour == "pages"):
        if size and (colour in ("rgb", "rgba") or (colour is None and not is_grey)
                     or (colour == "grey" and "uint8" in dtypes)):
            break
        if isinstance(header, Header):
            sizes.add(header.size)
            dtypes.add(header.dtype)
            pages[header.pages] += 1
            is_grey &= header.is_grey
    if size is None:
        if len(sizes) != 1:
            listed = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
            raise ValueError(f"{name} needs an image_size to crop and resize its images to: they are "
                             f"not of one size, but {listed or 'of unknown size'}"
                             f"{', ...' if len(sizes) > 3 else ''}")
        size, = sizes
    colour = colour or ("grey" if dtypes and is_grey else "rgb")
    channels = {"grey": 1, "rgb": 3, "rgba": 4}.get(colour) or (pages.most_common(1) or [(1, 0)])[0][0]
    dtype = dtypes.pop() if colour in ("grey", "pages") and len(dtypes) == 1 else "uint8"
    transparency = wish.transparency or "white"
    return Form(size, colour, channels, dtype, wish.fit or "crop",
                "" if transparency in ("drop", "keep") else transparency)


def headers(tree: Tree, files: Sequence[str], *, pages: bool = False) -> Iterator[Header | Exception]:
    """Yields what each image's file says of it, or what is wrong with it.

    Args:
        tree: where they lie.
        files: which ones.
        pages: whether to count the images in a file.
    """
    def see(opener: Opener) -> Header | Exception:
        try:
            return look(opener, pages=pages)
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            return error

    with ThreadPoolExecutor() as pool:
        for block in tree.batches(files):
            yield from pool.map(see, [opener for _, opener in block])


def _blocks(tree: Tree, files: Sequence[str], form: Form
            ) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, str]]]:
    """Yields images, [rows, height, width, channels], with their rows, and what is wrong with which."""
    with ThreadPoolExecutor() as pool:
        for block in tree.batches(files):
            images, broken = np.zeros((len(block), *form.shape), form.dtype), {}
            rows, openers = zip(*block, strict=True)

            def read(image: np.ndarray, file: str, opener: Opener, broken=broken) -> None:
                try:
                    image[...] = decode(opener, tree.size(file), form)
                except Exception as error:  # a damaged file makes Pillow raise almost anything
                    broken[file] = " ".join(str(error).split()) or type(error).__name__

            list(pool.map(read, images, [files[row] for row in rows], openers))
            yield np.array(rows), images, broken


def is_refused(broken: int, count: int) -> bool:
    """Whether so many of the images of both splits can't be read that the folder is refused."""
    return 100 * broken > count


def _sentence(broken: Mapping[str, str], count: int, limit: int) -> str:
    named = ", ".join(f"{file} ({broken[file]})" for file in sorted(broken)[:limit])
    more = ", ..." if len(broken) > limit else ""
    return f"{len(broken)} of {count} images cannot be read: {named}{more}"
