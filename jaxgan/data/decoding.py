"""Images from files that aren't trusted: what their headers say, and their pixels in one form."""

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxgan.data.dataset import check_pixels
from jaxgan.data.tree import Opener

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # which every Pillow reads
_OTHERS = ((4, b"ftypavi", "AVIF"), (4, b"ftyphe", "HEIC"), (4, b"ftypmif", "HEIF"),  # where, what
           (4, b"JXL ", "JPEG XL"), (0, b"\xff\n", "JPEG XL"), (4, b"jP  ", "JPEG 2000"))
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff",
            ".pbm", ".pgm", ".ppm", ".pnm",
            ".avif", ".heic", ".heif", ".jxl", ".jp2")  # these are named as not read
COLOURS = ("grey", "rgb", "rgba", "pages")
FITS = ("crop", "pad", "stretch")
TRANSPARENCIES = ("white", "black", "keep", "drop")
_GREY = ("1", "L", "F")  # modes; those of integers of more bits begin with I
_SMALL = 2**20  # bytes of a file whose metadata take no memory to speak of
_TURNED = range(5, 9)  # EXIF orientations that swap height and width


class Header(NamedTuple):
    """What a file says of its image, before any pixels are decoded.

    Attributes:
        format: the file's, by Pillow's name.
        mode: the pixels', by Pillow's name.
        size: height and width, turned upright.
        is_transparent: whether pixels may be.
        pages: how many images there are in the file; 0 if they were not counted.
    """

    format: str
    mode: str
    size: tuple[int, int]
    is_transparent: bool
    pages: int = 0

    @property
    def dtype(self) -> str:
        """What holds the pixels' values without loss."""
        return "float32" if self.mode == "F" else "uint16" if self.mode.startswith("I") else "uint8"

    @property
    def is_grey(self) -> bool:
        """Whether there is nothing but grey: no colours, no palette, nothing transparent."""
        return not self.is_transparent and (self.mode in _GREY or self.mode.startswith("I"))


