"""Regularisers: terms that keep a critic from saying much of what should not matter, or samples near."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgan import keys
from jaxgan.augment import Augmentation
from jaxgan.tasks import Task
from jaxgan.terms import Term, Value, View
from jaxgan.types import Array, PyTree


class Anchors(NamedTuple):
    """Moving averages of the critic's scores, scalars."""

    real: Array
    fake: Array


def consistency(augmentation: Augmentation, weight: float = 10.0, *, name: str = "bcr") -> Term:
    """The critic's term that it says the same of changed samples: balanced consistency, bCR.

        weight * (E[(D(x) - D(T(x)))^2] + E[(D(G(z)) - D(T(G(z))))^2])

    Zhao et al. 2020 (arXiv 2002.04724), algorithm 1.

    Args:
        augmentation: T, of `jaxgan.augment`, without a state; what the critic is shown otherwise comes
            after it.
        weight: a number or a schedule.
        name: of the term.

    Raises:
        ValueError: the augmentation has a state, as that of an adaptive probability.
    """
    if augmentation.term is not None:
        raise ValueError("consistency takes an augmentation without a state: give it a probability that "
                         "is a number or a schedule")

    def value(view: View, state: PyTree) -> Array:
        return sum((_distance(seen.scores, _scores(view, kind, augmentation.show(
            augmentation.draw(view.keys(f"{name}_{kind}"), view.step, ()), seen.samples)))
            for kind, seen in (("real", view.real), ("fake", view.fake))), start=jnp.zeros(()))

    return Term(name, value, weight)


def latent_consistency(scale: float = 0.03, critic_weight: float = 5.0, generator_weight: float = 0.5, *,
                       name: str = "zcr") -> Task:
    """Terms of both networks for neighbouring latents: latent consistency, zCR.

        critic: critic_weight * E[(D(G(z)) - D(G(z + dz)))^2]
        generator: -generator_weight * E[|G(z) - G(z + dz)|^2], a mean over the elements, too

    with dz ~ N(0, scale^2 I). Zhao et al. 2020 (arXiv 2002.04724), algorithm 2.

    Args:
        scale: the deviation of dz.
        critic_weight: a number or a schedule.
        generator_weight: a number or a schedule.
        name: of the terms.

    Raises:
        ValueError: `scale` isn't positive.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0; got {scale}")

    def neighbours(view: View) -> PyTree:
        moved = keys.by_leaf(lambda z, own: z + (scale * keys.normal(own, z.shape[1:])).astype(z.dtype),
                             view.latents, view.keys(name))
        return view.generate(moved, view.fake.condition, name)[0]

    def consistent(view: View, state: PyTree) -> Array:
        return _distance(view.fake.scores, _scores(view, "fake", neighbours(view)))

    def diverse(view: View, state: PyTree) -> Array:
        return -sum((_distance(x, y) for x, y in zip(
            jax.tree.leaves(view.fake.samples), jax.tree.leaves(neighbours(view)), strict=True)),
            start=jnp.zeros(()))

    return Task(Term(name, consistent, critic_weight), Term(name, diverse, generator_weight))


def lecam(weight: float = 0.3, decay: float = 0.99, *, name: str = "lecam") -> Term:
    """The critic's term that draws scores of reals to where those of fakes were, and the reverse.

        weight * (E[(D(x) - a_fake)^2] + E[(D(G(z)) - a_real)^2])

    with moving averages a of the scores' means, which start at 0. Tseng et al. 2021 (arXiv 2104.03310),
    equations 3 and 4; for few data, with the hinge loss there.

    Args:
        weight: a number, or a schedule: it may rise when the averages mean something.
        decay: of the averages, in [0, 1).
        name: of the term.

    Raises:
        ValueError: `decay` is outside of [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be in [0, 1); got {decay}")

    def value(view: View, anchors: Anchors) -> Value:
        loss = (jnp.square(view.real.scores - anchors.fake).mean()
                + jnp.square(view.fake.scores - anchors.real).mean())
        return Value(loss, {"real": view.real.scores.mean(), "fake": view.fake.scores.mean()})

    def update(anchors: Anchors, means: PyTree) -> Anchors:
        return Anchors(*(decay * old + (1.0 - decay) * means[kind]
                         for kind, old in anchors._asdict().items()))

    return Term(name, value, weight, lambda: Anchors(jnp.zeros(()), jnp.zeros(())), update,
                report=lambda means: {})


def centring(weight: float = 0.01, *, name: str = "centring") -> Term:
    """The critic's term that keeps its scores about 0, `weight * E[(D(x) + D(G(z)))^2]`, pair by pair.

    A loss of differences alone, as a relativistic one, leaves their sum to drift. Adversarial flow, 2025
    (arXiv 2511.22475).

    Args:
        weight: a number or a schedule.
        name: of the term.
    """
    return Term(name, lambda view, state: jnp.square(view.real.scores + view.fake.scores).mean(), weight)


def transport(weight: float | optax.Schedule = 0.2, *, name: str = "transport") -> Term:
    """The generator's term that samples stay near their latents, `weight * E[|G(z) - z|^2]`.

    A mean over the elements, too; the latents have the samples' shape. Of all maps that the adversarial
    loss is content with it prefers the one that moves least, in the plane of reals the monotone one.
    Adversarial flow, 2025 (arXiv 2511.22475), where the weight falls from 0.2 to 0.005 by a cosine.

    Args:
        weight: lambda, a number or a schedule.
        name: of the term.

    Raises:
        ValueError: where it is computed: latents and samples differ in shape.
    """
    def value(view: View, state: PyTree) -> Array:
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (view.latents, view.fake.samples)]
        if shapes[0] != shapes[1]:
            raise ValueError("transport takes latents of the samples' shape; got {} and {}: give the "
                             "GAN a prior of that shape".format(*shapes))
        moved = jax.tree.map(jnp.subtract, view.fake.samples, view.latents)
        return optax.tree.norm(moved, squared=True) / sum(x.size for x in jax.tree.leaves(moved))

    return Term(name, value, weight)


def _scores(view: View, kind: str, samples: PyTree) -> Array:
    """What the critic says of further samples, shown as those of this kind are."""
    seen = view.real if kind == "real" else view.fake
    return view.judge(view.show(kind, samples), seen.condition, kind).scores


def _distance(x: Array, y: Array) -> Array:
    return jnp.square(x - y).mean()
