"""Parts of transformers: normalisation, rotary positions, attention, gated layers, modulation.

All of them compute in `dtype`, with norms and the softmax in float32 at least, and differentiate to any
order.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from jaxgan.types import Array, Dtype

Implementation = Literal["xla", "cudnn"]
Parts = tuple[Array, ...]  # tokens: all in one array, or one of its own and the others
EPSILON = 1e-6  # of mean squares, so that none is 0
_THETA = 10_000.0
_COLUMNS = 128  # of a TPU's matrix unit
_LAYER_SCALE = 0.1  # what it starts at
_MODULATION = nn.initializers.variance_scaling(0.1**2, "fan_avg", "uniform")  # Xavier's, gain 0.1


def rms_norm(x: Array, scale: Array | None = None) -> Array:
    """Divides by the root of the mean square along the last axis.

    Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4.

    Args:
        x: any shape, [..., features].
        scale: None, or [features].
    """
    wide = _widened(x)
    y = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + EPSILON)
    return (y if scale is None else y * _beside(scale, y)).astype(x.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned scale, which starts at 1."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., features] to the same shape."""
        return rms_norm(x, self.param("scale", nn.initializers.ones_init(), (x.shape[-1],)))


def positions(height: int, width: int, features: int) -> np.ndarray:
    """The sines and cosines of each position of a grid, row by row, float32 [height * width, features].

    The first half tells the column, the second the row, each by sines and then cosines of the
    frequencies 10000^(-4i / features). Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, for each
    axis; the order of axes is that of He et al. 2022 (arXiv 2111.06377).

    Raises:
        ValueError: the features can't be cut into four.
    """
    rows, columns = _angles(height, width, features)
    return np.concatenate([turn(axis) for axis in (columns, rows) for turn in (np.sin, np.cos)], 1
                          ).astype(np.float32)


