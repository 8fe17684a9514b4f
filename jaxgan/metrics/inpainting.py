"""How far images are from the originals: all of them, or in what had to be completed."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks

_LEAST = 1e-10  # mean squared error: a PSNR is 100 dB at most
_BLOCK = 256  # images that are in memory in float64


class HoleErrors(NamedTuple):
    """Means over the images, in the hole; see `hole_errors`."""

    l1: float
    psnr: float
    ssim: float


def hole_errors(real: ArrayLike, fake: ArrayLike, mask: ArrayLike) -> HoleErrors:
    """Returns L1, PSNR and SSIM in the hole, each computed image by image and then averaged.

    Pixels are taken as in [0, 1]. L1 is the mean of |real - fake| over the pixels and channels of the
    hole, PSNR = 10 log10(1 / MSE) of the mean squared error there, at most 100 dB, which equal images
    have. SSIM's map is that of the whole images, of which the mean over the hole is taken:

        (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))

    with C1 = 0.01^2 and C2 = 0.03^2, and local means, variances and the covariance in a Gaussian window
    of standard deviation 1.5: 11x11, or 7x7 where height or width is below 16. Wang et al. 2004, "Image
    quality assessment: from error visibility to structural similarity", equation 13. There windows lie
    wholly inside the image; here images are mirrored at their borders, which holes may touch, and the
    map is computed for each channel.

    Args:
        real: images, uint8 [count, height, width, channels], at least 7x7.
        fake: the completed ones, of the same shape.
        mask: [count, height, width, 1], 1 in the hole and 0 elsewhere.

    Raises:
        TypeError: the images aren't uint8.
        ValueError: they are too small, the shapes differ, or a mask holds other values or no hole.
    """
    real, fake = checks.images("real", real, 7), checks.images("fake", fake, 7)
    if real.shape != fake.shape:
        raise ValueError(f"real and fake must be as many images of the same size; got {real.shape} and "
                         f"{fake.shape}")
    mask = np.asarray(mask)
    if mask.shape != (*real.shape[:3], 1):
        raise ValueError(f"mask must have shape {(*real.shape[:3], 1)}, as the images; got {mask.shape}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must be 1 in the hole and 0 elsewhere; got values from "
                         f"{mask.min():.4g} to {mask.max():.4g}")
    if not (filled := mask.any(axis=(1, 2, 3))).all():
        raise ValueError(f"each mask must have a hole; that of image {filled.argmin()} has none")
    errors = np.concatenate([_errors(*(part[first:first + _BLOCK] for part in (real, fake, mask)))
                             for first in range(0, len(real), _BLOCK)], axis=1)
    return HoleErrors(*map(float, errors.mean(axis=1)))


def image_errors(real: ArrayLike, fake: ArrayLike) -> HoleErrors:
    """Returns L1, PSNR and SSIM of whole images; arguments and errors as for `hole_errors`."""
    return hole_errors(real, fake, np.ones((*np.shape(real)[:3], 1)))


def _errors(real: np.ndarray, fake: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the three errors of each image, [3, count]."""
    real, fake, mask = real / 255, fake / 255, mask.astype(np.float64)
    weights = np.broadcast_to(mask / mask.sum(axis=(1, 2, 3), keepdims=True) / real.shape[3], real.shape)
    l1, mse, ssim = (np.einsum("bhwc,bhwc->b", weights, of)
                     for of in (np.abs(real - fake), (real - fake) ** 2, _similarity(real, fake)))
    return np.stack([l1, -10 * np.log10(np.maximum(mse, _LEAST)), ssim])


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the SSIM of each pixel and channel."""
    from scipy.ndimage import gaussian_filter1d

    def local(values: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            values = gaussian_filter1d(values, 1.5, axis, mode="reflect", radius=radius)
        return values

    radius = 5 if min(x.shape[1:3]) >= 16 else 3
    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
            / ((mean_x**2 + mean_y**2 + c1) * (variances + c2)))
