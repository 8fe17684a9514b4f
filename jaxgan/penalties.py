"""Penalties on gradients: the critic's by its input, the generator's by its styles; weight clipping.

A penalty is a term of the critic, part of its adversarial loss; `path_length` alone is the generator's.
A penalty's `value` is a `Penalty`, whose function `measure` maps `(critic_fn, real, fake, key)` to the
scalar without its weight and the gradient norms that it was computed from, [points], which tell how well
the constraint holds. `critic_fn` maps samples [batch, ...] to scores [batch] and must score each sample
by itself; of scores of patches, [batch, down, across], their mean is the sample's. Samples may be any
pytree of arrays. `key` is one key, or one key per sample (what a view gives, so that a sample gets the
same randomness on any number of devices).

Beside a `GAN(augment=)`, penalties at reals or fakes themselves (`r1`, `r2`) ask for gradients at the
samples before it, through it, as the code of StyleGAN2-ADA and R3GAN does. Those at other points
(`gradient_penalty`, `zero_centered`, `dragan`) are of what the critic was shown, behind it. All are
behind it where samples are shown in packs.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxgan import keys
from jaxgan.terms import ADVERSARIAL, Term, Value, View
from jaxgan.types import Array, CriticFn, Key, Metrics, PyTree, batch_size, check_scores

Weight = float | optax.Schedule
Measure = Callable[[CriticFn, PyTree, PyTree, Key], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class Penalty:
    """The value of a term: a penalty on the critic's gradients.

    Attributes:
        name: of its random numbers.
        measure: (critic_fn, real, fake, key) -> the scalar, and the norms [points].
        through: "real" or "fake" of a penalty at these, whose gradients go through the augmentation to
            the samples; "" of one among what the critic was shown.
    """

    name: str
    measure: Measure
    through: str = ""

    def __call__(self, view: View, state: PyTree) -> Value:
        """The scalar, and the moments of the norms that `critic/input_gradient_mean` is made of."""
        key = view.keys(self.name, batch_size(view.real.shown))
        scalar, norms = self.of(view, key, self.name)
        return Value(scalar, norm_moments(norms))

    def of(self, view: View, key: Key, kind: str) -> tuple[Array, Array]:
        """What it measures of a view, with a key for each sample; the critic draws as of this kind."""
        def judged(shown: PyTree) -> Array:
            return view.judge(shown, view.real.condition, kind=kind).scores

        if self.through and batch_size(view.real.shown) == batch_size(view.real.samples):
            return self.measure(lambda samples: judged(view.show(self.through, samples)),
                                view.real.samples, view.fake.samples, key)
        return self.measure(judged, view.real.shown, view.fake.shown, key)


@dataclasses.dataclass(frozen=True)
class _Sum(Penalty):
    """Several penalties as one: each measured where it asks for gradients."""

    parts: tuple[tuple[float, Penalty], ...] = ()

    def of(self, view: View, key: Key, kind: str) -> tuple[Array, Array]:
        return _added(self.parts, key, lambda part, key: part.of(view, key, kind))


def interpolate(real: PyTree, fake: PyTree, key: Key) -> PyTree:
    """Draws a point uniformly on the segment between each real sample and its fake partner.

    `fake + u (real - fake)`, with one weight u ~ U[0, 1) for a whole sample, all its arrays included.
    Gulrajani et al. 2017 (arXiv 1704.00028), section 4, "Sampling distribution".

    Args:
        real: [batch, ...], or a pytree of such arrays.
        fake: the same structure and shapes.
        key: one key, or one per sample.

    Raises:
        ValueError: the shapes differ.
        TypeError: the samples aren't floating point.
    """
    _check_samples(real, fake)
    weights = keys.uniform(keys.per_example(key, batch_size(real)))
    return jax.tree.map(lambda real, fake: fake + _over_samples(weights, real.ndim).astype(real.dtype)
                        * (real - fake), real, fake)


def gradient_norms(critic_fn: CriticFn, samples: PyTree) -> Array:
    """Returns the norm of the critic's gradient at each sample, [batch], in float32 at least.

    Euclidean over all axes but the first, of all arrays of a sample; zero, with zero derivative, where
    the gradient vanishes.

    Args:
        critic_fn: samples [batch, ...] -> scores [batch].
        samples: [batch, ...], of any rank, or a pytree of such arrays.

    Raises:
        ValueError: `critic_fn` does not return one score per sample.
    """
    return _safe_sqrt(_squared_norms(critic_fn, samples))


def summed(scores: Array) -> Array:
    """The sum of scores, [batch], or of the means of each sample's patches, [batch, down, across]."""
    return _of_sample(scores).sum()


