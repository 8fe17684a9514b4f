"""Layers with weights that take Flax's parameters and differentiate fast to any order."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from jaxgan.nn import convolutions
from jaxgan.types import Array, Dtype


class Convolution(nn.Module):
    """What `Conv`, `ConvTranspose` and `Dense` have in common.

    Attributes:
        features: number of output channels.
        kernel_size: size of the kernel, one number per spatial axis.
        strides: one stride, or one per spatial axis.
        padding: "SAME", "VALID" or one (before, after) pair per spatial axis.
        groups: groups that the channels are split into.
        use_bias: whether a bias is added.
        kernel_init: initialiser of the parameter `kernel`.
        bias_init: initialiser of the parameter `bias`, [features].
        dtype: dtype to compute in, with sums in float32; None promotes the input's and the
            parameters' to a common one.
        param_dtype: dtype of the parameters.
    """

    features: int
    kernel_size: Sequence[int] = ()
    strides: int | Sequence[int] = 1
    padding: convolutions.Padding = "SAME"
    groups: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def _apply(self, function: Callable[..., Array], inputs: Array, *channels: int,
               prepare: Callable[[Array], Array] = lambda kernel: kernel) -> Array:
        rank = inputs.ndim - 2
        if np.shape(self.kernel_size) != (rank,):
            raise ValueError(f"{type(self).__name__}: kernel_size must be {rank} numbers, one per "
                             f"spatial axis of inputs {inputs.shape}; got {self.kernel_size}")
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, *channels),
                            self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        inputs, kernel, bias = promote_dtype(inputs, prepare(kernel), bias, dtype=self.dtype)
        strides = (self.strides,) * rank if isinstance(self.strides, int) else self.strides
        outputs = function(inputs, kernel, strides=strides, padding=self.padding,
                           groups=self.groups)
        return outputs if bias is None else outputs + jnp.expand_dims(bias, range(rank + 1))


class Conv(Convolution):
    """A convolution, with the parameters of `flax.linen.Conv`.

    `kernel` is [*kernel_size, in_channels / groups, features]. Besides the attributes of `Convolution`:

    Attributes:
        resample: "down" for the means of neighbouring pairs of outputs along each axis, "up" for the
            convolution of inputs that are repeated along each axis, "none" for neither. Both are one
            convolution with stride 2 and a kernel that is one larger, of sums of neighbouring taps
            (Karras et al. 2018, arXiv 1710.10196, in its code): of less than half the products for
            3x3, and nothing of the larger size is written down. They take stride 1, "SAME" padding,
            kernels of odd size and one group.
    """

    resample: str = "none"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [batch, *spatial, in_channels] to [batch, *spatial_out, features]."""
        channels = x.shape[-1] // self.groups, self.features
        if self.resample == "none":
            return self._apply(convolutions.conv, x, *channels)
        self._check(x)
        rank = x.ndim - 2
        how = {"strides": (2,) * rank, "padding": [(size // 2, size // 2) for size in self.kernel_size]}
        if self.resample == "down":
            return self._apply(lambda x, kernel, **_: convolutions.conv(x, kernel, **how), x, *channels,
                               prepare=lambda kernel: _spread(kernel, rank) / 2**rank)
        size = [2 * n for n in x.shape[1:-1]]
        return self._apply(
            lambda x, kernel, **_: convolutions.conv_transpose(x, kernel, output_size=size, **how), x,
            *channels, prepare=lambda kernel: jnp.swapaxes(
                _spread(jnp.flip(kernel, range(rank)), rank), -1, -2))

    def _check(self, x: Array) -> None:
        if self.resample not in ("up", "down"):
            raise ValueError(f"Conv: resample must be 'none', 'up' or 'down'; got {self.resample!r}")
        if (self.padding != "SAME" or self.groups > 1 or any(size % 2 == 0 for size in self.kernel_size)
                or np.any(np.asarray(self.strides) != 1)):
            raise ValueError(f"Conv: resample={self.resample!r} takes stride 1, 'SAME' padding, kernels "
                             f"of odd size and one group; got {self.strides}, {self.padding!r}, "
                             f"{tuple(self.kernel_size)} and {self.groups}")
        if self.resample == "down" and any(n % 2 for n in x.shape[1:-1]):
            raise ValueError(f"Conv: resample='down' halves even sizes; got {x.shape[1:-1]}")


def _spread(kernel: Array, rank: int) -> Array:
    """A kernel that is one larger along each spatial axis, of sums of neighbouring taps."""
    for axis in range(rank):
        pad = [(0, 0)] * kernel.ndim
        pad[axis] = (0, 1)
        wide = jnp.pad(kernel, pad)
        kernel = wide + jnp.roll(wide, 1, axis)
    return kernel


class ConvTranspose(Convolution):
    """A transposed convolution: the gradient of a convolution with respect to its input.

    Padding and strides are those of that convolution; with "SAME" the size is multiplied by the
    strides. `kernel` is [*kernel_size, features / groups, in_channels], as in
    `flax.linen.ConvTranspose(transpose_kernel=True)`, whose outputs are the same for "SAME", and
    for "VALID" with a kernel no smaller than the strides. Its explicit padding means another thing:
    it is added to the dilated input. See `Convolution` for the attributes.
    """

    @nn.compact
    def __call__(self, y: Array) -> Array:
        """Maps [batch, *spatial, in_channels] to [batch, *spatial_out, features]."""
        return self._apply(convolutions.conv_transpose, y, self.features // self.groups,
                           y.shape[-1])


class Dense(Convolution):
    """A dense layer, with the parameters of `flax.linen.Dense`: a convolution without spatial axes.

    `kernel` is [in_features, features]. Of `Convolution`'s attributes it has use for `features`,
    `use_bias`, the initialisers and the dtypes.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [batch, in_features] to [batch, features]."""
        return self._apply(convolutions.conv, x, x.shape[-1], self.features)
