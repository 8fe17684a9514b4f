"""The sliced Wasserstein distance, of features and of the patches of images at several scales."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks

_PATCH = 7
_SMALLEST = 16  # the pyramid's last level is at least as large as this
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
_ELEMENTS = 2**21  # of a set's projections that a thread has in memory


def sliced_wasserstein(x: ArrayLike, y: ArrayLike, *, projections: int = 512, seed: int = 0) -> float:
    """Returns the mean over random directions w of the distance W1 between w . x and w . y.

    W1 is the integral of the difference of the quantile functions; for equally many samples the
    mean difference of the sorted ones. Rabin et al. 2011, "Wasserstein Barycenter and its
    Application to Texture Mixing", there with squared differences.

    Args:
        x: [samples, dimensions].
        y: likewise; the numbers of samples may differ.
        projections: how many directions, uniform on the sphere.
        seed: of the directions.

    Raises:
        TypeError, ValueError: the features aren't finite numbers of that shape.
    """
    x, y = checks.features("x", x), checks.features("y", y)
    checks.same_dimensions(x=x, y=y)
    checks.positive(projections=projections)
    return _mean_distance(x.astype(np.float64), y.astype(np.float64), projections, seed)


def sliced_wasserstein_images(real: ArrayLike, fake: ArrayLike, *, patches_per_image: int = 128,
                              projections: int = 512, seed: int = 0) -> dict[str, float]:
    """Returns the sliced Wasserstein distances of 7x7 patches, times 1000, level by level.

    The levels are a Laplacian pyramid's, each half as large, while that leaves 16 pixels or more;
    the last is the low-pass image. Patches are normalised channel by channel with the mean and the
    standard deviation of their own set. Karras et al. 2018 (arXiv 1710.10196), section 5.

    The patches of the n-th real and the n-th fake are cut at the same random places, so that equal
    sets have distance 0; in the paper each set has places of its own.

    Args:
        real: images, uint8 [count, height, width, channels], at least 7x7.
        fake: images of the same size; their number may differ.
        patches_per_image: at every level.
        projections: how many directions.
        seed: of places and directions.

    Returns:
        The distance of every level, named after its shorter side ("32", "16"), and their "mean".

    Raises:
        TypeError: the images aren't uint8.
        ValueError: they are too small, or of different sizes.
    """
    real, fake = checks.images("real", real, _PATCH), checks.images("fake", fake, _PATCH)
    checks.positive(patches_per_image=patches_per_image, projections=projections)
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError("real and fake must be images of the same size; got "
                         f"{real.shape[1:]} and {fake.shape[1:]}")
    distances = {}
    for levels in zip(_pyramid(real), _pyramid(fake), strict=True):
        reals, fakes = (_patches(level, patches_per_image, seed) for level in levels)
        distances[str(min(levels[0].shape[1:3]))] = 1000 * _mean_distance(reals, fakes, projections,
                                                                          seed)
    return distances | {"mean": float(np.mean(list(distances.values())))}


def _mean_distance(x: np.ndarray, y: np.ndarray, projections: int, seed: int) -> float:
    """Returns the mean distance W1 of projections, which are of the type of x and y."""
    directions = np.random.default_rng(seed).normal(size=(projections, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # In units of 1 / (len(x) len(y)), the quantile functions are constant between these.
    steps = np.union1d(np.arange(1, len(x) + 1) * len(y), np.arange(1, len(y) + 1) * len(x))
    widths = np.diff(steps, prepend=0) / (len(x) * len(y))
    of_x, of_y = (steps - 1) // len(y), (steps - 1) // len(x)

    def distances(directions: np.ndarray) -> np.ndarray:
        quantiles = [np.sort(directions.astype(of.dtype) @ of.T, axis=1) for of in (x, y)]
        return np.abs(quantiles[0][:, of_x] - quantiles[1][:, of_y]) @ widths

    size = max(1, _ELEMENTS // len(steps))
    with ThreadPoolExecutor(4) as pool:  # NumPy sorts in parallel
        parts = pool.map(distances, np.split(directions, range(size, projections, size)))
        return float(np.concatenate(list(parts)).mean())


def _pyramid(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the levels of the Laplacian pyramid, the largest first."""
    images = images.astype(np.float32)
    while min(images.shape[1:3]) >= 2 * _SMALLEST:
        smaller = _blur(images)[:, ::2, ::2]
        spread = np.zeros_like(images)
        spread[:, ::2, ::2] = smaller
        yield images - 4 * _blur(spread)
        images = smaller
    yield images


def _blur(images: np.ndarray) -> np.ndarray:
    """Filters heights and widths by 1 4 6 4 1, mirrored at the borders."""
    for axis in (1, 2):
        size = images.shape[axis]
        padded = np.pad(images, [(2, 2) if i == axis else (0, 0) for i in range(4)], mode="reflect")
        images = sum((weight * padded[(slice(None),) * axis + (slice(i, i + size),)]
                      for i, weight in enumerate(_BINOMIAL)), start=np.zeros((), images.dtype))
    return images


def _patches(images: np.ndarray, per_image: int, seed: int) -> np.ndarray:
    """Returns normalised patches at random places, [count * per_image, channels * 7 * 7]."""
    count, height, width, channels = images.shape
    places = np.random.default_rng(seed).random((count, per_image, 2))
    rows, columns = ((places[..., i] * (size - _PATCH + 1)).astype(int)
                     for i, size in enumerate((height, width)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (_PATCH, _PATCH), axis=(1, 2))
    patches = windows[np.arange(count)[:, None], rows, columns].reshape(-1, channels, _PATCH**2)
    mean = patches.mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    std = patches.std(axis=(0, 2), keepdims=True, dtype=np.float64)
    patches -= mean.astype(np.float32)
    patches /= np.where(std > 0, std, 1).astype(np.float32)
    return patches.reshape(len(patches), -1)
