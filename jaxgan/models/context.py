"""A generator that sees images, or planes of any kind, and draws an image of their size."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.models.dcgan import halvings
from jaxgan.models.ends import check_image_shape, check_latents, squash
from jaxgan.models.planes import Planes, beside
from jaxgan.nn import Conv, ConvTranspose, Dense
from jaxgan.nn.initializers import conv_init, conv_transpose_init, dense_init
from jaxgan.nn.norms import check_norm, normalise
from jaxgan.types import Array, Dtype, PyTree


class ContextGenerator(nn.Module):
    """An encoder of the condition's planes, the latents at its end, and a decoder that sees both.

    The context encoder of Pathak et al. 2016 (arXiv 1604.07379), with latents and with the connections
    between equal sizes of Isola et al. 2017 (arXiv 1611.07004). Sizes are halved and doubled as in
    `DCGANGenerator`.

    Attributes:
        image_shape: (height, width, channels) of a sample.
        planes: condition -> what the encoder sees, from `jaxgan.models.planes`.
        paste: None, or (condition, image) -> sample: what the condition decides of it.
        width: channels next to the image; they double with each halving.
        stages: number of halvings; None for 3, or 2 where height or width is below 16.
        kernel_size: size of the square kernels.
        norm: "batch" or "none", after every layer but the first and the last.
        output: "sigmoid" for samples in [0, 1], "tanh" for [-1, 1], "none" for unbounded ones.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, samples stay float32); None for
            the common dtype of input and parameters.
    """

    image_shape: tuple[int, int, int]
    planes: Planes
    paste: Callable[[PyTree, Array], Array] | None = None
    width: int = 64
    stages: int | None = None
    kernel_size: int = 5
    norm: str = "none"
    output: str = "sigmoid"
    axis_name: str | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], and a condition to images, [batch, *image_shape]."""
        check_latents("ContextGenerator", latents)
        check_image_shape("ContextGenerator", self.image_shape)
        check_norm(self.norm, ("none", "batch"))
        height, width, channels = self.image_shape
        size = height, width
        stages = halvings("ContextGenerator", size, self.stages)
        widths = [self.width * 2 ** stage for stage in range(stages)]

        x, seen = beside("ContextGenerator", self.planes, condition, size), []
        for features in widths:
            seen.append(x)
            x = Conv(features, (self.kernel_size,) * 2, strides=2, kernel_init=conv_init(2),
                     dtype=self.dtype)(x)
            x = nn.leaky_relu(self._normalised(x, train) if len(seen) > 1 else x, 0.2)
        drawn = Dense(x[0].size, kernel_init=dense_init(), dtype=self.dtype)(latents).reshape(x.shape)
        x = nn.relu(self._normalised(x + drawn, train))
        for features, skipped in zip((*widths[-2::-1], channels), seen[::-1], strict=True):
            height, width = skipped.shape[1:3]
            x = ConvTranspose(max(features, self.width), (self.kernel_size,) * 2, strides=2,
                              kernel_init=conv_transpose_init(2), dtype=self.dtype)(x)
            x = nn.relu(self._normalised(x[:, :height, :width], train))
            x = jnp.concatenate([x, skipped.astype(x.dtype)], axis=-1)
        x = Conv(channels, (3, 3), kernel_init=conv_init(he=False), dtype=self.dtype)(x)
        images = squash(self.output, x)
        return images if self.paste is None else self.paste(condition, images)

    def _normalised(self, x: Array, train: bool) -> Array:
        return normalise(self.norm, x, train=train, axis_name=self.axis_name)