def norm_moments(norms: Array) -> Metrics:
    """The mean and the mean square: they, not the standard deviation, can be averaged over devices.

    The square is of the distance from 1, where a penalty drives the norms, to lose no digits there.
    """
    norms = jax.lax.stop_gradient(norms)
    return {"mean": norms.mean(), "square": jnp.square(norms - 1.0).mean()}


def report_norms(moments: Metrics, name: str = "critic/input_gradient") -> Metrics:
    """From the moments to the metrics `NAME_mean` and `NAME_std`."""
    variance = moments["square"] - jnp.square(moments["mean"] - 1.0)
    return {f"{name}_mean": moments["mean"], f"{name}_std": jnp.sqrt(jnp.maximum(variance, 0.0))}


def gradient_penalty(
    weight: Weight = 10.0, target: float = 1.0, one_sided: bool = False, *, name: str = "penalty"
) -> Term:
    """WGAN-GP's penalty, `weight * E[(||grad D(x)|| - target)^2]` at interpolated samples x.

    Gulrajani et al. 2017 (arXiv 1704.00028), equation 3.

    Args:
        weight: lambda, or a schedule, iteration -> lambda; the paper takes 10 for images, 0.1 for its
            2-D sets.
        target: the norm that is not penalised.
        one_sided: penalise only norms above `target` (section 4, "Two-sided penalty"; equation 8
            of Petzka et al. 2018, arXiv 1709.08894).
        name: of the term: a critic with several penalties names them differently.
    """
    def measure(critic_fn: CriticFn, real: PyTree, fake: PyTree, key: Key) -> tuple[Array, Array]:
        norms = gradient_norms(critic_fn, interpolate(real, fake, key))
        excess = jax.nn.relu(norms - target) if one_sided else norms - target
        return jnp.square(excess).mean(), norms

    return _term(name, weight, Penalty(name, measure))


def zero_centered(weight: Weight = 10.0, *, name: str = "penalty") -> Term:
    """The zero-centred penalty on interpolates, `weight * E[||grad D(x)||^2]`.

    Thanh-Tung et al. 2019 (arXiv 1902.03984), equation 6. Arguments as for `gradient_penalty`.
    """
    return _squared(name, weight, interpolate)


def r1(weight: Weight = 10.0, *, finite_difference: float | None = None, name: str = "penalty"
       ) -> Term:
    """The zero-centred penalty on reals, `weight/2 * E[||grad D(real)||^2]`.

    Mescheder et al. 2018 (arXiv 1801.04406), equation 9, where the weight is called gamma.

    With a `finite_difference` e nothing is differentiated twice:

        weight/2 * E[((D(real + e n) - D(real)) / e)^2],  n ~ N(0, I)

    whose mean over n is the penalty above but for terms of the order e^2, as E[(n^T g)^2] = ||g||^2;
    it is noisier, its standard deviation for one sample being sqrt(2) times its mean. So in GAT (arXiv
    2509.24935) and adversarial flow (arXiv 2511.22475), with e = 0.01. The norms reported are the
    quotients' sizes then, sqrt(2/pi) of the gradients' in the mean.

    Args:
        weight: gamma, or a schedule.
        finite_difference: None for the exact gradient, or e, in units of the samples.
        name: as for `gradient_penalty`.

    Raises:
        ValueError: `finite_difference` isn't positive.
    """
    return _halved(_at(name, weight, "real", finite_difference))


