"""A folder of one's own images as a data set."""

import hashlib
import math
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgan.data.dataset import DataNotFoundError, Dataset, ImagesDigest, check_pixels

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # which every Pillow reads
_OTHERS = ((4, b"ftypavi", "AVIF"), (4, b"ftyphe", "HEIC"), (4, b"ftypmif", "HEIF"),  # where, what
           (4, b"JXL ", "JPEG XL"), (0, b"\xff\n", "JPEG XL"), (4, b"jP  ", "JPEG 2000"))
_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff",
             ".pbm", ".pgm", ".ppm", ".pnm",
             ".avif", ".heic", ".heif", ".jxl", ".jp2")  # these are named as not read
_SPLIT = re.compile(r"(train|test|val)(ing|id(ation)?)?[\W\d_]*(set|data|images)?[\W\d_]*", re.I)
_NAMED_AS_SKIPPED, _NAMED_AS_REFUSED = 5, 20
_BLOCK = 1024  # images that are read before the next ones are
_SMALL = 2**20  # bytes of a file whose metadata take no memory to speak of
_MOST_BYTES = 2**29  # of a file: more than an image of as many pixels as are allowed has


@dataclass(frozen=True, eq=False)
class Files:
    """Images that are read from their files each time they are asked for, as `Examples`.

    Attributes:
        name: "folder:PATH".
        root: the folder.
        files: the images' paths below it.
        image_size: the side to crop and resize the images to.
        labels: int32, [examples], in [0, len(class_names)).
        class_names: the name of every class, in the order of the labels.
        digest: that of the same images as a `Dataset`.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    image_size: int
    labels: np.ndarray
    class_names: tuple[str, ...]
    digest: str

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = [self.files[i] for i in index]
        images, broken = np.empty((len(wanted), self.image_size, self.image_size, 3), np.uint8), {}
        for rows, block, wrong in _blocks(self.root, wanted, self.image_size):
            images[rows] = block
            broken |= wrong
        if broken:
            raise ValueError(f"{self.name}: {_sentence(broken, wanted, _NAMED_AS_REFUSED)}; they could "
                             "be when the folder was opened: bring them back")
        return images, self.labels[index]


def load(path: str | os.PathLike, split: str, *, image_size: int | None) -> Dataset:
    """Returns the image files below a folder as RGB images, in the order of their paths.

    - *Classes*: the sub-folders of the folder, sorted by name and as people count, 2 before 10,
      however deep a file lies in them; without sub-folders every label is 0.
    - *Splits*: if the folder holds just `train`, `test` and `val`, or some of them, those, with the
      classes inside. `training`, `testing`, `valid` and `validation` will do, in any case and with
      a number or `set`, `data` or `images` behind; `val` is the test split where there is no `test`,
      and else left out. If it holds just `train`, or classes, or images, "test" is the tenth of the
      files whose relative path has a digest divisible by ten, so that a file stays in its split when
      others come and go.
    - *Files*: PNG, JPEG, WebP, GIF, BMP, TIFF and PPM; the content decides which, not the name. Of
      several images in a file, the first.
    - *Pixels*: turned upright by their EXIF orientation, cropped about the centre to a square and
      resized, antialiased (Lanczos). Transparent images lie on white; grey ones are repeated in
      the three channels; of 16 bits the upper 8 are kept.
    - *Left out*: hidden files and files that do not end like an image, silently; images that
      cannot be read, are of another format, or have more pixels than Pillow's MAX_IMAGE_PIXELS, with
      one warning.

    Args:
        path: the folder; symbolic links in it are followed, each folder is entered once.
        split: "train", "test" or "all".
        image_size: the side of the images; None for their own, if they are squares of one size.

    Raises:
        DataNotFoundError: there is no such folder, or no image in it or in the split; or the images of
            the split lie in no class folders though those of `train` do.
        ValueError: there is no image_size and they aren't of one, images lie both beside and in
            sub-folders, it can't be told whether sub-folders are splits or classes, or more than 1 % of
            the images cannot be read.
    """
    found, images = _open(path, split, image_size, keep=True)
    return Dataset(found.name, images, found.labels, found.class_names)


def on_demand(path: str | os.PathLike, split: str, *, image_size: int | None) -> Files:
    """Returns the examples of `load`, read once to leave out the same, and again when asked for."""
    return _open(path, split, image_size, keep=False)[0]


def _open(path: str | os.PathLike, split: str, image_size: int | None,
          keep: bool) -> tuple[Files, np.ndarray]:
    """Returns the files that can be read, and their images if these are to be kept."""
    root, name = Path(path).expanduser(), f"folder:{path}"
    if not root.is_dir():
        raise DataNotFoundError(f"{name}: there is no such folder: say where it is now")
    files = _find(root)
    if not files:
        raise DataNotFoundError(f"{name}: there is no image file in the folder, none that ends in "
                                f"{', '.join(_SUFFIXES[:5])} or the like")
    class_of, class_names = _arranged(name, files, split)
    chosen, size = [*class_of], image_size or _own_size(name, root, files)

    images = np.empty((len(chosen) if keep else 0, size, size, 3), np.uint8)
    digest, broken = ImagesDigest((len(chosen), size, size, 3)), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        for rows, block, wrong in _blocks(root, chosen, size):
            broken |= wrong
            if keep:
                images[rows] = block  # a `Dataset` has a digest of its own
            else:
                digest.update(block)
    if len(broken) * 100 > len(chosen):
        raise ValueError(f"{name}: {_sentence(broken, chosen, _NAMED_AS_REFUSED)}; more than 1 %: mend "
                         "or remove them")
    if broken:
        warnings.warn(f"{name}: {_sentence(broken, chosen, _NAMED_AS_SKIPPED)}; skipped",
                      UserWarning, stacklevel=4)
        if keep:
            images = images[[file not in broken for file in chosen]]
    good = tuple(file for file in chosen if file not in broken)
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels = np.array([number[class_of[file]] for file in good], np.int32)
    if broken and not keep:  # the digest is of more than is left
        digest = ImagesDigest((len(good), size, size, 3))
        for _, block, _ in _blocks(root, good, size):
            digest.update(block)
    return Files(name, root, good, size, labels, tuple(class_names), digest.of(labels)), images


def _arranged(name: str, files: list[str], split: str) -> tuple[dict[str, str], list[str]]:
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
        relevant = [*parts.values()]
        training = {} if len({_is_nested(name, part) for part in relevant}) > 1 else relevant[0]
    else:
        test = parts.get("test") or parts.get("val") or {}
        chosen = parts.get("train") if split == "train" else test
        if not chosen:
            raise DataNotFoundError(f"{name}: there are folders for {' and '.join(parts)} in it, none "
                                    f"for {split}: make it")
        training, relevant = parts.get("train", chosen), [parts.get("train", {}), test]
    if not _is_nested(name, training):
        return dict.fromkeys(sorted(chosen), "images"), ["images"]
    if not _is_nested(name, chosen):
        raise DataNotFoundError(f"{name}: {min(chosen)} lies in no class folder, as the images for "
                                "training do: put those of its split into folders of the same names")
    class_names = {rest.partition("/")[0] for part in relevant for rest in part.values() if "/" in rest}
    return ({file: chosen[file].partition("/")[0] for file in sorted(chosen)},
            sorted(class_names, key=_as_counted))


def _parts(name: str, files: list[str]) -> dict[str, dict[str, str]]:
    """Returns the files by split, each with its path in the split's folder; all as "" if there is none.

    Raises:
        ValueError: it can't be told which folders are splits and which are classes.
    """
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    split_of = {top: _split_of(top) for top in sorted(tops)}
    below = {file.split("/")[1] for file in files if file.count("/") > 1}
    if len({*map(_split_of, below)} - {""}) > 1:
        raise ValueError(f"{name}: its folders {_listed(tops)} hold splits, {_listed(below)}"
                         ": give the folder that holds these alone, with the classes inside")
    splits = [split for split in split_of.values() if split]
    if len(splits) < 2 and len(splits) < len(tops) and not any(
            split_of[file.partition("/")[0]] for file in files if file.count("/") > 1):
        return {"": {file: file for file in files}}  # a class may be called train
    if len({*splits}) < len(tops):
        raise ValueError(f"{name}: it can't be told which of its folders are splits: there are "
                         f"{_listed(tops)}; let it hold train, val and test alone, with the classes "
                         "inside, or rename what is a class")
    parts = {split: {} for split in splits}
    for file in files:
        top, _, rest = file.partition("/")
        parts[split_of[top]][file] = rest
    return parts


def _split_of(folder: str) -> str:
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


def _own_size(name: str, root: Path, files: list[str]) -> int:
    """The side of all images that can be read."""
    def look(file: str) -> tuple[int, int] | None:
        try:
            with _opened(root / file) as image:
                return image.size
        except Exception:  # as for `_blocks`, which says so
            return None

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        sizes = sorted({size for size in pool.map(look, files) if size})
    if not sizes or len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
        found = ", ".join(f"{width}x{height}" for width, height in sizes[:3]) or "of unknown size"
        raise ValueError(f"{name} needs an image_size to crop and resize its images to: they are no "
                         f"squares of one size, but {found}{', ...' if len(sizes) > 3 else ''}")
    return sizes[0][0]


def _find(root: Path) -> list[str]:
    """Returns the relative POSIX paths of what ends like an image, sorted; no folder twice."""
    def refuse(error: OSError):
        raise error

    found, entered = [], set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(folder, name).relative_to(root).as_posix() for name in names
                  if not name.startswith(".") and name.lower().endswith(_SUFFIXES)]
    return sorted(found)


def _held_out(file: str) -> bool:
    digest = hashlib.blake2b(os.fsencode(file), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10 == 0


def _blocks(root: Path, files: Sequence[str], size: int
            ) -> Iterator[tuple[slice, np.ndarray, dict[str, str]]]:
    """Yields images, [files, size, size, 3], with their rows, and what is wrong with which of them."""
    from PIL import Image

    # Blocks of 32 MiB and more go back to the system when freed; threads would keep Pillow's of 16.
    Image.core.set_block_size(2**26)
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(files), _BLOCK):
            block = files[first:first + _BLOCK]
            images, broken = np.zeros((len(block), size, size, 3), np.uint8), {}

            def read(i: int, block=block, images=images, broken=broken) -> None:
                try:
                    images[i] = _read(root / block[i], size)
                except Exception as error:  # a damaged file makes Pillow raise almost anything
                    broken[block[i]] = " ".join(str(error).split()) or type(error).__name__

            list(pool.map(read, range(len(block))))
            yield slice(first, first + len(block)), images, broken


class _Room:
    """Lets threads have so much at once; who wants more than that has it alone."""

    def __init__(self, most: int):
        self._most = self._free = most
        self._changed = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        amount = min(amount, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


_pixels = _Room(2**26)  # of images that are being decoded: each takes some twenty bytes for a while


def _read(path: Path, size: int) -> np.ndarray:
    length = path.stat().st_size if path.is_file() else 0
    if length <= _SMALL:
        with _opened(path) as image, _pixels.take(_count(image)):
            return _fitted(image, size)
    with _pixels.take(length), _opened(path) as image:
        count = _count(image)
    with _pixels.take(max(count, length)), _opened(path) as image:
        return _fitted(image, size)


def _opened(path: Path):
    """Opens an image, whose pixels are not read yet.

    Raises:
        OSError, ValueError: it isn't one, or of a format that is not read, or too large.
    """
    from PIL import Image

    if not path.is_file():
        raise OSError("not a file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes are too many")
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.UnidentifiedImageError:
        with path.open("rb") as file:
            head = file.read(16)
        for at, mark, name in _OTHERS:
            if head[at:].startswith(mark):
                raise ValueError(f"{name}, which isn't read: convert it") from None
        raise


def _count(image) -> int:
    """The pixels that decoding takes; a tile of a TIFF may be larger than the image."""
    tags = getattr(image, "tag_v2", {})
    tile = (int(tags.get(322, 0)), int(tags.get(323, 0)))
    for width, height in (image.size, tile):
        check_pixels(width, height)
    return max(math.prod(image.size), math.prod(tile))


def _fitted(image, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(ImageOps.fit(_to_rgb(image), (size, size), Image.Resampling.LANCZOS))


def _to_rgb(image):
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("its pixels are numbers of more than 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _sentence(broken: dict[str, str], files: list[str], limit: int) -> str:
    named = ", ".join(f"{file} ({broken[file]})" for file in sorted(broken)[:limit])
    more = ", ..." if len(broken) > limit else ""
    return f"{len(broken)} of {len(files)} images cannot be read: {named}{more}"
