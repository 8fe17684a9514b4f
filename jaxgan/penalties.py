"""Penalties on the critic's gradient with respect to its input, and weight clipping.

A penalty maps `(critic_fn, real, fake, key)` to `(value, norms)`: the scalar to add to the critic's
loss, and the gradient norms it was computed from, [points], which cost nothing more and tell how
well the constraint holds. `critic_fn` maps samples [batch, ...] to scores [batch] and must score
each sample by itself. `key` is one key, or one key per sample (what the steps pass, so that a sample
gets the same randomness on any number of devices).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgan import keys
from jaxgan.types import Array, CriticFn, Key


class PenaltyValue(NamedTuple):
    """A penalty's scalar value and the input-gradient norms [points] where it took them."""

    value: Array
    norms: Array


Penalty = Callable[[CriticFn, Array, Array, Key], PenaltyValue]


def interpolate(real: Array, fake: Array, key: Key) -> Array:
    """Draws a point uniformly on the segment between each real sample and its fake partner.

    `fake + u (real - fake)`, with one weight u ~ U[0, 1) for a whole sample.
    Gulrajani et al. 2017 (arXiv 1704.00028), section 4, "Sampling distribution".

    Args:
        real: [batch, ...].
        fake: the same shape.
        key: one key, or one per sample.

    Raises:
        ValueError: the shapes differ.
        TypeError: the samples aren't floating point.
    """
    _check_samples(real, fake)
    weights = keys.uniform(keys.per_example(key, real.shape[0]))
    return fake + _over_samples(weights, real.ndim).astype(real.dtype) * (real - fake)


def gradient_norms(critic_fn: CriticFn, samples: Array) -> Array:
    """Returns the norm of the critic's gradient at each sample, [batch], in float32.

    Euclidean over all axes but the first; zero, with zero derivative, where the gradient vanishes.

    Args:
        critic_fn: samples [batch, ...] -> scores [batch].
        samples: [batch, ...], of any rank.

    Raises:
        ValueError: `critic_fn` does not return one score per sample.
    """
    return _safe_sqrt(_squared_norms(critic_fn, samples))


def gradient_penalty(
    weight: float = 10.0, target: float = 1.0, one_sided: bool = False
) -> Penalty:
    """WGAN-GP's penalty, `weight * E[(||grad D(x)|| - target)^2]` at interpolated samples x.

    Gulrajani et al. 2017 (arXiv 1704.00028), equation 3.

    Args:
        weight: lambda; the paper takes 10 for images, 0.1 for its 2-D sets.
        target: the norm that is not penalised.
        one_sided: penalise only norms above `target` (section 4, "Two-sided penalty"; equation 8
            of Petzka et al. 2018, arXiv 1709.08894).
    """
    _check_weight(weight)

    def penalty(critic_fn: CriticFn, real: Array, fake: Array, key: Key) -> PenaltyValue:
        norms = gradient_norms(critic_fn, interpolate(real, fake, key))
        excess = jax.nn.relu(norms - target) if one_sided else norms - target
        return PenaltyValue(weight * jnp.square(excess).mean(), norms)

    return penalty


def zero_centered(weight: float = 10.0) -> Penalty:
    """The zero-centred penalty on interpolates, `weight * E[||grad D(x)||^2]`.

    Thanh-Tung et al. 2019 (arXiv 1902.03984), equation 6.
    """
    _check_weight(weight)
    return _squared(weight, lambda real, fake, key: interpolate(real, fake, key))


def r1(weight: float = 10.0) -> Penalty:
    """The zero-centred penalty on reals, `weight/2 * E[||grad D(real)||^2]`.

    Mescheder et al. 2018 (arXiv 1801.04406), equation 9, where the weight is called gamma.
    """
    _check_weight(weight)
    return _squared(weight / 2, lambda real, fake, key: real)


def r2(weight: float = 10.0) -> Penalty:
    """The zero-centred penalty on fakes, `weight/2 * E[||grad D(fake)||^2]`.

    Mescheder et al. 2018 (arXiv 1801.04406), equation 10.
    """
    _check_weight(weight)
    return _squared(weight / 2, lambda real, fake, key: fake)


def dragan(weight: float = 10.0, noise: float = 0.5, target: float = 1.0) -> Penalty:
    """DRAGAN's penalty, `weight * E[(||grad D(real + e)|| - target)^2]`, `e ~ N(0, noise^2)`.

    Kodali et al. 2017 (arXiv 1705.07215), section 2.4. The noise is the paper's: Gaussian, of a
    fixed size. The authors' code scales uniform noise by the batch's standard deviation instead,
    which would make a sample's noise depend on the others and on the number of devices.

    Args:
        weight: lambda.
        noise: the noise's standard deviation, in units of the samples.
        target: the norm that is not penalised.
    """
    _check_weight(weight)

    def penalty(critic_fn: CriticFn, real: Array, fake: Array, key: Key) -> PenaltyValue:
        del fake
        norms = gradient_norms(critic_fn, add_noise(real, key, noise))
        return PenaltyValue(weight * jnp.square(norms - target).mean(), norms)

    return penalty


