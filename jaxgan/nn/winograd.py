"""Convolutions with fewer products, by minimal filtering: for a CPU, where products bound the time.

Along one axis, a convolution of stride s is a convolution of stride 1 of s times the channels, its
phases: every s-th input with every s-th tap. Two neighbouring outputs of r taps take r + 1 products a
channel in place of 2 r, as they are coefficients of a product of polynomials, found from its values
at r + 1 of the points 0, 1, -1 and infinity:

    outputs = A^T [(G taps) * (B^T inputs)]

(Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray 2016, arXiv 1509.09308.) Where
the last tap of a phase is missing, as in every second phase of 5 taps and stride 2, its product at
infinity is zero and left out. Over several axes the three matrices are Kronecker products, and what
belongs to one point, of all channels, makes one matrix product. A 5x5 kernel with stride 2 takes 49
products a tile of 2x2 outputs in place of 100, a 3x3 kernel with stride 1 takes 16 in place of 36; the
points are few and small, so that the sums before and after cost little accuracy. The gradients are
the transposed maps, with the same number of products.

With stride 1 all points have as many phases, one. Their products are then one, of arrays with an axis
of points, of few examples at a time: a short program, quick to compile, that works in a processor's
cache. With other strides each point has products and sums of its own, of the whole batch.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.nn.geometry import Geometry, accumulator, product
from jaxgan.types import Array

Index = tuple[int, ...]  # one number per axis: of an input, tap or output in its tile, or of a point
Weights = Mapping[Index, float]  # a row of a matrix, without its zeros

# By the number of taps; the rows are points, infinity last.
_INPUTS = {2: ((1, -1, 0), (0, 1, 0), (0, -1, 1)),  # B^T
           3: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1))}
_TAPS = {2: ((1, 0), (1, 1), (0, 1)),  # G
         3: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))}
_OUTPUTS = {2: ((1, 0), (1, 1), (0, 1)),  # A
            3: ((1, 0), (1, 1), (1, -1), (0, 1))}
_AT_ONCE = 2**22  # elements, over all points, of what is computed at a time


class _Matrices(NamedTuple):
    """The three matrices of a convolution of stride 1, [points, inputs, taps or outputs]."""

    inputs: np.ndarray
    taps: np.ndarray
    outputs: np.ndarray


class _Point(NamedTuple):
    """The rows of one point, and how many phases it has along each axis: the first ones."""

    inputs: Weights
    taps: Weights
    outputs: Weights
    phases: Index


def suits(geometry: Geometry, batch: int, channels: int) -> bool:
    """Whether these functions can compute a convolution and its gradients, and faster than others.

    Args:
        geometry: the convolution's sizes.
        batch: samples in it; of a program for any number of them, a symbol.
        channels: in or out, the fewer.
    """
    axes = list(zip(geometry.kernel_size, geometry.strides, geometry.padding, strict=True))
    if not axes or geometry.groups > 1 or not all(
            s < k <= 3 * s and before >= 0 for k, s, (before, _) in axes):
        return False
    tiles = math.prod(_tiles(geometry))
    products = tiles * math.prod(k + s for k, s, _ in axes)
    direct = math.prod(geometry.output_size) * math.prod(geometry.kernel_size)
    # The sums before and after the products have to be few beside them.
    rows = batch * tiles if isinstance(batch, int) else channels  # of any number, taken to be large
    return products <= 0.8 * direct and min(channels, rows) >= 32


def conv(x: Array, kernel: Array, *, geometry: Geometry) -> Array:
    """The convolution, [batch, *output_size, out]."""
    if math.prod(geometry.strides) == 1:
        return _conv_in_parts(x, kernel, geometry)
    points, tiles = _points(geometry), _tiles(geometry)
    inputs, taps = _input_sums(x, geometry), _tap_sums(kernel, geometry)
    values = [product(a, b, (1, 0)).reshape(x.shape[0], *tiles, -1)
              for a, b in zip(inputs, taps, strict=True)]
    blocks = _transposed([point.outputs for point in points], values)
    y = _interleaved(blocks, len(tiles))
    return _cropped(y, [(0, size) for size in geometry.output_size]).astype(x.dtype)


def conv_transpose(y: Array, kernel: Array, *, geometry: Geometry) -> Array:
    """Its gradient with respect to `x`, given that with respect to its result `y`."""
    if math.prod(geometry.strides) == 1:
        return _conv_transpose_in_parts(y, kernel, geometry)
    points, tiles, strides = _points(geometry), _tiles(geometry), geometry.strides
    outputs, taps = _output_sums(y, geometry), _tap_sums(kernel, geometry)
    values = [_all_phases(product(a, b, (1, 1)), (y.shape[0], *tiles), point.phases, strides)
              for a, b, point in zip(outputs, taps, points, strict=True)]
    inputs = _transposed([point.inputs for point in points], values)
    # A tile's inputs number 2 and 3 are the next one's 0 and 1.
    blocks = {first: _sum((1, _moved(inputs[index], [i // 2 for i in index]))
                          for index in itertools.product(*((i, i + 2) for i in first))
                          if index in inputs)
              for first in itertools.product(range(2), repeat=len(tiles))}
    x = _depth_to_space(_interleaved(blocks, len(tiles)), strides)
    return _cropped(x, [(before, size) for (before, _), size in
                        zip(geometry.padding, geometry.input_size, strict=True)]).astype(y.dtype)


def conv_kernel_gradient(x: Array, y: Array, *, geometry: Geometry) -> Array:
    """Its gradient with respect to the kernel, [*kernel_size, in, out]."""
    if math.prod(geometry.strides) == 1:
        return _conv_kernel_gradient_in_parts(x, y, geometry)
    points, strides = _points(geometry), geometry.strides
    inputs, outputs = _input_sums(x, geometry), _output_sums(y, geometry)
    values = [_all_phases(product(a, b, (0, 0)), (), point.phases, strides, y.shape[-1])
              for a, b, point in zip(inputs, outputs, points, strict=True)]
    taps = _transposed([point.taps for point in points], values)
    # [*taps, *phases, in, out] to [*(taps x phases), in, out]
    rank, sizes = len(strides), [max(i) + 1 for i in zip(*taps, strict=True)]
    kernel = jnp.stack([taps[index] for index in itertools.product(*map(range, sizes))])
    kernel = kernel.reshape(1, *sizes, *strides, math.prod(kernel.shape[-2:]))
    kernel = _depth_to_space(kernel, strides)[0]
    kernel = kernel[tuple(slice(size) for size in geometry.kernel_size)]
    return kernel.reshape(*kernel.shape[:rank], x.shape[-1], -1).astype(x.dtype)


# The factors of the matrix products, one matrix for each point.


def _points(geometry: Geometry) -> list[_Point]:
    return _points_of(geometry.kernel_size, geometry.strides)


@functools.cache
def _points_of(kernel_size: Index, strides: Index) -> list[_Point]:
    axes = []
    for size, stride in zip(kernel_size, strides, strict=True):
        taps = -(-size // stride)
        phases = [stride] * taps + [size - stride * (taps - 1)]
        axes.append(list(zip(_INPUTS[taps], _TAPS[taps], _OUTPUTS[taps], phases, strict=True)))
    return [_Point(_kronecker(inputs), _kronecker(taps), _kronecker(outputs), phases)
            for inputs, taps, outputs, phases in (zip(*rows, strict=True)
                                                  for rows in itertools.product(*axes))]


def _kronecker(rows: Sequence[Sequence[float]]) -> Weights:
    return {index: weight for index in itertools.product(*(range(len(row)) for row in rows))
            if (weight := math.prod(row[i] for row, i in zip(rows, index, strict=True)))}


def _input_sums(x: Array, geometry: Geometry) -> list[Array]:
    """[batch * tiles, phases * in]."""
    tiles, batch, rank = _tiles(geometry), x.shape[0], len(geometry.strides)
    sizes = [2 * (t - 1) + -(-k // s) + 1 for t, k, s in
             zip(tiles, geometry.kernel_size, geometry.strides, strict=True)]  # without phases
    ends = [size * s - before - n for size, s, (before, _), n in
            zip(sizes, geometry.strides, geometry.padding, geometry.input_size, strict=True)]
    wide = x.astype(accumulator(x))
    wide = lax.pad(wide, jnp.zeros((), wide.dtype), (
        (0, 0, 0), *((before, end, 0) for (before, _), end in zip(geometry.padding, ends, strict=True)),
        (0, 0, 0)))
    wide = _space_to_depth(wide, geometry.strides)

    def at(index: Index, phases: Index) -> Array:
        """The inputs at one place of every tile."""
        last = [i + 2 * (t - 1) + 1 for i, t in zip(index, tiles, strict=True)]
        return lax.slice(wide, (0, *index, *(0,) * rank, 0), (batch, *last, *phases, x.shape[-1]),
                         (1, *(2,) * rank, *(1,) * rank, 1))

    return [_sum((weight, at(index, point.phases)) for index, weight in point.inputs.items())
            .reshape(batch * math.prod(tiles), -1).astype(x.dtype) for point in _points(geometry)]


def _tap_sums(kernel: Array, geometry: Geometry) -> list[Array]:
    """[phases * in, out]."""
    rank, channels = len(geometry.strides), kernel.shape[-2:]
    wide = kernel.astype(accumulator(kernel))
    missing = [(0, -k % s) for k, s in zip(geometry.kernel_size, geometry.strides, strict=True)]
    wide = jnp.pad(wide, (*missing, (0, 0), (0, 0)))
    wide = _space_to_depth(wide.reshape(1, *wide.shape[:rank], -1), geometry.strides)[0]
    wide = wide.reshape(*wide.shape[:-1], *channels)
    return [_sum((weight, wide[index + tuple(map(slice, point.phases))])
                 for index, weight in point.taps.items())
            .reshape(-1, channels[1]).astype(kernel.dtype) for point in _points(geometry)]


def _output_sums(y: Array, geometry: Geometry) -> list[Array]:
    """[batch * tiles, out]."""
    padding = [(0, 2 * t - n) for t, n in zip(_tiles(geometry), geometry.output_size, strict=True)]
    wide = jnp.pad(y.astype(accumulator(y)), ((0, 0), *padding, (0, 0)))
    return [_sum((weight, wide[(slice(None), *(slice(i, None, 2) for i in index))])
                 for index, weight in point.outputs.items())
            .reshape(-1, y.shape[-1]).astype(y.dtype) for point in _points(geometry)]


# Stride 1: all points at once, [points, ...], of a part of the batch.


def _conv_in_parts(x: Array, kernel: Array, geometry: Geometry) -> Array:
    tiles, taps = _tiles(geometry), _taps_at_points(kernel, geometry)

    def conv_part(x: Array) -> Array:
        values = _products(_inputs_at_points(x, geometry), taps, (2, 1))
        blocks = _times(_matrices(geometry).outputs.T, values)
        y = _spread(blocks.reshape(*(2,) * len(tiles), x.shape[0], *tiles, -1), len(tiles))
        return _cropped(y, [(0, size) for size in geometry.output_size]).astype(x.dtype)

    return _mapped(conv_part, x, _part(x.shape[0], max(kernel.shape[-2:]), geometry))


def _conv_transpose_in_parts(y: Array, kernel: Array, geometry: Geometry) -> Array:
    tiles, taps = _tiles(geometry), _taps_at_points(kernel, geometry)
    rank, sizes = len(tiles), [size + 1 for size in geometry.kernel_size]

    def moved(inputs: Array, by: Index) -> Array:
        """Of each tile's inputs the first or the last two along each axis, the last at the next tile."""
        pairs = inputs[tuple(slice(2 * n, 2 * n + 2) for n in by)]
        missing = [(0, 2 - n) for n in pairs.shape[:rank]]
        return jnp.pad(pairs, (*missing, (0, 0), *((n, 1 - n) for n in by), (0, 0)))

    def conv_transpose_part(y: Array) -> Array:
        values = _products(_outputs_at_points(y, geometry), taps, (2, 2))
        inputs = _times(_matrices(geometry).inputs.T, values).reshape(*sizes, y.shape[0], *tiles, -1)
        blocks = _sum((1, moved(inputs, by)) for by in itertools.product(range(2), repeat=rank))
        return _cropped(_spread(blocks, rank), [(before, size) for (before, _), size in zip(
            geometry.padding, geometry.input_size, strict=True)]).astype(y.dtype)

    return _mapped(conv_transpose_part, y, _part(y.shape[0], max(kernel.shape[-2:]), geometry))


