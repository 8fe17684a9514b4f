"""Initialisers of the WGAN-GP experiments: uniform, with a variance set by the fans.

All draw from U(-sigma sqrt(3), sigma sqrt(3)), whose standard deviation is sigma. A stride changes how
many inputs meet an output (or the other way round), and the fans here count that. Gulrajani et al.
2017 (arXiv 1704.00028), the settings of its public code; Glorot and Bengio 2010 for the rule.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer

from jaxgan.types import Array, Key


def dense_init(*, he: bool = False) -> Initializer:
    """The initialiser of a dense kernel, [in, out]: sigma^2 = 2 / (in + out).

    Args:
        he: for layers followed by a ReLU, sigma^2 = 2 / in instead (He et al. 2015).
    """

    def init(key: Key, shape: Sequence[int], dtype=jnp.float32) -> Array:
        fan_in, fan_out = shape
        return _uniform(key, shape, dtype, 2.0 / (fan_in if he else fan_in + fan_out))

    return init


def conv_init(stride: int = 1, *, he: bool = True) -> Initializer:
    """The initialiser of a convolution's kernel, [*kernel_size, in, out].

    sigma^2 = 4 / (fan_in + fan_out), with fan_in = in * taps and fan_out = out * taps / stride^rank,
    where taps is the kernel's number of positions.

    Args:
        stride: the convolution's stride, along every spatial axis.
        he: False for layers that no ReLU follows, sigma^2 = 2 / (fan_in + fan_out). (With "he" the
            rule is still Glorot's, times sqrt(2), and not that of He et al.)
    """

    def init(key: Key, shape: Sequence[int], dtype=jnp.float32) -> Array:
        *kernel_size, channels, features = shape
        taps = math.prod(kernel_size)
        fans = channels * taps + features * taps / stride ** len(kernel_size)
        return _uniform(key, shape, dtype, (4.0 if he else 2.0) / fans)

    return init


def conv_transpose_init(stride: int = 1, *, he: bool = True) -> Initializer:
    """The initialiser of a transposed convolution's kernel, [*kernel_size, out, in].

    As `conv_init`, with fan_in = in * taps / stride^rank and fan_out = out * taps. The layout is that
    of `jaxgan.nn.ConvTranspose`, so it is the very rule of the convolution that is transposed.

    Args:
        stride: the transposed convolution's stride, along every spatial axis.
        he: as for `conv_init`.
    """
    return conv_init(stride, he=he)


def _uniform(key: Key, shape: Sequence[int], dtype, variance: float) -> Array:
    limit = math.sqrt(3.0 * variance)
    return jax.random.uniform(key, tuple(shape), dtype, -limit, limit)
