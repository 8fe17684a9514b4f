"""What a named data set is once it is loaded, and the one order its examples are in."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxgan.data.scaling import BYTES, Scaling
from jaxgan.extras import needs

Size = int | tuple[int, int]  # the side of a square, or height and width


class DataNotFoundError(FileNotFoundError, ValueError):
    """The data of a known set is not where it was looked for, and could not be fetched."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, in memory.

    Attributes:
        name: the name that `load` knows the set by.
        images: uint8, uint16 or float32, [examples, height, width, channels].
        labels: int32, [examples], in [0, len(class_names)).
        class_names: the name of every class, in the order of the labels.
        numbers: None, or what else is known of every image, float32, [examples, numbers].
        scaling: what the images' values stand for.

    Raises:
        TypeError: the images are of another type than the scaling's, or of none of these, the labels not
            int32 or the numbers not float32.
        ValueError: shapes disagree, there are no examples or a label is out of range.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    numbers: np.ndarray | None = None
    scaling: Scaling = BYTES

    def __post_init__(self):
        if self.images.dtype != self.scaling.dtype or self.labels.dtype != np.int32:
            raise TypeError(f"{self.name}: images must be {self.scaling.dtype} and labels int32; "
                            f"got {self.images.dtype} and {self.labels.dtype}")
        if self.images.dtype not in (np.uint8, np.uint16, np.float32):
            raise TypeError(f"{self.name}: images must be uint8, uint16 or float32; got "
                            f"{self.images.dtype}")
        if self.numbers is not None and (self.numbers.dtype != np.float32 or self.numbers.ndim != 2
                                         or len(self.numbers) != len(self.images)):
            raise TypeError(f"{self.name}: numbers must be float32, [{len(self.images)}, numbers]; got "
                            f"{self.numbers.dtype}{list(self.numbers.shape)}")
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise ValueError(f"{self.name}: images must be [examples, height, width, channels], "
                             f"none of them 0; got {self.images.shape}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{self.name}: there must be one label per image, shape "
                             f"{self.images.shape[:1]}; got {self.labels.shape}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            raise ValueError(f"{self.name}: labels must be in [0, {len(self.class_names)}), "
                             f"one per class name; got {low} to {high}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the images, the labels and the numbers."""
        digest = ImagesDigest(self.images.shape)
        digest.update(self.images)
        return digest.of(self.labels, self.numbers)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.images[index], self.labels[index]


class ImagesDigest:
    """The SHA-256 of images, which may come in parts, and of their labels.

    Args:
        shape: that of all the images.
    """

    def __init__(self, shape: tuple[int, ...]):
        self._digest = hashlib.sha256(f"{shape}\n".encode())

    def update(self, images: np.ndarray) -> None:
        """Takes the next images."""
        self._digest.update(np.ascontiguousarray(images).data)

    def of(self, labels: np.ndarray, numbers: np.ndarray | None = None) -> str:
        """Returns the digest, after all images."""
        if numbers is not None:
            self.update(numbers)
        self.update(labels)
        return self._digest.hexdigest()


def canonical(name: str, images: Iterable[np.ndarray], labels: Iterable[int],
              class_names: Iterable[str], image_size: Size | None = None) -> Dataset:
    """Returns the data set in the order of a digest of each image and label.

    The order does not depend on the one in which the examples come, nor on `image_size`: the
    original files and a prepared directory give the same arrays, byte for byte.

    Args:
        name: the name of the set.
        images: uint8 images, each [height, width, channels], in any order.
        labels: one integer per image.
        class_names: the name of every class.
        image_size: None, or the size to crop and resize every image to.

    Raises:
        ValueError: the images differ in shape.
    """
    labels = np.asarray(labels, np.int32)
    digests, rows = [], []
    for image, label in zip(images, labels, strict=True):
        digests.append(hashlib.blake2b(image.tobytes() + label.tobytes(), digest_size=16).digest())
        rows.append(fit(image, image_size) if image_size else image)
        if rows[-1].shape != rows[0].shape:
            raise ValueError(f"{name}: the images differ in shape, {rows[0].shape} and "
                             f"{rows[-1].shape}: give an image_size to crop and resize them to")
    order = sorted(range(len(rows)), key=digests.__getitem__)
    return Dataset(name, np.stack([rows[i] for i in order]), labels[order], tuple(class_names))


def fit(image: np.ndarray, size: Size) -> np.ndarray:
    """Returns the image cropped about its centre and resized, [height, width, channels].

    Resizing is antialiased (Lanczos); an image of that size already comes back as it is.
    """
    height, width = sides(size)
    if image.shape[:2] == (height, width):
        return image
    needs("PIL")
    from PIL import Image, ImageOps

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized).reshape(height, width, image.shape[2])


def sides(size: Size) -> tuple[int, int]:
    """Returns height and width; ValueError if one is below 1."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"image_size must be at least 1; got {size}")
    return height, width


def check_pixels(width: int, height: int) -> None:
    """Raises ValueError for an image of more pixels than Pillow's MAX_IMAGE_PIXELS."""
    from PIL import Image

    if width * height > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise ValueError(f"{width} x {height} pixels are too many")
