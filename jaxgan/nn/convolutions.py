"""Convolutions whose derivatives of every order are as fast as they are, on a CPU too.

A convolution, its gradient with respect to the input (the transposed convolution) and its gradient
with respect to the kernel are bilinear, and the derivatives of each are the other two. XLA's CPU
backend runs the derivatives of a strided convolution, and what a gradient penalty makes of them,
through a naive loop. The three functions here name each other in their derivative rules instead, so
that each needs one fast lowering and no derivative ever dilates anything. What is computed follows
the platform that the computation is lowered for: on anything but a CPU it is XLA's own convolution.

Each is a primitive, as that alone gives forward and reverse mode of any order and a choice by
platform: `jax.custom_vjp` has no forward mode, and `jax.custom_jvp` no transposition.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxgan.nn import winograd
from jaxgan.nn.geometry import Geometry, accumulator, product
from jaxgan.types import Array, Dtype

Padding = str | Sequence[tuple[int, int]]
Lowering = Callable[..., Array]  # (a, b, *, geometry) -> Array
_FEW = 4  # channels: a CPU computes groups of so many one after the other, smaller ones together


def conv(x: Array, kernel: Array, *, strides: Sequence[int], padding: Padding,
         groups: int = 1) -> Array:
    """Returns the convolution of `x` with `kernel` (unflipped, as everywhere in deep learning).

    Args:
        x: input, [batch, *spatial, in_channels], float32 or bfloat16 (which sums in float32). Without
            spatial axes this is the product of matrices, a dense layer.
        kernel: [*kernel_size, in_channels / groups, out_channels], of the same dtype as `x`.
        strides: one stride per spatial axis.
        padding: "SAME", "VALID" or one (before, after) pair per spatial axis.
        groups: groups that the channels are split into.

    Returns:
        [batch, *spatial_out, out_channels], in the dtype of `x`.

    Raises:
        TypeError: the dtypes differ.
        ValueError: ranks, channels, groups, strides or padding do not fit.
    """
    _check_operands("conv", x=x, kernel=kernel)
    _check_groups("conv", groups, x.shape[-1], kernel.shape[-1])
    if x.shape[-1] != kernel.shape[-2] * groups:
        raise ValueError(f"conv: x has {x.shape[-1]} channels, but kernel {kernel.shape} in "
                         f"{groups} groups takes {kernel.shape[-2] * groups}")
    geometry = _geometry("conv", x.shape[1:-1], kernel.shape[:-2], strides, padding, groups)
    return _conv_p.bind(x, kernel, geometry=geometry)


def conv_transpose(y: Array, kernel: Array, *, strides: Sequence[int], padding: Padding,
                   groups: int = 1, output_size: Sequence[int] | None = None) -> Array:
    """Returns the gradient of `conv` with respect to its input: the transposed convolution.

    Args:
        y: what `conv` would return, [batch, *spatial_out, out_channels].
        kernel: laid out as for `conv`, [*kernel_size, in_channels / groups, out_channels].
        strides: strides of that `conv`.
        padding: padding of that `conv`.
        groups: groups of that `conv`.
        output_size: the spatial size of that `conv`'s input, where several fit; by default
            spatial_out * strides for "SAME" and the smallest one otherwise.

    Returns:
        [batch, *output_size, in_channels], in the dtype of `y`.

    Raises:
        TypeError: the dtypes differ.
        ValueError: ranks, channels, groups, strides, padding or output_size do not fit.
    """
    _check_operands("conv_transpose", y=y, kernel=kernel)
    _check_groups("conv_transpose", groups, kernel.shape[-2] * groups, kernel.shape[-1])
    if y.shape[-1] != kernel.shape[-1]:
        raise ValueError(f"conv_transpose: y has {y.shape[-1]} channels, but kernel {kernel.shape} "
                         f"takes {kernel.shape[-1]}, its last axis")
    kernel_size, spatial = kernel.shape[:-2], y.shape[1:-1]
    if output_size is None:
        strides = _check_strides("conv_transpose", strides, len(spatial))
        if padding == "SAME":
            output_size = [n * s for n, s in zip(spatial, strides, strict=True)]
        else:
            pairs = _padding("conv_transpose", (), kernel_size, strides, padding)
            output_size = [(n - 1) * s + k - sum(pair) for n, s, k, pair
                           in zip(spatial, strides, kernel_size, pairs, strict=True)]
    geometry = _geometry("conv_transpose", tuple(output_size), kernel_size, strides, padding,
                         groups)
    if geometry.output_size != spatial:
        raise ValueError(f"conv_transpose: a convolution of size {tuple(output_size)} gives "
                         f"{geometry.output_size}, not y's {spatial}; give another output_size")
    return _conv_transpose_p.bind(y, kernel, geometry=geometry)


def conv_kernel_gradient(x: Array, y: Array, *, kernel_size: Sequence[int], strides: Sequence[int],
                         padding: Padding, groups: int = 1) -> Array:
    """Returns the gradient of `conv` with respect to its kernel.

    Args:
        x: input of `conv`, [batch, *spatial, in_channels].
        y: cotangent of its output, [batch, *spatial_out, out_channels], of the same dtype as `x`.
        kernel_size: spatial size of the kernel.
        strides: strides of that `conv`.
        padding: padding of that `conv`.
        groups: groups of that `conv`.

    Returns:
        [*kernel_size, in_channels / groups, out_channels], in the dtype of `x`.

    Raises:
        TypeError: the dtypes differ.
        ValueError: ranks, batches, sizes, groups, strides or padding do not fit.
    """
    _check_operands("conv_kernel_gradient", x=x, y=y)
    _check_groups("conv_kernel_gradient", groups, x.shape[-1], y.shape[-1])
    if np.shape(kernel_size) != (x.ndim - 2,):
        raise ValueError(f"conv_kernel_gradient: kernel_size must be {x.ndim - 2} numbers, one per "
                         f"spatial axis of x; got {kernel_size}")
    geometry = _geometry("conv_kernel_gradient", x.shape[1:-1], tuple(kernel_size), strides,
                         padding, groups)
    if y.shape[:-1] != (x.shape[0], *geometry.output_size):
        raise ValueError(f"conv_kernel_gradient: y must have shape "
                         f"{(x.shape[0], *geometry.output_size, 'channels')} for x of shape "
                         f"{x.shape}; got {y.shape}")
    return _conv_kernel_gradient_p.bind(x, y, geometry=geometry)


# What is refused at the door.


def _check_operands(name: str, **operands: Array) -> None:
    (a_name, a), (b_name, b) = operands.items()
    if a.ndim != b.ndim or a.ndim < 2:
        raise ValueError(f"{name}: {a_name} and {b_name} must have the same rank, at least 2 (the "
                         f"batch and channel axes); got {a.shape} and {b.shape}")
    if a.dtype != b.dtype or not jnp.issubdtype(a.dtype, jnp.floating):
        raise TypeError(f"{name}: {a_name} and {b_name} must have the same floating dtype; got "
                        f"{a.dtype} and {b.dtype}: cast one of them")


def _check_groups(name: str, groups: int, in_channels: int, out_channels: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(f"{name}: groups={groups} must divide both the {in_channels} input and "
                         f"the {out_channels} output channels")


def _check_strides(name: str, strides: Sequence[int], rank: int) -> tuple[int, ...]:
    if np.shape(strides) != (rank,) or min(strides, default=1) < 1:
        raise ValueError(f"{name}: strides must be {rank} positive numbers, one per spatial axis; "
                         f"got {strides}")
    return tuple(int(stride) for stride in strides)


def _padding(name: str, input_size: tuple[int, ...], kernel_size: tuple[int, ...],
             strides: tuple[int, ...], padding: Padding) -> tuple[tuple[int, int], ...]:
    if padding == "SAME":
        totals = [max((-(-n // s) - 1) * s + k - n, 0)
                  for n, k, s in zip(input_size, kernel_size, strides, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if padding == "VALID":
        return ((0, 0),) * len(kernel_size)
    if isinstance(padding, str) or np.shape(padding) != (len(kernel_size), 2):
        raise ValueError(f"{name}: padding must be 'SAME', 'VALID' or {len(kernel_size)} pairs "
                         f"(before, after), one per spatial axis; got {padding!r}")
    return tuple((int(before), int(after)) for before, after in padding)


def _geometry(name: str, input_size: tuple[int, ...], kernel_size: tuple[int, ...],
              strides: Sequence[int], padding: Padding, groups: int) -> Geometry:
    strides = _check_strides(name, strides, len(kernel_size))
    if len(input_size) != len(kernel_size):
        raise ValueError(f"{name}: size {input_size} needs one number per spatial axis, of which "
                         f"the kernel has {len(kernel_size)}")
    pairs = _padding(name, input_size, kernel_size, strides, padding)
    output_size = tuple((n + sum(pair) - k) // s + 1 for n, k, s, pair
                        in zip(input_size, kernel_size, strides, pairs, strict=True))
    if min(input_size + kernel_size + output_size, default=1) < 1:
        raise ValueError(f"{name}: a kernel of size {kernel_size} does not fit an input of size "
                         f"{input_size} padded by {pairs}")
    return Geometry(input_size, kernel_size, output_size, strides, pairs, groups)


# XLA's own: each of the three is one convolution. `result` is the dtype that it is asked for. GPUs and
# TPUs sum bfloat16 in float32 whatever that is, and a GPU has no convolution of bfloat16 to float32: XLA
# would widen its inputs, and compute it in float32. A CPU sums in the dtype of the result.


def _convolve(a: Array, b: Array, axes: tuple[str, str, str], result: Dtype, **options) -> Array:
    lhs, rhs, out = (pattern.replace("*", "XYZUVW"[:a.ndim - 2]) for pattern in axes)
    return lax.conv_general_dilated(a, b, dimension_numbers=(lhs, rhs, out),
                                    preferred_element_type=result, **options).astype(a.dtype)


def _natively(convolution: Callable[..., Array], result: Callable[[Array], Dtype]) -> Lowering:
    """Returns XLA's own, with the dtype of its result as a function of the input."""
    return lambda a, b, *, geometry: convolution(a, b, geometry, result(a))