def combine(*penalties: Penalty) -> Penalty:
    """Adds penalties up: values are summed, norms concatenated; `combine(p)` is `p`.

    Each penalty draws from a key of its own. R3GAN uses `combine(r1(gamma), r2(gamma))`.
    """
    if not penalties:
        raise ValueError("combine needs at least one penalty; leave the GAN's penalty None instead")
    if len(penalties) == 1:
        return penalties[0]

    def penalty(critic_fn: CriticFn, real: Array, fake: Array, key: Key) -> PenaltyValue:
        sample_keys = keys.per_example(key, real.shape[0])
        parts = [part(critic_fn, real, fake, jax.vmap(jax.random.fold_in, (0, None))(sample_keys, i))
                 for i, part in enumerate(penalties)]
        return PenaltyValue(sum(part.value for part in parts),
                            jnp.concatenate([part.norms for part in parts]))

    return penalty


def add_noise(samples: Array, key: Key, scale: Array | float) -> Array:
    """Adds Gaussian noise of standard deviation `scale` to samples [batch, ...].

    On the critic's input it is "instance noise": Sonderby et al. 2017 (arXiv 1610.04490), section
    2.4; Arjovsky & Bottou 2017 (arXiv 1701.04862), section 3.
    """
    noise = keys.normal(keys.per_example(key, samples.shape[0]), samples.shape[1:])
    return samples + (scale * noise).astype(samples.dtype)


def clip_weights(limit: float = 0.01) -> optax.GradientTransformation:
    """An optax transformation that keeps every parameter in [-limit, limit] after the update.

    Chain it behind the critic's optimiser: `optax.chain(optax.rmsprop(5e-5), clip_weights())`.
    Arjovsky et al. 2017 (arXiv 1701.07875), algorithm 1, line 7.

    Raises:
        ValueError: `limit` isn't positive; or, in the update, no parameters are given.
    """
    if not limit > 0:
        raise ValueError(f"limit must be above 0; got {limit}")

    def clip(updates, params):
        if params is None:
            raise ValueError("clip_weights needs the parameters: call update(updates, state, params)")
        return jax.tree.map(lambda u, p: jnp.clip(p + u, -limit, limit) - p, updates, params)

    return optax.stateless(clip)


def _squared(weight: float, points: Callable[[Array, Array, Key], Array]) -> Penalty:
    """The penalty `weight * E[||grad D(x)||^2]` at x = points(real, fake, key)."""

    def penalty(critic_fn: CriticFn, real: Array, fake: Array, key: Key) -> PenaltyValue:
        squares = _squared_norms(critic_fn, points(real, fake, key))
        return PenaltyValue(weight * squares.mean(), _safe_sqrt(squares))

    return penalty


def _squared_norms(critic_fn: CriticFn, samples: Array) -> Array:
    _check_floating("samples", samples)

    def summed_scores(samples: Array) -> Array:
        scores = critic_fn(samples)
        if scores.shape != (samples.shape[0],):
            raise ValueError("the critic must return one score per sample, shape "
                             f"({samples.shape[0]},); got {scores.shape}: squeeze the last axis")
        return scores.astype(jnp.float32).sum()

    # A sample's gradient doesn't depend on the others, so one gradient of the sum serves them all.
    gradients = jax.grad(summed_scores)(samples.astype(jnp.float32))
    return jnp.square(gradients).sum(axis=tuple(range(1, gradients.ndim)))


def _safe_sqrt(squares: Array) -> Array:
    """The square root with derivative 0, not infinity (hence NaN gradients), at 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def _over_samples(values: Array, ndim: int) -> Array:
    return values.reshape(values.shape + (1,) * (ndim - 1))  # [batch, 1, ..., 1]


def _check_samples(real: Array, fake: Array) -> None:
    _check_floating("real", real)
    _check_floating("fake", fake)
    if real.shape != fake.shape:
        raise ValueError(f"real and fake must have the same shape; got {real.shape} and {fake.shape}")


def _check_floating(name: str, samples: Array) -> None:
    if not jnp.issubdtype(samples.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point; got {samples.dtype}: scale the pixels first")


def _check_weight(weight: float) -> None:
    if not weight >= 0:
        raise ValueError(f"weight must not be negative; got {weight}")
