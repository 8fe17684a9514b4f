"""A small convolutional classifier, for the features of its last layer but one."""

import flax.linen as nn
import jax.numpy as jnp

from jaxgan.models.ends import check_images
from jaxgan.nn import Conv, Dense
from jaxgan.types import Array


class Classifier(nn.Module):
    """Three 3x3 convolutions, the last two of stride 2, and two dense layers.

    Attributes:
        num_classes: how many classes.
        width: channels of the first convolution; they double with each halving of the image.
        features: units of the first dense layer.
    """

    num_classes: int
    width: int = 16
    features: int = 128

    @nn.compact
    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Maps images, [batch, height, width, channels] in [0, 1], to features and logits.

        Returns:
            Features after the ReLU, [batch, features], and logits, [batch, num_classes].
        """
        check_images("Classifier", images)
        x = images - 0.5
        for stage in range(3):
            x = nn.relu(Conv(self.width << stage, (3, 3), strides=min(1 + stage, 2),
                             kernel_init=nn.initializers.he_normal())(x))
        x = x.reshape(len(x), -1)
        x = nn.relu(Dense(self.features, kernel_init=nn.initializers.he_normal())(x))
        return x, Dense(self.num_classes)(x).astype(jnp.float32)
