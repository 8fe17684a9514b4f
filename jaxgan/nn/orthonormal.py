"""Layers that are 1-Lipschitz by construction: their weights are kept orthonormal.

A critic of such layers, with activations that keep gradients' norms (`jaxgan.nn.activations`), is
1-Lipschitz with no penalty. Anil et al. 2019, "Sorting out Lipschitz function approximation"
(arXiv 1811.05381), for the idea; Bjorck and Bowie 1971 for the iteration.
"""

import math
import re
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgan.nn.layers import Conv, Dense
from jaxgan.types import Array, PyTree

# The most that a squared singular value s^2 may be before a step, which multiplies s by (3 - s^2) / 2:
# at 3 it would become 0, and stay it.
_MOST = 2.5
# What is added to the squared singular values of V that the whitening matrix follows: it grows to its
# inverse root where they are 0, and not for ever.
_RIDGE = 1e-7


_IN_EVALUATION = 6  # further steps, by which a singular value of 0.4 comes to 1
_LAYERS = re.compile(r"(Dense|Conv)_\d+")  # without a name of their own, as those of heads have one


class Orthonormal(nn.Module):
    """Applies a layer with its kernel made orthonormal, by one step of an iteration a call.

    A kernel counts as the matrix [positions * in, out], or its transpose, whichever has the fewer
    columns. Its product with a whitening matrix, which is kept in the collection "batch_stats", is
    nearly orthonormal, and one step makes it more so (`orthonormalised`). In training the whitening
    matrix takes that step too, and so follows the kernel while it learns; in evaluation several steps
    are taken, since an averaged kernel is farther off. Whatever the two are, no singular value is above
    1. The kernel starts orthonormal, from what its layer's initialiser draws, and stays near to that
    with `orthonormal_kernels` behind the optimiser. A bias is left alone.

    A convolution's matrix is divided by the root of the number of patches that a pixel may be in, the
    product over the spatial axes of ceil(kernel_size / stride), so that it is 1-Lipschitz too. Cisse et
    al. 2017 (arXiv 1704.08847); Serrurier et al. 2021 (arXiv 2006.06520). Where kernel size and stride
    are equal, it is orthonormal itself; where patches overlap, or with several groups, it loses some
    slope.

    Attributes:
        layer: a Dense or Conv, made in the caller's `@nn.compact` method.
    """

    layer: nn.Module

    @nn.compact
    def __call__(self, x: Array, *, update_stats: bool) -> Array:
        """Applies the layer to `x`, [batch, ..., in]; `update_stats` keeps the whitening matrix's step.

        Raises:
            TypeError: the layer is no Dense or Conv.
        """
        if not isinstance(self.layer, Dense | Conv | nn.Dense):
            raise TypeError("only a Dense or Conv of jaxgan.nn can be orthonormal; got "
                            f"{type(self.layer).__name__}: leave its weights as they are")
        overlap = _overlap(self.layer) if isinstance(self.layer, Conv) else 1

        def step(variables: PyTree) -> PyTree:
            kernel = variables["params"]["kernel"]
            matrix = _tall(kernel)
            dtype = jnp.promote_types(matrix.dtype, jnp.float32)
            whitening: Any = self.variable("batch_stats", "whitening", jnp.eye, matrix.shape[1],
                                           dtype=dtype)
            weights, new = orthonormalised(matrix.astype(dtype), lax.stop_gradient(whitening.value))
            if update_stats:
                whitening.value = lax.stop_gradient(new)
            else:
                for _ in range(_IN_EVALUATION):
                    weights = _product(weights, _newton_schulz(weights)[0])
            return _with_kernel(variables, _shaped(weights, kernel) / math.sqrt(overlap))

        def start(variables: PyTree) -> PyTree:
            if not self.is_initializing():
                return variables
            kernel = variables["params"]["kernel"]
            return _with_kernel(variables, _shaped(jnp.linalg.qr(_tall(kernel))[0], kernel))

        return cast("Array", nn.map_variables(
            lambda layer: layer(x), "params", step, start, init=self.is_initializing(), mutable=True
        )(self.layer))


