"""Residual networks as WGAN-GP's experiments have them.

Gulrajani et al. 2017 (arXiv 1704.00028), after its public code. Both of its settings:

    CIFAR-10, 32x32
        ResNetGenerator()                                          1,204,483 parameters
        ResNetCritic()                                             1,053,825
    64x64
        ResNetGenerator((64, 64, 3), (512, 512, 256, 128, 64), first_bias=False)    8,540,483
        ResNetCritic((64, 128, 256, 512, 512), down_blocks=4, stem="conv", head="flatten",
                     norm="layer", first_bias=False)                                7,491,841
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.models.ends import (
    as_planes,
    check_conditioning,
    check_image_shape,
    check_images,
    check_labels,
    conditioned,
    judge,
    squash,
)
from jaxgan.nn import Conv, Dense, SelfAttention
from jaxgan.nn.initializers import conv_init, dense_init
from jaxgan.nn.norms import RESIDUAL_NORMS, check_norm, normalise, weight_layer
from jaxgan.types import Array, Dtype, PyTree


class ResNetGenerator(nn.Module):
    """A dense layer to a small image, then residual blocks that each double its size.

    Attributes:
        image_shape: (height, width, channels) of a sample; height and width must be multiples of
            2^blocks.
        widths: channels of the small image, then of each block's output.
        norm: "batch" or "none", before every ReLU.
        output: "tanh" for samples in [-1, 1], "sigmoid" for [0, 1], "none" for unbounded ones.
        first_bias: whether a block's first convolution has a bias, which a norm after it undoes.
        last_he: whether the last convolution starts in the wide range of layers before a ReLU, as in the
            public code's 64x64 generator, and not in its CIFAR-10 generator.
        num_classes: 0, or how many classes the condition's labels, int [batch], name: the blocks' batch
            normalisations have scales and biases of each class then.
        num_numbers: 0, or how many numbers the condition is, float [batch, numbers], which go in with
            the latents.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, samples stay float32); None for
            the common dtype of input and parameters.
        remat: whether to keep only what is between the blocks for the gradient and compute what is in
            them again: less memory, more time.
        attention: heights of activations at which there is self-attention, behind a block:
            `jaxgan.nn.SelfAttention`.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    widths: Sequence[int] = (128, 128, 128, 128)
    norm: str = "batch"
    output: str = "tanh"
    first_bias: bool = True
    last_he: bool = False
    num_classes: int = 0
    num_numbers: int = 0
    axis_name: str | None = None
    dtype: Dtype | None = None
    remat: bool = False
    attention: Sequence[int] = ()

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to images, [batch, *image_shape]."""
        latents, labels = conditioned("ResNetGenerator", latents,
                                      condition if self.num_numbers else None, 0, self.num_numbers)
        check_image_shape("ResNetGenerator", self.image_shape)
        check_norm(self.norm, ("none", "batch"))
        if self.num_classes:
            if self.norm != "batch":
                raise ValueError("ResNetGenerator: classes enter by batch normalisation; got norm "
                                 f"{self.norm!r}")
            labels = check_labels("ResNetGenerator", condition, latents, self.num_classes)
        height, width, channels = self.image_shape
        factor = _factor("ResNetGenerator", (height, width), len(self.widths) - 1)
        first, *rest = self.widths
        _check_attention("ResNetGenerator", self.attention,
                         [height // factor * 2 ** index for index in range(1, len(self.widths))])

        x = Dense(height // factor * (width // factor) * first, kernel_init=dense_init(),
                  dtype=self.dtype)(latents)
        x = x.reshape(-1, height // factor, width // factor, first)
        for index, features in enumerate(rest):
            block = _kept(ResidualBlock, self.remat)(
                features, "up", self.norm, self.first_bias, self.axis_name, self.dtype, self.num_classes,
                name=f"ResidualBlock_{index}")
            x = block(x, train, labels)
            x = _attended(self, x, train) if x.shape[1] in self.attention else x
        x = nn.relu(normalise(self.norm, x, train=train, axis_name=self.axis_name))
        x = Conv(channels, (3, 3), kernel_init=conv_init(he=self.last_he), dtype=self.dtype)(x)
        return squash(self.output, x)


class ResNetCritic(nn.Module):
    """A first convolution or block, residual blocks of which the first ones halve, a dense layer.

    Attributes:
        widths: channels of the stem's output, then of each block's.
        down_blocks: how many of the blocks, the first ones, halve height and width.
        stem: "block" for a residual block without norm that halves, "conv" for a 3x3 convolution.
        head: "mean" for a ReLU and the mean over height and width, "flatten" for neither, before the
            dense layer.
        norm: "none", "batch", "layer" or "spectral"; activations are normalised before every ReLU in
            the blocks after the stem, spectral normalisation is of every layer's weights.
        first_bias: whether a block's first convolution has a bias.
        conditioning: "none", "projection", "concatenation" or "classes", see `jaxgan.models.ends.judge`.
        num_classes: how many classes there are; 0 without conditioning, or by numbers.
        num_numbers: how many numbers the condition is, float [batch, numbers]; 0 for none.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, scores stay float32); None for
            the common dtype of input and parameters.
        remat: as for `ResNetGenerator`.
        attention: heights of activations at which there is self-attention, behind the first block, or
            convolution, that they come out of; under spectral normalisation if the other layers are.
    """

    widths: Sequence[int] = (128, 128, 128, 128)
    down_blocks: int = 1
    stem: str = "block"
    head: str = "mean"
    norm: str = "none"
    first_bias: bool = True
    conditioning: str = "none"
    num_classes: int = 0
    num_numbers: int = 0
    axis_name: str | None = None
    dtype: Dtype | None = None
    remat: bool = False
    attention: Sequence[int] = ()

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool
                 ) -> Array | tuple[Array, dict[str, Array]]:
        """Maps images, [batch, height, width, channels], to scores, [batch], or scores and heads."""
        check_images("ResNetCritic", samples)
        check_norm(self.norm, RESIDUAL_NORMS)
        check_conditioning("ResNetCritic", self.conditioning, self.num_classes, condition, samples,
                           self.num_numbers)
        self._check_fields()
        halved = int(self.stem == "block")
        _factor("ResNetCritic", samples.shape[1:3], halved + self.down_blocks)
        _check_attention("ResNetCritic", self.attention, [
            samples.shape[1] // 2 ** times for times in range(halved, halved + self.down_blocks + 1)])
        if self.conditioning == "concatenation":
            samples = as_planes(condition, samples, self.num_classes)
        first, *rest = self.widths

        if self.stem == "block":
            x = StemBlock(first, self.norm, self.dtype)(samples, train=train)
        else:
            layer = Conv(first, (3, 3), kernel_init=conv_init(he=False), dtype=self.dtype)
            x = weight_layer(self.norm, layer, samples, train=train)
        x = _attended(self, x, train) if x.shape[1] in self.attention else x
        for index, features in enumerate(rest):
            resample = "down" if index < self.down_blocks else "none"
            block = _kept(ResidualBlock, self.remat)(
                features, resample, self.norm, self.first_bias, self.axis_name, self.dtype,
                name=f"ResidualBlock_{index}")
            x = block(x, train)
            x = _attended(self, x, train) if resample == "down" and x.shape[1] in self.attention else x
        x = nn.relu(x).mean((1, 2)) if self.head == "mean" else x
        return judge(self.norm, x, condition, conditioning=self.conditioning,
                     num_classes=self.num_classes, num_numbers=self.num_numbers, train=train)

    def _check_fields(self) -> None:
        for name, choices in (("stem", ("block", "conv")), ("head", ("mean", "flatten"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"ResNetCritic: {name} must be '{choices[0]}' or '{choices[1]}'; "
                                 f"got {getattr(self, name)!r}")
        if not 0 <= self.down_blocks < len(self.widths):
            raise ValueError(f"ResNetCritic: down_blocks must be from 0 to {len(self.widths) - 1}, "
                             f"the number of blocks that widths {tuple(self.widths)} gives; got "
                             f"{self.down_blocks}")


class ResidualBlock(nn.Module):
    """[norm, ReLU, 3x3 convolution] twice, added to a shortcut.

    Attributes:
        features: channels of the output.
        resample: "up" doubles height and width (nearest neighbour, before the first convolution),
            "down" halves them (mean, after the second), "none" keeps them.
        norm: see `jaxgan.nn.norms`.
        first_bias: whether the first convolution has a bias.
        axis_name: the devices' axis for batch normalisation.
        dtype: what the layers compute in; None for the common dtype of input and parameters.
        num_classes: 0, or the number of classes that batch normalisation has scales and biases for.
    """

    features: int
    resample: str = "none"
    norm: str = "none"
    first_bias: bool = True
    axis_name: str | None = None
    dtype: Dtype | None = None
    num_classes: int = 0

    @nn.compact
    def __call__(self, x: Array, train: bool, labels: Array | None = None) -> Array:
        """Maps `x`, [batch, height, width, channels], to [batch, height', width', features]."""
        channels = x.shape[-1]
        hidden = channels if self.resample == "down" else self.features

        def conv(features, size, x, *, he=True, use_bias=True, resample="none"):
            layer = Conv(features, (size, size), use_bias=use_bias, kernel_init=conv_init(he=he),
                         dtype=self.dtype, resample=resample)
            return weight_layer(self.norm, layer, x, train=train)

        def normalised(x):
            return normalise(self.norm, x, train=train, axis_name=self.axis_name, labels=labels,
                             num_classes=self.num_classes)

        up, down = (way if self.resample == way else "none" for way in ("up", "down"))
        y = nn.relu(normalised(x))
        y = conv(hidden, 3, y, use_bias=self.first_bias, resample=up)
        y = nn.relu(normalised(y))
        y = conv(self.features, 3, y, resample=down)
        if self.resample == "none" and channels == self.features:
            return x + y

        # A 1x1 convolution commutes with both resamplings: it is done where the image is small.
        x = mean_pool(x) if self.resample == "down" else x
        x = conv(self.features, 1, x, he=False)
        x = upsample(x) if self.resample == "up" else x
        return x + y


class StemBlock(nn.Module):
    """A critic's first block, on pixels: 3x3, ReLU, 3x3, halved, added to a halved shortcut.

    Attributes:
        features: channels of the output.
        norm: "spectral", or any other for none: pixels are not normalised.
        dtype: what the layers compute in; None for the common dtype of input and parameters.
    """

    features: int
    norm: str = "none"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps `x`, [batch, height, width, channels], to [batch, height / 2, width / 2, features]."""
        def conv(size, x, *, he=True, resample="none"):
            layer = Conv(self.features, (size, size), kernel_init=conv_init(he=he), dtype=self.dtype,
                         resample=resample)
            return weight_layer(self.norm, layer, x, train=train)

        y = conv(3, nn.relu(conv(3, x)), resample="down")
        return conv(1, mean_pool(x), he=False) + y


