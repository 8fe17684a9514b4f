"""Dense networks, for points in the plane and other small samples."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn

from jaxgan.models.ends import as_planes, check_conditioning, conditioned, judge, squash
from jaxgan.nn import Dense
from jaxgan.nn.activations import ACTIVATIONS
from jaxgan.nn.initializers import dense_init
from jaxgan.nn.norms import RESIDUAL_NORMS, check_norm, normalise, weight_layer
from jaxgan.types import Array, Dtype, PyTree


class MLPGenerator(nn.Module):
    """Dense layers with ReLUs; the defaults are WGAN-GP's toy generator (527,874 parameters).

    Attributes:
        sample_shape: shape of one sample.
        hidden: widths of the hidden layers.
        output: "none" for unbounded samples, "tanh" for [-1, 1], "sigmoid" for [0, 1].
        num_classes: 0, or how many classes the condition's labels, int [batch], name: they go in with
            the latents, as one more input for each class.
        num_numbers: 0, or how many numbers the condition is, float [batch, numbers], which do likewise.
        dtype: what the layers compute in (parameters, statistics, samples stay float32); None for
            the common dtype of input and parameters.
    """

    sample_shape: Sequence[int] = (2,)
    hidden: Sequence[int] = (512, 512, 512)
    output: str = "none"
    num_classes: int = 0
    num_numbers: int = 0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, latents: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps latents, [batch, latent_size], to samples, [batch, *sample_shape]."""
        del train
        x, _ = conditioned("MLPGenerator", latents, condition, self.num_classes, self.num_numbers)
        for width in self.hidden:
            x = nn.relu(Dense(width, kernel_init=dense_init(he=True), dtype=self.dtype)(x))
        x = Dense(math.prod(self.sample_shape), kernel_init=dense_init(), dtype=self.dtype)(x)
        return squash(self.output, x.reshape(-1, *self.sample_shape))


class MLPCritic(nn.Module):
    """Dense layers with ReLUs; the defaults are WGAN-GP's toy critic (527,361 parameters).

    With norm "orthonormal" it is 1-Lipschitz in the sample.

    Attributes:
        hidden: widths of the hidden layers.
        norm: "none", "batch", "layer", "spectral" or "orthonormal"; activations are normalised after
            every hidden layer but the first, the last two are of every layer's weights.
        conditioning: "none", "projection", "concatenation" or "classes", see `jaxgan.models.ends.judge`.
        num_classes: how many classes there are; 0 without conditioning, or by numbers.
        num_numbers: how many numbers the condition is, float [batch, numbers]; 0 for none.
        heads: names and sizes of further predictions, see there too.
        activation: a name of `jaxgan.nn.activations.ACTIVATIONS`; None for "relu", or "maxmin" with norm
            "orthonormal".
        residual: whether every hidden layer but the first adds its output to its input.
        axis_name: the devices' axis for batch normalisation; the training steps set it.
        dtype: what the layers compute in (parameters, statistics, scores stay float32); None for
            the common dtype of input and parameters.
    """

    hidden: Sequence[int] = (512, 512, 512)
    norm: str = "none"
    conditioning: str = "none"
    num_classes: int = 0
    num_numbers: int = 0
    heads: tuple[tuple[str, int], ...] = ()
    activation: str | None = None
    residual: bool = False
    axis_name: str | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool
                 ) -> Array | tuple[Array, dict[str, Array]]:
        """Maps samples, [batch, ...], to scores, [batch], or scores and heads."""
        check_norm(self.norm)
        activation = self._activation()
        check_conditioning("MLPCritic", self.conditioning, self.num_classes, condition, samples,
                           self.num_numbers)
        x = samples.reshape(samples.shape[0], -1)
        if self.conditioning == "concatenation":
            x = as_planes(condition, x, self.num_classes)
        for index, width in enumerate(self.hidden):
            layer = Dense(width, kernel_init=dense_init(he=True), dtype=self.dtype)
            y = weight_layer(self.norm, layer, x, train=train)
            if index > 0:
                y = normalise(self.norm, y, train=train, axis_name=self.axis_name)
            y = activation(y)
            x = x + y if self.residual and index > 0 else y
        return judge(self.norm, x, condition, conditioning=self.conditioning,
                     num_classes=self.num_classes, num_numbers=self.num_numbers, heads=self.heads,
                     train=train)

    def _activation(self) -> Callable[[Array], Array]:
        """The activation; checks it, and the widths."""
        default = "maxmin" if self.norm == "orthonormal" else "relu"
        name = default if self.activation is None else self.activation
        if name not in ACTIVATIONS:
            raise ValueError("MLPCritic: activation must be one of "
                             f"{', '.join(map(repr, ACTIVATIONS))}; got {name!r}")
        if self.norm == "orthonormal" and name == "silu":
            raise ValueError("MLPCritic: activation 'silu' does not go with norm 'orthonormal', as its "
                             "slope is up to 1.1: choose 'maxmin', or None")
        if self.residual and self.norm not in RESIDUAL_NORMS:
            raise ValueError(f"MLPCritic: residual does not go with norm {self.norm!r}, as sums are "
                             "2-Lipschitz: leave residual out")
        if self.residual and len(set(self.hidden)) > 1:
            raise ValueError("MLPCritic: hidden layers that are added to their input must have one "
                             f"width; got {tuple(self.hidden)}: leave residual out, or make them equal")
        return ACTIVATIONS[name]
