"""Sliced Wasserstein distances against SciPy's in one dimension, its filters, and closed forms."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from jaxgan.metrics import sliced, sliced_wasserstein, sliced_wasserstein_images


def normal(count, dimensions=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimensions))


def images(count, *shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize(("first", "second"), [(50, 50), (50, 37), (12, 48), (1, 9)])
def test_one_dimension_is_scipys(first, second):
    x, y = normal(first, 1), 2 * normal(second, 1, seed=1) + 0.3
    expected = scipy.stats.wasserstein_distance(x[:, 0], y[:, 0])
    assert sliced_wasserstein(x, y, projections=3) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(y + 1e6, x + 1e6, projections=3) == pytest.approx(expected, rel=1e-8)


def test_a_shift():
    # The mean of |w . c| over the sphere is |c| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)).
    x, shift = normal(20), np.array([3.0, 0, 0, 4, 0])
    expected = 5 * math.gamma(2.5) / (math.sqrt(math.pi) * math.gamma(3))
    assert sliced_wasserstein(x, x[::-1] + shift, projections=5000) == pytest.approx(expected, rel=0.03)


def test_order_symmetry_and_blocks(monkeypatch):
    x, y = normal(60), normal(40, seed=1)
    found = sliced_wasserstein(x, y)
    assert found > 0
    assert sliced_wasserstein(x[::-1], y) == pytest.approx(found, rel=1e-12)
    assert sliced_wasserstein(y, x) == pytest.approx(found, rel=1e-12)
    assert sliced_wasserstein(x, x[::-1]) == 0.0
    assert sliced_wasserstein(x, y, seed=1) != found
    monkeypatch.setattr(sliced, "_ELEMENTS", 1000)
    assert sliced_wasserstein(x, y) == pytest.approx(found, rel=1e-12)


def pyramid(image):
    """The levels of one image, [height, width], by SciPy's filter and explicit loops."""
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    levels = []
    while min(image.shape) >= 32:
        smaller = scipy.ndimage.convolve(image, kernel, mode="mirror")[::2, ::2]
        spread = np.zeros_like(image)
        for row, column in np.ndindex(smaller.shape):
            spread[2 * row, 2 * column] = smaller[row, column]
        levels.append(image - scipy.ndimage.convolve(spread, 4 * kernel, mode="mirror"))
        image = smaller
    return [*levels, image]


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (31, 80), (7, 7)])
def test_pyramid_is_scipys(size):
    batch = images(2, *size, 2)
    found = list(sliced._pyramid(batch))
    for image in range(2):
        for channel in range(2):
            levels = pyramid(batch[image, ..., channel].astype(float))
            for level, expected in zip(found, levels, strict=True):
                np.testing.assert_allclose(level[image, ..., channel], expected, atol=2e-4)


@pytest.mark.parametrize(("size", "levels"), [
    ((28, 28), ["28"]), ((31, 31), ["31"]), ((64, 64), ["64", "32", "16"]), ((33, 33), ["33", "17"]),
    ((70, 40), ["40", "20"]), ((7, 9), ["7"]),
])
def test_levels(size, levels):
    found = sliced_wasserstein_images(images(4, *size, 1), images(3, *size, 1, seed=1), projections=8)
    assert list(found) == [*levels, "mean"]
    assert min(found.values()) > 0
    assert found["mean"] == pytest.approx(np.mean([found[level] for level in levels]))


def test_images_of_one_patch():
    # The only patch is the image: normalise by hand and compare.
    real, fake = images(40, 7, 7, 3), images(30, 7, 7, 3, seed=1, high=100)

    def normalised(batch):
        batch = batch.astype(np.float64)
        batch = (batch - batch.mean((0, 1, 2))) / batch.std((0, 1, 2))
        return batch.transpose(0, 3, 1, 2).reshape(len(batch), -1)

    found = sliced_wasserstein_images(real, fake, patches_per_image=2, projections=64)
    expected = 1000 * sliced_wasserstein(normalised(real), normalised(fake), projections=64)
    assert found["7"] == pytest.approx(expected, rel=1e-5)


def test_patches_come_from_everywhere():
    ramp = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 12, 1))
    patches = sliced._patches(np.stack([ramp] * 30).astype(np.float32), 100, seed=0)
    corners, counts = np.unique(patches[:, 0], return_counts=True)  # of one row a patch
    np.testing.assert_allclose(np.diff(corners), np.diff(corners)[0], rtol=1e-4)
    assert len(corners) == 4  # 10 - 7 + 1
    assert abs(counts - 750).max() < 5 * math.sqrt(750)
    assert patches.mean() == pytest.approx(0, abs=1e-5)
    assert patches.std() == pytest.approx(1, rel=1e-5)


def test_equal_and_constant_images():
    batch = images(5, 32, 32, 3)
    assert set(sliced_wasserstein_images(batch, batch, projections=8).values()) == {0.0}
    grey, black = np.full((5, 32, 32, 1), 77, np.uint8), np.zeros((5, 32, 32, 1), np.uint8)
    assert sliced_wasserstein_images(grey, black, projections=8)["16"] == pytest.approx(0, abs=1e-3)


def test_fine_structure_shows_at_the_fine_level():
    smooth = scipy.ndimage.gaussian_filter(images(40, 32, 32, 1).astype(float), (0, 3, 3, 0))
    real, fake = (128 + 4 * (part - smooth.mean()) for part in (smooth[:20], smooth[20:]))
    noisy = fake + 8 * (np.indices((32, 32)).sum(0) % 2)[..., None]  # a chequerboard
    real, fake, noisy = (part.astype(np.uint8) for part in (real, fake, noisy))
    clean, noisy = (sliced_wasserstein_images(real, part, projections=64) for part in (fake, noisy))
    assert noisy["32"] > 3 * clean["32"]
    assert noisy["16"] < 1.5 * clean["16"]


@pytest.mark.parametrize(("real", "fake", "error", "message"), [
    (np.zeros((2, 8, 8, 1), np.float32), images(2, 8, 8, 1), TypeError, "real must be uint8 .* float32"),
    (images(2, 8, 8, 1), images(2, 8, 8, 3), ValueError, r"same size; got \(8, 8, 1\) and \(8, 8, 3\)"),
    (images(2, 8, 8, 1), images(2, 8, 6, 1), ValueError, r"fake .* at least 7x7 .* \(2, 8, 6, 1\)"),
    (images(2, 8, 8), images(2, 8, 8, 1), ValueError, r"\[count, height, width, channels\]"),
    (images(0, 8, 8, 1), images(2, 8, 8, 1), ValueError, r"got \(0, 8, 8, 1\)"),
])
def test_image_errors(real, fake, error, message):
    with pytest.raises(error, match=message):
        sliced_wasserstein_images(real, fake)


def test_counts_must_be_positive():
    with pytest.raises(ValueError, match="projections must be at least 1; got 0"):
        sliced_wasserstein(normal(3), normal(3), projections=0)
    with pytest.raises(ValueError, match="patches_per_image must be at least 1; got 0"):
        sliced_wasserstein_images(images(2, 8, 8, 1), images(2, 8, 8, 1), patches_per_image=0)