def _conv_kernel_gradient_in_parts(x: Array, y: Array, geometry: Geometry) -> Array:
    def values(x: Array, y: Array) -> Array:
        return _products(_inputs_at_points(x, geometry), _outputs_at_points(y, geometry), (1, 1))

    few = _part(x.shape[0], max(x.shape[-1], y.shape[-1]), geometry)
    if few is None:
        total = values(x, y)
    else:
        like = jax.eval_shape(values, x, y)
        total, _ = lax.scan(lambda total, parts: (total + values(*parts), None),
                            jnp.zeros(like.shape, like.dtype), (_parts(x, few), _parts(y, few)))
    kernel = _times(_matrices(geometry).taps.T, total)
    return kernel.reshape(*geometry.kernel_size, x.shape[-1], -1).astype(x.dtype)


@functools.cache
def _matrices_of(kernel_size: Index) -> _Matrices:
    return _Matrices(*(functools.reduce(np.kron, (np.array(table[size], np.float32)
                                                  for size in kernel_size))
                       for table in (_INPUTS, _TAPS, _OUTPUTS)))


def _matrices(geometry: Geometry) -> _Matrices:
    return _matrices_of(geometry.kernel_size)


def _inputs_at_points(x: Array, geometry: Geometry) -> Array:
    """[points, batch * tiles, in]."""
    tiles, rank = _tiles(geometry), len(geometry.kernel_size)
    padding = [(before, 2 * (t + 1) - before - n) for t, (before, _), n in
               zip(tiles, geometry.padding, geometry.input_size, strict=True)]
    wide = x.astype(accumulator(x))
    wide = lax.pad(wide, jnp.zeros((), wide.dtype), (
        (0, 0, 0), *((before, after, 0) for before, after in padding), (0, 0, 0)))
    pairs = _gathered(wide, [t + 1 for t in tiles])
    # A tile's inputs are its pair and the next one, along each axis.
    tile = jnp.stack([pairs[(slice(None),) * (rank + 1) + tuple(
        slice(n, n + t) for n, t in zip(by, tiles, strict=True))]
        for by in itertools.product(range(2), repeat=rank)])
    matrix = _matrices(geometry).inputs.reshape(-1, *(size + 1 for size in geometry.kernel_size))
    matrix = np.pad(matrix, ((0, 0), *((0, 3 - size) for size in geometry.kernel_size)))
    matrix = matrix.reshape(-1, *(2,) * 2 * rank).transpose(
        0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)).reshape(-1, 4**rank)
    return _times(matrix, tile).reshape(len(matrix), -1, x.shape[-1]).astype(x.dtype)