def _xla_conv(x: Array, kernel: Array, geometry: Geometry, result: Dtype) -> Array:
    return _convolve(x, kernel, ("N*C", "*IO", "N*C"), result, window_strides=geometry.strides,
                     padding=geometry.padding, feature_group_count=geometry.groups)


def _xla_conv_transpose(y: Array, kernel: Array, geometry: Geometry, result: Dtype) -> Array:
    size, groups = geometry.kernel_size, geometry.groups
    kernel = kernel.reshape(*size, kernel.shape[-2], groups, -1)
    kernel = jnp.moveaxis(kernel, -1, -3)  # [*k, out / groups, in / groups, groups]
    kernel = jnp.swapaxes(kernel, -1, -2).reshape(*size, kernel.shape[-3], -1)
    kernel = lax.rev(kernel, range(len(size)))  # last, so that a flip that XLA adds cancels it
    before = [k - 1 - low for k, (low, _) in zip(size, geometry.padding, strict=True)]
    padding = [(low, n + k - 2 - (m - 1) * s - low) for low, n, k, m, s
               in zip(before, geometry.input_size, size, geometry.output_size, geometry.strides,
                      strict=True)]
    return _convolve(y, kernel, ("N*C", "*IO", "N*C"), result, window_strides=(1,) * len(size),
                     padding=padding, lhs_dilation=geometry.strides, feature_group_count=groups)


