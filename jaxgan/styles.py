"""Generators that have styles: from latents to styles, from styles to samples, and back from samples.

Such a generator has, besides its call, the methods map, from latents to styles [batch, layers, w_size],
and synthesise, from styles to samples, as `jaxgan.models.StyleGAN2Generator` has.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxgan import keys
from jaxgan.gan import GAN, GANState, draw_latents, sampled_variables
from jaxgan.nn.random import rngs_of
from jaxgan.types import Array, Key, PyTree

Distance = Callable[[Array, Array], Array]  # samples and targets, [batch, ...] -> [batch]

_STORED = "noise"  # the collection of noise maps
_BESIDE = 1e5  # the weight of what neighbours in noise maps have in common
_SMALLEST = 8  # pixels of the smallest map in which that is looked for
_STRAY = 0.05  # how far styles are moved at first, by the deviation of all styles


class Projection(NamedTuple):
    """The styles of a sample.

    Attributes:
        ws: the styles, [layers, w_size].
        noise: the generator's noise maps that go with them, a pytree; {} if it has none.
        distances: of each step, float32 [steps].
    """

    ws: Array
    noise: PyTree
    distances: Array


def has_styles(generator: nn.Module) -> bool:
    """Whether a generator has the methods map and synthesise."""
    return all(callable(getattr(type(generator), name, None)) for name in ("map", "synthesise"))


def styles(gan: GAN, state: GANState, latents: Array, condition: PyTree | None = None) -> Array:
    """Maps latents, [batch, latent_size], to styles, [batch, layers, w_size], by the averaged generator.

    They are truncated as the generator says.

    Raises:
        ValueError: the generator has no styles.
    """
    if not has_styles(gan.generator):
        raise ValueError(f"{type(gan.generator).__name__} has no styles: it would need the methods map "
                         "and synthesise, as StyleGAN2Generator has")
    # Flax's type of `apply` allows for changed variables, which there are only with `mutable`.
    return cast("Array", gan.generator.apply(sampled_variables(state), latents, condition, train=False,
                                             method="map"))


def synthesise(gan: GAN, state: GANState, ws: Array, noise_keys: Key | None = None) -> PyTree:
    """Maps styles, [batch, layers, w_size], to samples, [batch, ...], by the averaged generator.

    Args:
        gan: the specification.
        state: its state.
        ws: the styles.
        noise_keys: None for the stored noise maps, or a key for each sample's own, [batch].
    """
    rngs = None if noise_keys is None else rngs_of(noise_keys)
    samples = gan.generator.apply(sampled_variables(state), ws, train=rngs is not None, rngs=rngs,
                                  method="synthesise")
    return gan.lower(samples) if gan.lower else samples


def project(gan: GAN, state: GANState, targets: Array, distance: Distance, key: Key,
            condition: PyTree | None = None, *, steps: int = 1000, learning_rate: float = 0.1,
            by_layer: bool = False, latents: int = 10_000) -> Projection:
    """Finds the styles whose samples are nearest to given ones, by Adam from the average style.

    Styles are moved at random at first, less and less. Noise maps are found, too; what neighbours in
    them have in common, at their own size and at smaller ones, is penalised, so that the sample isn't
    in them. Karras et al. 2020 (arXiv 1912.04958), appendix D.

    Args:
        gan: the specification; its generator has styles.
        state: its state; of the generator the average is used.
        targets: samples, [batch, height, width, channels].
        distance: (samples, targets) -> [batch], differentiable.
        key: one typed key.
        condition: for conditional generators, a pytree of arrays [batch, ...].
        steps: of Adam; the rate rises in the first twentieth and falls in the last quarter.
        learning_rate: the largest.
        by_layer: whether each layer gets a style of its own, which comes nearer but may be none that
            the generator would use.
        latents: how many the average is of.

    Returns:
        A projection of each target: leaves have a leading axis, [batch].

    Raises:
        ValueError: the generator has no styles, or `steps` or `latents` isn't positive.
    """
    if min(steps, latents) < 1:
        raise ValueError(f"steps and latents must be positive; got {steps} and {latents}")
    drawn = draw_latents(gan, keys.stream(key, "latents"), latents)
    example_keys = keys.per_example(keys.stream(key, "projection"), len(targets))
    variables = dict(sampled_variables(state))
    stored = variables.pop(_STORED, {})
    one = partial(_project_one, gan, state, variables, stored, drawn, distance, steps=steps,
                  learning_rate=learning_rate, by_layer=by_layer)
    return jax.lax.map(lambda inputs: one(*inputs), (targets, example_keys, condition))


def _project_one(gan: GAN, state: GANState, variables: PyTree, stored: PyTree, latents: Array,
                 distance: Distance, target: Array, key: Key, condition: PyTree, *, steps: int,
                 learning_rate: float, by_layer: bool) -> Projection:
    everywhere = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(latents), *x.shape)), condition)
    ws = styles(gan, state, latents, everywhere)
    average = ws.mean(0)
    deviation = jnp.sqrt(jnp.square(ws[:, 0] - average[:1]).sum(1).mean())
    layers = ws.shape[1]

    def rate(step: ArrayLike) -> Array:
        t = jnp.asarray(step) / steps
        return (learning_rate * jnp.minimum(t / 0.05, 1.0)
                * 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.minimum((1.0 - t) / 0.25, 1.0))))

    optimizer = optax.adam(rate)
    leaves, structure = jax.tree.flatten(stored)
    maps = structure.unflatten([
        jax.random.normal(leaf_key, leaf.shape) for leaf_key, leaf in zip(
            jax.random.split(keys.stream(key, "maps"), max(len(leaves), 1)), leaves, strict=False)])
    start: dict[str, PyTree] = {"ws": average if by_layer else average[:1], "noise": maps}

    def loss(found: PyTree, moved: Array) -> tuple[Array, Array]:
        ws = jnp.broadcast_to(found["ws"] + moved, (1, layers, average.shape[-1]))
        sample: Any = gan.generator.apply(
            variables | {_STORED: found["noise"]} if leaves else variables, ws, train=False,
            method="synthesise")
        away = distance(gan.lower(sample) if gan.lower else sample, target[None])[0]
        return away + _BESIDE * sum(map(in_common, jax.tree.leaves(found["noise"]))), away

    def improve(carried: tuple[PyTree, PyTree], step: Array):
        found, optimizer_state = carried
        stray = deviation * _STRAY * jnp.square(jnp.maximum(1.0 - step / steps / 0.75, 0.0))
        moved = stray * jax.random.normal(jax.random.fold_in(key, step), found["ws"].shape)
        gradient, away = jax.grad(loss, has_aux=True)(found, moved)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        found = cast("dict[str, PyTree]", optax.apply_updates(found, updates))
        found["noise"] = jax.tree.map(_normalised, found["noise"])
        return (found, optimizer_state), away

    (found, _), distances = jax.lax.scan(improve, (start, optimizer.init(start)), jnp.arange(steps))
    return Projection(jnp.broadcast_to(found["ws"], average.shape), found["noise"], distances)


def in_common(noise: Array) -> Array:
    """What neighbours in a noise map have in common: the squared mean products along both axes, summed.

    Over the map and means of 2x2 of its pixels, and of these, down to 8x8. Karras et al. 2020 (arXiv
    1912.04958), appendix D.

    Args:
        noise: [size, size].
    """
    total = jnp.zeros(())
    while True:
        for axis in (0, 1):
            total += jnp.square((noise * jnp.roll(noise, 1, axis)).mean())
        if len(noise) <= _SMALLEST:
            return total
        half = len(noise) // 2
        noise = noise.reshape(half, 2, half, 2).mean((1, 3))


def _normalised(noise: Array) -> Array:
    centred = noise - noise.mean()
    return centred * jax.lax.rsqrt(jnp.square(centred).mean() + 1e-8)
