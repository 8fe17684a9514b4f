"""StyleGAN2's networks: latents to styles, styles to images, and a critic that looks at groups.

Karras et al. 2020 (arXiv 1912.04958), with the labels of 2020 (arXiv 2006.06676). Images are square, of
4 * 2^n pixels, and activations of r x r pixels have min(base / r, most) channels:

    1024 pixels
        StyleGAN2Generator((1024, 1024, 3))                                      30,370,060 parameters
        StyleGAN2Critic()                                                        29,012,513
    256 pixels
        StyleGAN2Generator((256, 256, 3), 16384)                                 24,767,458
        StyleGAN2Critic(16384, group_size=8)                                     24,001,089
    CIFAR-10, 10 classes
        StyleGAN2Generator((32, 32, 3), mapping_layers=2, num_classes=10, style_mixing=0.0)
                                                                                 20,215,315
        StyleGAN2Critic(architecture="plain", group_size=32, num_classes=10)     23,089,664

Latents are 512 numbers there. Learning rates are equalised (Karras et al. 2018, arXiv 1710.10196,
section 4.1): kernels start from N(0, 1), and are divided by the root of their fan-in whenever they are
used. The loss is `jaxgan.losses.non_saturating()`, the penalty `lazy(r1(gamma), 16)`, and the generator
has the term `lazy(path_length(), 4)`, from `jaxgan.penalties` and `jaxgan.terms`.
"""

import math
from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from jaxgan import keys
from jaxgan.labels import one_hot
from jaxgan.models.ends import check_image_shape, check_images, check_labels, check_latents
from jaxgan.nn.convolutions import Padding, conv, conv_transpose
from jaxgan.nn.random import example_keys
from jaxgan.nn.resampling import downsample, smooth, upsample
from jaxgan.types import Array, Dtype, Key, PyTree

ARCHITECTURES = ("residual", "plain")
NOISES = ("random", "constant", "none")
_EPSILON = 1e-8  # of mean squares, so that none is 0