def _outputs_at_points(y: Array, geometry: Geometry) -> Array:
    """[points, batch * tiles, out]."""
    tiles = _tiles(geometry)
    padding = [(0, 2 * t - n) for t, n in zip(tiles, geometry.output_size, strict=True)]
    wide = jnp.pad(y.astype(accumulator(y)), ((0, 0), *padding, (0, 0)))
    matrix = _matrices(geometry).outputs
    return _times(matrix, _gathered(wide, tiles)).reshape(len(matrix), -1, y.shape[-1]).astype(y.dtype)


def _taps_at_points(kernel: Array, geometry: Geometry) -> Array:
    """[points, in, out]."""
    matrix, channels = _matrices(geometry).taps, kernel.shape[-2:]
    return _times(matrix, kernel.astype(accumulator(kernel))).reshape(-1, *channels).astype(kernel.dtype)


def _times(matrix: np.ndarray, array: Array) -> Array:
    """The matrix times an array whose first axes are its columns, [rows, elements]."""
    return product(jnp.asarray(matrix), array.reshape(matrix.shape[1], -1), (1, 0))


def _products(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """The product of matrices over these axes at each point, in `accumulator(a)`."""
    return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((0,), (0,))),
                           preferred_element_type=accumulator(a))


def _gathered(x: Array, pairs: Sequence[int]) -> Array:
    """[batch, *(2 * pairs), channels] to [*(2, ...), batch, *pairs, channels]."""
    rank = len(pairs)
    x = x.reshape(x.shape[0], *(n for count in pairs for n in (count, 2)), x.shape[-1])
    return jnp.moveaxis(x, range(2, 2 * rank + 1, 2), range(rank))