def axial_angles(height: int, width: int, features: int, before: int = 0) -> np.ndarray:
    """The angles of an axial rotary embedding, float32 [before + height * width, features / 2].

    The first half of a head's features turns with the row, the second with the column, by the
    frequencies 10000^(-4i / features). Su et al. 2021 (arXiv 2104.09864), equation 15, for each axis, as
    Heo et al. 2024 (arXiv 2403.13298, section 3.2) have it.

    Args:
        height: rows of the grid.
        width: columns.
        features: of a head.
        before: tokens before the grid's, which don't turn.

    Raises:
        ValueError: the features can't be cut into four.
    """
    grid = np.concatenate(_angles(height, width, features), 1)
    return np.concatenate([np.zeros((before, features // 2)), grid]).astype(np.float32)


def _angles(height: int, width: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Each position's row, and its column, times each frequency, [height * width, features / 4]."""
    if features % 4:
        raise ValueError(f"positions on a grid take features that 4 divides; got {features}")
    rows, columns = np.divmod(np.arange(height * width), width)
    frequencies = _THETA ** (-np.arange(features // 4) / (features // 4))
    return rows[:, None] * frequencies, columns[:, None] * frequencies


def rotated(x: Array, angles: Array | np.ndarray) -> Array:
    """Turns pairs of features by the angles of their positions.

    Within each axis' half of the features the first feature and the one in its middle are a pair, and so
    on.

    Args:
        x: queries or keys, [batch, tokens, heads, features].
        angles: [tokens, features / 2], of `axial_angles`.
    """
    wide = _widened(x)
    pairs = wide.reshape(*x.shape[:-1], 2, 2, -1)  # axis, side of the pair, frequency
    first, second = pairs[..., 0, :], pairs[..., 1, :]
    turns = jnp.asarray(angles).reshape(1, x.shape[1], 1, 2, -1)
    cosine, sine = jnp.cos(turns), jnp.sin(turns)
    turned = jnp.stack([first * cosine - second * sine, second * cosine + first * sine], -2)
    return turned.reshape(x.shape).astype(x.dtype)


def layer_norm(x: Array) -> Array:
    """Takes away the mean along the last axis and divides by the deviation; nothing is learned.

    Ba et al. 2016 (arXiv 1607.06450), equation 4 without gain and bias. Any shape, [..., features].
    """
    wide = _widened(x)
    apart = wide - wide.mean(-1, keepdims=True)
    return (apart * jax.lax.rsqrt(jnp.square(apart).mean(-1, keepdims=True) + EPSILON)).astype(x.dtype)


class Dense(nn.Module):
    """W x + b, as Flax's.

    Tokens are laid in rows, as a processor's compiler copies what the gradient of W needs otherwise; but
    not where they fill a TPU's matrix units, as its compiler copies for the rows. In half precision the
    gradient of b is a product with ones, which a TPU's compiler makes faster than a sum.

    Attributes:
        features: of the result.
        dtype: what it computes in; None promotes the input's and the parameters'.
        kernel_init: of W.
    """

    features: int
    dtype: Dtype | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., width] to [..., features]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        rows = x if x.ndim > 2 and _fills(x.shape[-2]) else x.reshape(-1, x.shape[-1])
        rows, kernel, bias = promote_dtype(rows, kernel, bias, dtype=self.dtype)
        if rows.dtype.itemsize > 2:
            bias = _beside(bias, rows)
        else:
            bias = jnp.ones((*rows.shape[:-1], 1), rows.dtype) @ bias[None]
        return (rows @ kernel + bias).reshape(*x.shape[:-1], self.features)


class Attention(nn.Module):
    """Each token's mixture of all, by heads; queries and keys may be normalised and turned.

    Vaswani et al. 2017 (arXiv 1706.03762), equation 1; normalised queries and keys as in Dehghani et al.
    2023 (arXiv 2302.05442), section 2, with `RMSNorm`.

    Attributes:
        heads: they must divide the width.
        normalised: whether queries and keys are normalised.
        dtype: what it computes in; None promotes the input's and the parameters'.
        implementation: "xla", or "cudnn" on an NVIDIA GPU, in half precision and where nothing
            differentiates twice.
    """

    heads: int
    normalised: bool = True
    dtype: Dtype | None = None
    implementation: Implementation = "xla"

    @nn.compact
    def __call__(self, x: Array, angles: Array | np.ndarray | None = None, own: Array | None = None
                 ) -> Array | tuple[Array, Array]:
        """Maps [batch, tokens, width] to the same shape.

        Args:
            x: the tokens.
            angles: as for `rotated`, or None.
            own: None, or one more token of each example, [batch, 1, width], which isn't turned. The
                others attend to it and it to all.

        Returns:
            What became of the tokens; with `own`, what became of it and of the others.
        """
        width = x.shape[-1]
        if self.heads < 1 or width % self.heads:
            raise ValueError(f"heads must divide the width; got {self.heads} for {width}")
        enter, leave = (Dense(features, dtype=self.dtype, name=name)
                        for features, name in ((3 * width, "qkv"), (width, "out")))
        norms = [RMSNorm(name=name) for name in ("q_norm", "k_norm")] if self.normalised else []

        def entered(x: Array) -> list[Array]:
            """Queries, keys and values, [batch, tokens, heads, features]."""
            made = enter(x).reshape(*x.shape[:2], 3, self.heads, width // self.heads)
            three = [made[:, :, i] for i in range(3)]
            return [norm(part) for norm, part in zip(norms, three, strict=False)] + three[len(norms):]

        queries, keys, values = entered(x)
        if angles is not None:
            queries, keys = rotated(queries, angles), rotated(keys, angles)
        if own is None:
            mixed = jax.nn.dot_product_attention(queries, keys, values,
                                                 implementation=self.implementation)
            return leave(mixed.reshape(x.shape))
        own_queries, *of_own = entered(own)
        mixed = [_mixed_with(queries, keys, values, *of_own) for queries in (own_queries, queries)]
        return leave(mixed[0].reshape(own.shape)), leave(mixed[1].reshape(x.shape))


def _mixed_with(queries: Array, keys: Array, values: Array, key: Array, value: Array) -> Array:
    """Attention to one more key and value, [batch, 1, heads, features], than stand in the arrays."""
    wide = jnp.promote_types(queries.dtype, jnp.float32)
    product = partial(jnp.einsum, preferred_element_type=wide)
    scale = queries.shape[-1]**-0.5
    logits = scale * product("bqhd,bkhd->bhqk", queries, keys)
    own = scale * product("bqhd,bohd->bhq", queries, key)
    largest = jax.lax.stop_gradient(jnp.maximum(logits.max(-1), own))
    powers, power = jnp.exp(logits - largest[..., None]).astype(values.dtype), jnp.exp(own - largest)
    total = powers.sum(-1, dtype=wide) + power
    power, total = (jnp.swapaxes(part, 1, 2)[..., None] for part in (power, total))
    mixed = product("bhqk,bkhd->bqhd", powers, values) + power * value.astype(wide)
    return (mixed / total).astype(values.dtype)


class SwiGLU(nn.Module):
    """W_3 (SiLU(W_1 x) * W_2 x), with biases. Shazeer 2020 (arXiv 2002.05202), equation 6.

    Attributes:
        features: between the layers; None for 2/3 of four times the width.
        dtype: what it computes in.
    """

    features: int | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., width] to the same shape."""
        width = x.shape[-1]
        features = int(2 / 3 * (4 * width)) if self.features is None else self.features
        gate, up = jnp.split(Dense(2 * features, self.dtype, name="in")(x), 2, -1)
        return Dense(width, self.dtype, name="out")(nn.silu(gate) * up)


class MLP(nn.Module):
    """W_2 GELU(W_1 x), with biases and four times the width in between, as in Peebles and Xie 2023."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., width] to the same shape."""
        wide = nn.gelu(Dense(4 * x.shape[-1], self.dtype, name="in")(x))
        return Dense(x.shape[-1], self.dtype, name="out")(wide)


class LayerScale(nn.Module):
    """Scales each feature, at first by 0.1. Touvron et al. 2021 (arXiv 2103.17239), equation 4."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., features] to the same shape."""
        scale = self.param("scale", nn.initializers.constant(_LAYER_SCALE), (x.shape[-1],))
        return x * _beside(scale, x)


class Modulation(nn.Module):
    """What a condition says of each feature: so many scales, shifts or gates, Linear(SiLU(w)).

    Attributes:
        count: of them.
        features: of the tokens.
        dtype: what it computes in.
        kernel_init: by default Xavier's with a gain of 0.1; zeros for a network that starts without it.
    """

    count: int
    features: int
    dtype: Dtype | None = None
    kernel_init: nn.initializers.Initializer = _MODULATION

    @nn.compact
    def __call__(self, w: Array) -> list[Array]:
        """Maps [batch, size] to `count` arrays [batch, 1, features]."""
        made = nn.Dense(self.count * self.features, kernel_init=self.kernel_init, dtype=self.dtype,
                        name="linear")(nn.silu(w))
        return jnp.split(made[:, None], self.count, -1)


def patched(images: Array, patch: int) -> Array:
    """Cuts images [batch, height, width, channels] into patches, row by row.

    Returns:
        [batch, patches, patch * patch * channels].

    Raises:
        ValueError: height or width is no multiple of the patch.
    """
    batch, height, width, channels = images.shape
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patches of {patch}x{patch} don't divide images of {height}x{width}")
    cut = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return cut.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)


def joined(patches: Array, height: int, width: int, patch: int) -> Array:
    """Joins what `patched` has cut, [batch, height, width, channels]."""
    cut = patches.reshape(patches.shape[0], height // patch, width // patch, patch, patch, -1)
    return cut.swapaxes(2, 3).reshape(patches.shape[0], height, width, -1)


def parted(own: Array, tokens: Array, implementation: Implementation = "xla") -> Parts:
    """A token, [1, 1, width], before the others of each example, [batch, tokens, width].

    In one array; but in two, (own, tokens), where the others fill a TPU's matrix units, which have 128
    columns: with one token more than 256, attention would take half as many columns again.
    """
    own = jnp.broadcast_to(own, (tokens.shape[0], *own.shape[1:])).astype(tokens.dtype)
    if implementation == "xla" and _fills(tokens.shape[1]):
        return own, tokens
    return jnp.concatenate([own, tokens], 1),


def each(layer: Callable[..., Array], *parts: Parts) -> Parts:
    """What a layer makes of each part of the tokens."""
    return tuple(map(layer, *parts))


def attended(attention: Attention, parts: Parts, angles: Array | np.ndarray | None = None) -> Parts:
    """What attention makes of a token and the others, or of all in one; `angles` are the last part's."""
    *own, x = parts
    made = attention(x, angles, *own)
    return made if isinstance(made, tuple) else (made,)


def _fills(tokens: int) -> bool:
    """Whether so many tokens fill a TPU's matrix units."""
    return tokens % _COLUMNS == 0


def _beside(scale: Array, x: Array) -> Array:
    return jnp.expand_dims(scale.astype(x.dtype), range(x.ndim - 1))


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