class StyleGAN2Generator(nn.Module):
    """Latents to styles w, one for each layer, and styles to images, which are sums over all sizes.

    Call it as any generator, or in two parts, `generator.apply(variables, latents, method="map")` and
    `generator.apply(variables, ws, method="synthesise")`: to interpolate styles, or to find those of an
    image. Besides parameters it has the collections "batch_stats", the moving average of w, and "noise",
    a stored map for each layer. The steps of `jaxgan.steps` average that of w over the devices.

    Attributes:
        image_shape: (height, width, channels) of a sample.
        base: activations of r x r pixels have base / r channels, but
        most: this number at most.
        w_size: dimensions of a style.
        mapping_layers: dense layers between latents and styles.
        num_classes: 0, or how many classes the condition's labels, int [batch], name: an embedding of
            them goes in beside the latents.
        style_mixing: the probability, in training, that from a random layer on the styles are those of
            other latents, N(0, I). Karras et al. 2019 (arXiv 1812.04948), section 3.1.
        noise: what is added to each layer's activations, times a learned strength: "random" (maps drawn
            by example in training, the stored ones outside), "constant" (the stored ones) or "none".
        truncation_psi: outside of training styles are moved to their average: average + psi (w -
            average); 1 leaves them. Set it by `generator.clone(truncation_psi=0.7)`.
        truncation_cutoff: how many layers' styles, the first ones, are moved; None for all.
        w_decay: of the moving average of w.
        dtype: what the synthesis computes in, but at 4x4 pixels (images are summed in float32, and the
            mapping, parameters and samples stay float32); None for float32.
        remat: whether to keep only what is between the sizes for the gradient and compute what is in
            them again: less memory, more time.
    """

    image_shape: tuple[int, int, int]
    base: int = 32768
    most: int = 512
    w_size: int = 512
    mapping_layers: int = 8
    num_classes: int = 0
    style_mixing: float = 0.9
    noise: str = "random"
    truncation_psi: float = 1.0
    truncation_cutoff: int | None = None
    w_decay: float = 0.995
    dtype: Dtype | None = None
    remat: bool = False

    def setup(self):
        """Makes the parts, after a look at the settings."""
        check_image_shape("StyleGAN2Generator", self.image_shape)
        *size, channels = self.image_shape
        widths = _widths("StyleGAN2Generator", size, self.base, self.most)
        if self.noise not in NOISES:
            raise ValueError(f"StyleGAN2Generator: noise must be one of {', '.join(map(repr, NOISES))}; "
                             f"got {self.noise!r}")
        if not 0.0 <= self.style_mixing <= 1.0:
            raise ValueError("StyleGAN2Generator: style_mixing must be a probability, in [0, 1]; got "
                             f"{self.style_mixing}")
        self.num_ws = 2 * len(widths)
        self.mapping = Mapping(self.w_size, self.mapping_layers, self.num_classes)
        self.synthesis = Synthesis(widths, channels, self.dtype, self.remat)
        self.w_avg = self.variable("batch_stats", "w_avg", jnp.zeros, (self.w_size,))

    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to images, [batch, *image_shape]."""
        return self.synthesise(self.map(latents, condition, train=train), train=train)

    def map(self, latents: Array, condition: PyTree | None = None, *, train: bool = False) -> Array:
        """Maps latents, [batch, latent_size], to styles, [batch, num_ws, w_size].

        There is one for each layer and one for the last image: 2 for 4x4 pixels, 4 for 8x8, and so on.
        In training styles are mixed and their average moves; outside they are truncated.
        """
        check_latents("StyleGAN2Generator", latents)
        labels = (check_labels("StyleGAN2Generator", condition, latents, self.num_classes)
                  if self.num_classes else None)
        w, layers = self.mapping(latents, labels), jnp.arange(self.num_ws)[None, :, None]
        ws, average = jnp.repeat(w[:, None], self.num_ws, 1), self.w_avg.value
        if not train:
            cutoff = self.num_ws if self.truncation_cutoff is None else self.truncation_cutoff
            psi = jnp.where(layers < cutoff, self.truncation_psi, 1.0)
            return (1.0 - psi) * average[None, None] + psi * ws
        if not self.is_initializing():
            mean = jax.lax.stop_gradient(w).mean(0)
            self.w_avg.value = self.w_decay * average + (1.0 - self.w_decay) * mean
        if not self.style_mixing:
            return ws

        def draw(key: Key) -> tuple[Array, Array]:
            """Other latents, and the first layer whose style is theirs."""
            of_latents, of_layer, of_choice = jax.random.split(key, 3)
            first = jax.random.randint(of_layer, (), 1, self.num_ws)
            is_mixed = jax.random.uniform(of_choice) < self.style_mixing
            return (jax.random.normal(of_latents, latents.shape[1:]),
                    jnp.where(is_mixed, first, self.num_ws))

        others, firsts = jax.vmap(draw)(example_keys(self))
        return jnp.where(layers < firsts[:, None, None], ws, self.mapping(others, labels)[:, None])

    def synthesise(self, ws: Array, condition: PyTree | None = None, *, train: bool = False) -> Array:
        """Maps styles, [batch, num_ws, w_size], to images, [batch, *image_shape].

        Args:
            ws: as `map` returns them.
            condition: not used: it is in the styles.
            train: whether noise is drawn where it is "random"; outside of training it is the stored one.
        """
        if ws.shape[1:] != (self.num_ws, self.w_size):
            raise ValueError(f"StyleGAN2Generator: styles must have the shape [batch, {self.num_ws}, "
                             f"{self.w_size}]; got {ws.shape}: take those of the method map")
        return self.synthesis(ws, "constant" if self.noise == "random" and not train else self.noise)


class StyleGAN2Critic(nn.Module):
    """Blocks from the largest images to 4x4 pixels, the deviation within groups, two dense layers.

    It scores a sample by the others of its group too, so that a GAN with a penalty has to say that it is
    meant, `GAN(across_batch=True)`; reals and fakes are batches of their own for it. Groups are examples
    in a row, so that several devices have the groups of one as long as the size divides their parts of
    the batch. (The authors' code takes every n-th example.)

    Attributes:
        base, most, mapping_layers, remat: as for the generator; the mapping is of labels alone.
        architecture: "residual", or "plain" for blocks without skip connections.
        group_size: examples in a group; where it doesn't divide the batch, the next smaller number that
            does.
        num_classes: 0, or how many classes there are: the score is then the product of the last
            activations and the mapped label, over the root of their number (Miyato and Koyama 2018,
            arXiv 1802.05637).
        dtype: what all blocks compute in, but the layers at 4x4 pixels and the mapping, which are in
            float32, as parameters and scores are; None for float32.
    """

    base: int = 32768
    most: int = 512
    architecture: str = "residual"
    group_size: int = 4
    num_classes: int = 0
    mapping_layers: int = 8
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps images, [batch, height, width, channels], to scores, [batch]."""
        check_images("StyleGAN2Critic", samples)
        if self.architecture not in ARCHITECTURES:
            raise ValueError("StyleGAN2Critic: architecture must be one of "
                             f"{', '.join(map(repr, ARCHITECTURES))}; got {self.architecture!r}")
        if self.group_size < 1:
            raise ValueError(f"StyleGAN2Critic: group_size must be at least 1; got {self.group_size}")
        widths = _widths("StyleGAN2Critic", samples.shape[1:3], self.base, self.most)
        x = samples if self.dtype is None else samples.astype(self.dtype)
        block = nn.remat(CriticBlock) if self.remat else CriticBlock
        for index in range(len(widths) - 1, 0, -1):
            from_image = widths[index] if index == len(widths) - 1 else 0
            x = block(widths[index - 1], from_image, self.architecture == "residual",
                      name=f"b{4 * 2 ** index}")(x)
        x = CriticEnd(widths[0], widths[0] if self.num_classes else 1, self.group_size, name="b4")(x)
        if self.num_classes:
            labels = check_labels("StyleGAN2Critic", condition, samples, self.num_classes)
            mapping = Mapping(widths[0], self.mapping_layers, self.num_classes, name="mapping")
            x *= mapping(None, labels) / math.sqrt(widths[0])
        return x.sum(-1)


class Mapping(nn.Module):
    """Latents and labels, each scaled to a mean square of 1, through dense layers.

    Attributes:
        size: of each layer, and of the labels' embedding.
        layers: number of them; their learning rates are a hundredth of the others'.
        num_classes: how many classes there are.
    """

    size: int
    layers: int
    num_classes: int

    @nn.compact
    def __call__(self, latents: Array | None, labels: Array | None) -> Array:
        """Maps [batch, latent_size] and int [batch], either of which may be None, to [batch, size]."""
        parts = [] if latents is None else [latents]
        if labels is not None:
            parts.append(Equalised(self.size, name="embed")(one_hot(labels, self.num_classes)))
        x = jnp.concatenate([part * jax.lax.rsqrt(jnp.square(part).mean(1, keepdims=True) + _EPSILON)
                             for part in parts], 1)
        for index in range(self.layers):
            x = Equalised(self.size, multiplier=0.01, activate=True, name=f"fc{index}")(x)
        return x


class Synthesis(nn.Module):
    """Styles to images: a constant through a block for each size.

    Attributes:
        widths: channels at each size, from 4x4 pixels upwards.
        channels: of an image.
        dtype, remat: as for the generator.
    """

    widths: Sequence[int]
    channels: int
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, ws: Array, noise: str) -> Array:
        """Maps [batch, num_ws, w_size] to [batch, height, width, channels].

        The image at one size and the first layer at the next share a style.
        """
        block = nn.remat(SynthesisBlock) if self.remat else SynthesisBlock
        x = image = None
        for index, width in enumerate(self.widths):
            x, image = block(width, self.channels, noise, self.dtype, name=f"b{4 * 2 ** index}")(
                x, image, ws[:, max(2 * index - 1, 0):2 * index + 2])
        return cast("Array", image)


