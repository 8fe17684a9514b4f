"""The feature networks that need no training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.features import random_projection, raw

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2), np.uint8)


def test_raw_is_the_samples():
    network = raw()
    found = jax.jit(network.apply)(network.variables, IMAGES)
    np.testing.assert_allclose(found.pooled, IMAGES.reshape(5, 24) / 255, rtol=1e-6)
    assert found.logits is None
    points = np.array([[0.5, -300.0]], np.float32)
    np.testing.assert_array_equal(network.apply({}, points).pooled, points)


def test_projection_is_linear_and_keeps_lengths():
    """E |xA|^2 = |x|^2 dimensions / inputs: nearly so at 20000 dimensions."""
    network = random_projection((4, 3, 2), 20_000)
    zero = network.apply(network.variables, np.zeros((1, 4, 3, 2), np.uint8)).pooled
    np.testing.assert_array_equal(zero, np.zeros((1, 20_000)))
    found = jax.jit(network.apply)(network.variables, IMAGES).pooled
    assert found.dtype == jnp.float32
    expected = np.square(IMAGES.reshape(5, 24) / 255).sum(axis=1) * 20_000 / 24
    np.testing.assert_allclose(np.square(found).sum(axis=1), expected, rtol=0.05)
    values = IMAGES.astype(np.float32) / 255
    np.testing.assert_allclose(network.apply(network.variables, values / 2).pooled, found / 2, atol=1e-5)


def test_a_projection_is_told_by_its_settings():
    first, again = random_projection((4, 3, 2)), random_projection([4, 3, 2])
    assert first.digest == again.digest
    np.testing.assert_array_equal(first.variables["matrix"], again.variables["matrix"])
    others = [random_projection((4, 3, 2), seed=1), random_projection((4, 3, 2), 255),
              random_projection((3, 4, 2)), raw()]
    assert len({network.digest for network in (first, *others)}) == 5


def test_errors():
    with pytest.raises(ValueError, match=r"must be positive; got \(4, 0\) and 256"):
        random_projection((4, 0))
    with pytest.raises(ValueError, match=r"must be positive; got \(4,\) and 0"):
        random_projection((4,), 0)
    network = random_projection((4, 3, 1))
    with pytest.raises(ValueError, match=r"samples must be \[batch, 4, 3, 1\]; got \(5, 4, 3, 2\)"):
        network.apply(network.variables, IMAGES)
