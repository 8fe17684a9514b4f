"""What the models share at their ends: the range of samples, the score, and what they refuse."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgan.labels import check_range, one_hot
from jaxgan.nn import Dense
from jaxgan.nn.initializers import dense_init
from jaxgan.nn.norms import weight_layer
from jaxgan.types import Array, PyTree

CONDITIONINGS = ("none", "projection", "concatenation", "classes")
_EMBEDDING = 64  # units of the network between numbers and what they are projected on
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
        train: whether what the weights' normalisation keeps is updated.
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


def check_numbers(model: str, condition: PyTree, inputs: Array, num_numbers: int) -> Array:
    """Returns a condition that is numbers, float [batch, num_numbers]; else an error."""
    shape = (*inputs.shape[:1], num_numbers)
    if getattr(condition, "shape", None) != shape:
        raise ValueError(f"{model} of {num_numbers} numbers takes them as condition, float "
                         f"{list(shape)}; got {jax.tree.map(jnp.shape, condition)}")
    if not jnp.issubdtype(condition.dtype, jnp.floating):
        raise TypeError(f"{model}: numbers of a condition must be floating point; got {condition.dtype}")
    return condition


def conditioned(model: str, latents: Array, condition: PyTree, num_classes: int, num_numbers: int = 0
                ) -> tuple[Array, Array | None]:
    """Returns latents with what a generator is to make beside them, and labels, if there are classes.

    Args:
        model: whose they are, for messages.
        latents: [batch, latent_size].
        condition: labels, int [batch], or numbers, float [batch, num_numbers].
        num_classes: 0, or how many classes there are: one more input for each (Mirza and Osindero 2014,
            arXiv 1411.1784).
        num_numbers: 0, or how many numbers.
    """
    check_latents(model, latents)
    if num_classes and num_numbers:
        raise ValueError(f"{model}: a condition is classes or numbers, not both; got {num_classes} "
                         f"classes and {num_numbers} numbers")
    if num_classes:
        labels = check_labels(model, condition, latents, num_classes)
        return jnp.concatenate([latents, one_hot(labels, num_classes)], axis=1), labels
    if num_numbers:
        numbers = check_numbers(model, condition, latents, num_numbers)
        return jnp.concatenate([latents, numbers.astype(latents.dtype)], axis=1), None
    return latents, None


def judge(norm: str, x: Array, condition: PyTree, *, conditioning: str, num_classes: int,
          num_numbers: int = 0, heads: Sequence[tuple[str, int]] = (), train: bool
          ) -> Array | tuple[Array, dict[str, Array]]:
    """Maps a critic's last activations, [batch, ...], to what it returns.

    - "none": scores, whatever the condition.
    - "projection": scores plus the inner product of the activations and their class's embedding.
      Miyato and Koyama 2018 (arXiv 1802.05637), equation 4. Numbers are embedded by a small network of
      one hidden layer.
    - "concatenation": scores; the critic has seen the condition beside the sample already (`as_planes`).
      Mirza and Osindero 2014 (arXiv 1411.1784).
    - "classes": scores, and the head "class" of logits, [batch, num_classes], for the task
      `jaxgan.tasks.classification`. Odena et al. 2017 (arXiv 1610.09585).

    Args:
        norm: the critic's norm, see `jaxgan.nn.norms`.
        x: activations; all axes but the first are taken together.
        condition: for "projection" labels, int [batch], or numbers, float [batch, num_numbers].
        conditioning: one of these.
        num_classes: how many classes there are; 0 for none.
        num_numbers: how many numbers there are; 0 for none.
        heads: names and sizes of further predictions, each a dense layer's, [batch, size].
        train: whether what the weights' normalisation keeps is updated.

    Raises:
        ValueError: "projection" and orthonormal weights.
    """
    if norm == "orthonormal" and conditioning == "projection":
        raise ValueError("conditioning 'projection' does not go with norm 'orthonormal': its scores are "
                         "no 1-Lipschitz function of the sample; choose 'concatenation' or 'classes'")
    # Only the score has to be 1-Lipschitz; logits that were would leave every class likely.
    own = "none" if norm == "orthonormal" else norm

    def dense(name: str, size: int, x: Array, **options) -> Array:
        return weight_layer(own, Dense(size, kernel_init=dense_init(), name=name, **options), x,
                            train=train)

    scores = score(norm, x, train=train)
    x = _widened(x.reshape(x.shape[0], -1))
    if conditioning == "projection":
        embedded = (nn.leaky_relu(dense("embedding_0", _EMBEDDING, condition), 0.2) if num_numbers else
                    one_hot(condition, num_classes))
        scores += (dense("embedding", x.shape[1], embedded, use_bias=False) * x).sum(axis=1)
    if conditioning == "classes":
        heads = (("class", num_classes), *heads)
    return (scores, {name: dense(name, size, x) for name, size in heads}) if heads else scores


def as_planes(condition: PyTree, samples: Array, num_classes: int) -> Array:
    """Returns samples, [batch, ..., channels], with a condition as further channels.

    Args:
        condition: labels, int [batch], of which each class has a channel, or numbers, float [batch,
            numbers].
        samples: [batch, ..., channels].
        num_classes: how many classes there are; 0 for numbers.
    """
    beside = one_hot(condition, num_classes) if num_classes else condition.astype(samples.dtype)
    beside = beside.reshape(beside.shape[0], *(1,) * (samples.ndim - 2), -1)
    return jnp.concatenate([samples, jnp.broadcast_to(
        beside, (*samples.shape[:-1], beside.shape[-1]))], axis=-1)


def check_conditioning(model: str, conditioning: str, num_classes: int, condition: PyTree,
                       samples: Array, num_numbers: int = 0) -> None:
    """Raises an error for an unknown conditioning, or one that lacks classes, numbers or labels."""
    if conditioning not in CONDITIONINGS:
        raise ValueError(f"{model}: conditioning must be one of {', '.join(map(repr, CONDITIONINGS))}; "
                         f"got {conditioning!r}")
    if num_classes and num_numbers:
        raise ValueError(f"{model}: a condition is classes or numbers, not both; got {num_classes} "
                         f"classes and {num_numbers} numbers")
    if (conditioning != "none") != (num_classes > 0 or num_numbers > 0) or (
            conditioning == "classes" and num_numbers):
        of = f"{num_numbers} numbers" if num_numbers else f"{num_classes} classes"
        raise ValueError(f"{model}: conditioning {conditioning!r} does not go with {of}")
    if conditioning in ("projection", "concatenation"):
        if num_numbers:
            check_numbers(model, condition, samples, num_numbers)
        else:
            check_labels(model, condition, samples, num_classes)


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_latents(model: str, latents: Array) -> None:
    """Raises ValueError unless `latents` is [batch, latent_size]."""
    if latents.ndim != 2:
        raise ValueError(f"{model} takes latents of shape [batch, latent_size]; got {latents.shape}")


_SPACE = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def check_image_shape(model: str, image_shape: tuple[int, ...], axes: int = 2) -> None:
    """Raises ValueError unless `image_shape` is sizes of so many axes of space, and channels."""
    if len(image_shape) != len(_space(model, axes)) + 1 or min(image_shape) < 1:
        raise ValueError(f"{model}: image_shape must be ({', '.join(_space(model, axes))}, channels); "
                         f"got {tuple(image_shape)}")


def check_images(model: str, samples: Array, axes: int = 2) -> None:
    """Raises ValueError unless `samples` is [batch, height, width, channels], or of other axes."""
    if samples.ndim != len(_space(model, axes)) + 2:
        remedy = "give grey images a channel axis of size 1" if axes == 2 else f"its axes is {axes}"
        raise ValueError(f"{model} takes images of shape [batch, {', '.join(_space(model, axes))}, "
                         f"channels]; got {samples.shape}: {remedy}")


def _space(model: str, axes: int) -> tuple[str, ...]:
    """What the axes of space are called."""
    if axes not in _SPACE:
        raise ValueError(f"{model}: axes must be 1 for series, 2 for images or 3 for volumes; got "
                         f"{axes}")
    return _SPACE[axes]