class SynthesisBlock(nn.Module):
    """At one size: a layer that doubles it, or at 4x4 pixels a constant; a second layer; an image.

    Attributes:
        width: channels of the activations.
        channels: of the image.
        noise: one of NOISES.
        dtype: what it computes in, but at 4x4 pixels; None for that of what comes in.
    """

    width: int
    channels: int
    noise: str
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array | None, image: Array | None, ws: Array) -> tuple[Array, Array]:
        """Maps activations and the image of half the size, and styles, [batch, 2 or 3, w_size]."""
        if x is None:
            constant = self.param("const", nn.initializers.normal(1.0), (4, 4, self.width))
            x = jnp.repeat(constant.astype(ws.dtype)[None], ws.shape[0], 0)
        else:
            x = x if self.dtype is None else x.astype(self.dtype)
            x = StyledConv(self.width, self.noise, up=True, name="conv0")(x, ws[:, 0])
        x = StyledConv(self.width, self.noise, name="conv1")(x, ws[:, -2])
        here = StyledImage(self.channels, name="torgb")(x, ws[:, -1])
        return x, here if image is None else upsample(image) + here


class StyledConv(nn.Module):
    """A modulated 3x3 convolution, noise, a bias, a LeakyReLU; in the dtype of what comes in.

    Attributes:
        features: number of output channels.
        noise: one of NOISES.
        up: whether height and width are doubled.
    """

    features: int
    noise: str
    up: bool = False

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        """Maps [batch, height, width, in_channels] and styles, [batch, w_size]."""
        style = Equalised(x.shape[-1], bias=1.0, name="affine")(w)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 3, x.shape[-1], self.features))
        x = modulated_conv(x, kernel, style, up=self.up)
        if self.noise != "none":
            strength, size = self.param("noise_strength", nn.initializers.zeros, ()), x.shape[1:3]
            stored = self.variable("noise", "noise_const", lambda: jax.random.normal(
                self.make_rng("params"), size)).value
            noise = keys.normal(example_keys(self), size) if self.noise == "random" else stored[None]
            x += (strength * noise[..., None]).astype(x.dtype)
        return _activated(_biased(x, self.param("bias", nn.initializers.zeros, (self.features,))))