@dataclass(frozen=True)
class Form:
    """What images are turned into.

    Attributes:
        size: height and width.
        colour: "grey", "rgb", "rgba", or "pages": each image in a file is a channel.
        channels: how many there are.
        dtype: "uint8"; of grey images and pages also "uint16" and "float32".
        fit: "crop" the centre, "pad" with black, or "stretch".
        background: what transparent pixels lie on, "white" or "black"; "" for none: their own colours.
    """

    size: tuple[int, int]
    colour: str = "rgb"
    channels: int = 3
    dtype: str = "uint8"
    fit: str = "crop"
    background: str = "white"

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of an image: [height, width, channels]."""
        return *self.size, self.channels


def look(opener: Opener, *, pages: bool = False) -> Header:
    """Returns what a file says of its image.

    Args:
        opener: opens the file.
        pages: whether to count the images in it, which reads through it.

    Raises:
        Exception: it can't be read; of almost any type, for so does Pillow on damaged files.
    """
    with opener() as file, _opened(file) as image:
        width, height = image.size
        # Of a PNG without EXIF, Pillow would look for it behind the pixels.
        is_known = image.format != "PNG" or "exif" in image.info
        if is_known and image.getexif().get(0x0112) in _TURNED:
            width, height = height, width
        return Header(image.format or "", image.mode, (height, width), image.has_transparency_data,
                      getattr(image, "n_frames", 1) if pages else 0)


def decode(opener: Opener, length: int, form: Form) -> np.ndarray:
    """Returns the image in a file, [height, width, channels]; raises as `look` does.

    Args:
        opener: opens the file, maybe twice.
        length: the bytes that it has.
        form: what the image is turned into.
    """
    if length <= _SMALL:
        with opener() as file, _opened(file) as image, _pixels.take(_count(image, form)):
            return _formed(image, form)
    with _pixels.take(length), opener() as file, _opened(file) as image:
        count = _count(image, form)
    with _pixels.take(max(count, length)), opener() as file, _opened(file) as image:
        return _formed(image, form)


def content(opener: Opener, length: int) -> tuple[bytes, tuple[Any, ...]]:
    """Returns all pixels of the first image in a file, and what kind they are, to tell copies by.

    Arguments and errors as of `decode`; numbers that are none are refused as there, on any page.
    """
    from PIL import ImageOps

    with _pixels.take(length if length > _SMALL else 0), opener() as file, _opened(file) as image:
        count = _count(image, None)
    with _pixels.take(max(count, length)), opener() as file, _opened(file) as image:
        for page in reversed(range(getattr(image, "n_frames", 1) if image.mode == "F" else 1)):
            image.seek(page)  # to the first one at last
            _count(image, None)  # which checks its size
            if image.mode == "F":
                _floats(image)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            _of_sixteen_bits(image)
        elif image.mode != "F":
            image = image.convert("RGBA")
        return image.tobytes(), (image.mode, image.size)


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


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings, about damaged metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(file: BinaryIO):
    """Opens an image, whose pixels are not read yet.

    Raises:
        OSError, ValueError: it isn't one, or of a format that is not read.
    """
    from PIL import Image

    # Blocks of 32 MiB and more go back to the system when freed; threads would keep Pillow's of 16.
    Image.core.set_block_size(2**26)
    try:
        return Image.open(file, formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        file.seek(0)
        head = file.read(16)
        for at, mark, name in _OTHERS:
            if head[at:].startswith(mark):
                raise ValueError(f"{name}, which isn't read: convert it") from None
        raise OSError("cannot identify image file") from error


def _count(image: Any, form: Form | None) -> int:
    """The pixels that decoding takes; a tile of a TIFF may be larger than the image."""
    tags = getattr(image, "tag_v2", {})
    tile = (int(tags.get(322, 0)), int(tags.get(323, 0)))
    pages = form.channels if form and form.colour == "pages" else 1
    for width, height in (image.size, tile):
        check_pixels(width, height * pages)
    return max(math.prod(image.size), math.prod(tile)) * pages


def _formed(image: Any, form: Form) -> np.ndarray:
    from PIL import ImageOps

    if form.colour == "pages":
        return np.concatenate([_fitted(_grey(page, form), form) for page in _pages(image, form)], axis=2)
    ImageOps.exif_transpose(image, in_place=True)
    return _fitted(_coloured(image, form), form)


def _pages(image: Any, form: Form) -> Iterator[Any]:
    """The images in a file, of which there have to be as many as channels, of one size."""
    from PIL import ImageOps

    pages = getattr(image, "n_frames", 1)
    if pages != form.channels:
        raise ValueError(f"it has {pages} pages, and others have {form.channels}")
    first = image.size
    for number in range(pages):
        image.seek(number)
        if image.size != first:
            raise ValueError(f"its pages differ in size: {first[1]}x{first[0]}, "
                             f"{image.size[1]}x{image.size[0]}")
        if image.mode not in _GREY and not image.mode.startswith("I"):
            raise ValueError(f"its page {number} is {image.mode}, not grey")
        yield ImageOps.exif_transpose(image)


def _coloured(image: Any, form: Form) -> Any:
    """The image in a form's colours, of its own size."""
    if form.colour == "grey":
        return _grey(image, form)
    image = _of_bytes(image)
    if form.colour == "rgba":
        return image if image.mode == "RGBA" else image.convert("RGBA")
    image = _opaque(image, form.background)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Any, form: Form) -> Any:
    """The image in grey: of mode L, or F for numbers of more than 8 bits."""
    from PIL import Image

    if form.dtype == "uint8":
        return _opaque(_of_bytes(image), form.background).convert("L")
    if form.dtype == "uint16":
        return Image.fromarray(_of_sixteen_bits(image).astype(np.float32))
    return Image.fromarray(_floats(image))


def _of_bytes(image: Any) -> Any:
    """The image with at most 8 bits a channel: of 16, the upper ones."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # which convert() would clip at 255
        return Image.fromarray((_of_sixteen_bits(image) >> 8).astype(np.uint8))
    return image


def _floats(image: Any) -> np.ndarray:
    values = np.asarray(image, np.float32)
    if count := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{count} of its pixels {'is' if count == 1 else 'are'} NaN or infinite")
    return values


def _of_sixteen_bits(image: Any) -> np.ndarray:
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 2**16:
        raise ValueError("its pixels are numbers of more than 16 bits")
    return values


def _opaque(image: Any, background: str) -> Any:
    """The image with what is transparent on a background; "" takes the colours that lie there."""
    from PIL import Image

    if not background or not image.has_transparency_data:
        return image
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image)


def _fitted(image: Any, form: Form) -> np.ndarray:
    """The image in a form's size, antialiased: [height, width, channels of the image]."""
    from PIL import Image, ImageOps

    height, width = form.size
    if form.fit == "stretch":
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    else:
        fit = ImageOps.fit if form.fit == "crop" else partial(ImageOps.pad, color=0)
        image = fit(image, (width, height), Image.Resampling.LANCZOS)
    values = np.asarray(image).reshape(height, width, -1)
    if form.dtype == "uint16":
        return np.rint(values).clip(0, 2**16 - 1).astype(np.uint16)
    return values