def _spread(blocks: Array, rank: int) -> Array:
    """What `_gathered` was given."""
    return _woven(jnp.moveaxis(blocks, rank, 0), range(1 + rank, 1 + 2 * rank), range(1, 1 + rank))


def _part(batch: int, channels: int, geometry: Geometry) -> int | None:
    """How many examples to compute at a time; None for all of them."""
    if not isinstance(batch, int):
        return None
    size = math.prod((*(k + 1 for k in geometry.kernel_size), *_tiles(geometry), channels))
    most = max(1, _AT_ONCE // size)
    few = max(n for n in range(1, min(most, batch) + 1) if batch % n == 0)
    return None if few == batch or 2 * few < most else few  # a batch that divides badly stays whole


def _parts(batch: Array, few: int) -> Array:
    return batch.reshape(-1, few, *batch.shape[1:])


def _mapped(function: Callable[[Array], Array], batch: Array, few: int | None) -> Array:
    """Maps a function over parts of a batch, whose examples are independent of each other in it."""
    if few is None:
        return function(batch)
    results = lax.map(function, _parts(batch, few))
    return results.reshape(-1, *results.shape[2:])


# Arrays.


def _tiles(geometry: Geometry) -> Index:
    """How many tiles of two outputs there are along each axis."""
    return tuple(-(-size // 2) for size in geometry.output_size)


def _sum(terms: Iterable[tuple[float, Array]]) -> Array:
    """The weighted sum, of as few operations as it takes."""
    total = None
    for weight, array in terms:
        scaled = array if abs(weight) == 1 else abs(weight) * array
        if total is None:
            total = scaled if weight > 0 else -scaled
        else:
            total = total + scaled if weight > 0 else total - scaled
    if total is None:
        raise ValueError("there is nothing to sum")
    return total


def _transposed(rows: Sequence[Weights], values: Sequence[Array]) -> dict[Index, Array]:
    """The values' sums with the weights of each column of a matrix given by rows."""
    columns: dict[Index, list[tuple[float, Array]]] = {}
    for row, value in zip(rows, values, strict=True):
        for index, weight in row.items():
            columns.setdefault(index, []).append((weight, value))
    return {index: _sum(terms) for index, terms in columns.items()}


def _all_phases(matrix: Array, rows: Index, phases: Index, strides: Index, *columns: int) -> Array:
    """A product's columns or rows sorted by phase, with zeros for the phases that it has not."""
    array = matrix.reshape(*rows, *phases, *((-1, *columns)))
    missing = [(0, s - p) for p, s in zip(phases, strides, strict=True)]
    return jnp.pad(array, (*((0, 0),) * len(rows), *missing, *((0, 0),) * (1 + len(columns))))


def _moved(array: Array, by: Sequence[int]) -> Array:
    """The array one longer along each spatial axis, moved there by 0 or 1."""
    return jnp.pad(array, ((0, 0), *((n, 1 - n) for n in by), *((0, 0),) * (array.ndim - 1 - len(by))))


def _interleaved(blocks: Mapping[Index, Array], rank: int) -> Array:
    """The array, [batch, *(2 * sizes), ...], whose every second elements are the blocks."""
    stacked = jnp.stack([blocks[index] for index in itertools.product(range(2), repeat=rank)], 1)
    stacked = stacked.reshape(stacked.shape[0], *(2,) * rank, *stacked.shape[2:])
    return _woven(stacked, range(1 + rank, 1 + 2 * rank), range(1, 1 + rank))


def _space_to_depth(x: Array, strides: Index) -> Array:
    """[batch, *(sizes * strides), channels] to [batch, *sizes, *strides, channels]."""
    rank = len(strides)
    pairs = [part for n, s in zip(x.shape[1:-1], strides, strict=True) for part in (n // s, s)]
    axes = [*range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)]
    return x.reshape(x.shape[0], *pairs, x.shape[-1]).transpose(0, *axes, 2 * rank + 1)


def _depth_to_space(x: Array, strides: Index) -> Array:
    """[batch, *sizes, *strides, channels] to [batch, *(sizes * strides), channels]."""
    rank = len(strides)
    return _woven(x, range(1, 1 + rank), range(1 + rank, 1 + 2 * rank))


def _woven(x: Array, outer: range, inner: range) -> Array:
    """The array with each outer axis and its inner one made one, [batch, *(outer * inner), ...]."""
    pairs = list(zip(outer, inner, strict=True))
    sizes = [x.shape[i] * x.shape[j] for i, j in pairs]
    rest = range(1 + 2 * len(pairs), x.ndim)
    return x.transpose(0, *itertools.chain(*pairs), *rest).reshape(
        x.shape[0], *sizes, *(x.shape[i] for i in rest))


def _cropped(array: Array, parts: Sequence[tuple[int, int]]) -> Array:
    """The part [first, first + size) of each spatial axis, with zeros beyond its end."""
    missing = [(0, max(0, first + size - n))
               for (first, size), n in zip(parts, array.shape[1:-1], strict=True)]
    array = jnp.pad(array, ((0, 0), *missing, (0, 0)))
    return array[(slice(None), *(slice(first, first + size) for first, size in parts))]
