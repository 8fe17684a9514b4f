"""The first stage of models in latents: an encoder of images, and a decoder that makes images again.

Rombach et al. 2022 (arXiv 2112.10752), with the layers of diffusers' `AutoencoderKL`, whose published
weights `jaxgan.models.published.autoencoder` reads:

    Autoencoder(3, (128, 256, 512, 512), layers=2, groups=32, attention=True, projections=True)

is that of Stable Diffusion: 83,653,863 parameters, latents of an eighth of height and width.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.models.ends import check_images
from jaxgan.models.resnet import upsample
from jaxgan.nn import Conv, Dense
from jaxgan.types import Array, Dtype, WithHeads

_EPSILON = 1e-6  # of the group normalisation
LOG_VARIANCES = -30.0, 20.0  # beyond which they aren't taken at their word


class Encoder(nn.Module):
    """Maps images to moments of latents: means, and logarithms of variances.

    Attributes:
        channels: of the latents.
        widths: channels of each level; height and width are halved between two levels.
        layers: residual blocks of a level.
        groups: of the normalisation; they must divide the widths.
        attention: whether positions attend to each other between the two blocks of the middle.
        projections: whether the moments go through a last 1x1 convolution.
        dtype: what the layers compute in (parameters, normalisation and moments stay float32); None for
            the common dtype of input and parameters.
        remat: whether to keep only what is between blocks for the gradient and compute what is in them
            again: less memory, more time.
    """

    channels: int = 4
    widths: Sequence[int] = (32, 64)
    layers: int = 1
    groups: int = 8
    attention: bool = False
    projections: bool = False
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps images in [-1, 1], [batch, height, width, channels], to [..., 2 * latent channels].

        Height and width come out divided by `factor(widths)`.
        """
        check_images("Encoder", images)
        check_widths(self.widths, self.groups, self.layers)
        times = factor(self.widths)
        if any(side % times or side < times for side in images.shape[1:3]):
            raise ValueError(f"an encoder of {len(self.widths)} widths takes images whose height and "
                             f"width are multiples of {times}; got {images.shape[1]}x{images.shape[2]}")
        x = Conv(self.widths[0], (3, 3), dtype=self.dtype, name="conv_in")(images)
        block = nn.remat(_Residual) if self.remat else _Residual
        for level, width in enumerate(self.widths):
            for layer in range(self.layers):
                x = block(width, self.groups, self.dtype, name=f"down_blocks_{level}_resnets_{layer}")(x)
            if level < len(self.widths) - 1:
                x = Conv(width, (3, 3), strides=2, padding=((0, 1), (0, 1)), dtype=self.dtype,
                         name=f"down_blocks_{level}_downsamplers_0_conv")(x)
        x = _Middle(self.groups, self.attention, self.dtype, name="mid_block")(x)
        x = nn.silu(_normalised(x, self.groups, "conv_norm_out"))
        x = Conv(2 * self.channels, (3, 3), dtype=self.dtype, name="conv_out")(x)
        if self.projections:
            x = Conv(2 * self.channels, (1, 1), dtype=self.dtype, name="quant_conv")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Decoder(nn.Module):
    """Maps latents to images.

    Attributes:
        channels: of the images.
        widths: as for the encoder, whose order it reverses.
        layers: as for the encoder; here a level has one block more.
        groups: as for the encoder.
        attention: as for the encoder.
        projections: whether the latents go through a first 1x1 convolution.
        dtype: as for the encoder.
        remat: as for the encoder.
    """

    channels: int = 3
    widths: Sequence[int] = (32, 64)
    layers: int = 1
    groups: int = 8
    attention: bool = False
    projections: bool = False
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, latents: Array) -> Array:
        """Maps latents, [batch, height, width, channels], to images, about in [-1, 1]."""
        check_images("Decoder", latents)
        check_widths(self.widths, self.groups, self.layers)
        x = latents
        if self.projections:
            x = Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="post_quant_conv")(x)
        widths = self.widths[::-1]
        x = Conv(widths[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        x = _Middle(self.groups, self.attention, self.dtype, name="mid_block")(x)
        block = nn.remat(_Residual) if self.remat else _Residual
        for level, width in enumerate(widths):
            for layer in range(self.layers + 1):
                x = block(width, self.groups, self.dtype, name=f"up_blocks_{level}_resnets_{layer}")(x)
            if level < len(widths) - 1:
                x = Conv(width, (3, 3), dtype=self.dtype,
                         name=f"up_blocks_{level}_upsamplers_0_conv")(upsample(x))
        x = nn.silu(_normalised(x, self.groups, "conv_norm_out"))
        x = Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_out")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Autoencoder(nn.Module):
    """An encoder and a decoder, to be trained as a GAN's generator: its condition are the images.

    In its latents' place it takes noise of their shape, the GAN's prior. In training it decodes what is
    drawn from the moments, and else the means; the heads are "mean" and "log_variance".

    Attributes:
        channels: of the images.
        widths: as for `Encoder`, as are the fields behind it.
        latent_channels: of the latents.
    """

    channels: int = 3
    widths: Sequence[int] = (32, 64)
    layers: int = 1
    latent_channels: int = 4
    groups: int = 8
    attention: bool = False
    projections: bool = False
    dtype: Dtype | None = None
    remat: bool = False

    def setup(self):  # noqa: D102
        shared = {name: getattr(self, name) for name in (
            "widths", "layers", "groups", "attention", "projections", "dtype", "remat")}
        self.encoder = Encoder(self.latent_channels, **shared)
        self.decoder = Decoder(self.channels, **shared)

    def __call__(self, latents: Array, condition: Array, *, train: bool) -> WithHeads:
        """Maps noise, [batch, height, width, channels], and images to images like these."""
        mean, log_variance = split_moments(self.encode(condition))
        drawn = mean + jnp.exp(log_variance / 2) * latents if train else mean
        return WithHeads(self.decode(drawn), {"mean": mean, "log_variance": log_variance})

    def encode(self, images: Array) -> Array:
        """Returns the moments of images, see `Encoder`."""
        check_images("Autoencoder", images)
        if images.shape[-1] != self.channels:
            raise ValueError(f"this autoencoder is of images of {self.channels} channels; got "
                             f"{images.shape[-1]}")
        return self.encoder(images)

    def decode(self, latents: Array) -> Array:
        """Returns the images of latents, see `Decoder`."""
        check_images("Autoencoder", latents)
        if (channels := latents.shape[-1]) != self.latent_channels:
            are = ": these are moments, from which latents are to be drawn first"
            raise ValueError(f"this autoencoder has latents of {self.latent_channels} channels; got "
                             f"{channels}{are * (channels == 2 * self.latent_channels)}")
        return self.decoder(latents)


def split_moments(moments: Array) -> tuple[Array, Array]:
    """Returns means and logarithms of variances, the latter clipped to [-30, 20]."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean, jnp.clip(log_variance, *LOG_VARIANCES)


def factor(widths: Sequence[int]) -> int:
    """How many times smaller an encoder of these widths makes height and width."""
    return 2 ** (len(widths) - 1)


def check_widths(widths: Sequence[int], groups: int, layers: int) -> None:
    """Raises ValueError for widths, groups and layers that no autoencoder can have."""
    if not widths or min(widths) < 1 or groups < 1 or any(width % groups for width in widths):
        raise ValueError(f"an autoencoder's widths must be multiples of its {groups} groups; got "
                         f"{','.join(map(str, widths))}")
    if layers < 1:
        raise ValueError(f"an autoencoder needs at least 1 layer in a level; got {layers}")


class _Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution of x where channels change."""

    width: int
    groups: int
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inner = nn.silu(_normalised(x, self.groups, "norm1"))
        inner = Conv(self.width, (3, 3), dtype=self.dtype, name="conv1")(inner)
        inner = nn.silu(_normalised(inner, self.groups, "norm2"))
        inner = Conv(self.width, (3, 3), dtype=self.dtype, name="conv2")(inner)
        if x.shape[-1] != self.width:
            x = Conv(self.width, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return x + inner


class _Middle(nn.Module):
    """Two residual blocks, and attention between them."""

    groups: int
    attention: bool
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        x = _Residual(width, self.groups, self.dtype, name="resnets_0")(x)
        if self.attention:
            x = _Attention(self.groups, self.dtype, name="attentions_0")(x)
        return _Residual(width, self.groups, self.dtype, name="resnets_1")(x)


class _Attention(nn.Module):
    """x + what each position hears of all others, with one head."""

    groups: int
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        tokens = _normalised(x, self.groups, "group_norm").reshape(x.shape[0], -1, width)
        queries, keys, values = (Dense(width, dtype=self.dtype, name=name)(tokens.reshape(-1, width))
                                 .reshape(tokens.shape) for name in ("to_q", "to_k", "to_v"))
        precise = jnp.promote_types(x.dtype, jnp.float32)
        said = jnp.einsum("bqc,bkc->bqk", queries.astype(precise), keys.astype(precise))
        weights = nn.softmax(said / math.sqrt(width)).astype(values.dtype)
        heard = jnp.einsum("bqk,bkc->bqc", weights, values)
        added = Dense(width, dtype=self.dtype, name="to_out_0")(heard.reshape(-1, width))
        return x + added.reshape(x.shape).astype(x.dtype)


def _normalised(x: Array, groups: int, name: str) -> Array:
    return nn.GroupNorm(groups, epsilon=_EPSILON, use_fast_variance=False, dtype=x.dtype, name=name)(x)
