"""DCGANs as WGAN-GP's experiments have them: strided 5x5 convolutions, for images of any shape.

Series and volumes are images of one axis less or more, with kernels of as many axes.

Radford et al. 2016 (arXiv 1511.06434) for the idea; Gulrajani et al. 2017 (arXiv 1704.00028) for the
networks, whose kernels are 5x5 and whose critics have no batch normalisation:

    MNIST     generator DCGANGenerator((28, 28, 1)),                                1,554,177 parameters
              critic    DCGANCritic(),                                              1,030,145
    CIFAR-10  generator DCGANGenerator((32, 32, 3), 128, norm="batch", output="tanh"), 5,179,907
              critic    DCGANCritic(128),                                           4,114,689
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.models.ends import (
    as_planes,
    check_conditioning,
    check_image_shape,
    check_images,
    conditioned,
    judge,
    squash,
)
from jaxgan.models.planes import Planes, beside
from jaxgan.nn import Conv, ConvTranspose, Dense
from jaxgan.nn.activations import ACTIVATIONS
from jaxgan.nn.initializers import conv_init, conv_transpose_init, dense_init
from jaxgan.nn.norms import check_norm, normalise, weight_layer
from jaxgan.types import Array, Dtype, PyTree


class DCGANGenerator(nn.Module):
    """A dense layer to a small image, then transposed convolutions that double its size.

    The sizes are worked out from the last one, halving and rounding up; where that rounded, the
    doubled image is cropped: 28 comes from 14, 7 and 4, with 8 cropped to 7.

    Attributes:
        image_shape: (height, width, channels) of a sample; (length, channels) of a series, (depth,
            height, width, channels) of a volume.
        width: channels before the last layer; they double with every stage before.
        stages: number of doublings; None for 3, or 2 where height or width is below 16.
        kernel_size: size of the kernels along each axis.
        norm: "batch" or "none", after every layer but the last. After the dense layer each of its
            outputs is normalised by itself, not each channel.
        output: "sigmoid" for samples in [0, 1], "tanh" for [-1, 1], "none" for unbounded ones.
        num_classes: 0, or how many classes the condition's labels, int [batch], name: they go in with
            the latents, as one more input for each class (Mirza and Osindero 2014, arXiv 1411.1784),
            and with batch normalisation as scales and biases of each class as well.
        num_numbers: 0, or how many numbers the condition is, float [batch, numbers], which go in with
            the latents.
        axes: of space: 2 for images, 1 for series, 3 for volumes.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, samples stay float32); None for
            the common dtype of input and parameters.
    """

    image_shape: tuple[int, ...]
    width: int = 64
    stages: int | None = None
    kernel_size: int = 5
    norm: str = "none"
    output: str = "sigmoid"
    num_classes: int = 0
    num_numbers: int = 0
    axes: int = 2
    axis_name: str | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to images, [batch, *image_shape]."""
        latents, labels = conditioned("DCGANGenerator", latents, condition, self.num_classes,
                                      self.num_numbers)
        check_image_shape("DCGANGenerator", self.image_shape, self.axes)
        check_norm(self.norm, ("none", "batch"))
        *size, channels = self.image_shape
        stages = halvings("DCGANGenerator", size, self.stages)
        sizes = [[-(-n // 2 ** stage) for n in size] for stage in range(stages, -1, -1)]
        widths = [self.width * 2 ** stage for stage in range(stages - 1, -1, -1)]

        x = Dense(math.prod(sizes[0]) * widths[0], kernel_init=dense_init(), dtype=self.dtype)(latents)
        x = nn.relu(self._normalised(x, labels, train))
        x = x.reshape(-1, *sizes[0], widths[0])
        for size, features in zip(sizes[1:-1], widths[1:], strict=True):
            x = nn.relu(self._normalised(self._double(x, features, size), labels, train))
        return squash(self.output, self._double(x, channels, sizes[-1]))

    def _normalised(self, x: Array, labels: Array | None, train: bool) -> Array:
        return normalise(self.norm, x, train=train, axis_name=self.axis_name, labels=labels,
                         num_classes=self.num_classes)

    def _double(self, x: Array, features: int, size: Sequence[int]) -> Array:
        x = ConvTranspose(features, (self.kernel_size,) * len(size), strides=2,
                          kernel_init=conv_transpose_init(2), dtype=self.dtype)(x)
        return x[:, *(slice(n) for n in size)]


class DCGANCritic(nn.Module):
    """Convolutions of stride 2 with LeakyReLUs, then a dense layer on all that is left.

    With norm "orthonormal" it is 1-Lipschitz in the image, and `maxmin` is in place of the LeakyReLUs.

    Attributes:
        width: channels of the first layer; they double with every stage.
        stages: number of convolutions; None for 3, or 2 where height or width is below 16.
        kernel_size: size of the kernels along each axis.
        norm: "none", "batch", "layer", "spectral" or "orthonormal"; activations are normalised after
            every convolution but the first, the last two are of every layer's weights.
        conditioning: "none", "projection", "concatenation" or "classes", see `jaxgan.models.ends.judge`.
        num_classes: how many classes there are; 0 without conditioning, or by numbers.
        num_numbers: how many numbers the condition is, float [batch, numbers]; 0 for none.
        heads: names and sizes of further predictions, see there too.
        planes: None, or condition -> what the critic sees beside the image, from `jaxgan.models.planes`.
        axes: of space: 2 for images, 1 for series, 3 for volumes.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, scores stay float32); None for
            the common dtype of input and parameters.
    """

    width: int = 64
    stages: int | None = None
    kernel_size: int = 5
    norm: str = "none"
    conditioning: str = "none"
    num_classes: int = 0
    num_numbers: int = 0
    heads: tuple[tuple[str, int], ...] = ()
    planes: Planes | None = None
    axes: int = 2
    axis_name: str | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool
                 ) -> Array | tuple[Array, dict[str, Array]]:
        """Maps images, [batch, height, width, channels], to scores, [batch], or scores and heads."""
        check_images("DCGANCritic", samples, self.axes)
        check_norm(self.norm)
        check_conditioning("DCGANCritic", self.conditioning, self.num_classes, condition, samples,
                           self.num_numbers)
        x = samples
        if self.conditioning == "concatenation":
            x = as_planes(condition, x, self.num_classes)
        if self.planes is not None:
            x = jnp.concatenate([x, beside("DCGANCritic", self.planes, condition, x)], axis=-1)
        size = x.shape[1:-1]
        for stage in range(halvings("DCGANCritic", size, self.stages)):
            layer = Conv(self.width * 2 ** stage, (self.kernel_size,) * len(size), strides=2,
                         kernel_init=conv_init(2), dtype=self.dtype)
            x = weight_layer(self.norm, layer, x, train=train)
            if stage > 0:
                x = normalise(self.norm, x, train=train, axis_name=self.axis_name)
            x = ACTIVATIONS["maxmin" if self.norm == "orthonormal" else "leaky_relu"](x)
        return judge(self.norm, x, condition, conditioning=self.conditioning,
                     num_classes=self.num_classes, num_numbers=self.num_numbers, heads=self.heads,
                     train=train)


def halvings(model: str, size: Sequence[int], stages: int | None) -> int:
    """The number of doublings or halvings, checked to leave at least 2 of height and width."""
    if stages is None:
        stages = 3 if min(size) >= 16 else 2
    if stages < 1:
        raise ValueError(f"{model}: stages must be at least 1; got {stages}")
    if -(-min(size) // 2 ** stages) < 2:
        raise ValueError(f"{model}: images of {'x'.join(map(str, size))} are too small for {stages} "
                         f"stages, which need more than {2 ** stages} of height and width: give fewer "
                         f"stages, or larger images")
    return stages
