"""Convolutions with fewer products, by minimal filtering: for a CPU, where products bound the time.

Along one axis, a convolution of stride s is the sum of s convolutions of stride 1, its phases: every
s-th tap with every s-th input. Two neighbouring outputs of a phase of r taps take r + 1 products in
place of 2 r, as they are coefficients of a product of polynomials, found from its values at r + 1 of
the points 0, infinity, 1 and -1:

    outputs = A^T [(G taps) * (B^T inputs)]

(Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray 2016, arXiv 1509.09308.) Over
several axes the three matrices are Kronecker products. What belongs to one point, of all phases and
channels, makes one matrix product. A 5x5 kernel with stride 2 takes 49 products a tile of 2x2 outputs
in place of 100, a 3x3 kernel with stride 1 takes 16 in place of 36. The points are few and small, so
that the sums before and after cost little accuracy. The gradients are the transposed maps: input and
output exchange A and B^T, kernel and output A and G, with the same number of products.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxgan.nn.geometry import Geometry, accumulator, product
from jaxgan.types import Array

# Rows are the points 0, infinity, 1 and -1, of which r taps use the first r + 1.
_INPUTS = {  # B^T: on r + 1 inputs
    1: ((1, 0), (0, 1)),
    2: ((1, -1, 0), (0, -1, 1), (0, 1, 0)),
    3: ((1, 0, -1, 0), (0, -1, 0, 1), (0, 1, 1, 0), (0, -1, 1, 0))}
_TAPS = {  # G: on r taps
    1: ((1,), (1,)),
    2: ((1, 0), (0, 1), (1, 1)),
    3: ((1, 0, 0), (0, 0, 1), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5))}
_OUTPUTS = ((1, 0), (0, 1), (1, 1), (1, -1))  # A: on the 2 outputs, whatever r

Index = tuple[int, ...]  # one number per axis: of an input, tap or output in its tile, or of a point
Weights = Mapping[Index, float]  # a row of a matrix, without its zeros


class _Product(NamedTuple):
    """One product of a tile: which sums of inputs and of taps are its factors."""

    inputs: Weights
    taps: Weights


def suits(geometry: Geometry, batch: int, channels: int) -> bool:
    """Whether these functions can compute a convolution and its gradients, and faster than others.

    Args:
        geometry: the convolution's sizes.
        batch: samples in it.
        channels: in or out, the fewer.
    """
    sizes = list(zip(geometry.kernel_size, geometry.strides, geometry.padding, strict=True))
    if not sizes or geometry.groups > 1 or not all(
            s <= k <= 3 * s and before >= 0 for k, s, (before, _) in sizes):
        return False
    tiles = math.prod(_tiles(geometry))
    products = tiles * sum(map(len, _products(geometry.kernel_size, geometry.strides).values()))
    direct = math.prod(geometry.kernel_size) * math.prod(geometry.output_size)
    # The sums before and after the products have to be few beside them.
    return products <= 0.8 * direct and min(channels, batch * tiles) >= 32


def conv(x: Array, kernel: Array, *, geometry: Geometry) -> Array:
    """The convolution [batch, *output_size, out] of `x`, [batch, *input_size, in]."""
    inputs, taps = _inputs(x, geometry), _taps(kernel, geometry)
    tiles = _tiles(geometry)
    values = {point: product(inputs[point], taps[point], (1, 0)).reshape(len(x), *tiles, -1)
              for point in inputs}
    outputs = {index: _sum((_output_weights(point).get(index, 0), value)
                           for point, value in values.items())
               for index in itertools.product(range(2), repeat=len(tiles))}
    y = _interleaved(outputs, (2,) * len(tiles))
    return _cropped(y, [(0, size) for size in geometry.output_size]).astype(x.dtype)


def conv_transpose(y: Array, kernel: Array, *, geometry: Geometry) -> Array:
    """Its gradient with respect to `x`, given that with respect to its output `y`."""
    outputs, taps = _outputs(y, geometry), _taps(kernel, geometry)
    tiles, channels = _tiles(geometry), kernel.shape[-2]
    parts: dict[Index, list[tuple[float, Array]]] = {}
    for point, products in _products(geometry.kernel_size, geometry.strides).items():
        values = product(outputs[point], taps[point], (1, 1)).reshape(len(y), *tiles, -1)
        for value, (inputs, _) in zip(_split(values, channels), products, strict=True):
            for index, weight in inputs.items():
                parts.setdefault(index, []).append((weight, value))

    # A tile's inputs overlap with the next one's, which begins two strides later.
    steps = [2 * stride for stride in geometry.strides]
    sums = {index: _sum(part) for index, part in parts.items()}
    blocks = {}
    for first in itertools.product(*map(range, steps)):
        indices = itertools.product(*((i, i + step) for i, step in zip(first, steps, strict=True)))
        blocks[first] = _sum((1, _shifted(sums[index], tuple(map(operator.floordiv, index, steps))))
                             for index in indices if index in sums)
    x = _interleaved(blocks, steps)
    return _cropped(x, [(before, size) for (before, _), size in
                        zip(geometry.padding, geometry.input_size, strict=True)]).astype(y.dtype)


def conv_kernel_gradient(x: Array, y: Array, *, geometry: Geometry) -> Array:
    """Its gradient with respect to the kernel, [*kernel_size, in, out]."""
    inputs, outputs = _inputs(x, geometry), _outputs(y, geometry)
    parts: dict[Index, list[tuple[float, Array]]] = {}
    for point, products in _products(geometry.kernel_size, geometry.strides).items():
        values = product(inputs[point], outputs[point], (0, 0)).reshape(len(products), x.shape[-1], -1)
        for value, (_, taps) in zip(values, products, strict=True):
            for index, weight in taps.items():
                parts.setdefault(index, []).append((weight, value))
    kernel = jnp.stack([_sum(parts[index]) for index in
                        itertools.product(*map(range, geometry.kernel_size))])
    return kernel.reshape(*geometry.kernel_size, *kernel.shape[1:]).astype(x.dtype)


# The factors of the matrix products, by point.


@functools.cache
def _products(kernel_size: Index, strides: Index) -> dict[Index, list[_Product]]:
    """The products of a tile, by point."""
    axes = [[(point, {phase + stride * i: w for i, w in enumerate(inputs) if w},
              {phase + stride * i: w for i, w in enumerate(taps) if w})
             for phase in range(min(size, stride))
             for point, (inputs, taps) in enumerate(zip(
                 *(table[len(range(phase, size, stride))] for table in (_INPUTS, _TAPS)), strict=True))]
            for size, stride in zip(kernel_size, strides, strict=True)]
    by_point: dict[Index, list[_Product]] = {}
    for points, inputs, taps in (zip(*of_axes, strict=True) for of_axes in itertools.product(*axes)):
        by_point.setdefault(points, []).append(_Product(_kronecker(inputs), _kronecker(taps)))
    return by_point


@functools.cache
def _output_weights(point: Index) -> Weights:
    return _kronecker({i: w for i, w in enumerate(_OUTPUTS[p]) if w} for p in point)


def _kronecker(rows: Iterable[Mapping[int, float]]) -> Weights:
    return {tuple(i for i, _ in entries): math.prod(w for _, w in entries)
            for entries in itertools.product(*(row.items() for row in rows))}


def _inputs(x: Array, geometry: Geometry) -> dict[Index, Array]:
    """The sums of inputs, [batch * tiles, phases * in]."""
    tiles, steps = _tiles(geometry), [2 * stride for stride in geometry.strides]
    ends = [(t - 1) * step + k + s - before - n for t, step, k, s, (before, _), n in zip(
        tiles, steps, geometry.kernel_size, geometry.strides, geometry.padding, geometry.input_size,
        strict=True)]
    wide = x.astype(accumulator(x))
    wide = lax.pad(wide, jnp.zeros((), wide.dtype), (
        (0, 0, 0), *((before, end, 0) for (before, _), end in zip(geometry.padding, ends, strict=True)),
        (0, 0, 0)))

    def at(index: Index) -> Array:
        """The inputs at one place of every tile, [batch, *tiles, in]."""
        last = [i + step * (t - 1) + 1 for i, step, t in zip(index, steps, tiles, strict=True)]
        return lax.slice(wide, (0, *index, 0), (len(x), *last, x.shape[-1]), (1, *steps, 1))

    return _factors(lambda of: [_weighted(p.inputs, at) for p in of], geometry, -1, x.dtype)


def _taps(kernel: Array, geometry: Geometry) -> dict[Index, Array]:
    """The sums of taps, [phases * in, out]."""
    wide = kernel.astype(accumulator(kernel))
    return _factors(lambda of: [_weighted(p.taps, wide.__getitem__) for p in of], geometry, 0,
                    kernel.dtype)


def _outputs(y: Array, geometry: Geometry) -> dict[Index, Array]:
    """The sums of outputs, [batch * tiles, out]."""
    padding = [(0, 2 * t - m) for t, m in zip(_tiles(geometry), geometry.output_size, strict=True)]
    wide = jnp.pad(y.astype(accumulator(y)), ((0, 0), *padding, (0, 0)))

    def at(index: Index) -> Array:
        return wide[(slice(None), *(slice(i, None, 2) for i in index))]

    return {point: _rows(_weighted(_output_weights(point), at)).astype(y.dtype)
            for point in _products(geometry.kernel_size, geometry.strides)}


def _factors(terms: Callable, geometry: Geometry, axis: int, dtype) -> dict[Index, Array]:
    return {point: _rows(jnp.concatenate(terms(products), axis)).astype(dtype)
            for point, products in _products(geometry.kernel_size, geometry.strides).items()}


# Arrays.


def _tiles(geometry: Geometry) -> Index:
    """How many tiles of two outputs there are along each axis."""
    return tuple(-(-size // 2) for size in geometry.output_size)


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _weighted(weights: Weights, at: Callable[[Index], Array]) -> Array:
    return _sum((weight, at(index)) for index, weight in weights.items())


def _sum(terms: Iterable[tuple[float, Array]]) -> Array:
    """The weighted sum, of as few operations as it takes."""
    total = None
    for weight, array in terms:
        if weight == 0:
            continue
        scaled = array if abs(weight) == 1 else abs(weight) * array
        if total is None:
            total = scaled if weight > 0 else -scaled
        else:
            total = total + scaled if weight > 0 else total - scaled
    return total


def _split(array: Array, channels: int) -> list[Array]:
    return [array[..., i:i + channels] for i in range(0, array.shape[-1], channels)]


def _shifted(array: Array, by: Index) -> Array:
    """The array one longer along each inner axis, moved there by 0 or 1."""
    return jnp.pad(array, ((0, 0), *((shift, 1 - shift) for shift in by), (0, 0)))


def _interleaved(blocks: Mapping[Index, Array], steps: Iterable[int]) -> Array:
    """The array, [batch, *(sizes * steps), channels], whose every step-th elements are the blocks."""
    steps = tuple(steps)
    batch, *sizes, channels = next(iter(blocks.values())).shape
    stacked = jnp.stack([blocks[index] for index in itertools.product(*map(range, steps))], 1)
    stacked = stacked.reshape(batch, *steps, *sizes, channels)
    pairs = [axis for i in range(1, 1 + len(steps)) for axis in (i + len(steps), i)]
    stacked = stacked.transpose(0, *pairs, stacked.ndim - 1)
    return stacked.reshape(batch, *(n * s for n, s in zip(sizes, steps, strict=True)), channels)


def _cropped(array: Array, parts: Iterable[tuple[int, int]]) -> Array:
    """The part [first, first + size) of each inner axis, with zeros beyond its end."""
    parts = list(parts)
    missing = [(0, max(0, first + size - n))
               for (first, size), n in zip(parts, array.shape[1:-1], strict=True)]
    array = jnp.pad(array, ((0, 0), *missing, (0, 0)))
    return array[(slice(None), *(slice(first, first + size) for first, size in parts))]
