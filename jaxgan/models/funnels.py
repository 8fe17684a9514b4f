"""A critic that is a maximum of cones: 1-Lipschitz whatever its parameters are."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgan.distances import squared_distances
from jaxgan.types import Array, Dtype, PyTree


class FunnelCritic(nn.Module):
    """The smooth maximum of `-|x - a_n| - b_n`, of learned a_n and b_n, at a learned temperature.

    `temperature * logsumexp_n(-(|x - a_n| + b_n) / temperature)`. Its gradient is a mean of vectors that
    are no longer than 1, so that it is 1-Lipschitz. While it is warm all funnels learn; at temperature 0
    it can be every optimal critic between finitely many points (the c-transform of Kantorovich duality).
    Where the potential is made of such cones it knows the form of the answer.

    Attributes:
        funnels: how many.
        spread: the centres start uniform in [-spread, spread].
        temperature: that it starts with, in units of the samples.
        dtype: None, as for the other critics; it computes in float32 at least.
    """

    funnels: int = 1024
    spread: float = 1.0
    temperature: float = 1.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, samples: Array, condition: PyTree | None = None, *, train: bool) -> Array:
        """Maps samples, [batch, ...], to scores, [batch]."""
        del condition, train
        x = samples.reshape(samples.shape[0], -1)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centres = self.param("centres", lambda key, shape: jax.random.uniform(
            key, shape, minval=-self.spread, maxval=self.spread), (self.funnels, x.shape[-1]))
        heights = self.param("heights", nn.initializers.zeros, (self.funnels,))
        temperature = jnp.exp(self.param("log_temperature", nn.initializers.constant(
            math.log(self.temperature)), ()))
        # Of the root of 0 there is no derivative.
        distances = jnp.sqrt(jnp.maximum(squared_distances(x, centres), 1e-6))
        return temperature * jax.nn.logsumexp(-(distances + heights[None]) / temperature, axis=-1)
