"""What a training loop draws its batches from."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.data.arrays import Arrays
from jaxgan.data.dataset import Dataset, Size, sides
from jaxgan.data.order import (
    epoch_and_offset,
    position_keys,
    shares,
    shuffled_index,
    weighted_index,
)
from jaxgan.data.scaling import BYTES, Scaling, found
from jaxgan.digests import json_digest, leaf_digests
from jaxgan.keys import stream, uniform
from jaxgan.memory import check_fits
from jaxgan.types import Array, Batch, Key, PyTree

_ENDLESS = 2**31 - 1  # examples in an "epoch" of a set that has none


class Part(NamedTuple):
    """The examples that one of several processes reads: of every `block`, `count` from `first` on."""

    block: int = 1
    first: int = 0
    count: int = 1

    def rows(self, number: int) -> np.ndarray:
        """Which of so many consecutive examples, a multiple of `block`, are in it."""
        rows = np.arange(number).reshape(-1, self.block)
        return rows[:, self.first:self.first + self.count].ravel()


class Source(NamedTuple):
    """Examples that can be drawn by their position in an endless stream of epochs.

    What is drawn at a position depends on the key and that position only, so that devices that
    each draw their part of a batch see together what one device would.

    Attributes:
        arrays: what lives on the device; given to `draw` as an argument, so that it is not
            compiled into the program as a constant. () if there is nothing. Of a source with
            windows, the shapes of a window of one example.
        draw: (arrays, key, epochs [B], offsets [B]) -> Batch; pure, to be jitted by the caller.
        size: the number of examples, None if they never repeat.
        sample_shape: the shape of one sample; of samples with several arrays, a pytree of shapes.
        value_range: the lowest and highest value of a sample.
        num_classes: the number of classes, 0 if there are none.
        window: None, or (key, epochs [N], offsets [N], part) -> the arrays, on the host, from which
            `draw` draws the examples of the part of these consecutive positions; see
            `jaxgan.data.prefetch`.
        class_names: the name of every class, in the order of the labels; () if they have none.
        digest: a SHA-256 that says which data these are; "" if that isn't known.
        scaling: what -1 and 1 of the samples stand for; None if they are in the data's own units, or if
            that is bytes.
        numbers: the same of the condition, if it is numbers; None if not.
    """

    arrays: PyTree
    draw: Callable[[PyTree, Key, Array, Array], Batch]
    size: int | None
    sample_shape: Any
    value_range: tuple[float, float]
    num_classes: int
    window: Callable[[Key, Array, Array, Part], PyTree] | None = None
    class_names: tuple[str, ...] = ()
    digest: str = ""
    scaling: Scaling | None = None
    numbers: Scaling | None = None


class Examples(Protocol):
    """Examples that are looked up by their numbers, wherever they are kept: a `Dataset`, say.

    They may have a `digest`, `numbers` and a `scaling`, as a `Dataset` has.

    Attributes:
        class_names: the name of every class, in the order of the labels.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """See the class."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns samples, [batch, ...], of the scaling's dtype, and labels, int32 [batch]."""
        ...


def draw_step(source: Source, arrays: PyTree, key: Key, step: int | Array,
              examples_per_step: int, rows: Array) -> Batch:
    """Returns the given rows of the examples that a step consumes.

    Args:
        source: where from; static under jit.
        arrays: `source.arrays`, or a window that holds the step, on the device.
        key: one typed key, the same in every step.
        step: the number of the step.
        examples_per_step: how many examples all devices together consume in a step.
        rows: which of them are meant, [B] integers, in [0, examples_per_step).
    """
    epochs, offsets = epoch_and_offset(step, examples_per_step, rows, source.size or _ENDLESS)
    return source.draw(arrays, key, epochs, offsets)


