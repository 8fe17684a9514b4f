"""Affine maps of images, resampled with a wavelet's filter so that nothing is blurred or aliased.

Karras et al. 2020 (arXiv 2006.06676), appendix B.2: images are made twice as large with the filter sym6,
looked up by bilinear interpolation at twice the density, and made smaller with the same filter. As that
is orthonormal, a map that moves nothing gives the images back. Images go on by reflection beyond their
edges, as far as they are looked up: it is the looked-up positions that are reflected.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgan.types import Array

# The low-pass filter of the wavelet sym6 (Daubechies 1992, table 6.3), with the sum 1.
SYM6 = np.array([0.015404109327027373, 0.0034907120842174702, -0.11799011114819057,
                 -0.048311742585633, 0.4910559419267466, 0.787641141030194, 0.3379294217276218,
                 -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
                 0.0017677118642428036, -0.007800708325034148])
SYM6 = SYM6 / SYM6.sum()
_CENTRE = len(SYM6) // 2 - 1  # the tap where a pixel stays, but for
_DELAY = float(np.arange(len(SYM6)) @ SYM6 - _CENTRE) / 2  # so many pixels
_REACH = len(SYM6) // 4  # pixels beyond the edges that the filter needs


def warp(images: Array, inverse: Array) -> Array:
    """Returns images whose pixels are looked up where an affine map says.

    Args:
        images: [batch, height, width, channels].
        inverse: [batch, 2, 3]: maps a pixel of the result, (x, y, 1) counted from the image's centre to
            the right and down, to where it comes from, (x, y), in pixels.
    """
    height, width = images.shape[1:3]
    # Of twice the density, pixel m is at m / 2 - delay.
    rows, columns = (jnp.arange(-_CENTRE, 2 * side + _CENTRE) / 2 - _DELAY - (side - 1) / 2
                     for side in (height, width))
    x, y = jnp.meshgrid(columns, rows)  # [rows, columns]
    places = jnp.einsum("bik,kyx->biyx", inverse, jnp.stack([x, y, jnp.ones_like(x)]))
    x, y = (2 * (_inside(places[:, axis] + (side - 1) / 2, side) + _REACH + _DELAY)
            for axis, side in enumerate((width, height)))
    found = _bilinear(along_both(images, _doubling(height), _doubling(width)), x, y)
    return along_both(found, _halving(height), _halving(width))


def along_both(images: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Multiplies the columns and the rows of images, [batch, height, width, channels], by matrices."""
    matrices = (jnp.asarray(matrix, images.dtype) for matrix in (rows, columns))
    return jnp.einsum("Hh,Ww,bhwc->bHWc", *matrices, images)


def reflecting(taps: np.ndarray, side: int, before: int = 0, after: int = 0) -> np.ndarray:
    """The matrix of a filter, [before + side + after, side], for what goes on by reflection.

    Args:
        taps: an odd number, the middle one for the place itself.
        side: pixels of what is filtered.
        before: further places of the result, before the first pixel.
        after: the same after the last one.
    """
    reach, places = len(taps) // 2, np.arange(-before, side + after)
    matrix = np.zeros((len(places), side))
    for offset, tap in enumerate(taps[::-1], -reach):
        np.add.at(matrix, (np.arange(len(places)), _reflected(places + offset, side)), tap)
    return matrix


def _inside(position: Array, side: int) -> Array:
    """A position that the enlarged image has: one far beyond an edge is reflected there."""
    is_far = (position < -_REACH) | (position > side - 1 + _REACH)
    return jnp.where(is_far, _reflected(position, side), position)


def _reflected(position: Any, side: int) -> Any:
    """A position in [0, side - 1], reflected at both ends as often as it takes."""
    last = max(side - 1, 1)
    return (last - abs(position % (2 * last) - last)).clip(0, side - 1)


def _doubling(side: int) -> np.ndarray:
    """What makes pixels, and what is a little beyond their edges, twice as dense."""
    # Pixel 2 i + phase is twice the sum over n of SYM6[2 (i - n) + phase + _CENTRE] x[n].
    phases = []
    for phase in (0, 1):
        taps = np.zeros(2 * len(SYM6) + 1)
        for tap in range(1 - phase, len(SYM6), 2):
            taps[len(SYM6) + (tap - phase - _CENTRE) // 2] = 2 * SYM6[tap]
        phases.append(reflecting(taps, side, _REACH, _REACH))
    return np.stack(phases, 1).reshape(-1, side)


def _halving(side: int) -> np.ndarray:
    """The adjoint, up to its gain: every second one of filtered pixels."""
    matrix = np.zeros((side, 2 * side + len(SYM6) - 2))
    for pixel in range(side):
        matrix[pixel, 2 * pixel:2 * pixel + len(SYM6)] = SYM6
    return matrix


def _bilinear(images: Array, x: Array, y: Array) -> Array:
    """Looks images up at [batch, rows, columns] places, all of them inside."""
    height, width, channels = images.shape[1:]
    left, top = (jnp.clip(jnp.floor(at), 0, side - 2) for at, side in ((x, width), (y, height)))
    right, down = (x - left)[..., None], (y - top)[..., None]
    rows = jnp.arange(len(images))[:, None, None] * height + top.astype(jnp.int32)
    first, pixels = rows * width + left.astype(jnp.int32), images.reshape(-1, channels)

    def corner(after: int) -> Array:
        return pixels.at[first + after].get(mode="promise_in_bounds")

    upper, lower = (corner(row) * (1 - right) + corner(row + 1) * right for row in (0, width))
    return upper * (1 - down) + lower * down