def r2(weight: Weight = 10.0, *, finite_difference: float | None = None, name: str = "penalty"
       ) -> Term:
    """The zero-centred penalty on fakes, `weight/2 * E[||grad D(fake)||^2]`.

    Mescheder et al. 2018 (arXiv 1801.04406), equation 10. Arguments and errors as for `r1`.
    """
    return _halved(_at(name, weight, "fake", finite_difference))


def dragan(weight: Weight = 10.0, noise: float = 0.5, target: float = 1.0, *,
           name: str = "penalty") -> Term:
    """DRAGAN's penalty, `weight * E[(||grad D(real + e)|| - target)^2]`, `e ~ N(0, noise^2)`.

    Kodali et al. 2017 (arXiv 1705.07215), section 2.4. The noise is the paper's: Gaussian, of a
    fixed size. The authors' code scales uniform noise by the batch's standard deviation instead,
    which would make a sample's noise depend on the others and on the number of devices.

    Args:
        weight: lambda, or a schedule.
        noise: the noise's standard deviation, in units of the samples.
        target: the norm that is not penalised.
        name: as for `gradient_penalty`.
    """
    def measure(critic_fn: CriticFn, real: PyTree, fake: PyTree, key: Key) -> tuple[Array, Array]:
        norms = gradient_norms(critic_fn, add_noise(real, key, noise))
        return jnp.square(norms - target).mean(), norms

    return _term(name, weight, Penalty(name, measure))


def combine(*penalties: Term) -> Term:
    """Adds penalties up as one term: values are summed, norms concatenated; `combine(p)` is `p`.

    Each penalty draws from a key of its own. R3GAN uses `combine(r1(gamma), r2(gamma))`.

    Raises:
        ValueError: there is none, or one that isn't of this module, is lazy or has a weight that
            follows a schedule: a critic may have several (`GAN.critic_terms`).
    """
    if not penalties:
        raise ValueError("combine needs at least one penalty; leave the GAN's penalty None instead")
    if len(penalties) == 1:
        return penalties[0]
    weighted: list[tuple[float, Penalty]] = []
    for penalty in penalties:
        if (not isinstance(penalty.value, Penalty) or callable(penalty.weight) or penalty.every > 1):
            raise ValueError(f"combine adds penalties with fixed weights, due in every update; "
                             f"{penalty.name} is none: give it to the GAN as one of its critic_terms")
        weighted.append((penalty.weight, penalty.value))
    name, parts = penalties[0].name, tuple(weighted)

    def measure(critic_fn: CriticFn, real: PyTree, fake: PyTree, key: Key) -> tuple[Array, Array]:
        return _added(parts, keys.per_example(key, batch_size(real)),
                      lambda part, key: part.measure(critic_fn, real, fake, key))

    return _term(name, 1.0, _Sum(name, measure, parts=parts))