def resident(examples: Dataset | Arrays, *, value_range: tuple[float, float] = (-1.0, 1.0),
             dequantize: bool = False, labels: bool = False, numbers: bool = False,
             weights: np.ndarray | None = None) -> Source:
    """Returns a source whose samples stay on the device, in few bytes, and are gathered by index.

    Args:
        examples: the samples, gone through in a fresh order every epoch.
        value_range: (-1, 1), or of bytes (0, 1): x / 127.5 - 1, or x / 255.
        dequantize: 2 (x / 256 - 1/2) + u instead, u uniform in [0, 1/128) and different at every
            draw; for bytes in the range (-1, 1). Source: the CIFAR-10 ResNet of Gulrajani et al. 2017,
            arXiv 1704.00028, as its public code runs it.
        labels: whether the batch's condition is the labels, int32 [batch], rather than None.
        numbers: whether it is the examples' numbers, float32 [batch, numbers], scaled to [-1, 1].
        weights: None, or how often examples are drawn, [examples], from 0 on; see
            `jaxgan.data.order.weighted_index`. `class_weights` gives those of even classes.

    Raises:
        ValueError: the range is another one, or not (-1, 1) though `dequantize` is on or the samples are
            no bytes; labels and numbers are both asked for; there are no numbers, or other weights.
    """
    size, scaling = len(examples), _scaling_of(examples)
    if isinstance(examples, Arrays):
        check_fits(f"the {size} samples take", jax.ShapeDtypeStruct(
            (size, *examples.sample_shape), scaling.dtype), "their number, or stream them")
    samples, classes = examples[:]
    arrays = {"images": jnp.asarray(_compact(samples, scaling))}
    if labels:
        arrays["labels"] = jnp.asarray(classes)
    if numbers:
        arrays["numbers"] = jnp.asarray(_scaled_numbers(examples)[0])
    if weights is not None:
        arrays["ends"] = jnp.asarray(_shares(weights, size))

    def locate(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Array:
        return _index(stream(key, "order"), epochs, offsets, size, arrays.get("ends"))

    return _images(examples, arrays, locate, value_range, dequantize)


def flipped(source: Source) -> Source:
    """Returns a source of the same images, each seen in a mirror every second time, by chance.

    Whether it is depends on the key and the position of an example, as all that is drawn. A condition
    that is an image of the same size is mirrored with the sample.

    Args:
        source: one of images, [batch, height, width, channels].

    Raises:
        ValueError: its samples are no images, or their condition is none, nor classes or numbers.
    """
    def mirror(keys: Key, images: Array) -> Array:
        return jnp.where((uniform(keys) < 0.5)[:, None, None, None], images[:, :, ::-1], images)

    return _moved(source, "flip", "flipped", mirror)


def jittered(source: Source, size: Size) -> Source:
    """Returns a source of the same images, each enlarged and cut back to its size at a random place.

    Isola et al. 2017 (arXiv 1611.07004), section 6.2: from 256x256 pixels to 286x286 and back. Where
    depends on the key and the position of an example; a condition that is an image of the same size is
    enlarged and cut with the sample.

    Args:
        source: one of images, [batch, height, width, channels].
        size: the side of squares, or height and width, that images are enlarged to, bilinearly.

    Raises:
        ValueError: its samples are no images, or their condition is none, nor classes or numbers; or
            they are larger than that.
    """
    larger = sides(size)

    def cut(keys: Key, images: Array) -> Array:
        spare = np.subtract(larger, images.shape[1:3]) + 1
        corners = jnp.floor(uniform(keys, (2,)) * spare[None]).astype(jnp.int32)
        enlarged = jax.image.resize(images, (len(images), *larger, images.shape[-1]), "linear")
        return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(
            image, (*corner, 0), images.shape[1:]))(enlarged, corners)

    moved = _moved(source, "jitter", "jittered", cut)
    if any(np.less(larger, source.sample_shape[:2])):
        raise ValueError("images are enlarged to be jittered: give a size from {}x{} on; got {}x{}"
                         .format(*source.sample_shape[:2], *larger))
    return moved


