"""Attention of an image's positions to each other."""

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.nn.initializers import conv_init
from jaxgan.nn.layers import Conv
from jaxgan.nn.norms import weight_layer
from jaxgan.types import Array, Dtype


class SelfAttention(nn.Module):
    """Adds to each position a mixture of what the others say, x_j + gamma o_j, with

        o_j = W_v sum_i softmax_i(f(x_i)^T g(x_j)) h(x_i)

    where f (keys), g (queries), h (values) and W_v are 1x1 convolutions without biases. gamma starts at
    0, and so the layer as the identity. Zhang et al. 2019 (arXiv 1805.08318), equations 1 to 3. As the
    authors' code has it, f and g have an eighth of the channels and h half of them, and keys and values
    are the largest of each 2x2 positions; in the article h has an eighth, too, and nothing is pooled.

    Attributes:
        norm: "spectral" for spectral normalisation of the convolutions, or another of
            `jaxgan.nn.norms` that leaves them as they are.
        dtype: what the convolutions and the mixture compute in, the softmax in float32 at least; None
            for the common dtype of input and parameters.
    """

    norm: str = "none"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps `x`, [batch, height, width, channels], height and width even, to the same shape."""
        batch, height, width, channels = x.shape
        if height % 2 or width % 2:
            raise ValueError("SelfAttention takes images of even height and width; got "
                             f"{height}x{width}: have it where they are even")

        def conv(features: int, x: Array) -> Array:
            layer = Conv(max(features, 1), (1, 1), use_bias=False, kernel_init=conv_init(he=False),
                         dtype=self.dtype)
            return weight_layer(self.norm, layer, x, train=train)

        queries, keys, values = conv(channels // 8, x), conv(channels // 8, x), conv(channels // 2, x)
        keys, values = _pooled(keys), _pooled(values)
        queries = queries.reshape(batch, height * width, -1)
        precise = jnp.promote_types(x.dtype, jnp.float32)
        weights = nn.softmax(jnp.einsum("bqc,bkc->bqk", queries.astype(precise), keys.astype(precise)))
        mixture = jnp.einsum("bqk,bkc->bqc", weights.astype(values.dtype), values)
        gamma = self.param("gamma", nn.initializers.zeros_init(), ())
        added = conv(channels, mixture.reshape(batch, height, width, -1))
        return x + (gamma * added).astype(x.dtype)


def _pooled(x: Array) -> Array:
    """The largest of each 2x2 positions, [batch, height * width / 4, channels]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4)).reshape(
        batch, height * width // 4, channels)
