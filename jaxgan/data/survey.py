"""What a folder or an archive of images holds, looked at before anything is trained on it."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jaxgan.data.dataset import DataNotFoundError
from jaxgan.data.decoding import Form, Header, content, decode, look, quiet
from jaxgan.data.folder import headers, is_refused, open_root, open_table, split_in
from jaxgan.data.splits import arranged
from jaxgan.data.tables import Table, open_given
from jaxgan.data.tree import Opener, Tree


class Survey(NamedTuple):
    """What there is.

    Attributes:
        tree: what the images lie in.
        headers: what each image says of itself, by its file, of all that can be trained on.
        broken: what is wrong with the others.
        parts: the split of each file, "train" or "test", of all that are in one of them.
        copies: files whose images are the same, pixel by pixel, of each such image.
        table: the table beside them, if there is one.
        splits: how many images of each class there are in "train" and in "test".
        problem: why these can't be told, or the images can't be trained on; "" if they can.
    """

    tree: Tree
    headers: Mapping[str, Header]
    broken: Mapping[str, str]
    parts: Mapping[str, str]
    copies: Sequence[Sequence[str]]
    table: Table | None
    splits: Mapping[str, Mapping[str, int]]
    problem: str


def survey(path: str | os.PathLike, table: str | os.PathLike | None = None) -> Survey:
    """Looks at all images of a folder or an archive, and decodes each once.

    Args:
        path: the folder, or a zip or tar file.
        table: a table of the images, if it doesn't lie beside them.

    Raises:
        DataNotFoundError: there is none, or no image in it.
        ValueError: it is something else, or damaged; or there is no table where one is said to be.
    """
    if table is not None:
        open_given(table)  # a mistake of whoever asks, not of the images
    tree, files = open_root(path)
    readable, broken, alike = {}, {}, {}

    def see(number: int, opener: Opener) -> None:
        file = files[number]
        try:
            header = look(opener, pages=True)
            pixels, kind = content(opener, tree.size(file))
            digest = hashlib.blake2b(pixels + repr(kind).encode(), digest_size=16).digest()
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            broken[file] = " ".join(str(error).split()) or type(error).__name__
        else:
            readable[file] = header
            alike.setdefault(digest, []).append(file)

    with quiet(), ThreadPoolExecutor() as pool:
        for batch in tree.batches(files):
            list(pool.map(see, *zip(*batch, strict=True)))
    if len({header.dtype for header in readable.values()}) > 1:  # all are brought to bytes then
        for file in [file for file, header in readable.items() if header.dtype == "float32"]:
            del readable[file]
            broken[file] = "its pixels are floating-point numbers, and others' are not"
    copies = sorted(sorted(same) for same in alike.values() if len(same) > 1)
    parts, splits, problem, found = {}, {}, "", None
    try:
        found = open_table(tree, files, table)
        parts = split_in(f"folder:{path}", files, found)
        for split in ("train", "test"):
            try:
                class_of, names = arranged(f"folder:{path}", files, split, found)
            except DataNotFoundError:  # a small folder may hold none out
                continue
            count = Counter(class_of[file] for file in class_of if file in readable)
            splits[split] = {name: count[name] for name in names}
        if is_refused(bad := len(broken.keys() & parts.keys()), len(parts)):
            problem = (f"{bad} of the {len(parts)} images can't be read, which is more than 1 %: mend "
                       "or remove them")
    except ValueError as error:
        problem = str(error)
    return Survey(tree, dict(sorted(readable.items())), dict(sorted(broken.items())), parts, copies,
                  found, splits, problem)


def sizes(path: str | os.PathLike) -> list[tuple[int, int]]:
    """Returns height and width of each image of a folder or an archive; errors as of `survey`."""
    tree, files = open_root(path)
    with quiet():
        return [header.size for header in headers(tree, files) if isinstance(header, Header)]


def suited(sizes: Mapping[tuple[int, int], int], longest: int) -> tuple[int, int]:
    """Returns the size that images of so many sizes are best brought to.

    Their own, if they are of one that networks take; else multiples of 8, near to their shape.

    Args:
        sizes: how many images there are of each height and width.
        longest: of both sides.
    """
    if len(sizes) == 1:
        size, = sizes
        if 8 <= min(size) <= max(size) <= longest and not any(
                side % (4 if side <= 32 else 8) for side in size):  # halved down to at most 8
            return size
    heights, widths = _sides(sizes)
    if not len(heights):
        return longest, longest
    longest = max(8, min(longest, int(np.median(np.maximum(heights, widths)))) // 8 * 8)
    shape = float(np.median(heights / widths))
    height, width = (max(8, round(longest * min(1, part) / 8) * 8) for part in (shape, 1 / shape))
    return height, width


def is_cut(sizes: Mapping[tuple[int, int], int], size: tuple[int, int]) -> bool:
    """Whether cropping to a size takes more than a third of the area of more than a tenth of images."""
    heights, widths = _sides(sizes)
    ratio = heights / widths * size[1] / size[0]
    return bool((np.minimum(ratio, 1 / ratio) < 2 / 3).mean() > 0.1)


def _sides(sizes: Mapping[tuple[int, int], int]) -> np.ndarray:
    """Heights and widths of all images, [2, images]."""
    return np.repeat(np.array([*sizes], int).reshape(-1, 2), [*sizes.values()], axis=0).T


def some(survey: Survey, form: Form, count: int) -> np.ndarray:
    """Returns some of the images, in their order: uint8, [at most count, height, width, 1 or 3].

    Of pages it shows the first; of numbers of more than 8 bits, the range of what it shows.
    """
    readable = [*survey.headers]
    chosen = readable[::max(1, -(-len(readable) // count))]
    shown = {}
    with quiet():
        for batch in survey.tree.batches(chosen):
            for number, opener in batch:
                try:
                    shown[number] = decode(opener, survey.tree.size(chosen[number]), form)
                except Exception:  # it hasn't this form; as for `survey`
                    continue
    if not shown:
        return np.zeros((0, *form.size, 1), np.uint8)
    images = np.stack([shown[number] for number in sorted(shown)])
    if form.colour == "rgba":
        alpha = images[..., 3:] / 255
        images = np.rint(images[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    images = images[..., :1] if form.colour == "pages" else images
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    return np.rint((images - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)
