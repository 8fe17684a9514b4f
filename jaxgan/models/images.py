"""What the models of images share: how they end, and what they refuse."""

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.types import Array

OUTPUTS = {"tanh": jnp.tanh, "sigmoid": nn.sigmoid, "none": lambda x: x}


def squash(output: str, x: Array) -> Array:
    """Maps a generator's last activations to the range of its samples.

    Args:
        output: "tanh" for samples in [-1, 1], "sigmoid" for [0, 1], "none" for unbounded ones.
        x: activations, of any shape.

    Raises:
        ValueError: an unknown output.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(map(repr, OUTPUTS))}; got {output!r}")
    return OUTPUTS[output](x)


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
