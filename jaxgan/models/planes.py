"""Conditions as planes, [batch, height, width, planes], that a network sees beside an image.

Mirza and Osindero 2014 (arXiv 1411.1784) and Isola et al. 2017 (arXiv 1611.07004) condition both
networks so. What is the same everywhere may have height and width 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgan.labels import one_hot
from jaxgan.models.ends import check_labels
from jaxgan.types import Array, PyTree

Planes = Callable[[PyTree], Array]  # condition -> [batch, height or 1, width or 1, planes]


def class_planes(labels: Array, num_classes: int) -> Array:
    """Returns a plane for each class, 1 for the label's and 0 for the others, [batch, 1, 1, classes]."""
    check_labels("class_planes", labels, labels, num_classes)
    return one_hot(labels, num_classes)[:, None, None]


def box_planes(boxes: Array, size: tuple[int, int]) -> Array:
    """Returns how much of each pixel is inside a box, [batch, height, width, 1], in [0, 1].

    Args:
        boxes: corners (top, left, bottom, right), [batch, 4], as fractions of height and width.
        size: height and width in pixels.

    Raises:
        ValueError: another shape, or boxes that reach beyond the image or are turned over, where their
            values are known.
    """
    check_boxes("box_planes", boxes)

    def covered(first: Array, last: Array, count: int) -> Array:
        start = jnp.arange(count)[None]
        return jnp.clip(jnp.minimum(count * last[:, None], start + 1)
                        - jnp.maximum(count * first[:, None], start), 0.0, 1.0)

    top, left, bottom, right = boxes.T
    height, width = size
    return (covered(top, bottom, height)[:, :, None] * covered(left, right, width)[:, None])[..., None]


def masked_planes(condition: dict[str, Array]) -> Array:
    """Returns what is known of images, and the mask, [batch, height, width, channels + 1].

    Args:
        condition: "image", [batch, height, width, channels], 0 where it isn't known, and "mask",
            [batch, height, width, 1], 1 there.

    Raises:
        ValueError: the mask has another shape.
    """
    _check_mask("masked_planes", condition["image"], condition["mask"])
    return jnp.concatenate([condition["image"], condition["mask"]], axis=-1)


def paste(condition: dict[str, Array], samples: Array) -> Array:
    """Returns samples inside the mask, and the known image outside.

    Args:
        condition: as for `masked_planes`.
        samples: [batch, height, width, channels].

    Raises:
        ValueError: the image or the mask has another shape.
    """
    image, mask = condition["image"], condition["mask"]
    if image.shape != samples.shape:
        raise ValueError(f"paste: the known image must have the samples' shape, {samples.shape}; got "
                         f"{image.shape}")
    _check_mask("paste", image, mask)
    return image * (1 - mask) + samples * mask


def beside(model: str, planes: Planes, condition: PyTree, images: Array | tuple[int, int]) -> Array:
    """Returns the planes of a condition at the size of images.

    Args:
        model: whose they are, for messages.
        planes: condition -> planes.
        condition: the batch's.
        images: [batch, height, width, channels], or (height, width).

    Raises:
        ValueError: the condition lacks what the planes are made of, or has another size.
    """
    height, width = images if isinstance(images, tuple) else images.shape[1:3]
    try:
        found = planes(condition)
    except (KeyError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(f"{model} can't make planes of the condition "
                         f"{jax.tree.map(jnp.shape, condition)}: {type(error).__name__}: {error}"
                         ) from error
    if found.ndim != 4 or found.shape[1] not in (1, height) or found.shape[2] not in (1, width):
        raise ValueError(f"{model}: planes must have shape [batch, {height}, {width}, planes], as the "
                         f"images; got {found.shape}")
    return jnp.broadcast_to(found, (found.shape[0], height, width, found.shape[3]))


def _check_mask(model: str, image: Array, mask: Array) -> None:
    if mask.shape != (*image.shape[:-1], 1):
        raise ValueError(f"{model}: the mask must have shape {(*image.shape[:-1], 1)}, as the image; "
                         f"got {mask.shape}")


def check_boxes(model: str, boxes: Array) -> None:
    """Raises ValueError unless boxes are [batch, 4] and, where they are known, inside the image."""
    if getattr(boxes, "ndim", None) != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{model}: boxes must be (top, left, bottom, right), shape [batch, 4]; got "
                         f"{jnp.shape(boxes)}")
    if isinstance(boxes, Tracer):
        return
    known = np.asarray(boxes)  # what jax computes here may be traced all the same
    inside = ((known >= 0) & (known <= 1)).all(axis=1) & (known[:, :2] <= known[:, 2:]).all(axis=1)
    if not inside.all():
        first = inside.argmin()
        raise ValueError(f"{model}: boxes must be (top, left, bottom, right) with 0 <= top <= bottom <= "
                         "1 and 0 <= left <= right <= 1, as fractions of height and width; got "
                         f"{[round(float(x), 4) for x in known[first]]}")
