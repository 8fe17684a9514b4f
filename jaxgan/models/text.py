"""Networks for text: residual blocks of convolutions along it, as WGAN-GP's experiments have them.

Gulrajani et al. 2017 (arXiv 1704.00028), the language model of section 5, after its public code, whose
settings are the defaults. With latents of size 128, and a vocabulary of V characters:

    TextGenerator(32, V)        15,225,856 + 513 V parameters
    TextCritic()                13,129,217 + 512 V

`TextAutoencoder` and `CodeGenerator`, of the same blocks and of dense layers, are for text by way of
codes: `jaxgan.codes`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxgan.models.ends import check_latents, score, squash
from jaxgan.models.mlp import MLPGenerator
from jaxgan.nn import Conv, Dense
from jaxgan.nn.initializers import conv_init, dense_init
from jaxgan.nn.norms import RESIDUAL_NORMS, check_norm, normalise, weight_layer
from jaxgan.nn.transformers import rms_norm
from jaxgan.types import Array, Dtype, Key, PyTree

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
        causal: whether a place sees itself and those before it alone.
    """

    kernel_size: int = 5
    norm: str = "none"
    axis_name: str | None = None
    dtype: Dtype | None = None
    causal: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps `x`, [batch, length, channels], to the same shape."""
        y, padding = x, [(self.kernel_size - 1, 0)] if self.causal else "SAME"
        for _ in range(2):
            y = nn.relu(normalise(self.norm, y, train=train, axis_name=self.axis_name))
            layer = Conv(x.shape[-1], (self.kernel_size,), padding=padding, kernel_init=conv_init(),
                         dtype=self.dtype)
            y = weight_layer(self.norm, layer, y, train=train)
        return x + _SHARE * y


class TextAutoencoder(nn.Module):
    """Text to codes, and codes to text, which is written character by character.

    The encoder is `TextCritic` with a code in the score's place. A code is divided by the root of its
    mean square: all have the norm of the root of their size (in Zhao et al. 2018, arXiv 1706.04223, the
    norm is 1). The decoder sees the code, through a dense layer for each place, and the characters
    before a place, of which its causal blocks see as many as they reach: p(x | c) is the product over t
    of p(x_t | x_<t, c).

    Attributes:
        length: characters of a text.
        vocabulary: how many different ones there are.
        code_size: numbers of a code.
        width: channels.
        blocks: number of residual blocks of either half.
        kernel_size: of their convolutions.
        dtype: what the layers compute in (parameters, codes, logits stay float32); None for the common
            dtype of input and parameters.
    """

    length: int
    vocabulary: int
    code_size: int = 128
    width: int = 512
    blocks: int = 5
    kernel_size: int = 5
    dtype: Dtype | None = None

    def setup(self):  # noqa: D102
        _check_blocks("TextAutoencoder", self.blocks)

        def conv(width: int) -> Conv:
            return Conv(width, (1,), kernel_init=conv_init(), dtype=self.dtype)

        def dense(width: int) -> Dense:
            return Dense(width, kernel_init=dense_init(), dtype=self.dtype)

        self.read, self.before, self.out = conv(self.width), conv(self.width), conv(self.vocabulary)
        self.encoder, self.decoder = ([TextBlock(self.kernel_size, dtype=self.dtype, causal=causal)
                                       for _ in range(self.blocks)] for causal in (False, True))
        self.code, self.places = dense(self.code_size), dense(self.length * self.width)

    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps one-hot text, [batch, length, vocabulary], to logits of the same shape."""
        return self.decode(self.encode(samples, condition, train=train), samples, train=train)

    def encode(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps one-hot text, [batch, length, vocabulary], to codes, [batch, code_size]."""
        del condition
        x = self.read(samples)
        for block in self.encoder:
            x = block(x, train=train)
        return rms_norm(squash("none", self.code(x.reshape(x.shape[0], -1))))

    def decode(self, codes: Array, samples: Array, *, train: bool) -> Array:
        """Maps codes and one-hot text to the logits of each character, given those before it alone."""
        before = jnp.pad(samples[:, :-1], ((0, 0), (1, 0), (0, 0)))
        x = self.places(codes).reshape(-1, self.length, self.width) + self.before(before)
        for block in self.decoder:
            x = block(x, train=train)
        return squash("none", self.out(x))

    def write(self, codes: Array, example_keys: Key, temperature: ArrayLike = 1.0) -> Array:
        """Draws a text for each code, one-hot [batch, length, vocabulary].

        Args:
            codes: [batch, code_size].
            example_keys: one key for each, [batch].
            temperature: T of the probabilities p^(1 / T) that characters are drawn by, up to a factor;
                with 0 the likeliest is taken.
        """
        def one(samples: Array, place: Array) -> tuple[Array, None]:
            logits = self.decode(codes, samples, train=False)[:, place]
            noise = jax.vmap(lambda key: jax.random.gumbel(
                jax.random.fold_in(key, place), logits.shape[1:]))(example_keys)
            drawn = (logits + temperature * noise).argmax(-1)
            return samples.at[:, place].set(jax.nn.one_hot(drawn, self.vocabulary)), None

        nothing = jnp.zeros((len(codes), self.length, self.vocabulary))
        return lax.scan(one, nothing, jnp.arange(self.length))[0]


class CodeGenerator(nn.Module):
    """`MLPGenerator` of codes, divided by the root of their mean square as those of `TextAutoencoder`.

    Attributes:
        code_size: numbers of a code.
        hidden: widths of the hidden layers.
        dtype: what the layers compute in (parameters, codes stay float32); None for the common dtype of
            input and parameters.
    """

    code_size: int = 128
    hidden: Sequence[int] = (256, 256)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to codes, [batch, code_size]."""
        del condition
        return rms_norm(MLPGenerator((self.code_size,), self.hidden, dtype=self.dtype)(
            latents, train=train))


def _check_blocks(model: str, blocks: int) -> None:
    if blocks < 1:
        raise ValueError(f"{model}: blocks must be at least 1; got {blocks}")