def _kept(block: type[nn.Module], remat: bool) -> type[nn.Module]:
    return nn.remat(block, static_argnums=(2,)) if remat else block  # (self, x, train)


def _attended(model: ResNetGenerator | ResNetCritic, x: Array, train: bool) -> Array:
    layer = _kept(SelfAttention, model.remat)
    return layer(model.norm, model.dtype, name=f"SelfAttention_{x.shape[1]}")(x, train)


def _check_attention(model: str, asked: Sequence[int], heights: Sequence[int]) -> None:
    """Raises ValueError for heights at which a network has no activations behind a block."""
    for height in asked:
        if height not in heights:
            raise ValueError(f"{model}: attention must be at heights of its activations behind a block, "
                             f"{', '.join(map(str, heights))} here; got {height}")


def upsample(x: Array) -> Array:
    """Doubles height and width by repeating pixels, [batch, 2 height, 2 width, channels]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def mean_pool(x: Array) -> Array:
    """Halves height and width by the mean of 2x2 pixels, [batch, height / 2, width / 2, channels]."""
    batch, height, width, channels = x.shape
    # Not `nn.avg_pool`: the derivatives of a reshaped mean are reshapes too, of every order.
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _factor(model: str, size: tuple[int, ...], blocks: int) -> int:
    """The factor by which `blocks` resampling blocks change height and width."""
    height, width = size
    factor = 2 ** blocks
    if height % factor or width % factor:
        raise ValueError(f"{model}: images of {height}x{width} do not fit {blocks} blocks that change "
                         f"the size by 2: height and width must be multiples of {factor}; pad or "
                         f"crop the images, or resample in fewer blocks")
    return factor
