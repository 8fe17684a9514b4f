"""R3GAN's networks: residual blocks of grouped convolutions, without any normalisation.

Huang et al. 2024 (arXiv 2501.05441), section 3, configuration E. Both networks are described by the
widths of their stages, from the smallest images upwards, each stage twice as large as the one before:

    CIFAR-10, 10 classes
        R3GANGenerator((32, 32, 3), (768,) * 4, num_classes=10)                  20,781,952 parameters
        R3GANCritic((768,) * 4, num_classes=10)                                  21,280,512
    FFHQ-256
        R3GANGenerator((256, 256, 3), (768, 768, 768, 768, 384, 192, 96))        23,057,952
        R3GANCritic((768, 768, 768, 768, 384, 192, 96))                          23,009,568

The article's images start from 4x4; here they start from whatever the stages leave of an image, 7x7 for
28x28 and three stages.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.labels import one_hot
from jaxgan.models.ends import check_image_shape, check_images, check_labels, check_latents, squash
from jaxgan.nn import Conv, Dense
from jaxgan.nn.resampling import downsample, upsample
from jaxgan.types import Array, Dtype, PyTree

SLOPE = 0.2  # of the LeakyReLU below 0
_GAIN = math.sqrt(2.0 / (1.0 + SLOPE ** 2))


class R3GANGenerator(nn.Module):
    """A learned picture for each channel, scaled by the latents, then stages of residual blocks.

    Attributes:
        image_shape: (height, width, channels) of a sample; height and width must be multiples of
            2^(stages - 1).
        widths: channels of each stage, from the smallest images upwards.
        blocks: residual blocks of a stage: one number, or one for each stage.
        cardinality: groups of the 3x3 convolutions: one number, or one for each stage; None for an
            eighth of the width. It must divide the width inside the blocks.
        expansion: how much wider than outside a block is inside.
        output: "none" as in the article, "tanh" or "sigmoid".
        num_classes: 0, or how many classes the condition's labels, int [batch], name: an embedding of
            them goes in beside the latents.
        class_size: dimensions of that embedding.
        dtype: what all stages but the first compute in (that one, parameters and samples stay
            float32); None for float32.
        remat: whether to keep only what is between the blocks for the gradient and compute what is in
            them again: less memory, more time.
    """

    image_shape: tuple[int, int, int]
    widths: Sequence[int]
    blocks: int | Sequence[int] = 2
    cardinality: int | Sequence[int] | None = None
    expansion: int = 2
    output: str = "none"
    num_classes: int = 0
    class_size: int = 64
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to images, [batch, *image_shape]."""
        check_latents("R3GANGenerator", latents)
        check_image_shape("R3GANGenerator", self.image_shape)
        *size, channels = self.image_shape
        every = stages(self)
        smallest = _smallest("R3GANGenerator", size, len(every))
        if self.num_classes:
            labels = check_labels("R3GANGenerator", condition, latents, self.num_classes)
            embedding = _dense(self.class_size, name="class_embedding")
            latents = jnp.concatenate([latents, embedding(one_hot(labels, self.num_classes))], 1)

        basis = self.param("basis", nn.initializers.normal(1.0), (*smallest, self.widths[0]))
        x = basis[None] * _dense(self.widths[0], name="basis_weights")(latents)[:, None, None]
        for index, stage in enumerate(every):
            if index:
                x = upsample(_to_width(x, stage.width, self.dtype, f"to_width_{index}"))
            x = _stage(x, stage, index, self)
        return squash(self.output, _pointwise(channels, dtype=self.dtype, name="to_image")(x))


