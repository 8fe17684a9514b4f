"""What the models share at their ends: the range of samples, the score, and what they refuse."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.labels import check_range, one_hot
from jaxgan.nn import Dense
from jaxgan.nn.initializers import dense_init
from jaxgan.nn.norms import weight_layer
from jaxgan.types import Array, PyTree

CONDITIONINGS = ("none", "projection", "classes")
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


def check_labels(model: str, condition: PyTree, inputs: Array, num_classes: int) -> Array:
    """Returns a condition that is labels, int [batch], in range where they are known; else an error."""
    if condition is None or not hasattr(condition, "dtype"):
        raise ValueError(f"{model} of {num_classes} classes takes labels, int [batch], as condition; "
                         f"got {type(condition).__name__}: give the source labels=True")
    if not jnp.issubdtype(condition.dtype, jnp.integer):
        raise TypeError(f"{model}: labels must be integers; got {condition.dtype}")
    if condition.shape != inputs.shape[:1]:
        raise ValueError(f"{model}: labels must have shape {inputs.shape[:1]}; got {condition.shape}")
    check_range(model, condition, num_classes)
    return condition


def judge(norm: str, x: Array, condition: PyTree, *, conditioning: str, num_classes: int,
          heads: Sequence[tuple[str, int]] = (), train: bool
          ) -> Array | tuple[Array, dict[str, Array]]:
    """Maps a critic's last activations, [batch, ...], to what it returns.

    - "none": scores, whatever the condition.
    - "projection": scores plus the inner product of the activations and their class's embedding.
      Miyato and Koyama 2018 (arXiv 1802.05637), equation 4.
    - "classes": scores, and the head "class" of logits, [batch, num_classes], for the task
      `jaxgan.tasks.classification`. Odena et al. 2017 (arXiv 1610.09585).

    Args:
        norm: the critic's norm, see `jaxgan.nn.norms`.
        x: activations; all axes but the first are taken together.
        condition: labels, int [batch], for "projection".
        conditioning: one of these.
        num_classes: how many classes there are.
        heads: names and sizes of further predictions, each a dense layer's, [batch, size].
        train: whether the estimate of spectral normalisation is kept.
    """
    def dense(name: str, size: int, x: Array, **options) -> Array:
        return weight_layer(norm, Dense(size, kernel_init=dense_init(), name=name, **options), x,
                            train=train)

    scores = score(norm, x, train=train)
    x = _widened(x.reshape(x.shape[0], -1))
    if conditioning == "projection":
        embedded = dense("embedding", x.shape[1], one_hot(condition, num_classes), use_bias=False)
        scores += (embedded * x).sum(axis=1)
    if conditioning == "classes":
        heads = (("class", num_classes), *heads)
    return (scores, {name: dense(name, size, x) for name, size in heads}) if heads else scores


def check_conditioning(model: str, conditioning: str, num_classes: int, condition: PyTree,
                       samples: Array) -> None:
    """Raises an error for an unknown conditioning, or one that lacks classes or labels."""
    if conditioning not in CONDITIONINGS:
        raise ValueError(f"{model}: conditioning must be one of {', '.join(map(repr, CONDITIONINGS))}; "
                         f"got {conditioning!r}")
    if (conditioning != "none") != (num_classes > 0):
        raise ValueError(f"{model}: conditioning {conditioning!r} does not go with {num_classes} "
                         "classes")
    if conditioning == "projection":
        check_labels(model, condition, samples, num_classes)


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
