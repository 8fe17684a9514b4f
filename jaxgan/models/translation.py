"""Networks that translate images into images, and the critic that scores patches.

Isola et al. 2017, pix2pix (arXiv 1611.07004), for the U-Net and the critic; Zhu et al. 2017, CycleGAN
(arXiv 1703.10593), for the residual generator, which is that of Johnson et al. 2016 (arXiv 1603.08155):

    UNetTranslator((256, 256, 3))                       54,413,955 parameters
    PatchCritic(planes=...), of pairs of RGB images      2,768,705
    ResNetTranslator((256, 256, 3))                     11,383,427

Both papers train with batches of one, for which batch normalisation is normalisation of each image by
itself. That is what these networks have at any batch size, so that an image's translation doesn't depend
on the others. A normalised layer has a scale and a bias for each channel.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgan.models.ends import check_image_shape, check_images, squash
from jaxgan.models.planes import Planes, beside
from jaxgan.nn import Conv, ConvTranspose
from jaxgan.nn.norms import IMAGE_NORMS, check_norm, normalise, weight_layer
from jaxgan.nn.random import dropped
from jaxgan.types import Array, Dtype, Key, PyTree

_INIT = nn.initializers.normal(0.02)  # of both papers
_SLOPE = 0.2
_MOST_STAGES = 8  # of the papers' networks
_HALVED = ((1, 1), (1, 1))  # the padding of a 4x4 convolution that halves


def dropout_seeds(keys: Key) -> Array:
    """The prior of a generator whose only noise is dropout: keys [batch] -> uint32 [batch]."""
    return jax.vmap(jax.random.bits)(keys)


class UNetTranslator(nn.Module):
    """Halves an image with 4x4 convolutions and doubles it again, beside what went into each halving.

    Its latents are the seeds of its dropout, `GAN(latent_size=None, prior=dropout_seeds)`, which it has
    in training and in evaluation alike: the only noise of pix2pix (section 3.2). Dropout is in the first
    doublings, three of 8 and at most half of them. The first halving and the last aren't normalised:
    of the last, a single pixel, nothing would be left.

    Attributes:
        image_shape: (height, width, channels) of a sample.
        width: channels after the first halving; they double with each, up to eightfold.
        stages: how many halvings; None for as many as divide height and width, 8 at most. They must
            divide both.
        dropout: the probability that a number is dropped, in [0, 1).
        planes: None if the condition is the image to translate, [batch, height, width, channels], or
            condition -> that image.
        output: "tanh" for samples in [-1, 1], "sigmoid" for [0, 1].
        dtype: what the layers compute in (parameters, statistics, samples stay float32); None for the
            common dtype of input and parameters.
        remat: whether to keep only what is between the halvings and doublings for the gradient and
            compute what is in them again: less memory, more time.
    """

    image_shape: tuple[int, int, int]
    width: int = 64
    stages: int | None = None
    dropout: float = 0.5
    planes: Planes | None = None
    output: str = "tanh"
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps seeds, uint32 [batch], and a condition to images, [batch, *image_shape]."""
        check_image_shape("UNetTranslator", self.image_shape)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"UNetTranslator: dropout must be in [0, 1); got {self.dropout}")
        *size, channels = self.image_shape
        stages = _unet_stages(size, self.stages)
        widths = [self.width * min(2 ** stage, 8) for stage in range(stages)]
        keys = jax.vmap(jax.random.key)(latents)

        x = beside("UNetTranslator", self.planes or (lambda image: image), condition, (size[0], size[1]))
        def halved(module: "UNetTranslator", x: Array, stage: int) -> Array:
            x = Conv(widths[stage], (4, 4), strides=2, padding=_HALVED, use_bias=False,
                     kernel_init=_INIT, dtype=module.dtype)(nn.leaky_relu(x, _SLOPE) if stage else x)
            return normalise("instance", x, train=train) if 0 < stage < stages - 1 else x

        def doubled(module: "UNetTranslator", x: Array, keys: Key, stage: int) -> Array:
            x = module._doubled(x, widths[-2 - stage], use_bias=False)
            x = normalise("instance", x, train=train)
            if module.dropout and stage < min(3, stages // 2):
                x = dropped(x, jax.vmap(jax.random.fold_in, (0, None))(keys, stage), module.dropout)
            return x

        seen = []
        for stage in range(stages):
            seen.append(x := _kept(self, partial(halved, stage=stage), x))
        x = seen.pop()
        for stage in range(stages - 1):
            x = _kept(self, partial(doubled, stage=stage), x, keys)
            x = jnp.concatenate([x, seen.pop()], axis=-1)
        return squash(self.output, self._doubled(x, channels))

    def _doubled(self, x: Array, features: int, *, use_bias: bool = True) -> Array:
        return ConvTranspose(features, (4, 4), strides=2, padding=_HALVED, use_bias=use_bias,
                             kernel_init=_INIT, dtype=self.dtype)(nn.relu(x))


class ResNetTranslator(nn.Module):
    """Halves an image twice, changes it in residual blocks, and doubles it again; borders are reflected.

    It takes the image in the latents' place, and has no condition. In the papers' words c7s1-64, d128,
    d256, R256 in each block, u128, u64, c7s1-3.

    Attributes:
        image_shape: (height, width, channels) of a sample; height and width must be multiples of 4, and
            at least 8.
        width: channels of the first layer; they double with each halving.
        blocks: residual blocks; None for 9 from 256 pixels of height and width on, and else 6.
        output: "tanh" for samples in [-1, 1], "sigmoid" for [0, 1].
        dtype: as for `UNetTranslator`.
        remat: whether to keep only what is between the blocks for the gradient and compute what is in
            them again: less memory, more time.
    """

    image_shape: tuple[int, int, int]
    width: int = 64
    blocks: int | None = None
    output: str = "tanh"
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps images, [batch, height, width, channels], to images, [batch, *image_shape]."""
        del condition
        check_image_shape("ResNetTranslator", self.image_shape)
        check_images("ResNetTranslator", latents)
        *size, channels = self.image_shape
        if any(n % 4 or n < 8 for n in size):
            raise ValueError("ResNetTranslator halves images twice: height and width must be multiples "
                             f"of 4, and at least 8; got {size[0]}x{size[1]}")
        if latents.shape[1:3] != (*size,):
            raise ValueError("ResNetTranslator: the images to translate must be of "
                             f"{size[0]}x{size[1]}, as its own; got {latents.shape[1]}x"
                             f"{latents.shape[2]}")
        blocks = (9 if min(size) >= 256 else 6) if self.blocks is None else self.blocks
        if blocks < 1:
            raise ValueError(f"ResNetTranslator: blocks must be at least 1; got {blocks}")
        options = {"use_bias": False, "kernel_init": _INIT, "dtype": self.dtype}

        def activated(x: Array) -> Array:
            return nn.relu(normalise("instance", x, train=train))

        x = activated(Conv(self.width, (7, 7), padding="VALID", **options)(_reflected(latents, 3)))
        for features in (2 * self.width, 4 * self.width):
            x = activated(Conv(features, (3, 3), strides=2, padding=((1, 0), (1, 0)), **options)(x))
        block = nn.scan(  # compiled once, however many there are
            nn.remat(_Block) if self.remat else _Block, variable_axes={"params": 0},
            split_rngs={"params": True}, length=blocks)
        x, _ = block(4 * self.width, self.dtype, name="blocks")(x, None)
        for features in (2 * self.width, self.width):
            x = activated(ConvTranspose(features, (3, 3), strides=2, padding=((1, 0), (1, 0)),
                                        **options)(x))
        x = Conv(channels, (7, 7), padding="VALID", kernel_init=_INIT, dtype=self.dtype)(
            _reflected(x, 3))
        return squash(self.output, x)


class _Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x)))))."""

    features: int
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, None]:
        inner = nn.relu(normalise("instance", self._conv(x), train=True))
        return x + normalise("instance", self._conv(inner), train=True), None

    def _conv(self, x: Array) -> Array:
        return Conv(self.features, (3, 3), padding="VALID", use_bias=False, kernel_init=_INIT,
                    dtype=self.dtype)(_reflected(x, 1))


