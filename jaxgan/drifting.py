"""Drifting: a generator of one step that learns without a critic.

Deng et al. 2026 (arXiv 2602.04770). What the generator makes is moved by a field V, towards data and
away from what it makes besides, and it learns to make what was moved. V is 0 where the two are alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgan import keys
from jaxgan.gan import Prior, sampled_variables, samples_and_heads
from jaxgan.loops import Game
from jaxgan.networks import NetworkState, See, moving_average, network_state, update
from jaxgan.nn import module_rngs
from jaxgan.terms import Term, Value
from jaxgan.types import Array, Batch, Key, Metrics, PyTree, batch_size, described
from jaxgan.views import applied

TEMPERATURES = (0.02, 0.05, 0.2)  # the article's
_LEAST = 1e-12  # that a mean square is divided as


class DriftingState(NamedTuple):
    """All that changes in the training of a generator that drifts.

    Attributes:
        step: the number of finished steps, int32.
        generator: its numbers.
        ema: None, or the averaged generator's variables.
    """

    step: Array
    generator: NetworkState
    ema: PyTree


class DriftingView(NamedTuple):
    """What the generator's term sees of an update: the samples of all devices, or their features.

    Attributes:
        fake: a pytree of arrays, [batch, ...].
        real: the same of data, [count, ...].
        classes: None, or the labels of both, int [batch] and [count].
    """

    fake: PyTree
    real: PyTree
    classes: tuple[Array, Array] | None = None


class _Field(NamedTuple):
    drift: Array  # in units, [points, dimensions]
    unit: Array | float
    size: Array  # the root mean square of the drift before it is normalised


def drift(points: Array, attracting: Array, repelling: Array,
          temperatures: Sequence[float] = TEMPERATURES, *, normalised: bool = True,
          classes: tuple[Array, Array, Array] | None = None) -> Array:
    """Returns V at each of the points, [points, dimensions], float32 at least.

        V(x) = sum_R sum_jk a+_j a-_k (y+_j - y-_k),  a = sqrt(softmax over y * softmax over x)

    of -|x - y| / R, y running through all that attracts and repels. Exchange of the two sets reverses V,
    which is 0 where they are the same. What is at distance 0 has no part in it, so that no point repels
    itself. Deng et al. 2026 (arXiv 2602.04770).

    Args:
        points: where, [points, dimensions].
        attracting: y+, [count, dimensions].
        repelling: y-, likewise.
        temperatures: each R.
        normalised: whether R is in units of the mean distance, and each R's part of V has the root mean
            square of that distance over the root of the dimensions, as in the article; else distances
            and V are as they are.
        classes: None, or labels, int [points] and twice [count]: what is of another class than a point
            has no part in its V, as if each class drifted alone, but for the mean distance and the size
            of V, which are of all.

    Raises:
        ValueError: shapes that don't go together, or temperatures that aren't positive.
    """
    found = _field(points, attracting, repelling, temperatures, normalised, classes)
    return found.drift * found.unit


def drift_loss(fake: Array, real: Array, temperatures: Sequence[float] = TEMPERATURES, *,
               normalised: bool = True, classes: tuple[Array, Array] | None = None) -> Array:
    """Returns the mean over samples and dimensions of (x - stop(x + V(x)))^2.

    V is `drift` towards reals and away from the fakes x themselves. If it is normalised, so is x: the
    mean distance is then the root of the dimensions.

    Args:
        fake: [batch, ...]; all axes but the first are dimensions.
        real: [count, ...].
        temperatures: as for `drift`.
        normalised: as for `drift`.
        classes: None, or labels, int [batch] and [count], as for `drift`.
    """
    return _loss(fake, real, temperatures, normalised, classes)[0]


def drifting(
    generator: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    latent_size: int | None = None,
    prior: Prior | None = None,
    features: Callable[[PyTree], PyTree] | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
    normalised: bool = True,
    ema_decay: float | optax.Schedule | None = None,
) -> Game:
    """Returns the game in which a generator's samples drift towards data; there is no critic.

    Each step draws as many samples as a batch has, and moves them towards the reals of all its batches,
    of all devices. Data in classes drift class by class: the condition is labels, int [batch], and fakes
    are made for those of the step's first batch. Metrics: `generator/loss`, `generator/gradient_norm`,
    and `generator/drift`, the root mean square of V in units of x before it is normalised, which tells
    how far the sets are apart.

    Args:
        generator: as of a GAN.
        optimizer: any optax transformation.
        latent_size: the number of latent variables, z ~ N(0, I); None if there is a prior.
        prior: None, or keys [batch] -> latents, as of a GAN.
        features: None for samples as they are, or samples [batch, ...] -> what is to drift in their
            place, arrays [batch, ...]; of several, a pytree, the losses are added.
        temperatures: as for `drift`.
        normalised: as for `drift`.
        ema_decay: None, or the decay of the averaged generator, which `sample` prefers then; a number or
            a schedule.

    Raises:
        ValueError: there are both a latent size and a prior, or none; temperatures that aren't positive.
    """
    if (latent_size is None) == (prior is None):
        raise ValueError(f"latent_size is {latent_size} and there is {'a' if prior else 'no'} prior: "
                         "give one of the two")
    _check_temperatures(temperatures)

    def value(view: DriftingView, state: PyTree) -> Value:
        found = [_loss(fake, real, temperatures, normalised, view.classes) for fake, real in zip(
            jax.tree.leaves(view.fake), jax.tree.leaves(view.real), strict=True)]
        return Value(cast("Array", sum(loss for loss, _ in found)),
                     {"drift": cast("Array", sum(size for _, size in found)) / len(found)})

    terms = (Term("drifting", value),)

    def draw(example_keys: Key) -> PyTree:
        return prior(example_keys) if prior else keys.normal(example_keys, (cast("int", latent_size),))

    def see(state: DriftingState, batches: Batch, key: Key, axis_name: str | None) -> See:
        """Of reals [batches, batch, ...]."""
        count = jax.tree.leaves(batches.samples)[0].shape[1]
        latents = draw(keys.example_keys(keys.stream(key, "latents"), count, axis_name))
        rngs = module_rngs(keys.stream(key, "generator_fake"), count, axis_name)
        reals, labels = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tuple(batches))
        wanted = jax.tree.map(lambda x: x[0], batches.condition)

        def seen(params: PyTree) -> tuple[DriftingView, PyTree]:
            network = state.generator._replace(params=params)
            generated, stats = applied(generator, network, latents, wanted, rngs, axis_name)
            both = samples_and_heads(generated)[0], reals
            fake, real = both if features is None else map(features, both)
            view = DriftingView(fake, real, None if labels is None else (wanted, labels))
            return (view if axis_name is None else lax.all_gather(view, axis_name, tiled=True)), stats

        return seen

    def init(key: Key, example: Batch) -> DriftingState:
        if (labels := example.condition) is not None and not _are_labels(labels):
            raise ValueError("what drifts for a condition does so class by class, and takes labels, int "
                             f"[batch]; got {described(labels)}")
        latents = draw(keys.example_keys(keys.stream(key, "latents"), batch_size(example.samples)))
        variables = generator.init(keys.stream(key, "generator"), latents, labels, train=False)
        made = jax.eval_shape(lambda: samples_and_heads(
            generator.apply(variables, latents, labels, train=False))[0])
        shapes = [jax.tree.map(jnp.shape, samples) for samples in (made, example.samples)]
        if shapes[0] != shapes[1]:
            raise ValueError("the generator makes samples of shape {}, the data has {}: give it that "
                             "shape".format(*shapes))
        return DriftingState(
            jnp.zeros((), jnp.int32), network_state(variables, optimizer, terms, name="generator"),
            None if ema_decay is None else jax.tree.map(jnp.copy, variables))

    def step(state: DriftingState, batches: Batch, key: Key, *, axis_name: str | None = None
             ) -> tuple[DriftingState, Metrics]:
        network, metrics = update(state.generator, optimizer, terms,
                                  see(state, batches, key, axis_name), name="generator",
                                  axis_name=axis_name)
        count = state.step + 1
        average = None if ema_decay is None else moving_average(state.ema, network, ema_decay,
                                                                count)
        return DriftingState(count, network, average), metrics

    def sample(state: DriftingState, key: Key, count: int, condition: PyTree | None = None) -> PyTree:
        latents = draw(keys.per_example(key, count))
        return samples_and_heads(generator.apply(sampled_variables(state), latents, condition,
                                                 train=False))[0]

    return Game(init, step, lambda state: {"generator": state.generator.params}, sample)


def _loss(fake: Array, real: Array, temperatures: Sequence[float], normalised: bool,
          classes: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """The loss, and the size of the drift."""
    x, y = (samples.reshape(len(samples), -1) for samples in (fake, real))
    still = lax.stop_gradient(x)
    found = _field(still, lax.stop_gradient(y), still, temperatures, normalised,
                   classes and (*classes, classes[0]))
    x = x.astype(found.drift.dtype) / found.unit
    return jnp.square(x - lax.stop_gradient(x + found.drift)).mean(), found.size


def _field(points: Array, attracting: Array, repelling: Array, temperatures: Sequence[float],
           normalised: bool, classes: tuple[Array, Array, Array] | None) -> _Field:
    _check_temperatures(temperatures)
    for name, others in (("attracts", attracting), ("repels", repelling)):
        if points.ndim != 2 or others.ndim != 2 or others.shape[1] != points.shape[1]:
            raise ValueError(f"points and what {name} must be [count, dimensions], of the same "
                             f"dimensions; got {points.shape} and {others.shape}")
    points, attracting, repelling = (x.astype(jnp.promote_types(x.dtype, jnp.float32))
                                     for x in (points, attracting, repelling))
    others = jnp.concatenate([attracting, repelling])
    distances = jnp.sqrt(jnp.square(points[:, None] - others[None]).sum(-1))
    is_apart, unit = distances > 0, 1.0
    if classes is not None:
        is_apart &= classes[0][:, None] == jnp.concatenate(classes[1:])[None]
    if normalised:
        mean = jnp.where(is_apart, distances, 0.0).sum() / jnp.maximum(is_apart.sum(), 1)
        mean = jnp.where(mean > 0, mean, 1.0)
        distances, unit = distances / mean, mean / math.sqrt(points.shape[1])
    parts, total = [], jnp.zeros_like(points)
    for temperature in temperatures:
        logits = jnp.where(is_apart, -distances / temperature, -1e30)  # finite if nothing is apart
        shares = jnp.sqrt(jax.nn.softmax(logits, 1) * jax.nn.softmax(logits, 0)) * is_apart
        towards, away = shares[:, :len(attracting)], shares[:, len(attracting):]
        parts.append((_product(towards * away.sum(1, keepdims=True), attracting)
                      - _product(away * towards.sum(1, keepdims=True), repelling)) / unit)
        total += parts[-1]
    if normalised:
        drift = sum(part * lax.rsqrt(jnp.square(part).mean() + _LEAST) for part in parts)
    else:
        drift = total
    return _Field(cast("Array", drift), unit, jnp.sqrt(jnp.square(total).mean()))


def _are_labels(condition: PyTree) -> bool:
    return jnp.ndim(condition) == 1 and jnp.issubdtype(jnp.result_type(condition), jnp.integer)


def _product(weights: Array, points: Array) -> Array:
    """Whose differences count: a GPU's default precision would keep ten bits or so."""
    return jnp.matmul(weights, points, precision="highest")


def _check_temperatures(temperatures: Sequence[float]) -> None:
    if not temperatures or not all(temperature > 0 for temperature in temperatures):
        raise ValueError(f"temperatures must be positive; got {tuple(temperatures)}")