class R3GANCritic(nn.Module):
    """Stages of residual blocks from the largest images to the smallest, then products with pictures.

    Attributes:
        widths: channels of each stage, from the smallest images upwards, as for the generator.
        blocks, cardinality, expansion, dtype, remat: as for the generator.
        num_classes: 0, or how many classes there are: the score is then the product of the last
            activations and the embedding of the label (Miyato and Koyama 2018, arXiv 1802.05637).
    """

    widths: Sequence[int]
    blocks: int | Sequence[int] = 2
    cardinality: int | Sequence[int] | None = None
    expansion: int = 2
    num_classes: int = 0
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps images, [batch, height, width, channels], to scores, [batch]."""
        check_images("R3GANCritic", samples)
        every = stages(self)
        smallest = _smallest("R3GANCritic", samples.shape[1:3], len(every))
        features = self.widths[0] if self.num_classes else 1

        x = _pointwise(self.widths[-1], dtype=self.dtype, name="from_image")(samples)
        for index, stage in reversed(list(enumerate(every))):
            x = _stage(x, stage, index, self)
            if index:
                x = _to_width(downsample(x), every[index - 1].width, self.dtype, f"to_width_{index}")
        basis = self.param("basis", nn.initializers.normal(1.0 / math.sqrt(math.prod(smallest))),
                           (*smallest, self.widths[0]))
        x = _dense(features, name="features")((x * basis[None]).sum((1, 2)))
        if self.num_classes:
            labels = check_labels("R3GANCritic", condition, samples, self.num_classes)
            embedding = _dense(features, 1.0 / math.sqrt(features), name="class_embedding")
            x *= embedding(one_hot(labels, self.num_classes))
        return x.sum(-1)


class ResidualBlock(nn.Module):
    """x + 1x1(act(grouped 3x3(act(1x1(x))))), where act adds a bias for each channel before a LeakyReLU.

    It starts as the identity: the last kernel is 0, and the others are scaled as Fixup scales blocks of
    three layers (Zhang et al. 2019, arXiv 1901.09321).

    Attributes:
        expansion: how much wider than outside it is inside.
        cardinality: groups of the 3x3 convolution.
        depth: residual blocks of the network.
        dtype: what it computes in.
    """

    expansion: int
    cardinality: int
    depth: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `x`, [batch, height, width, channels], to the same shape."""
        width, gain = x.shape[-1], _GAIN * self.depth ** -0.25
        inside = self.expansion * width
        y = _pointwise(inside, gain, dtype=self.dtype, use_bias=True)(x)
        y = nn.leaky_relu(y, SLOPE)
        y = Conv(inside, (3, 3), groups=self.cardinality, kernel_init=_normal(gain), dtype=self.dtype)(y)
        y = nn.leaky_relu(y, SLOPE)
        return x + _pointwise(width, 0.0, dtype=self.dtype)(y)


class Stage(NamedTuple):
    """What happens at one size of images."""

    width: int
    blocks: int
    cardinality: int


def stages(model: "R3GANGenerator | R3GANCritic") -> list[Stage]:
    """What each stage is, from the smallest images upwards, checked."""
    name, widths = type(model).__name__, tuple(model.widths)

    def each(field: str, value: int | Sequence[int]) -> tuple[int, ...]:
        values = (value,) * len(widths) if isinstance(value, int) else tuple(value)
        if len(values) != len(widths) or min(values, default=0) < 1:
            raise ValueError(f"{name}: {field} must be a positive number, or one for each of the "
                             f"{len(widths)} widths; got {value}")
        return values

    each("widths", widths)
    every = list(map(Stage, widths, each("blocks", model.blocks), each(
        "cardinality", [max(width // 8, 1) for width in widths]
        if model.cardinality is None else model.cardinality)))
    for stage in every:
        if stage.width * model.expansion % stage.cardinality:
            raise ValueError(f"{name}: cardinality {stage.cardinality} does not divide the "
                             f"{stage.width * model.expansion} channels inside a block of width "
                             f"{stage.width}: choose another width or cardinality")
    return every


def _smallest(name: str, size: Sequence[int], stages: int) -> tuple[int, int]:
    """Height and width of the smallest images, which the stages leave."""
    factor = 2 ** (stages - 1)
    if any(side % factor for side in size):
        raise ValueError(f"{name}: {stages} stages take images whose height and width are multiples of "
                         f"{factor}; got {'x'.join(map(str, size))}: choose others, or fewer widths")
    height, width = (side // factor for side in size)
    return height, width


def _stage(x: Array, stage: Stage, index: int, model: "R3GANGenerator | R3GANCritic") -> Array:
    """The blocks of a stage; those of the smallest images compute in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32) if index == 0 else model.dtype or x.dtype)
    block = nn.remat(ResidualBlock) if model.remat else ResidualBlock
    depth = sum(each.blocks for each in stages(model))
    for number in range(stage.blocks):
        x = block(model.expansion, stage.cardinality, depth, x.dtype,
                  name=f"stage_{index}_block_{number}")(x)
    return x


def _to_width(x: Array, width: int, dtype: Dtype | None, name: str) -> Array:
    """A 1x1 convolution to another number of channels; nothing if there are as many."""
    return x if x.shape[-1] == width else _pointwise(width, dtype=dtype, name=name)(x)


def _normal(gain: float) -> nn.initializers.Initializer:
    """N(0, gain^2 / fan_in)."""
    return (nn.initializers.variance_scaling(gain ** 2, "fan_in", "normal") if gain
            else nn.initializers.zeros_init())


def _pointwise(features: int, gain: float = 1.0, *, use_bias: bool = False, **options) -> Conv:
    return Conv(features, (1, 1), use_bias=use_bias, kernel_init=_normal(gain), **options)


def _dense(features: int, gain: float = 1.0, **options) -> Dense:
    return Dense(features, use_bias=False, kernel_init=_normal(gain), **options)
