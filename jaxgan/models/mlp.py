"""Dense networks, for points in the plane and other small samples."""

import math
from collections.abc import Sequence

import flax.linen as nn

from jaxgan.models.images import check_latents, squash
from jaxgan.nn.initializers import dense_init
from jaxgan.nn.norms import check_norm, normalise, weight_layer
from jaxgan.types import Array, PyTree


class MLPGenerator(nn.Module):
    """Dense layers with ReLUs; the defaults are WGAN-GP's toy generator (527,874 parameters).

    Attributes:
        sample_shape: shape of one sample.
        hidden: widths of the hidden layers.
        output: "none" for unbounded samples, "tanh" for [-1, 1], "sigmoid" for [0, 1].
    """

    sample_shape: Sequence[int] = (2,)
    hidden: Sequence[int] = (512, 512, 512)
    output: str = "none"

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to samples, [batch, *sample_shape]."""
        del condition, train
        check_latents("MLPGenerator", latents)
        x = latents
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=dense_init(he=True))(x))
        x = nn.Dense(math.prod(self.sample_shape), kernel_init=dense_init())(x)
        return squash(self.output, x.reshape(-1, *self.sample_shape))


class MLPCritic(nn.Module):
    """Dense layers with ReLUs; the defaults are WGAN-GP's toy critic (527,361 parameters).

    Attributes:
        hidden: widths of the hidden layers.
        norm: "none", "batch", "layer" or "spectral"; activations are normalised after every hidden
            layer but the first, spectral normalisation is of every layer's weights.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
    """

    hidden: Sequence[int] = (512, 512, 512)
    norm: str = "none"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps samples, [batch, ...], to scores, [batch]."""
        del condition
        check_norm(self.norm)
        x = samples.reshape(samples.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = weight_layer(self.norm, nn.Dense(width, kernel_init=dense_init(he=True)), x,
                             train=train)
            if index > 0:
                x = normalise(self.norm, x, train=train, axis_name=self.axis_name)
            x = nn.relu(x)
        x = weight_layer(self.norm, nn.Dense(1, kernel_init=dense_init()), x, train=train)
        return x.squeeze(-1)