class PatchCritic(nn.Module):
    """Scores each of an image's overlapping patches: convolutions of 4x4, the last two of stride 1.

    A loss is the mean over the patches of all images, as over samples, so that the critic judges texture
    and not the whole image.

    Attributes:
        width: channels of the first layer; they double with each further one, up to eightfold.
        halvings: layers of stride 2, which decide the size of a patch: 16, 34, 70 or 142 pixels for 1 to
            4. None for 3, or for fewer where such a patch is larger than the image.
        norm: one of `jaxgan.nn.norms.IMAGE_NORMS`; the first layer and the scores' have no other
            than "spectral".
        planes: None, or condition -> what is seen beside the image, [batch, height, width, planes].
        axis_name: the devices' axis, over which norm "batch" averages.
        dtype: what the layers compute in (parameters, statistics, scores stay float32); None for the
            common dtype of input and parameters.
        remat: whether to keep only what is between the layers for the gradient and compute what is in
            them again: less memory, more time.
    """

    width: int = 64
    halvings: int | None = None
    norm: str = "instance"
    planes: Planes | None = None
    axis_name: str | None = None
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps images, [batch, height, width, channels], to scores, [batch, down, across]."""
        check_images("PatchCritic", samples)
        check_norm(self.norm, IMAGE_NORMS)
        halvings = _patch_halvings(samples.shape[1:3], self.halvings)

        def layer(features: int, x: Array, stride: int = 1, **options) -> Array:
            return weight_layer(self.norm, Conv(
                features, (4, 4), strides=stride, padding=_HALVED, kernel_init=_INIT, **options), x,
                train=train)

        x = samples if self.planes is None else jnp.concatenate(
            [samples, beside("PatchCritic", self.planes, condition, samples)], axis=-1)
        x = nn.leaky_relu(layer(self.width, x, 2, dtype=self.dtype), _SLOPE)
        def normalised(module: "PatchCritic", x: Array, stage: int) -> Array:
            x = layer(module.width * min(2 ** stage, 8), x, 2 if stage < halvings else 1,
                      use_bias=module.norm in ("none", "spectral"), dtype=module.dtype)
            x = normalise(module.norm, x, train=train, axis_name=module.axis_name)
            return nn.leaky_relu(x, _SLOPE)

        for stage in range(1, halvings + 1):
            x = _kept(self, partial(normalised, stage=stage), x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return layer(1, x).squeeze(-1)


def _kept(module: UNetTranslator | PatchCritic, step: Callable[..., Array], *inputs: Array) -> Array:
    """A step of a module: if it asks for that, only its inputs are kept for the gradient."""
    return (nn.remat(step) if module.remat else step)(module, *inputs)


def _reflected(x: Array, by: int) -> Array:
    return jnp.pad(x, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect")


def _unet_stages(size: Sequence[int], stages: int | None) -> int:
    """The number of halvings, checked to divide height and width."""
    height, width = size
    fitting = max(n for n in range(_MOST_STAGES + 1) if height % 2 ** n == width % 2 ** n == 0)
    wanted = fitting if stages is None else stages
    if wanted < 2 or height % 2 ** wanted or width % 2 ** wanted:
        raise ValueError(f"UNetTranslator halves images {max(wanted, 2)} times, and {height}x{width} "
                         f"can be halved {fitting} times: choose multiples of {2 ** max(wanted, 2)}"
                         + ("" if stages is None else ", or at least 2 and at most as many stages"))
    return wanted


def _patch_halvings(size: Sequence[int], halvings: int | None) -> int:
    """The critic's layers of stride 2, checked to leave a patch."""
    if halvings is None:
        halvings = max([n for n in (1, 2, 3) if 9 * 2 ** n - 2 <= min(size)], default=1)
    if halvings < 1:
        raise ValueError(f"PatchCritic: halvings must be at least 1; got {halvings}")
    if min(size) // 2 ** halvings < 3:
        raise ValueError(f"PatchCritic: images of {size[0]}x{size[1]} are too small for {halvings} "
                         f"halvings, which need {3 * 2 ** halvings} of height and width: give fewer, "
                         "or larger images")
    return halvings