def _xla_conv_kernel_gradient(x: Array, y: Array, geometry: Geometry, result: Dtype) -> Array:
    padding = [(low, (m - 1) * s + k - n - low) for (low, _), n, k, m, s
               in zip(geometry.padding, geometry.input_size, geometry.kernel_size,
                      geometry.output_size, geometry.strides, strict=True)]
    return _convolve(x, y, ("C*N", "I*O", "*NC"), result, window_strides=(1,) * len(padding),
                     padding=padding, rhs_dilation=geometry.strides,
                     batch_group_count=geometry.groups)


# On a CPU, where channels are many `winograd` takes the fewest products. Elsewhere, with stride 1,
# XLA's own convolution and the input's gradient, one of the same kind, are fast. The rest are matrix
# products with patches of the input: gathered by constant indices, and for the input's gradient added
# up by the inverse ones. XLA's strided convolution is slower than that, and its kernel gradient falls
# into the naive loop inside `lax.scan`.


def _taps(geometry: Geometry) -> np.ndarray:
    """Returns the flat input position under each tap of each output, or -1, [outputs, taps]."""
    positions = np.zeros((1, 1), np.int32)
    for n, k, m, s, (before, _) in zip(geometry.input_size, geometry.kernel_size,
                                       geometry.output_size, geometry.strides, geometry.padding,
                                       strict=True):
        axis = np.arange(m)[:, None] * s + np.arange(k) - before
        axis = np.where((axis >= 0) & (axis < n), axis, -1)[:, None, :]
        outer = positions[:, None, :, None]
        positions = np.where((outer < 0) | (axis < 0), -1, outer * n + axis)
        positions = positions.reshape(positions.shape[0] * m, -1)
    return positions


def _visits(geometry: Geometry) -> np.ndarray:
    """Returns the flat (output, tap) pairs that see each input position, or -1, [most, inputs]."""
    taps = _taps(geometry).reshape(-1)
    counts = np.bincount(taps[taps >= 0], minlength=math.prod(geometry.input_size))
    visits = np.full((len(counts), max(counts.max(), 1)), -1)
    in_order = np.argsort(taps, kind="stable")[np.sum(taps < 0):]
    visits[np.arange(visits.shape[1]) < counts[:, None]] = in_order
    return visits.T