def path_length(weight: Weight = 2.0, decay: float = 0.01, shrink: int = 2, *, name: str = "path"
                ) -> Term:
    """The generator's term `weight * E[(||J^T y|| - a)^2]`: steps of one length in w make steps of one.

    J is the derivative of an image by its styles w, y ~ N(0, I) / sqrt(pixels), the norm the root of the
    mean over layers of the sum of squares, and a the moving average of the norms, which is reported as
    `generator/path_length`. Karras et al. 2020 (arXiv 1912.04958), equation 4 and appendix B, where it
    is due in every 4th update: `lazy(path_length(), 4)`.

    Args:
        weight: a number or a schedule.
        decay: how far a moves towards the batch's mean in an update.
        shrink: examples of which it takes one, 2 for half of the batch.
        name: of the term.

    Raises:
        ValueError: `decay` is outside of (0, 1], or `shrink` below 1. Where the term is computed: the
            generator's module lacks the methods map, from latents to styles [batch, layers, w_size], and
            synthesise, from styles to images, called as `jaxgan.models.StyleGAN2Generator` has them.
    """
    if not 0.0 < decay <= 1.0 or shrink < 1:
        raise ValueError(f"decay must be in (0, 1] and shrink at least 1; got {decay} and {shrink}")

    def value(view: View, mean: Array) -> Value:
        latents, condition, example_keys = jax.tree.map(
            lambda x: x[::shrink], (view.latents, view.fake.condition, view.keys(name)))
        ws, _ = view.generate(latents, condition, name, "map")

        def projected(ws: Array) -> Array:  # an image depends on its own styles alone
            images, _ = view.generate(ws, condition, name, "synthesise")
            return (images * keys.normal(example_keys, images.shape[1:])).sum() / math.sqrt(
                math.prod(images.shape[1:-1]))

        lengths = _safe_sqrt(jnp.square(jax.grad(projected)(ws)).sum(-1).mean(1))
        return Value(jnp.square(lengths - mean).mean(), {"path_length": lengths.mean()})

    return Term(name, value, weight, lambda: jnp.zeros(()),
                lambda mean, observed: mean + decay * (observed["path_length"] - mean))


def add_noise(samples: PyTree, key: Key, scale: ArrayLike) -> PyTree:
    """Adds Gaussian noise of standard deviation `scale` to samples [batch, ...], or a pytree of arrays.

    On the critic's input it is "instance noise": Sonderby et al. 2017 (arXiv 1610.04490), section
    2.4; Arjovsky & Bottou 2017 (arXiv 1701.04862), section 3.
    """
    sample_keys = keys.per_example(key, batch_size(samples))
    return keys.by_leaf(lambda x, key: x + (scale * keys.normal(key, x.shape[1:])).astype(x.dtype),
                        samples, sample_keys)


