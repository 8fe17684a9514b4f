"""Images with a hole, for inpainting: what is known of them, and a mask, as the condition."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxgan.data.sources import Source, position_keys
from jaxgan.keys import stream
from jaxgan.types import Array, Batch, Key, PyTree

Mask = Callable[[Key, int, int], Array]  # (key, height, width) -> [height, width], 1 in the hole

_SMALLEST = 4


def masked(source: Source, kind: str | Mask) -> Source:
    """Returns a source of the same images, with the condition {"image", "mask"}, float32.

    "mask", [batch, height, width, 1], is 1 in the hole and 0 elsewhere; "image" is the sample times
    1 - mask. So what isn't known is 0 in any range: black in (0, 1), the middle grey in (-1, 1). A hole
    is decided by the key and the example's position, as the image is: it is another one every epoch.

    - "centre": a block of half the height and half the width. Pathak et al. 2016 (arXiv 1604.07379).
    - "boxes": one to three boxes, which may overlap: one over 1/4 to 3/8 of the image, the others over
      1/16 at most, so that they cover a quarter to a half in all.
    - "half": the upper, lower, left or right half, each as likely.

    Args:
        source: of images; a condition that is a dict keeps its entries, another one is left out.
        kind: "centre", "boxes" or "half", or a function that makes the mask of one image from a key.

    Raises:
        ValueError: another kind, samples that are no images or smaller than 4x4, or a function that
            makes masks of another shape.
    """
    if len(source.sample_shape) != 3 or min(source.sample_shape[:2]) < _SMALLEST:
        raise ValueError(f"only images of at least {_SMALLEST}x{_SMALLEST} can be masked; got samples "
                         f"of shape {source.sample_shape}")
    if not callable(kind) and kind not in MASKS:
        raise ValueError(f"the kind of mask must be one of {', '.join(MASKS)}, or a function; "
                         f"got {kind!r}")
    height, width, _ = source.sample_shape

    def make(key: Key) -> Array:
        return (kind if callable(kind) else MASKS[kind])(key, height, width)

    shape = jax.eval_shape(make, jax.random.key(0)).shape
    if shape != (height, width):
        raise ValueError(f"a mask must have the images' height and width, shape {(height, width)}; got "
                         f"{shape}")

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        samples, condition = source.draw(arrays, key, epochs, offsets)
        mask = jax.vmap(make)(position_keys(stream(key, "mask"), epochs, offsets))
        mask = mask.astype(jnp.float32)[..., None]
        others = condition if isinstance(condition, dict) else {}
        return Batch(samples, others | {"image": samples * (1 - mask), "mask": mask})

    return source._replace(draw=draw)


def _centre(key: Key, height: int, width: int) -> Array:
    return _box(height // 4, width // 4, height // 2, width // 2, height, width)


def _boxes(key: Key, height: int, width: int) -> Array:
    """Three boxes, of which the first one to three count."""
    area, chances = height * width, jax.random.uniform(key, (5, 3))  # one draw compiles quickly
    tall = _between(chances[0], jnp.array([-(-height // 2), 1, 1]),
                    jnp.array([3 * height // 4, height // 4, height // 4]))
    wide = _between(chances[1], jnp.array([-(-area // (4 * tall[0])), 1, 1]),
                    jnp.array([3 * area // (8 * tall[0]), width // 4, width // 4]))
    top, left = _between(chances[2], 0, height - tall), _between(chances[3], 0, width - wide)
    boxes = jax.vmap(partial(_box, height=height, width=width))(top, left, tall, wide)
    counts = jnp.arange(3) < _between(chances[4, 0], 1, 3)
    return (boxes & counts[:, None, None]).any(axis=0)


def _half(key: Key, height: int, width: int) -> Array:
    tall, wide = height // 2, width // 2
    halves = jnp.array([(0, 0, tall, width), (height - tall, 0, tall, width),
                        (0, 0, height, wide), (0, width - wide, height, wide)])
    top, left, tall, wide = halves[_between(jax.random.uniform(key), 0, 3)]
    return _box(top, left, tall, wide, height, width)


MASKS: dict[str, Mask] = {"centre": _centre, "boxes": _boxes, "half": _half}


def _between(chance: Array, low: int | Array, high: int | Array) -> Array:
    """Turns numbers uniform in [0, 1) into integers uniform from `low` to `high`."""
    return low + (chance * (high - low + 1)).astype(jnp.int32)


def _box(top: int | Array, left: int | Array, tall: int | Array, wide: int | Array, height: int,
         width: int) -> Array:
    """A mask that is True in a box, [height, width]."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    return ((rows >= top) & (rows < top + tall)) & ((columns >= left) & (columns < left + wide))