class StyledImage(nn.Module):
    """A modulated 1x1 convolution to an image, in float32 at least, without demodulation.

    Attributes:
        channels: of the image.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        """Maps [batch, height, width, in_channels] and styles, [batch, w_size]."""
        style = Equalised(x.shape[-1], bias=1.0, name="affine")(w) / math.sqrt(x.shape[-1])
        kernel = self.param("kernel", nn.initializers.normal(1.0), (1, 1, x.shape[-1], self.channels))
        return _biased(_widened(modulated_conv(x, kernel, style, demodulate=False)),
                       self.param("bias", nn.initializers.zeros, (self.channels,)))


def modulated_conv(x: Array, kernel: Array, style: Array, *, up: bool = False, demodulate: bool = True
                   ) -> Array:
    """Convolves each example with a kernel of its own, of which one is shared and the factors are not.

    The example's kernel is kernel * style, over its norm for each output channel. Both factors are the
    same at all positions, so that they multiply what goes in and what comes out. Karras et al. 2020
    (arXiv 1912.04958), equations 1 and 3.

    Args:
        x: [batch, height, width, in_channels]; what is computed in its dtype.
        kernel: [size, size, in_channels, out_channels], float32.
        style: a factor for each input channel, [batch, in_channels], float32.
        up: whether height and width are doubled, by a transposed convolution and the filter of
            `jaxgan.nn.resampling`.
        demodulate: whether the norm is divided by.

    Returns:
        [batch, height, width, out_channels], or twice as high and wide.
    """
    shared, modulated = kernel.astype(x.dtype), x * style[:, None, None].astype(x.dtype)
    if up:
        y = conv_transpose(modulated, jnp.swapaxes(shared, 2, 3), strides=(2, 2), padding="VALID")
        y = 4.0 * smooth(y, 1)  # the transposed convolution put three zeros beside each pixel
    else:
        y = conv(modulated, shared, strides=(1, 1), padding="SAME")
    if not demodulate:
        return y
    squares = jnp.square(style) @ jnp.square(kernel).sum((0, 1))
    return y * jax.lax.rsqrt(squares + _EPSILON)[:, None, None].astype(y.dtype)


class CriticBlock(nn.Module):
    """A convolution, another that halves the size, and a skip connection around both.

    Attributes:
        features: channels that come out.
        from_image: 0, or how many channels are made of an image first.
        residual: whether there is the skip connection.
    """

    features: int
    from_image: int
    residual: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [batch, height, width, channels] to [batch, height / 2, width / 2, features]."""
        if self.from_image:
            x = Equalised(self.from_image, (1, 1), activate=True, dtype=x.dtype, name="fromrgb")(x)
        conv1 = Equalised(self.features, (3, 3), stride=2, padding="VALID", activate=True, dtype=x.dtype,
                          name="conv1")
        y = Equalised(x.shape[-1], (3, 3), activate=True, dtype=x.dtype, name="conv0")(x)
        y = conv1(smooth(y, 2))
        if not self.residual:
            return y
        skip = Equalised(self.features, (1, 1), use_bias=False, dtype=x.dtype, name="skip")
        return math.sqrt(0.5) * (y + skip(downsample(x)))