def _moved(source: Source, name: str, done: str, move: Callable[[Key, Array], Array]) -> Source:
    """The source with what `move` makes of its images, by keys of the stream `name`."""
    if len(np.shape(source.sample_shape)) != 1 or len(source.sample_shape) != 3:
        raise ValueError(f"only images, [height, width, channels], can be {done}; got samples of shape "
                         f"{source.sample_shape}")

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        batch = source.draw(arrays, key, epochs, offsets)
        is_image = getattr(batch.condition, "shape", ())[:-1] == batch.samples.shape[:-1]
        if batch.condition is not None and not is_image and getattr(batch.condition, "ndim", 3) > 2:
            raise ValueError("the masks or boxes of a condition would stay where they are if images "
                             f"were {done}: leave that out")
        keys = position_keys(stream(key, name), epochs, offsets)
        condition: Any = batch.condition
        return Batch(move(keys, batch.samples), move(keys, condition) if is_image else condition)

    return source._replace(draw=draw)


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Returns weights, [examples], by which every class is drawn equally often."""
    return 1 / np.bincount(labels)[labels]


def _shares(weights: np.ndarray, size: int) -> np.ndarray:
    if len(weights) != size:
        raise ValueError(f"there must be one weight for each of the {size} examples; got {len(weights)}")
    return shares(weights)


def _index(key: Key, epochs: Array, offsets: Array, size: int, ends: Array | np.ndarray | None) -> Array:
    """Which examples come at these positions; by their shares, if there are such."""
    if ends is None:
        return shuffled_index(key, epochs, offsets, size)
    return weighted_index(key, epochs, offsets, size, ends)


def _scaling_of(examples: Examples) -> Scaling:
    return getattr(examples, "scaling", BYTES)


def _scaled_numbers(examples: Examples) -> tuple[np.ndarray, Scaling]:
    """The examples' numbers in [-1, 1], float32 [examples, numbers], and what these stand for."""
    numbers = getattr(examples, "numbers", None)
    if numbers is None:
        raise ValueError("these examples have no numbers to be a condition: leave numbers=True out, or "
                         "bring some")
    try:
        scaling = getattr(examples, "number_scaling", None) or found(numbers, by_channel=True)
    except ValueError as error:
        raise ValueError(f"the numbers that samples are to be drawn for: {error}") from error
    return scaling.to_float(numbers), scaling


