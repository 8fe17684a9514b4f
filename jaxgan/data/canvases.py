"""Images of a set scattered on larger canvases, one on each, with their labels and boxes."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.data.dataset import Dataset
from jaxgan.data.sources import Source, position_keys, resident, scale
from jaxgan.keys import stream
from jaxgan.types import Array, Batch, Key, PyTree

_INK = 63  # brighter pixels are the object's


def canvases(dataset: Dataset, canvas_size: int, *, value_range: tuple[float, float] = (0.0, 1.0),
             smallest: float | None = None, largest: float | None = None, labelled: int = 0) -> Source:
    """Returns an endless source of canvases: an image of the set on each, of any size, anywhere.

    The image, its size and its place are drawn uniformly; it is resized bilinearly, with antialiasing
    where it shrinks, and lies wholly inside the canvas, which is at the lowest value elsewhere. The
    condition is {"label": int32 [batch], "box": float32 [batch, 4], "weight": float32 [batch]}, the box
    being the corners (top, left, bottom, right) of the object as fractions of the canvas: of the pixels
    above 63 of 255 in any channel of the image, resized as it is. The weight is 1, unless `labelled`.

    Args:
        dataset: the images, which stay on the device as uint8.
        canvas_size: height and width of a canvas, in pixels.
        value_range: (-1, 1) or (0, 1), of the samples.
        smallest: the longer side of a resized image at least, in pixels; by default 3/4 of the image's.
        largest: the same at most; by default 3/2 of the image's.
        labelled: 0 for all, or how many canvases a task may learn from (semi-supervised learning): half
            of those drawn are of this number, the same again and again, and have the weight 2; the
            others are new ones, of weight 0. Which these are depends on the key.

    Raises:
        ValueError: a canvas that is smaller than the largest image, sizes that aren't above 0 and in
            order, a negative number, an image without such pixels, or another range.
    """
    side: int = max(dataset.images.shape[1:3])
    smallest = 0.75 * side if smallest is None else smallest
    largest = 1.5 * side if largest is None else largest
    if not 0 < smallest <= largest:
        raise ValueError(f"smallest and largest must be 0 < smallest <= largest; got {smallest:g} and "
                         f"{largest:g}")
    if canvas_size < largest:
        raise ValueError(f"canvas_size must be at least {largest:g}, the largest image's; got "
                         f"{canvas_size}: give a larger canvas, or a smaller `largest`")
    if labelled < 0:
        raise ValueError(f"labelled must be 0 for all, or a number of canvases; got {labelled}")
    source = resident(dataset, value_range=value_range, labels=True)
    (*shape, channels), (low, high) = source.sample_shape, source.value_range
    canvas, arrays = (canvas_size, canvas_size, channels), {**source.arrays, "ink": _ink(dataset)}

    def place(arrays: PyTree, key: Key) -> tuple[Array, Array, Array]:
        """One canvas in [0, 1], its label and its box."""
        which, size, where = jax.random.split(key, 3)
        index = jax.random.randint(which, (), 0, len(dataset))
        factor = jax.random.uniform(size, minval=smallest, maxval=largest) / side
        free = canvas_size - factor * jnp.array(shape)
        start = free * jax.random.uniform(where, (2,))  # of the image, in pixels of the canvas
        image = jax.image.scale_and_translate(
            scale(arrays["images"][index], (0, 1)), canvas, (0, 1), jnp.full(2, factor), start, "linear")
        box = (jnp.tile(start, 2) + factor * arrays["ink"][index]) / canvas_size
        return image.clip(0.0, 1.0), arrays["labels"][index], box.clip(0.0, 1.0)

    def choose(few: Key, own: Key) -> tuple[Array, Key]:
        """The weight of a canvas, and its key: its own, or that of one of the few."""
        half, which = jax.random.split(stream(own, "labelled"))
        known = jax.random.bernoulli(half)
        again = jax.random.fold_in(few, jax.random.randint(which, (), 0, labelled))
        return 2.0 * known, jax.lax.select(known, again, own)

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        keys = position_keys(stream(key, "canvas"), epochs, offsets)
        weights = jnp.ones(keys.shape)
        if labelled:
            weights, keys = jax.vmap(choose, (None, 0))(stream(key, "labelled"), keys)
        images, labels, boxes = jax.vmap(place, (None, 0))(arrays, keys)
        return Batch(low + (high - low) * images, {"label": labels, "box": boxes, "weight": weights})

    return source._replace(arrays=arrays, draw=draw, size=None, sample_shape=canvas)


def _ink(dataset: Dataset) -> Array:
    """The corners of each image's ink, (top, left, bottom, right) in its pixels, float32 [count, 4]."""
    ink = np.any(dataset.images > _INK, axis=3)
    found = np.any(ink, axis=(1, 2))
    if not found.all():
        raise ValueError(f"{dataset.name} has no object in image {found.argmin()}, of which no pixel is "
                         f"above {_INK}: leave such images out")
    first, last = [], []
    for lines in (np.any(ink, axis=2), np.any(ink, axis=1)):  # rows, columns
        first.append(lines.argmax(axis=1))
        last.append(lines.shape[1] - lines[:, ::-1].argmax(axis=1))
    return jnp.asarray(np.stack([*first, *last], axis=1), jnp.float32)
