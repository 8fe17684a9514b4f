"""Normalisation chosen by name, so that one critic can be compared under each.

"none", "batch" (statistics over the batch: no gradient penalty then), "layer" (over each sample's
height, width and channels, with a scale and a bias per channel, as WGAN-GP's critics have it),
"instance" (over height and width, of each sample and channel by itself), "spectral" (of the weights
instead of the activations) or "orthonormal" (of the weights: all singular values are 1, not only the
largest). Call both functions inside `@nn.compact`.
"""

from collections.abc import Sequence

import flax.linen as nn

from jaxgan.labels import one_hot
from jaxgan.nn.orthonormal import Orthonormal
from jaxgan.types import Array

NORMS = ("none", "batch", "layer", "spectral", "orthonormal")
RESIDUAL_NORMS = NORMS[:-1]  # a layer added to its input is no 1-Lipschitz map
IMAGE_NORMS = (*RESIDUAL_NORMS, "instance")  # of networks whose activations are images to the end


def check_norm(norm: str, choices: Sequence[str] = NORMS) -> None:
    """Raises ValueError unless `norm` is one of `choices`."""
    if norm not in choices:
        raise ValueError(f"norm must be one of {', '.join(map(repr, choices))}; got {norm!r}")


def normalise(norm: str, x: Array, *, train: bool, axis_name: str | None = None,
              labels: Array | None = None, num_classes: int = 0) -> Array:
    """Normalises activations, in their dtype with float32 statistics, or not.

    Args:
        norm: one of NORMS, or "instance" (Ulyanov et al. 2016, arXiv 1607.08022), for activations with
            axes of space; "none", "spectral" and "orthonormal" leave `x` as it is.
        x: activations, [batch, ..., channels].
        train: whether BatchNorm uses (and updates its averages with) the batch's statistics.
        axis_name: the devices' axis, over which BatchNorm averages its statistics.
        labels: None, or int [batch]: BatchNorm has a scale and a bias for each class then. Dumoulin et
            al. 2017 (arXiv 1610.07629), equation 5.
        num_classes: how many classes there are.

    Raises:
        ValueError: an unknown norm.
    """
    check_norm(norm, (*NORMS, "instance"))
    if norm == "batch" and labels is not None:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name=axis_name,
                         dtype=x.dtype, use_bias=False, use_scale=False)(x)
        classes = one_hot(labels, num_classes, x.dtype)
        scale, bias = (nn.Dense(x.shape[-1], use_bias=False, kernel_init=init, dtype=x.dtype)(classes)
                       for init in (nn.initializers.ones, nn.initializers.zeros))
        over_space = (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        return x * scale.reshape(over_space) + bias.reshape(over_space)
    if norm == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5,
                            axis_name=axis_name, dtype=x.dtype)(x)
    if norm == "layer":
        # The two-pass variance: the other cancels badly where activations are far from zero.
        return nn.LayerNorm(epsilon=1e-5, reduction_axes=tuple(range(1, x.ndim)), feature_axes=-1,
                            use_fast_variance=False, dtype=x.dtype)(x)
    if norm == "instance":
        return nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False, dtype=x.dtype)(x)
    return x


def weight_layer(norm: str, layer: nn.Module, x: Array, *, train: bool) -> Array:
    """Applies a layer with weights: divided by their largest singular value, orthonormal, or as it is.

    A convolution's kernel counts as the matrix [positions * in, out]. "spectral": the singular value is
    estimated by one power iteration a call, whose vector is kept in the collection "batch_stats" and
    updated in training. Miyato et al. 2018 (arXiv 1802.05957). "orthonormal": see
    `jaxgan.nn.Orthonormal`.

    Args:
        norm: as for `normalise`; all but "spectral" and "orthonormal" apply the layer as it is.
        layer: a Dense or Conv, made in the caller's `@nn.compact` method.
        x: the layer's input.
        train: whether the estimate, or the whitening matrix, is kept.

    Raises:
        ValueError: an unknown norm.
        TypeError: a layer that can't be orthonormal.
    """
    check_norm(norm, (*NORMS, "instance"))
    if norm == "spectral":
        return nn.SpectralNorm(layer)(x, update_stats=train)
    if norm == "orthonormal":
        return Orthonormal(layer)(x, update_stats=train)
    return layer(x)
