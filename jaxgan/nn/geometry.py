"""What every way to compute a convolution shares: its sizes, and the product of matrices."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxgan.types import Array


class Geometry(NamedTuple):
    """The sizes of a convolution, which are also those of its two gradients.

    Attributes:
        input_size: spatial size of the convolution's input.
        kernel_size: spatial size of the kernel.
        output_size: spatial size of the convolution's output.
        strides: one stride per spatial axis.
        padding: zeros before and after, per spatial axis of the input.
        groups: groups that the channels are split into.
    """

    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    output_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int


def accumulator(x: Array) -> jnp.dtype:
    """What sums are in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """The product of two matrices over one axis of each, in `accumulator(a)`."""
    return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())),
                           preferred_element_type=accumulator(a))