def orthonormalised(matrix: Array, whitening: Array) -> tuple[Array, Array]:
    """Makes the columns of `matrix @ whitening` nearly orthonormal, by one Newton-Schulz step.

    W_0 = V Z, scaled down where a bound of its norm (the largest row sum of |W_0' W_0|) needs it, and
    W = W_0 (3 I - W_0' W_0) / 2. Bjorck and Bowie 1971 (SIAM Journal on Numerical Analysis 8), of order
    1. A singular value s becomes s (3 - s^2) / 2, which is at most 1, and 1 - 3/2 e^2 where s is 1 + e.
    The gradient with respect to V goes through the step, which leaves of it what turns the columns, to
    first order in e: so V hardly grows.

    Args:
        matrix: V, [rows, columns], with no more columns than rows.
        whitening: Z, [columns, columns].

    Returns:
        W, whose singular values are in [0, 1] (of numbers below 1e9, whose squares float32 holds), and
        the next Z. Repeated with the same V, Z comes to (V' V + 1e-7 I)^(-1/2), up to a rotation, and W
        to be orthonormal, but for singular values of V near 3e-4 or below.
    """
    near = _product(matrix, whitening)
    step, scale = _newton_schulz(near)
    ridge = 0.5 * scale**3 * _RIDGE * _product(whitening.T, whitening)
    return _product(near, step), _product(whitening, step - ridge)


def _newton_schulz(near: Array) -> tuple[Array, Array]:
    """What W_0 is multiplied by, and the scale in it."""
    gram = _product(near.T, near)
    scale = jnp.sqrt(_MOST / jnp.maximum(_MOST, jnp.abs(gram).sum(axis=0).max()))
    return scale * (1.5 * jnp.eye(len(gram), dtype=gram.dtype) - 0.5 * scale**2 * gram), scale


def orthonormal_kernels() -> optax.GradientTransformation:
    """An optax transformation that keeps the kernels of dense layers and convolutions near orthonormal.

    After the update V becomes V (3 I - V' V) / 2. Chain it behind the optimiser of a critic of
    `Orthonormal` layers: `optax.chain(optax.adam(1e-3), orthonormal_kernels())`. They are 1-Lipschitz
    without it, too; but an optimiser that scales each number by itself, as Adam does, moves kernels away
    from orthonormal ones, and the more so the worse conditioned they get. Layers that have a name of
    their own, as those of heads, are left alone.

    Raises:
        ValueError: in the update, no parameters are given.
    """
    def retract(path: tuple, update: Array, kernel: Array) -> Array:
        layer, name = ("", *(getattr(entry, "key", "") for entry in path))[-2:]
        if name != "kernel" or not _LAYERS.fullmatch(str(layer)):
            return update
        matrix = _tall(kernel + update)
        return _shaped(_product(matrix, _newton_schulz(matrix)[0]), kernel) - kernel

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        if params is None:
            raise ValueError("orthonormal_kernels needs the parameters: call update(updates, state, "
                             "params)")
        return jax.tree_util.tree_map_with_path(retract, updates, params)

    return optax.stateless(update)


def _product(a: Array, b: Array) -> Array:
    # In float32 itself: what an accelerator takes for it by default is far from orthonormal.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _tall(kernel: Array) -> Array:
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _shaped(matrix: Array, kernel: Array) -> Array:
    columns = kernel.shape[-1]
    return (matrix if kernel.size // columns >= columns else matrix.T).reshape(kernel.shape)


def _with_kernel(variables: PyTree, kernel: Array) -> PyTree:
    return variables | {"params": variables["params"] | {"kernel": kernel}}


def _overlap(layer: Conv) -> int:
    """How many patches a pixel may be in."""
    rank = len(layer.kernel_size)
    strides = (layer.strides,) * rank if isinstance(layer.strides, int) else layer.strides
    return math.prod(-(-k // s) for k, s in zip(layer.kernel_size, strides, strict=True))
