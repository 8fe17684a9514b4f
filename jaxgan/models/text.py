"""Networks for text as WGAN-GP's experiments have them: residual blocks of convolutions along the text.

Gulrajani et al. 2017 (arXiv 1704.00028), the language model of section 5, after its public code, whose
settings are the defaults. With latents of size 128, and a vocabulary of V characters:

    TextGenerator(32, V)        15,225,856 + 513 V parameters
    TextCritic()                13,129,217 + 512 V
"""

import flax.linen as nn

from jaxgan.models.ends import check_latents, score, squash
from jaxgan.nn import Conv, Dense
from jaxgan.nn.initializers import conv_init, dense_init
from jaxgan.nn.norms import RESIDUAL_NORMS, check_norm, normalise, weight_layer
from jaxgan.types import Array, Dtype, PyTree

_SHARE = 0.3  # of a block's branch in the sum with its input


class TextGenerator(nn.Module):
    """A dense layer to a sequence, residual blocks, and for each place a distribution over characters.

    The probabilities themselves go to the critic, whose gradient they let through; text is the most
    probable character at each place.

    Attributes:
        length: characters in a sample.
        vocabulary: how many different ones there are.
        width: channels.
        blocks: number of residual blocks.
        kernel_size: of the blocks' convolutions.
        dtype: what the layers compute in (parameters, samples stay float32); None for the common dtype
            of input and parameters.
    """

    length: int
    vocabulary: int
    width: int = 512
    blocks: int = 5
    kernel_size: int = 5
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to probabilities, [batch, length, vocabulary]."""
        del condition
        check_latents("TextGenerator", latents)
        _check_blocks("TextGenerator", self.blocks)
        x = Dense(self.length * self.width, kernel_init=dense_init(), dtype=self.dtype)(latents)
        x = x.reshape(-1, self.length, self.width)
        for _ in range(self.blocks):
            x = TextBlock(self.kernel_size, dtype=self.dtype)(x, train=train)
        x = Conv(self.vocabulary, (1,), kernel_init=conv_init(), dtype=self.dtype)(x)
        return nn.softmax(squash("none", x))


class TextCritic(nn.Module):
    """A convolution of each character by itself, residual blocks, and a dense layer on all that is left.

    Attributes:
        width: channels.
        blocks: number of residual blocks.
        kernel_size: of their convolutions.
        norm: "none", "batch", "layer" or "spectral"; activations are normalised before every ReLU,
            spectral normalisation is of every layer's weights.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, scores stay float32); None for the
            common dtype of input and parameters.
    """

    width: int = 512
    blocks: int = 5
    kernel_size: int = 5
    norm: str = "none"
    axis_name: str | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps one-hot text or probabilities, [batch, length, vocabulary], to scores, [batch]."""
        del condition
        if samples.ndim != 3:
            raise ValueError("TextCritic takes samples of shape [batch, length, vocabulary]; got "
                             f"{samples.shape}: give tokens as one-hot vectors")
        check_norm(self.norm, RESIDUAL_NORMS)
        _check_blocks("TextCritic", self.blocks)
        layer = Conv(self.width, (1,), kernel_init=conv_init(), dtype=self.dtype)
        x = weight_layer(self.norm, layer, samples, train=train)
        for _ in range(self.blocks):
            x = TextBlock(self.kernel_size, self.norm, self.axis_name, self.dtype)(x, train=train)
        return score(self.norm, x, train=train)


class TextBlock(nn.Module):
    """x + 0.3 f(x), where f is [norm, ReLU, convolution] twice.

    Attributes:
        kernel_size: of the convolutions.
        norm: see `jaxgan.nn.norms`.
        axis_name: the devices' axis for batch normalisation.
        dtype: what the layers compute in; None for the common dtype of input and parameters.
    """

    kernel_size: int = 5
    norm: str = "none"
    axis_name: str | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps `x`, [batch, length, channels], to the same shape."""
        y = x
        for _ in range(2):
            y = nn.relu(normalise(self.norm, y, train=train, axis_name=self.axis_name))
            layer = Conv(x.shape[-1], (self.kernel_size,), kernel_init=conv_init(), dtype=self.dtype)
            y = weight_layer(self.norm, layer, y, train=train)
        return x + _SHARE * y


def _check_blocks(model: str, blocks: int) -> None:
    if blocks < 1:
        raise ValueError(f"{model}: blocks must be at least 1; got {blocks}")