def clip_weights(limit: float = 0.01) -> optax.GradientTransformation:
    """An optax transformation that keeps every parameter in [-limit, limit] after the update.

    Chain it behind the critic's optimiser, `optax.rmsprop(5e-5, decay=0.99, eps_in_sqrt=False)` in the
    paper's code. Inside of the root, where optax has it by default, 1e-8 makes the steps much shorter,
    as the gradients of a clipped critic are small.
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


def _added(parts: Sequence[tuple[float, Penalty]], key: Key,
           measured: Callable[[Penalty, Key], tuple[Array, Array]]) -> tuple[Array, Array]:
    """The weighted sum of what penalties measure, each with a key of its own, and all their norms."""
    found = [measured(part, jax.vmap(jax.random.fold_in, (0, None))(key, i))
             for i, (_, part) in enumerate(parts)]
    total = sum(weight * scalar for (weight, _), (scalar, _) in zip(parts, found, strict=True))
    return cast("Array", total), jnp.concatenate([norms for _, norms in found])


def _term(name: str, weight: Weight, value: Penalty) -> Term:
    if not callable(weight) and not weight >= 0:
        raise ValueError(f"weight must not be negative; got {weight}")
    norms = "input_gradient" if name == "penalty" else f"{name}_input_gradient"
    return Term(name, value, weight, part_of=ADVERSARIAL, report=partial(report_norms, name=norms))


def _squared(name: str, weight: Weight, points: Callable[[PyTree, PyTree, Key], PyTree],
             through: str = "") -> Term:
    """The penalty `weight * E[||grad D(x)||^2]` at x = points(real, fake, key)."""

    def measure(critic_fn: CriticFn, real: PyTree, fake: PyTree, key: Key) -> tuple[Array, Array]:
        squares = _squared_norms(critic_fn, points(real, fake, key))
        return squares.mean(), _safe_sqrt(squares)

    return _term(name, weight, Penalty(name, measure, through))


def _at(name: str, weight: Weight, kind: str, step: float | None) -> Term:
    """The penalty `weight * E[||grad D(x)||^2]` at reals or fakes, by differences of a step if given."""
    def points(real: PyTree, fake: PyTree, key: Key) -> PyTree:
        return real if kind == "real" else fake

    if step is None:
        return _squared(name, weight, points, kind)
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"finite_difference must be positive; got {step}")

    def measure(critic_fn: CriticFn, real: PyTree, fake: PyTree, key: Key) -> tuple[Array, Array]:
        return _quotients(critic_fn, points(real, fake, key), None, key, step)

    return _term(name, weight, _Difference(name, measure, kind, step=step))


@dataclasses.dataclass(frozen=True)
class _Difference(Penalty):
    """A penalty by finite differences from the scores that the loss is of, with their random draws."""

    step: float = 0.01

    def of(self, view: View, key: Key, kind: str) -> tuple[Array, Array]:
        seen = view.real if self.through == "real" else view.fake
        is_packed = batch_size(seen.shown) != batch_size(seen.samples)

        def judged(samples: PyTree) -> Array:
            shown = samples if is_packed else view.show(self.through, samples)
            return view.judge(shown, view.real.condition, kind=self.through).scores

        return _quotients(judged, seen.shown if is_packed else seen.samples, seen.scores, key, self.step)


def _quotients(critic_fn: CriticFn, samples: PyTree, scores: Array | None, key: Key, step: float
               ) -> tuple[Array, Array]:
    """The mean square, and the sizes, of the scores' differences over a random step, by its length."""
    _check_floating("samples", samples)
    samples = jax.tree.map(_precise, samples)
    scores = critic_fn(samples) if scores is None else scores
    check_scores(scores, batch_size(samples))
    there = critic_fn(add_noise(samples, key, step))
    quotients = (_of_sample(_precise(there)) - _of_sample(_precise(scores))) / step
    return jnp.square(quotients).mean(), jnp.abs(quotients)


def _of_sample(scores: Array) -> Array:
    """A score for each sample, [batch]: of its patches the mean."""
    return scores if scores.ndim == 1 else scores.mean(axis=(1, 2))


def _halved(term: Term) -> Term:
    weight = term.weight
    return term._replace(weight=(lambda step: weight(step) / 2) if callable(weight) else weight / 2)


def _squared_norms(critic_fn: CriticFn, samples: PyTree) -> Array:
    _check_floating("samples", samples)
    count = batch_size(samples)

    def summed_scores(samples: PyTree) -> Array:
        scores = critic_fn(samples)
        check_scores(scores, count)
        return summed(_precise(scores))

    # A sample's gradient doesn't depend on the others, so one gradient of the sum serves them all.
    gradients = jax.grad(summed_scores)(jax.tree.map(_precise, samples))
    return reduce(jnp.add, (jnp.square(leaf).sum(axis=tuple(range(1, leaf.ndim)))
                            for leaf in jax.tree.leaves(gradients)))


def _precise(x: Array) -> Array:
    """The array in float32 at least: squares of half precision underflow."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _safe_sqrt(squares: Array) -> Array:
    """The square root with derivative 0, not infinity (hence NaN gradients), at 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def _over_samples(values: Array, ndim: int) -> Array:
    return values.reshape(values.shape + (1,) * (ndim - 1))  # [batch, 1, ..., 1]


def _check_samples(real: PyTree, fake: PyTree) -> None:
    _check_floating("real", real)
    _check_floating("fake", fake)
    shapes = [jax.tree.map(jnp.shape, samples) for samples in (real, fake)]
    if shapes[0] != shapes[1]:
        raise ValueError("real and fake must have the same shape; got {} and {}".format(*shapes))


def _check_floating(name: str, samples: PyTree) -> None:
    for leaf in jax.tree.leaves(samples):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point; got {leaf.dtype}: scale the pixels first")
