"""What the models share at their ends: the range of samples, the score, and what they refuse."""

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.nn import Dense
from jaxgan.nn.initializers import dense_init
from jaxgan.nn.norms import weight_layer
from jaxgan.types import Array

OUTPUTS = {"tanh": jnp.tanh, "sigmoid": nn.sigmoid, "none": lambda x: x}


def squash(output: str, x: Array) -> Array:
    """Maps a generator's last activations to the range of its samples, in float32 at least.

    Args:
        output: "tanh" for samples in [-1, 1], "sigmoid" for [0, 1], "none" for unbounded ones.
        x: activations, of any shape.

    Raises:
        ValueError: an unknown output.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(map(repr, OUTPUTS))}; got {output!r}")
    return OUTPUTS[output](_widened(x))


def score(norm: str, x: Array, *, train: bool) -> Array:
    """Maps a critic's last activations, [batch, ...], to scores, [batch], in float32 at least.

    A dense layer, for use inside `@nn.compact`. A score is a small difference of large sums: half
    precision would round it, and the gradient penalty with it.

    Args:
        norm: the critic's norm, see `jaxgan.nn.norms`.
        x: activations; all axes but the first are taken together.
        train: whether the estimate of spectral normalisation is kept.
    """
    x = _widened(x.reshape(x.shape[0], -1))
    return weight_layer(norm, Dense(1, kernel_init=dense_init()), x, train=train).squeeze(-1)


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_latents(model: str, latents: Array) -> None:
    """Raises ValueError unless `latents` is [batch, latent_size]."""
    if latents.ndim != 2:
        raise ValueError(f"{model} takes latents of shape [batch, latent_size]; got {latents.shape}")


def check_image_shape(model: str, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `image_shape` is three positive numbers."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"{model}: image_shape must be (height, width, channels); got "
                         f"{tuple(image_shape)}")


def check_images(model: str, samples: Array) -> None:
    """Raises ValueError unless `samples` is [batch, height, width, channels]."""
    if samples.ndim != 4:
        raise ValueError(f"{model} takes images of shape [batch, height, width, channels]; got "
                         f"{samples.shape}: give grey images a channel axis of size 1")
