"""Convolution layers that take Flax's parameters and differentiate fast to any order."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from jaxgan.nn import convolutions
from jaxgan.types import Array

Initializer = nn.initializers.Initializer
Dtype = Any


class Conv(nn.Module):
    """A convolution over [batch, *spatial, channels], with the parameters of `nn.Conv`.

    Attributes:
        features: number of output channels.
        kernel_size: size of the kernel, one number per spatial axis.
        strides: one stride, or one per spatial axis.
        padding: "SAME", "VALID" or one (before, after) pair per spatial axis.
        groups: groups that the channels are split into.
        use_bias: whether a bias is added.
        kernel_init: initialiser of `kernel`, [*kernel_size, in_channels / groups, features].
        bias_init: initialiser of `bias`, [features].
        dtype: dtype to compute in, sums being in float32 at least; None promotes the input's and
            the parameters'.
        param_dtype: dtype of the parameters.
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: convolutions.Padding = "SAME"
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `x`, [batch, *spatial, channels], to [batch, *spatial_out, features]."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = (self.param("bias", self.bias_init, (self.features,), self.param_dtype)
                if self.use_bias else None)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolutions.conv(x, kernel, strides=_per_axis(self.strides, self.kernel_size),
                              padding=self.padding, groups=self.groups)
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


class ConvTranspose(nn.Module):
    """A transposed convolution, with the parameters of `nn.ConvTranspose(transpose_kernel=True)`.

    It is the gradient of the convolution with the same padding and strides with respect to its
    input. With "SAME" padding the size is multiplied by the stride. Flax's layer agrees for "SAME"
    and "VALID", but applies explicit padding to the dilated input, where here it is that of the
    convolution.

    Attributes:
        features: number of output channels.
        kernel_size: size of the kernel, one number per spatial axis.
        strides: one stride, or one per spatial axis.
        padding: "SAME", "VALID" or one (before, after) pair per spatial axis.
        groups: groups that the channels are split into.
        use_bias: whether a bias is added.
        kernel_init: initialiser of `kernel`, [*kernel_size, features / groups, in_channels].
        bias_init: initialiser of `bias`, [features].
        dtype: dtype to compute in, sums being in float32 at least; None promotes the input's and
            the parameters'.
        param_dtype: dtype of the parameters.
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: convolutions.Padding = "SAME"
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, y: Array) -> Array:
        """Maps `y`, [batch, *spatial, channels], to [batch, *spatial_in, features]."""
        shape = (*self.kernel_size, self.features // self.groups, y.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = (self.param("bias", self.bias_init, (self.features,), self.param_dtype)
                if self.use_bias else None)
        y, kernel, bias = promote_dtype(y, kernel, bias, dtype=self.dtype)
        x = convolutions.conv_transpose(y, kernel,
                                        strides=_per_axis(self.strides, self.kernel_size),
                                        padding=self.padding, groups=self.groups)
        return x if bias is None else x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def _per_axis(strides: int | Sequence[int], kernel_size: Sequence[int]) -> tuple[int, ...]:
    return (strides,) * len(kernel_size) if isinstance(strides, int) else tuple(strides)
