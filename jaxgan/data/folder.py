"""A folder of one's own images as a data set."""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgan.data.dataset import DataNotFoundError, Dataset

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif",  # what is read, and what is named as not
             ".avif", ".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp")
_NAMED_AS_SKIPPED, _NAMED_AS_REFUSED = 5, 20


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
    """

    name: str
    root: Path
    files: tuple[str, ...]
    image_size: int
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = [self.files[i] for i in index]
        images, broken = _read_all(self.root, wanted, self.image_size)
        if broken:
            raise ValueError(f"{self.name}: {_sentence(broken, wanted, _NAMED_AS_REFUSED)}; they could "
                             "be when the folder was opened: bring them back")
        return images, self.labels[index]


def load(path: str | os.PathLike, split: str, *, image_size: int | None) -> Dataset:
    """Returns the PNG and JPEG files below a folder as RGB images, in the order of their paths.

    - *Classes*: the sub-folders of the folder, sorted by name, however deep a file lies in them;
      without sub-folders every label is 0.
    - *Splits*: if the folder holds just `train` and `test`, those, with the classes inside; else
      "test" is the tenth of the files whose relative path has a digest divisible by ten, so that
      a file stays in its split when others come and go.
    - *Pixels*: turned upright by their EXIF orientation, cropped about the centre to a square and
      resized, antialiased (Lanczos). Transparent images lie on white; grey ones are repeated in
      the three channels; of 16 bits the upper 8 are kept.
    - *Left out*: hidden files and files that do not end like an image, silently; images that
      cannot be read, or have more pixels than Pillow's MAX_IMAGE_PIXELS, with one warning.

    Args:
        path: the folder; symbolic links in it are followed, each folder is entered once.
        split: "train", "test" or "all".
        image_size: the side of the images.

    Raises:
        DataNotFoundError: there is no such folder, or no image in it or in the split.
        ValueError: there is no image_size, images lie both beside and in sub-folders, or more than
            1 % of them cannot be read.
    """
    files, images = _open(path, split, image_size, keep=True)
    return Dataset(files.name, images, files.labels, files.class_names)


def on_demand(path: str | os.PathLike, split: str, *, image_size: int) -> Files:
    """Returns the examples of `load`, read once to leave out the same, and again when asked for."""
    return _open(path, split, image_size, keep=False)[0]


def _open(path: str | os.PathLike, split: str, image_size: int | None,
          keep: bool) -> tuple[Files, np.ndarray]:
    """Returns the files that can be read, and their images if these are to be kept."""
    root = Path(path).expanduser()
    if image_size is None:
        raise ValueError(f"folder:{path} needs an image_size to crop and resize its images to")
    if not root.is_dir():
        raise DataNotFoundError(f"folder:{path}: there is no such folder")
    files = _find(root)
    if not files:
        raise DataNotFoundError(f"folder:{path}: there is no PNG or JPEG file in the folder")

    if {file.partition("/")[0] for file in files} == {"train", "test"}:
        inner = {file: file.partition("/")[2] for file in files}
        chosen = [file for file in files if split == "all" or file.startswith(f"{split}/")]
    else:
        inner = {file: file for file in files}
        chosen = [file for file in files if split == "all" or _held_out(file) == (split == "test")]
        if not chosen:
            raise DataNotFoundError(f"folder:{path}: none of its {len(files)} images falls into "
                                    f"the split {split!r}: make folders train and test in it")
    nested = {"/" in file for file in inner.values()}
    if nested == {True, False}:
        stray = next(file for file, rest in inner.items() if "/" not in rest)
        raise ValueError(f"folder:{path}: images must lie all in class folders or all beside each "
                         f"other; {stray} lies beside folders of images")
    class_of = {file: rest.partition("/")[0] if nested == {True} else "images"
                for file, rest in inner.items()}
    class_names = sorted(set(class_of.values()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        images, broken = _read_all(root, chosen, image_size, keep)
    if len(broken) * 100 > len(chosen):
        raise ValueError(f"folder:{path}: {_sentence(broken, chosen, _NAMED_AS_REFUSED)}; more "
                         "than 1 %: mend or remove them")
    if broken:
        warnings.warn(f"folder:{path}: {_sentence(broken, chosen, _NAMED_AS_SKIPPED)}; skipped",
                      UserWarning, stacklevel=4)
        if keep:
            images = images[[file not in broken for file in chosen]]
    good = tuple(file for file in chosen if file not in broken)
    labels = np.array([class_names.index(class_of[file]) for file in good], np.int32)
    return Files(f"folder:{path}", root, good, image_size, labels, tuple(class_names)), images


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


def _read_all(root: Path, files: list[str], size: int,
              keep: bool = True) -> tuple[np.ndarray, dict[str, str]]:
    """Returns the images, [files, size, size, 3], and what is wrong with which of the files."""
    images = np.zeros((len(files) if keep else 0, size, size, 3), np.uint8)
    broken = {}

    def read(i: int) -> None:
        try:
            pixels = _read(root / files[i], size)
            if keep:
                images[i] = pixels
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            broken[files[i]] = " ".join(str(error).split()) or type(error).__name__

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(files))))
    return images, broken


def _read(path: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    if not path.is_file():
        raise OSError("not a file")
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        upright = _to_rgb(ImageOps.exif_transpose(image))
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def _to_rgb(image):
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _sentence(broken: dict[str, str], files: list[str], limit: int) -> str:
    named = ", ".join(f"{file} ({broken[file]})" for file in sorted(broken)[:limit])
    more = ", ..." if len(broken) > limit else ""
    return f"{len(broken)} of {len(files)} images cannot be read: {named}{more}"