class CriticEnd(nn.Module):
    """From 4x4 pixels to numbers, in float32 at least.

    Attributes:
        width: channels of the activations.
        features: how many numbers.
        group_size: as for the critic.
    """

    width: int
    features: int
    group_size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [batch, 4, 4, width] to [batch, features]."""
        x = with_deviation(_widened(x), self.group_size)
        x = Equalised(self.width, (3, 3), activate=True, name="conv")(x)
        x = Equalised(self.width, activate=True, name="fc")(x.reshape(x.shape[0], -1))
        return Equalised(self.features, name="out")(x)


def with_deviation(x: Array, group_size: int) -> Array:
    """Adds a channel that says how much the examples of a group differ.

    It is the standard deviation over the group, averaged over channels and positions. Karras et al. 2018
    (arXiv 1710.10196), section 3.

    Args:
        x: [batch, height, width, channels].
        group_size: examples in a group, which are in a row; where it doesn't divide the batch, the next
            smaller number that does.

    Returns:
        [batch, height, width, channels + 1].
    """
    group_size = next(size for size in range(group_size, 0, -1) if len(x) % size == 0)
    groups = x.reshape(-1, group_size, *x.shape[1:])
    deviation = jnp.sqrt(groups.var(1) + _EPSILON).mean((1, 2, 3))
    channel = jnp.repeat(deviation, group_size)[:, None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(channel, (*x.shape[:3], 1))], -1)


class Equalised(nn.Module):
    """A convolution, or without a kernel's size a dense layer, with an equalised learning rate.

    Attributes:
        features: number of output channels.
        kernel_size: size of the kernel, one number per spatial axis.
        stride: along each axis.
        padding: as for `jaxgan.nn.conv`.
        use_bias: whether a bias is added.
        bias: what the bias starts at.
        multiplier: kernel and bias are stored divided by it and used times it: the optimiser's steps
            change what is used by that factor less.
        activate: whether a LeakyReLU follows.
        dtype: what it computes in; None promotes the input's and the parameters'.
    """

    features: int
    kernel_size: Sequence[int] = ()
    stride: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    bias: float = 0.0
    multiplier: float = 1.0
    activate: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [batch, *spatial, in_channels] to [batch, *spatial_out, features]."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0 / self.multiplier), shape)
        x, kernel = promote_dtype(x, kernel * (self.multiplier / math.sqrt(math.prod(shape[:-1]))),
                                  dtype=self.dtype)
        x = conv(x, kernel, strides=(self.stride,) * len(self.kernel_size), padding=self.padding)
        if self.use_bias:
            start = nn.initializers.constant(self.bias / self.multiplier)
            x = _biased(x, self.multiplier * self.param("bias", start, (self.features,)))
        return _activated(x) if self.activate else x


def _widths(model: str, size: Sequence[int], base: int, most: int) -> tuple[int, ...]:
    """The channels at each size, from 4x4 pixels upwards, checked."""
    height, width = size
    doublings = max(height.bit_length() - 3, 0)
    if height != width or height != 4 * 2 ** doublings or not doublings:
        raise ValueError(f"{model} takes square images of 8, 16, 32, ... pixels; got {height}x{width}: "
                         "pad, crop or resize them")
    widths = tuple(min(base // (4 * 2 ** index), most) for index in range(doublings + 1))
    if min(widths) < 1:
        raise ValueError(f"{model}: base {base} and most {most} leave {min(widths)} channels at "
                         f"{height}x{height} pixels: choose a base of {height} at least")
    return widths


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _biased(x: Array, bias: Array) -> Array:
    return x + jnp.expand_dims(bias.astype(x.dtype), range(x.ndim - 1))


def _activated(x: Array) -> Array:
    """A LeakyReLU of slope 0.2 that about keeps the mean square."""
    return math.sqrt(2.0) * nn.leaky_relu(x, 0.2)
