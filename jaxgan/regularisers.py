"""Regularisers: terms that keep a critic from saying much of what should not matter, or samples near."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgan import keys
from jaxgan.augment import Augmentation
from jaxgan.losses import AdversarialLoss
from jaxgan.tasks import Task
from jaxgan.terms import Term, Value, View
from jaxgan.types import Array, PyTree

_TINY = 1e-30  # what is divided by the root of is that at least


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
    _check_decay(decay)

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


def normalised(loss: AdversarialLoss, decay: float = 0.9, *, name: str = "normalised"
               ) -> tuple[AdversarialLoss, Term]:
    """Has the generator minimise its adversarial loss with what flows back from the critic normalised.

        g / sqrt(a),  g = dL/dG(z),  a <- decay * a + (1 - decay) * n |g|^2

    g flows back into a device's samples, n is the number of its elements, and a is averaged over the
    devices. So the weights of the generator's other terms mean the same whatever the critic's slope, the
    batch, or a factor of this loss, its weight included. In the first update, when nothing has been
    measured, nothing flows. Adversarial flow, 2025 (arXiv 2511.22475).

        loss, term = normalised(relativistic())
        GAN(..., loss=loss, generator_terms=(term,))

    Args:
        loss: what both networks minimise.
        decay: of the running mean, in [0, 1).
        name: of the term.

    Returns:
        The loss with nothing left for the generator, and the generator's term in its place.

    Raises:
        ValueError: `decay` is outside of [0, 1), or the loss is of the highest scores alone.
    """
    _check_decay(decay)
    if loss.share is not None:
        raise ValueError("normalised takes a loss of all samples: leave top_k out")

    def value(view: View, mean: Array) -> Array:
        fake = _scores(view, "fake", _flows_normalised(view.fake.samples, mean))
        scores = view.real.scores, fake
        return loss.generator(*(view.gather(scores) if loss.across_batch else scores))

    def absorb(mean: Array, measured: Array) -> Array:
        return jnp.where(mean > 0, decay * mean + (1.0 - decay) * measured, measured)

    return (loss._replace(generator=lambda real, fake: jnp.zeros(())),
            Term(name, value, init=lambda: jnp.zeros(()), absorb=absorb))


def agreement(weight: float | optax.Schedule = 1.0, *, name: str = "agreement") -> Term:
    """The generator's term that draws its intermediate outputs to the last one, which isn't moved.

        weight * E[|x_k - stop(x_K)|^2]

    a mean over the outputs k < K and their elements. CAT, 2026 (arXiv 2605.26449), whose outputs grow;
    here all have one size, as those of `jaxgan.models.GATGenerator`.

    Args:
        weight: a number or a schedule.
        name: of the term.

    Raises:
        ValueError: where it is computed: samples that aren't [batch, outputs, ...] with two outputs at
            least.
    """
    def value(view: View, state: PyTree) -> Array:
        outputs = view.fake.samples
        if not hasattr(outputs, "ndim") or outputs.ndim < 3 or outputs.shape[1] < 2:
            raise ValueError("agreement takes samples of several outputs, [batch, outputs, ...]; got "
                             f"{jax.tree.map(jnp.shape, outputs)}")
        return _distance(outputs[:, :-1], jax.lax.stop_gradient(outputs[:, -1:]))

    return Term(name, value, weight)


def alignment(features: Callable[[PyTree], Array], weight: float | optax.Schedule = 1.0, *,
              head: str = "tokens", name: str = "alignment") -> Term:
    """The critic's term that its tokens of reals point where those of a frozen network do.

        weight * (1 - E cos(h(x), f(x)))

    over the tokens of what the critic is shown of each real. GAT, 2025 (arXiv 2509.24935), with DINOv2
    as f and an MLP on the critic's tokens as h: `GATCritic(align=768)`.

    Args:
        features: f, what the critic is shown of reals -> [batch, tokens, size], or [batch, size] to be
            compared with the first token alone, a GAT critic's own. Nothing is differentiated through
            it. Of several outputs, [batch, outputs, ...], the last is the image.
        weight: a number or a schedule.
        head: h, [batch, tokens, size], among the critic's heads.
        name: of the term.

    Raises:
        ValueError: where it is computed: tokens and features differ in shape.
    """
    def value(view: View, state: PyTree) -> Array:
        wanted, tokens = jax.lax.stop_gradient(features(view.real.shown)), view.real.heads[head]
        if wanted.ndim == 2:
            wanted, tokens = wanted[:, None], tokens[:, :1]
        if wanted.shape != tokens.shape:
            raise ValueError(f"alignment compares the critic's {head} with features of their shape; got "
                             f"{tokens.shape} and {wanted.shape}")
        here, there = map(_unit, (tokens, wanted))
        return 1.0 - (here * there).sum(-1).mean()

    return Term(name, value, weight)


@jax.custom_vjp
def _flows_normalised(samples: PyTree, mean: Array) -> PyTree:
    """The samples; what flows back into them is divided by the root of `mean`."""
    return samples


def _forward(samples: PyTree, mean: Array) -> tuple[PyTree, Array]:
    return samples, mean


def _backward(mean: Array, flow: PyTree) -> tuple[PyTree, Array]:
    leaves = jax.tree.leaves(flow)
    measured = sum(x.size for x in leaves) * sum(  # n |g|^2
        (jnp.square(x.astype(jnp.float32)).sum() for x in leaves), start=jnp.zeros(()))
    factor = jnp.where(mean > 0, jax.lax.rsqrt(mean + _TINY), 0.0)
    return jax.tree.map(lambda x: factor.astype(x.dtype) * x, flow), measured.astype(mean.dtype)


_flows_normalised.defvjp(_forward, _backward)


def _scores(view: View, kind: str, samples: PyTree) -> Array:
    """What the critic says of further samples, shown as those of this kind are."""
    seen = view.real if kind == "real" else view.fake
    return view.judge(view.show(kind, samples), seen.condition, kind).scores


def _unit(x: Array) -> Array:
    """Vectors of length 1, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _TINY))


def _distance(x: Array, y: Array) -> Array:
    return jnp.square(x - y).mean()


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be in [0, 1); got {decay}")
