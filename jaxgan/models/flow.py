"""Adversarial flow's networks: diffusion transformers that map noise of the data's shape to data.

Adversarial flow, 2025 (arXiv 2511.22475), with the transformer of Peebles and Xie 2023 (arXiv
2212.09748, figure 3, "adaLN-Zero"), which the class alone modulates: there are no steps of time. The
generator's input is the noise itself; the critic has a token of its own in front, which the score is
read from. With `regularisers.transport` the generator learns the map that moves the noise least.
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.models.ends import check_image_shape, check_images, check_labels
from jaxgan.models.gat import Remat, check_blocks, grid, rematerialised, repeated
from jaxgan.nn.transformers import (
    MLP,
    Attention,
    Dense,
    Implementation,
    Modulation,
    Parts,
    attended,
    each,
    joined,
    layer_norm,
    parted,
    patched,
    positions,
)
from jaxgan.types import Array, Dtype, PyTree

_TOKEN = 0.02  # the deviation of what tokens and classes start with
_INIT = nn.initializers.xavier_uniform()
_ZERO = nn.initializers.zeros_init()


class FlowGenerator(nn.Module):
    """Noise in patches through blocks that the class modulates; it starts as the constant 0.

    Attributes:
        image_shape: (height, width, channels) of a sample and of its noise.
        patch: height and width of a token's patch; it must divide both.
        depth: blocks.
        width: features of a token; a multiple of 4, and of the heads.
        heads: of the attention.
        num_classes: 0, or how many classes the condition's labels, int [batch], name.
        dtype: what the blocks compute in (their norms and parameters stay float32); None for float32.
        remat: whether to keep only what is between the blocks for the gradient and compute what is in
            them again; "products": all but their matrix products.
        implementation: of the attention: "xla", or "cudnn" on an NVIDIA GPU, which can't be
            differentiated twice.
    """

    image_shape: tuple[int, int, int]
    patch: int
    depth: int
    width: int
    heads: int
    num_classes: int = 0
    dtype: Dtype | None = None
    remat: Remat = False
    implementation: Implementation = "xla"

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps noise, [batch, *image_shape], to samples of that shape, float32."""
        check_image_shape("FlowGenerator", self.image_shape)
        if latents.shape[1:] != tuple(self.image_shape):
            raise ValueError("FlowGenerator takes latents of the samples' shape, "
                             f"{self.image_shape}; got {latents.shape[1:]}: give the GAN a prior of "
                             "that shape")
        height, width, channels = self.image_shape
        grid("FlowGenerator", height, width, self.patch)
        tokens, about = _entered(self, "FlowGenerator", latents, condition)
        tokens, = _blocks(self, (tokens,), about)
        shift, scale = Modulation(2, self.width, self.dtype, _ZERO, name="last_modulation")(about)
        tokens = _modulated(tokens, shift, scale)
        made = Dense(self.patch**2 * channels, self.dtype, _ZERO, name="last")(tokens)
        return joined(made.astype(jnp.float32), height, width, self.patch)


class FlowCritic(nn.Module):
    """The same transformer of samples, with a token of its own in front; the score is read from that.

    Attributes:
        patch, depth, width, heads, num_classes, dtype, remat, implementation: as for the generator.
    """

    patch: int
    depth: int
    width: int
    heads: int
    num_classes: int = 0
    dtype: Dtype | None = None
    remat: Remat = False
    implementation: Implementation = "xla"

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps [batch, height, width, channels] to scores, [batch], float32."""
        check_images("FlowCritic", samples)
        tokens, about = _entered(self, "FlowCritic", samples, condition)
        own = self.param("token", nn.initializers.normal(_TOKEN), (1, 1, self.width))
        own = _blocks(self, parted(own, tokens, self.implementation), about)[0][:, 0]
        own = layer_norm(own.astype(jnp.promote_types(own.dtype, jnp.float32)))
        return nn.Dense(1, use_bias=False, kernel_init=_INIT, name="score")(own).squeeze(-1)


class FlowBlock(nn.Module):
    """Attention and an MLP, each behind a modulated norm and a gate that starts at 0.

    Attributes:
        heads: of the attention.
        dtype: what it computes in.
        implementation: of the attention.
    """

    heads: int
    dtype: Dtype | None = None
    implementation: Implementation = "xla"

    @nn.compact
    def __call__(self, parts: Parts, about: Array) -> tuple[Parts, None]:
        """Maps tokens, [batch, tokens, width], to the same shape; None is for the scan.

        Args:
            parts: the tokens, or a token of the critic's own, [batch, 1, width], and the others.
            about: what modulates them, [batch, size].
        """
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            part.astype(parts[-1].dtype) for part in
            Modulation(6, parts[-1].shape[-1], self.dtype, _ZERO, name="modulation")(about))
        attend = Attention(self.heads, normalised=False, dtype=self.dtype, name="attention",
                           implementation=self.implementation)
        widen = MLP(dtype=self.dtype, name="mlp")
        made = attended(attend, each(lambda x: _modulated(x, shift_1, scale_1), parts))
        parts = each(lambda x, y: x + gate_1 * y, parts, made)
        return each(lambda x: x + gate_2 * widen(_modulated(x, shift_2, scale_2)), parts), None


def _entered(module: FlowGenerator | FlowCritic, model: str, images: Array, condition: PyTree
             ) -> tuple[Array, Array]:
    """Tokens of patches with their positions, and what the class says, [batch, width]."""
    height, width = images.shape[1:3]
    rows, columns = grid(model, height, width, module.patch)
    check_blocks(model, module.depth, module.width, module.heads, module.remat)
    labels = (check_labels(model, condition, images, module.num_classes) if module.num_classes else
              jnp.zeros(images.shape[0], jnp.int32))
    about = nn.Embed(max(module.num_classes, 1), module.width, name="class_embedding",
                     embedding_init=nn.initializers.normal(_TOKEN))(labels)
    tokens = Dense(module.width, module.dtype, name="patches")(patched(images, module.patch))
    return tokens + positions(rows, columns, module.width)[None].astype(tokens.dtype), about


def _blocks(module: FlowGenerator | FlowCritic, parts: Parts, about: Array) -> Parts:
    block = repeated(rematerialised(FlowBlock, module.remat), module.depth)
    return block(module.heads, module.dtype, module.implementation, name="blocks")(parts, about)[0]


def _modulated(x: Array, shift: Array, scale: Array) -> Array:
    return layer_norm(x) * (1.0 + scale.astype(x.dtype)) + shift.astype(x.dtype)