def _gather(x: Array, positions: np.ndarray) -> Array:
    """Returns the rows of `x`, [batch, rows, ...], at `positions`, and zeros where that is -1."""
    if np.array_equal(positions.ravel(), np.arange(x.shape[1])):
        return x.reshape(x.shape[0], *positions.shape, *x.shape[2:])
    rows = jnp.take(x, np.maximum(positions, 0), axis=1, mode="clip")
    present = (positions >= 0).reshape(1, *positions.shape, *(1,) * (x.ndim - 2))
    return jnp.where(present, rows, jnp.zeros((), x.dtype))


def _patches(x: Array, geometry: Geometry) -> Array:
    """Returns what each output sees, [batch * outputs, taps * channels]."""
    taps = _taps(geometry)
    rows = _gather(x.reshape(x.shape[0], math.prod(geometry.input_size), x.shape[-1]), taps)
    return rows.reshape(-1, taps.shape[1] * x.shape[-1])


def _matrix(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _conv_products(x: Array, kernel: Array, *, geometry: Geometry) -> Array:
    y = product(_patches(x, geometry), _matrix(kernel), (1, 0))
    return y.reshape(x.shape[0], *geometry.output_size, -1).astype(x.dtype)


def _conv_transpose_products(y: Array, kernel: Array, *, geometry: Geometry) -> Array:
    patches = product(_matrix(y), _matrix(kernel), (1, 1))
    patches = patches.reshape(y.shape[0], -1, kernel.shape[-2])
    x = cast("Array", sum(_gather(patches, visit) for visit in _visits(geometry)))  # one at least
    return x.reshape(y.shape[0], *geometry.input_size, -1).astype(y.dtype)


def _conv_kernel_gradient_products(x: Array, y: Array, *, geometry: Geometry) -> Array:
    kernel = product(_patches(x, geometry), _matrix(y), (0, 0))
    return kernel.reshape(*geometry.kernel_size, x.shape[-1], -1).astype(x.dtype)


def _by_products(products: Lowering, native: Lowering, is_native: Callable[[Geometry], bool]
                 ) -> Lowering:
    """Returns XLA's own lowering where that is chosen, and matrix products, by groups, elsewhere."""

    def lowering(a: Array, b: Array, *, geometry: Geometry) -> Array:
        if is_native(geometry):
            return native(a, b, geometry=geometry)
        if geometry.groups == 1:
            return products(a, b, geometry=geometry)
        return _by_groups(products, jax.vmap, a, b, geometry)

    return lowering


def _by_groups(lowering: Lowering, mapped: Callable[[Callable], Callable], a: Array, b: Array,
               geometry: Geometry) -> Array:
    """Computes each group of channels as a convolution of its own."""
    def split(array: Array) -> Array:
        return jnp.moveaxis(array.reshape(*array.shape[:-1], geometry.groups, -1), -2, 0)

    def single(operands: tuple[Array, Array]) -> Array:
        return lowering(*operands, geometry=geometry._replace(groups=1))

    out = jnp.moveaxis(mapped(single)((split(a), split(b))), 0, -2)
    return out.reshape(*out.shape[:-2], -1)


def _is_spatial(geometry: Geometry) -> bool:
    return bool(geometry.kernel_size)


def _has_stride_one(geometry: Geometry) -> bool:
    """Whether XLA's own convolution is the fast one on a CPU; a 1x1 kernel is a product anyway."""
    return math.prod(geometry.strides) == 1 < math.prod(geometry.kernel_size)


# The primitives.


def _primitive(name: str, own: Callable[..., Array], products: Lowering, fewer_products: Lowering,
               is_native_on_cpu: Callable, shape: Callable) -> Primitive:
    """Returns a primitive of (a, b, *, geometry), all but its derivatives.

    Args:
        name: its name in a jaxpr.
        own: XLA's own, as it is computed on most platforms, where there are spatial axes.
        products: how it is computed elsewhere.
        fewer_products: how a CPU computes it where `winograd` is the fastest.
        is_native_on_cpu: geometry -> whether a CPU else computes it as most platforms do.
        shape: (shape of a, shape of b, geometry) -> shape of the result.
    """
    primitive = Primitive(name)
    primitive.def_abstract_eval(lambda a, b, *, geometry: a.update(
        shape=shape(a.shape, b.shape, geometry), weak_type=False))
    plain_on_cpu = _by_products(products, _natively(own, accumulator), is_native_on_cpu)
    elsewhere = _by_products(products, _natively(own, lambda a: a.dtype), _is_spatial)

    def on_cpu(a: Array, b: Array, *, geometry: Geometry) -> Array:
        channels = min(a.shape[-1], b.shape[-1], shape(a.shape, b.shape, geometry)[-1])
        if _is_spatial(geometry) and 1 < geometry.groups <= channels // _FEW:
            return _by_groups(on_cpu, lambda single: functools.partial(lax.map, single), a, b, geometry)
        suits = winograd.suits(geometry, a.shape[0], channels)
        return (fewer_products if suits else plain_on_cpu)(a, b, geometry=geometry)

    for platform, lowering in ((None, elsewhere), ("cpu", on_cpu)):
        mlir.register_lowering(primitive, mlir.lower_fun(lowering, multiple_results=False),
                               platform=platform)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    compiled = jax.jit(primitive.bind, static_argnames="geometry")

    @primitive.def_impl
    def run(a, b, *, geometry):
        with jax.disable_jit(False):
            return compiled(a, b, geometry=geometry)

    return primitive


def _batch(primitive: Primitive, operands: tuple[Array, Array], axes: tuple[int | None, int | None],
           *, geometry: Geometry) -> tuple[Array, int]:
    """The rule of `vmap`: the mapped axis joins the batch, or the groups if a kernel is mapped, of a
    dense layer the axis of a batch of products.
    """
    (a, b), (a_axis, b_axis) = operands, axes
    if a_axis is not None and b_axis is None and primitive is not _conv_kernel_gradient_p:
        a = jnp.moveaxis(a, a_axis, 0)
        out = primitive.bind(a.reshape(-1, *a.shape[2:]), b, geometry=geometry)
        return out.reshape(*a.shape[:2], *out.shape[1:]), 0
    count = next(operand.shape[axis] for operand, axis in zip(operands, axes, strict=True)
                 if axis is not None)

    def moved(operand, axis, to):
        if axis is None:
            operand, axis = jnp.broadcast_to(operand, (count, *operand.shape)), 0
        return jnp.moveaxis(operand, axis, to)

    if not _is_spatial(geometry) and geometry.groups == 1:
        of_a, of_b = _CONTRACTED[primitive.name]
        out = lax.dot_general(moved(a, a_axis, 0), moved(b, b_axis, 0),
                              (((of_a + 1,), (of_b + 1,)), ((0,), (0,))),
                              preferred_element_type=accumulator(a))
        return out.astype(a.dtype), 0

    def into_groups(operand, axis):
        operand = moved(operand, axis, -2)
        return operand.reshape(*operand.shape[:-2], -1)

    geometry = geometry._replace(groups=count * geometry.groups)
    out = primitive.bind(into_groups(a, a_axis), into_groups(b, b_axis), geometry=geometry)
    return out.reshape(*out.shape[:-1], count, -1), out.ndim - 1


# The axes over which a dense layer's products are, of the first operand and of the second.
_CONTRACTED = {"conv": (1, 0), "conv_transpose": (1, 1), "conv_kernel_gradient": (0, 0)}
_conv_p = _primitive(
    "conv", _xla_conv, _conv_products, winograd.conv, _has_stride_one,
    lambda x, kernel, geometry: (x[0], *geometry.output_size, kernel[-1]))
_conv_transpose_p = _primitive(
    "conv_transpose", _xla_conv_transpose, _conv_transpose_products, winograd.conv_transpose,
    _has_stride_one,
    lambda y, kernel, geometry: (y[0], *geometry.input_size, kernel[-2] * geometry.groups))
_conv_kernel_gradient_p = _primitive(
    "conv_kernel_gradient", _xla_conv_kernel_gradient, _conv_kernel_gradient_products,
    winograd.conv_kernel_gradient, lambda geometry: False,
    lambda x, y, geometry: (*geometry.kernel_size, x[-1] // geometry.groups, y[-1]))

ad.defbilinear(
    _conv_p,
    lambda ct, x, kernel, **kw: _conv_transpose_p.bind(ct, kernel, **kw),
    lambda ct, x, kernel, **kw: _conv_kernel_gradient_p.bind(x, ct, **kw))
ad.defbilinear(
    _conv_transpose_p,
    lambda ct, y, kernel, **kw: _conv_p.bind(ct, kernel, **kw),
    lambda ct, y, kernel, **kw: _conv_kernel_gradient_p.bind(ct, y, **kw))
ad.defbilinear(
    _conv_kernel_gradient_p,
    lambda ct, x, y, **kw: _conv_transpose_p.bind(y, ct, **kw),
    lambda ct, x, y, **kw: _conv_p.bind(x, ct, **kw))
