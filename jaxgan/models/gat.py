"""GAT's networks: transformers that make images, or latents, and judge them at several depths.

GAT, 2025 (arXiv 2509.24935). The generator's tokens start from fixed positions, and the latents come in
as a style w that modulates every block. It gives several outputs, from equal depths; the k-th is the sum
of the first k heads, and the last one is the sample. The critic sees all of them, side by side. Both
take images or latents of any size that the patches divide:

    ImageNet-256 in latents of 32x32x4, B/2, 1000 classes
        GATGenerator((32, 32, 4), 2, *SIZES["B"], num_classes=1000)
        GATCritic(2, *SIZES["B"], num_classes=1000)
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.labels import one_hot
from jaxgan.models.ends import check_image_shape, check_images, check_labels, check_latents
from jaxgan.models.stylegan2 import Equalised
from jaxgan.nn.transformers import (
    Attention,
    Dense,
    Implementation,
    LayerScale,
    Modulation,
    Parts,
    RMSNorm,
    SwiGLU,
    attended,
    axial_angles,
    each,
    joined,
    parted,
    patched,
    positions,
    rms_norm,
)
from jaxgan.types import Array, Dtype, PyTree

Remat = bool | Literal["products"]
_EPSILON = 1e-8  # of mean squares of latents
_CLS = 0.02  # the deviation that the critic's own token starts with
_INIT = nn.initializers.xavier_uniform()


class Size(NamedTuple):
    """A published size: blocks, features of a token, heads."""

    depth: int
    width: int
    heads: int


SIZES = {"S": Size(12, 384, 6), "B": Size(12, 768, 12), "L": Size(24, 1024, 16),
         "XL": Size(28, 1152, 16)}


class GATGenerator(nn.Module):
    """Positions through blocks that the latents modulate, with heads at equal depths.

    Outside of training w can be moved to the moving average of its class: `truncation_psi`. That average
    is in the collection "batch_stats".

    Attributes:
        image_shape: (height, width, channels) of a sample.
        patch: height and width of what a token makes; it must divide both.
        depth: blocks; a multiple of `outputs`.
        width: features of a token, and of w; a multiple of 4 times the heads.
        heads: of the attention.
        outputs: how many images are made, from equal depths.
        num_classes: 0, or how many classes the condition's labels, int [batch], name.
        class_size: dimensions of their embedding.
        truncation_psi: outside of training w becomes average + psi (w - average); 1 leaves it.
        w_decay: of the moving average of w of each class.
        dtype: what the blocks compute in (their norms, w, the heads' sums and parameters stay float32);
            None for float32.
        remat: whether to keep only what is between the blocks for the gradient and compute what is in
            them again; "products": all but their matrix products.
        implementation: of the attention: "xla", or "cudnn" on an NVIDIA GPU, which can't be
            differentiated twice.
        axis_name: the devices' axis, which the steps set: averages of w are over all of them.
    """

    image_shape: tuple[int, int, int]
    patch: int
    depth: int
    width: int
    heads: int
    outputs: int = 4
    num_classes: int = 0
    class_size: int = 64
    truncation_psi: float = 1.0
    w_decay: float = 0.995
    dtype: Dtype | None = None
    remat: Remat = False
    implementation: Implementation = "xla"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to images.

        Returns:
            [batch, outputs, height, width, channels], the last of which is the sample, float32.
        """
        check_latents("GATGenerator", latents)
        check_image_shape("GATGenerator", self.image_shape)
        height, width, channels = self.image_shape
        rows, columns = grid("GATGenerator", height, width, self.patch)
        check_blocks("GATGenerator", self.depth, self.width, self.heads, self.remat)
        if self.outputs < 1 or self.depth % self.outputs:
            raise ValueError(f"GATGenerator: depth must be a multiple of the outputs; got {self.depth} "
                             f"and {self.outputs}")
        labels = (check_labels("GATGenerator", condition, latents, self.num_classes)
                  if self.num_classes else None)
        w = self._style(latents, labels, train=train)
        tokens = jnp.broadcast_to(positions(rows, columns, self.width),
                                  (latents.shape[0], rows * columns, self.width))
        stage = repeated(_Stage, self.outputs)(
            self.depth // self.outputs, self.heads, self.patch**2 * channels, self.dtype, self.remat,
            self.implementation, name="stages")
        start = tokens.astype(self.dtype or jnp.float32), jnp.zeros(
            (*tokens.shape[:2], self.patch**2 * channels), jnp.float32)
        _, outputs = stage(start, w, axial_angles(rows, columns, self.width // self.heads))
        made = joined(outputs.reshape(-1, *outputs.shape[2:]), height, width, self.patch)
        return jnp.moveaxis(made.reshape(self.outputs, -1, *self.image_shape), 0, 1)

    def _style(self, latents: Array, labels: Array | None, *, train: bool) -> Array:
        """w, [batch, width]: in training its averages move, outside it is truncated."""
        parts = [latents]
        if labels is not None:
            embedding = nn.Embed(self.num_classes, self.class_size, name="class_embedding",
                                 embedding_init=nn.initializers.normal(1.0))
            parts.insert(0, embedding(labels))
        w = jnp.concatenate([part * lax.rsqrt(jnp.square(part).mean(1, keepdims=True) + _EPSILON)
                             for part in parts], 1)
        w = Equalised(self.width, multiplier=0.01, name="style_0")(w)
        w = Equalised(self.width, multiplier=0.01, name="style_1")(nn.silu(w))

        kinds = max(self.num_classes, 1)
        averages = self.variable("batch_stats", "w_average", jnp.zeros, (kinds, self.width))
        kind = one_hot(jnp.zeros(w.shape[0], jnp.int32) if labels is None else labels, kinds)
        if not train:
            psi = self.truncation_psi
            return (1.0 - psi) * (kind @ averages.value) + psi * w
        if not self.is_initializing():
            count, total = kind.sum(0)[:, None], kind.T @ lax.stop_gradient(w)
            if self.axis_name is not None:
                count, total = lax.psum((count, total), self.axis_name)
            mean = total / jnp.maximum(count, 1.0)
            moved = self.w_decay * averages.value + (1.0 - self.w_decay) * mean
            averages.value = jnp.where(count > 0, moved, averages.value)
        return w


class GATCritic(nn.Module):
    """Patches of all outputs and a token of its own through blocks; that token's product with the class.

    Attributes:
        patch, depth, width, heads, num_classes, dtype, remat, implementation: as for the generator.
        table: dimensions in which the token and the embedding of the class meet.
        align: 0, or features of the head "tokens", [batch, 1 + patches, align], what three layers make
            of the tokens, the critic's own first, for `regularisers.alignment`: 768 for DINOv2-B.
        align_width: features of the first two of these layers.
    """

    patch: int
    depth: int
    width: int
    heads: int
    num_classes: int = 0
    table: int = 2048
    dtype: Dtype | None = None
    remat: Remat = False
    implementation: Implementation = "xla"
    align: int = 0
    align_width: int = 2048

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool
                 ) -> Array | tuple[Array, dict[str, Array]]:
        """Maps [batch, outputs, height, width, channels], or a single output's, to scores, [batch].

        With `align` to scores and heads.
        """
        if samples.ndim == 5:  # outputs side by side
            samples = jnp.concatenate([samples[:, k] for k in range(samples.shape[1])], -1)
        check_images("GATCritic", samples)
        height, width = samples.shape[1:3]
        rows, columns = grid("GATCritic", height, width, self.patch)
        check_blocks("GATCritic", self.depth, self.width, self.heads, self.remat)
        tokens = Dense(self.width, self.dtype, name="patches")(patched(samples, self.patch))
        own = self.param("cls", nn.initializers.normal(_CLS), (1, 1, self.width))
        parts = parted(own, tokens, self.implementation)
        angles = axial_angles(rows, columns, self.width // self.heads, before=2 - len(parts))
        parts = _blocks(self.depth, self.heads, self.dtype, self.remat, self.implementation, "blocks")(
            parts, None, angles)
        norm = RMSNorm(name="norm")
        own = parts[0][:, 0]
        scores = self._scores(norm(own.astype(jnp.promote_types(own.dtype, jnp.float32))), samples,
                              condition)
        if not self.align:
            return scores
        return scores, {"tokens": self._aligned(norm(jnp.concatenate(parts, 1)))}

    def _scores(self, own: Array, samples: Array, condition: PyTree) -> Array:
        """What the token of its own says, [batch]; samples only count."""
        if not self.num_classes:
            return nn.Dense(1, kernel_init=_INIT, name="score")(own).squeeze(-1)
        labels = check_labels("GATCritic", condition, samples, self.num_classes)
        of_class = nn.Embed(self.num_classes, self.table, name="class_embedding",
                            embedding_init=nn.initializers.normal(1.0))(labels)
        of_class = Equalised(self.table, multiplier=0.01, name="class_0")(of_class)
        of_class = Equalised(self.table, multiplier=0.01, name="class_1")(nn.silu(of_class))
        features = nn.Dense(self.table, kernel_init=_INIT, name="features")(own)
        return (features * of_class).sum(-1)

    def _aligned(self, tokens: Array) -> Array:
        """Tokens in the space that they are to be aligned in."""
        for layer in range(2):
            tokens = nn.silu(Dense(self.align_width, self.dtype, name=f"align_{layer}")(tokens))
        return Dense(self.align, self.dtype, name="align_2")(tokens)


class Block(nn.Module):
    """Attention and a gated layer, each behind a norm and beside its input.

    With a w the norms have no parameters, and scales before and gates behind are its `Modulation`;
    without, norms have a learned scale, and `LayerScale` is in the gates' place.

    Attributes:
        heads: of the attention.
        dtype: what it computes in.
        implementation: of the attention.
    """

    heads: int
    dtype: Dtype | None = None
    implementation: Implementation = "xla"

    @nn.compact
    def __call__(self, parts: Parts, w: Array | None, angles: np.ndarray | Array) -> tuple[Parts, None]:
        """Maps tokens, [batch, tokens, width], to the same shape; None is for the scan.

        Args:
            parts: the tokens, or a token of the critic's own, [batch, 1, width], and the others.
            w: [batch, size], or None.
            angles: of the last part's tokens.
        """
        attend = Attention(self.heads, dtype=self.dtype, implementation=self.implementation,
                           name="attention")
        gated = SwiGLU(dtype=self.dtype, name="mlp")
        if w is None:
            before = [RMSNorm(name=f"norm_{i}") for i in (1, 2)]
            after = [LayerScale(name=f"scale_{i}") for i in (1, 2)]
        else:
            modulation = Modulation(4, parts[-1].shape[-1], self.dtype, name="modulation")(w)
            scale_1, gate_1, scale_2, gate_2 = (part.astype(parts[-1].dtype) for part in modulation)
            before = [lambda x, scale=scale: rms_norm(x) * (1.0 + scale) for scale in (scale_1, scale_2)]
            after = [lambda x, gate=gate: gate * x for gate in (gate_1, gate_2)]
        made = attended(attend, each(before[0], parts), angles)
        parts = each(lambda x, y: x + after[0](y), parts, made)
        return each(lambda x: x + after[1](gated(before[1](x))), parts), None


class _Stage(nn.Module):
    """Some blocks, and a head whose patches are added to those of the heads before."""

    depth: int
    heads: int
    features: int  # of a patch
    dtype: Dtype | None
    remat: Remat
    implementation: Implementation

    @nn.compact
    def __call__(self, carry: tuple[Array, Array], w: Array, angles: np.ndarray | Array
                 ) -> tuple[tuple[Array, Array], Array]:
        x, total = carry
        x, = _blocks(self.depth, self.heads, self.dtype, self.remat, self.implementation, "blocks")(
            (x,), w, angles)
        scale, = Modulation(1, x.shape[-1], self.dtype, name="head_scale")(w)
        made = Dense(self.features, self.dtype, name="head")(
            rms_norm(x) * (1.0 + scale.astype(x.dtype)))
        total += made.astype(total.dtype)
        return (x, total), total


def _blocks(depth: int, heads: int, dtype: Dtype | None, remat: Remat, implementation: Implementation,
            name: str) -> Callable[[Parts, Array | None, np.ndarray | Array], Parts]:
    """So many blocks: (parts, w, angles) -> parts."""
    blocks = repeated(rematerialised(Block, remat), depth)(heads, dtype, implementation, name=name)
    return lambda parts, w, angles: blocks(parts, w, angles)[0]


def rematerialised(block: type[nn.Module], remat: Remat) -> type[nn.Module]:
    """A block for `repeated`, of which the backward pass computes again what `remat` says."""
    if not remat:
        return block
    policy = None if remat is True else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return nn.remat(block, policy=policy, prevent_cse=False)  # a scan needs nothing against that


def repeated(module: Callable[..., nn.Module], count: int) -> Callable[..., Any]:
    """A module so many times, one after the other, compiled once; what isn't carried is the same."""
    return nn.scan(module, variable_axes={"params": 0}, split_rngs={"params": True}, length=count,
                   in_axes=nn.broadcast)  # pyright: ignore[reportArgumentType]: flax's own constant


def grid(model: str, height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches, checked."""
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"{model}: patches must divide height and width; got {patch} for {height}x"
                         f"{width}")
    return height // patch, width // patch


def check_blocks(model: str, depth: int, width: int, heads: int, remat: Remat) -> None:
    """Raises ValueError for what a transformer's blocks can't be."""
    if depth < 1:
        raise ValueError(f"{model}: depth must be at least 1; got {depth}")
    if heads < 1 or width % (4 * heads):
        raise ValueError(f"{model}: width must be a multiple of 4 times the heads, since the positions "
                         f"turn pairs of features for each axis; got {width} and {heads}")
    if remat not in (False, True, "products"):
        raise ValueError(f"{model}: remat must be False, True or 'products'; got {remat!r}")


def as_outputs(outputs: int, samples: Array) -> Array:
    """A sample as often as a generator has outputs, [batch, outputs, ...]: a GAN's `lift`."""
    return jnp.repeat(samples[:, None], outputs, 1)


def last_output(samples: Array) -> Array:
    """The sample among a generator's outputs, [batch, ...]: a GAN's `lower`."""
    return samples[:, -1]