def _compact(samples: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Samples as they are kept on the device: wide numbers scaled already, in float32."""
    if samples.dtype != scaling.dtype:
        raise TypeError(f"examples must be {scaling.dtype}, as their scaling says; got {samples.dtype}")
    return samples if samples.dtype.itemsize <= 2 else scaling.to_float(samples)


def in_memory(data: Batch | PyTree, *, weights: np.ndarray | None = None) -> Source:
    """Returns a source of arrays that stay on the device, gone through in a fresh order every epoch.

    Args:
        data: samples [size, ...], or a pytree of such arrays, or a `Batch` of them and their condition,
            arrays with the same leading axis. Floating-point samples are taken as they are; uint8 ones
            are scaled from all bytes to [-1, 1], other integers from their lowest to their highest
            value.
        weights: as for `resident`.

    Raises:
        ValueError: there are none, or the arrays are of different lengths; or integers that are all the
            same.
        TypeError: samples of another type, or a condition that isn't numbers.
    """
    batch = data if isinstance(data, Batch) else Batch(data)
    arrays = jax.tree.map(np.asarray, batch)
    sizes = {x.shape[:1] for x in jax.tree.leaves(arrays)}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise ValueError("samples and condition must be arrays of one length, at least 1; got the "
                         f"shapes {jax.tree.map(np.shape, arrays)}")
    for leaf in jax.tree.leaves(arrays.samples):
        if leaf.dtype.kind not in "biu" and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"samples must be numbers; got {leaf.dtype}")
    for leaf in jax.tree.leaves(arrays.condition):
        if leaf.dtype.kind in "OSUMm":  # names of classes, say
            raise TypeError(f"a condition must be numbers; got {leaf.dtype}: number the classes from 0, "
                            "numpy.unique(names, return_inverse=True)[1] for example")
    (size,), = sizes
    labels = arrays.condition
    is_labelled = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
    digest = json_digest(leaf_digests(arrays))
    scalings = [found(leaf) if leaf.dtype.kind in "biu" and leaf.dtype != np.uint8 else None
                for leaf in jax.tree.leaves(arrays.samples)]
    samples = jax.tree.unflatten(jax.tree.structure(arrays.samples), [
        leaf if scaling is None else scaling.to_float(leaf)
        for leaf, scaling in zip(jax.tree.leaves(arrays.samples), scalings, strict=True)])
    kept: dict[str, Any] = {"batch": jax.tree.map(jnp.asarray, arrays._replace(samples=samples))}
    if weights is not None:
        kept["ends"] = jnp.asarray(_shares(weights, size))

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        index = _index(stream(key, "order"), epochs, offsets, size, arrays.get("ends"))
        samples, condition = jax.tree.map(lambda x: x[index], arrays["batch"])
        return Batch(jax.tree.map(lambda x: scale(x, (-1, 1)) if x.dtype == jnp.uint8 else x, samples),
                     condition)

    shapes = jax.tree.map(lambda x: x.shape[1:], arrays.samples)
    return Source(kept, draw, size, shapes, _range_of(samples),
                  int(labels.max()) + 1 if is_labelled else 0, digest=digest,
                  scaling=scalings[0] if len(scalings) == 1 else None)


def _range_of(samples: PyTree) -> tuple[float, float]:
    """The lowest and highest value, rounded to (0, 1) or (-1, 1) where these hold all values."""
    leaves = jax.tree.leaves(samples)
    if all(leaf.dtype == np.uint8 for leaf in leaves):
        return -1.0, 1.0
    low, high = min(float(leaf.min()) for leaf in leaves), max(float(leaf.max()) for leaf in leaves)
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        if bounds[0] <= low and high <= bounds[1]:
            return bounds
    return low, high


def streaming(examples: Examples, *, value_range: tuple[float, float] = (-1.0, 1.0),
              dequantize: bool = False, labels: bool = False, numbers: bool = False,
              weights: np.ndarray | None = None) -> Source:
    """Returns a source whose samples stay on the host; those of a few steps at a time are sent.

    It draws the same as `resident`, bit for bit, from arrays that `jaxgan.data.prefetch` gives.

    Args:
        examples: the samples, gone through in a fresh order every epoch.
        value_range: as for `resident`.
        dequantize: as for `resident`.
        labels: as for `resident`.
        numbers: as for `resident`.
        weights: as for `resident`.

    Raises:
        TypeError: the samples are not of the scaling's dtype or the labels not int32.
        ValueError: as for `resident`.
    """
    size, scaling = len(examples), _scaling_of(examples)
    ends = None if weights is None else _shares(weights, size)
    order = jax.jit(lambda key, epochs, offsets: _index(key, epochs, offsets, size, ends))
    given = _scaled_numbers(examples)[0] if numbers else None

    def window(key: Key, epochs: Array | np.ndarray, offsets: Array | np.ndarray,
               part: Part) -> PyTree:
        rows = part.rows(len(epochs))
        index = np.asarray(order(stream(key, "order"), epochs[rows], offsets[rows]))
        images, classes = examples[index]
        if classes.dtype != np.int32:
            raise TypeError(f"examples must have int32 labels; got {classes.dtype}")
        arrays = {"images": _compact(images, scaling), "start": np.array([epochs[0], offsets[0]]),
                  "part": np.array(part, np.uint32)}
        arrays |= {"labels": classes} if labels else {}
        return arrays if given is None else arrays | {"numbers": given[index]}

    def locate(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Array:
        first_epoch, first_offset = arrays["start"]
        row = (epochs - first_epoch) * size + offsets - first_offset  # exact modulo 2**32
        block, first, count = arrays["part"]
        return row // block * count + row % block - first

    zero = np.zeros(1, np.uint32)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
                          window(jax.random.key(0), zero, zero, Part()))
    return _images(examples, shapes, locate, value_range, dequantize)._replace(window=window)


def _images(examples: Examples, arrays: PyTree, locate: Callable[[PyTree, Key, Array, Array], Array],
            value_range: tuple[float, float], dequantize: bool) -> Source:
    """A source of the examples that `locate` finds the rows of in its arrays."""
    low, high = _check_range(value_range)
    scaling = _scaling_of(examples)
    if dequantize and (low, high) != (-1.0, 1.0):
        raise ValueError(f"dequantize needs the value_range (-1, 1); got {value_range}")
    if scaling != BYTES and (dequantize or (low, high) != (-1.0, 1.0)):
        raise ValueError(f"samples of {scaling.dtype} are scaled to (-1, 1) without dequantize; got "
                         f"{value_range} and dequantize {dequantize}")
    if {"labels", "numbers"} <= arrays.keys():
        raise ValueError("a condition is labels or numbers, not both: leave one out")

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        index = locate(arrays, key, epochs, offsets)
        samples = arrays["images"][index]
        if dequantize:
            noise = uniform(position_keys(stream(key, "dequantize"), epochs, offsets),
                            samples.shape[1:])
            samples = 2 * (samples.astype(jnp.float32) / 256 - 0.5) + noise / 128
        elif scaling == BYTES:
            samples = scale(samples, (low, high))
        elif samples.dtype != jnp.float32:  # else they are scaled already
            samples = scaling.to_samples(samples)
        condition = next((arrays[name][index] for name in ("labels", "numbers") if name in arrays), None)
        return Batch(samples, condition)

    return Source(arrays, draw, len(examples), arrays["images"].shape[1:], (low, high),
                  len(examples.class_names), class_names=tuple(examples.class_names),
                  digest=getattr(examples, "digest", ""),
                  scaling=None if scaling == BYTES else scaling,
                  numbers=_scaled_numbers(examples)[1] if "numbers" in arrays else None)


def scale(images: Array, value_range: tuple[float, float]) -> Array:
    """Returns pixels, uint8, as samples, float32 in `value_range`, exact at both ends.

    Raises:
        ValueError: the range is neither (-1, 1) nor (0, 1).
    """
    low, high = _check_range(value_range)
    return (images.astype(jnp.float32) * (high - low) + 255 * low) / 255


def quantize(samples: Array, value_range: tuple[float, float]) -> Array:
    """Returns samples as pixels, uint8: scaled to 0 to 255, rounded and clipped; NaN is 0.

    Args:
        samples: [...], in `value_range`.
        value_range: (-1, 1) or (0, 1).

    Raises:
        ValueError: the range is another one.
    """
    low, high = _check_range(value_range)
    scaled = (samples.astype(jnp.float32) - low) * (255 / (high - low))
    return jnp.nan_to_num(jnp.rint(scaled).clip(0, 255)).astype(jnp.uint8)


def pixels(samples: Array, value_range: tuple[float, float] = (-1.0, 1.0)) -> np.ndarray:
    """Returns samples as pixels on the host; see `quantize`."""
    return np.asarray(quantize(jnp.asarray(samples), value_range))


def _check_range(value_range: tuple[float, float]) -> tuple[float, float]:
    if tuple(value_range) not in ((-1, 1), (0, 1)):
        raise ValueError(f"value_range must be (-1, 1) or (0, 1); got {value_range}")
    low, high = value_range
    return float(low), float(high)
