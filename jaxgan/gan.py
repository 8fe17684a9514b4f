"""The specification of a GAN, its state, and what needs no training: `sample`, `generate`, `judge`."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from types import NoneType
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgan import keys
from jaxgan.augment import Augmentation
from jaxgan.losses import AdversarialLoss, of_highest
from jaxgan.networks import NetworkState, check_optimizer
from jaxgan.penalties import Penalty, norm_moments, report_norms, summed
from jaxgan.probing import looks_across
from jaxgan.tasks import Task
from jaxgan.terms import ADVERSARIAL, Judgement, Term, Value, View, check_terms, check_weight
from jaxgan.types import (
    Array,
    Key,
    PyTree,
    WithHeads,
    batch_size,
    check_callable,
    check_scores,
    check_type,
    described,
)
from jaxgan.weighting import Weighting, fixed

_KINDS: dict[str, tuple] = {  # of the fields of a GAN
    "generator": (nn.Module, "a linen module"),
    "critic": (nn.Module, "a linen module"),
    "latent_size": (Integral | None, "a whole number, or None"),
    "loss": (AdversarialLoss, "one of jaxgan.losses, wasserstein() for example"),
    "penalty": (Term | None, "None or one of jaxgan.penalties, gradient_penalty() for example"),
    "augment": (Augmentation | None, "None or one of jaxgan.augment"),
    "weighting": (Weighting, "one of jaxgan.weighting, fixed() for example"),
    "ema_decay": ((Real, Callable, NoneType), "a number, a schedule, or None"),
    "generator_batches": (Integral, "a whole number"),
    "accumulate": (Integral, "a whole number"),
}

Prior = Callable[[Key], PyTree]  # keys [batch] -> latents [batch, ...]


@dataclasses.dataclass(frozen=True)
class GAN:
    """Everything that defines a GAN but its numbers: two networks, a loss, optimisers.

    The networks are linen modules, called as `generator(latents, condition, train=...)`, giving
    samples or `WithHeads(samples, heads)`, and `critic(samples, condition, train=...)`, giving one score
    for each sample, or `(scores, heads)`, the heads being predictions [batch, ...] by name. Scores may
    also be of patches, [batch, down, across]: losses are means over all of them. A module
    with a field `axis_name` gets the devices' axis there, so that its BatchNorm sees the global batch.
    Modules may draw random numbers in training: see `jaxgan.nn.random`.

    Attributes:
        generator: latents [batch, ...] -> samples [batch, ...], or a pytree of such arrays.
        critic: samples [batch, ...] -> scores [batch], or [batch, down, across]; or scores and heads.
        latent_size: the number of latent variables, z ~ N(0, I); None if there is a `prior`.
        loss: what both minimise, from `jaxgan.losses`.
        generator_optimizer: any optax transformation; schedules count generator updates.
        critic_optimizer: the same for the critic; schedules count *critic* updates.
        tasks: pairs of terms besides the adversarial ones, from `jaxgan.tasks`.
        adversarial_weight: of either network's adversarial loss, the penalty included, beside these; 0
            for the tasks alone. Or a schedule, iteration -> weight.
        weighting: how these weights and those of the tasks change in training, from `jaxgan.weighting`.
        generator_condition: None, or (keys [batch], the batch's condition) -> the condition that the
            generator's update draws its fakes for, by a key each, instead of the batch's, for example
            `uniform_labels`. The critic always compares reals and fakes of one condition.
        penalty: None, or a penalty on the critic's input gradient, from `jaxgan.penalties`.
        augment: None, or what the critic is shown in place of samples, from `jaxgan.augment`.
        critic_terms: further terms that the critic minimises or observes, see `jaxgan.terms`.
        generator_terms: the same for the generator.
        prior: None for N(0, I), or keys [batch] -> latents, any pytree of arrays [batch, ...], each
            example's drawn from its own key.
        lift: None, or data -> the structure of the generator's samples, if it makes more than the data
            has: an image at several depths, say. It acts on the reals that the critic is shown.
        lower: the reverse: the generator's samples -> what is like the data, for `sample` and
            `generate`.
        ema_decay: None, or the decay of the averaged generator (parameters and statistics) that
            `sample` prefers; early on it is `(1 + step) / (10 + step)` if that is less. Or a schedule,
            iterations -> decay, `jaxgan.networks.half_life` say. Statistics that are integers, truths
            or random keys are the generator's own.
        generator_batches: how many of an iteration's critic batches make up the generator's batch
            (2 in the CIFAR ResNet of WGAN-GP: critic 64, generator 128).
        across_batch: whether the critic is meant to score a sample by the batch's others too, even
            where its input gradient is penalised, which then is that of the sum of all scores. Reals
            and fakes are batches of their own for such a critic in any case.
        accumulate: into how many parts each update's batch is cut, which are computed one after the
            other in the memory of one, and whose gradients are averaged. The result is that of the whole
            batch up to the order of sums, with the same random numbers, except for what looks across the
            batch: batch normalisation, and critics that are meant to (`across_batch`), see a part. What
            compares samples of the whole batch (`View.mean`, `View.gather`) is refused.
    """

    generator: nn.Module
    critic: nn.Module
    latent_size: int | None
    loss: AdversarialLoss
    generator_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    tasks: tuple[Task, ...] = ()
    adversarial_weight: float | optax.Schedule = 1.0
    weighting: Weighting = dataclasses.field(default_factory=fixed)
    generator_condition: Callable[[Key, PyTree], PyTree] | None = None
    penalty: Term | None = None
    augment: Augmentation | None = None
    critic_terms: tuple[Term, ...] = ()
    generator_terms: tuple[Term, ...] = ()
    prior: Prior | None = None
    lift: Callable[[PyTree], PyTree] | None = None
    lower: Callable[[PyTree], PyTree] | None = None
    ema_decay: float | optax.Schedule | None = None
    generator_batches: int = 1
    across_batch: bool = False
    accumulate: int = 1

    def __post_init__(self):
        for name, (kinds, expected) in _KINDS.items():
            check_type(name, getattr(self, name), kinds, expected)
        for name in ("generator_condition", "prior", "lift", "lower"):
            check_callable(name, getattr(self, name), "None or a function")
        for name, kind in (("tasks", Task), ("critic_terms", Term), ("generator_terms", Term)):
            given = getattr(self, name)
            if not isinstance(given, (tuple, list)) or not all(isinstance(one, kind) for one in given):
                raise TypeError(f"{name} must be a tuple of {kind.__name__}s, (one,) if there is one; "
                                f"got {described(given)}")
        for role in ("generator", "critic"):
            check_optimizer(role, getattr(self, f"{role}_optimizer"))
        if (self.latent_size is None) == (self.prior is None):
            raise ValueError(f"latent_size is {self.latent_size} and there is "
                             f"{'a' if self.prior else 'no'} prior: give one of the two")
        for name in ("latent_size", "generator_batches", "accumulate"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if (self.lift is None) != (self.lower is None):
            raise ValueError("lift and lower go together: give both, or none")
        if not callable(self.adversarial_weight):
            check_weight("adversarial_weight", self.adversarial_weight)
        if not (self.ema_decay is None or callable(self.ema_decay) or 0.0 <= self.ema_decay < 1.0):
            raise ValueError(f"ema_decay must be in [0, 1); got {self.ema_decay}")
        for role in ("critic", "generator"):
            check_terms(role, terms_of(self, role))


def uniform_labels(num_classes: int) -> Callable[[Key, PyTree], Array]:
    """Returns a `GAN.generator_condition` of labels, int32 [batch], each class being as likely."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}")
    return lambda keys, condition: jax.vmap(
        lambda key: jax.random.randint(key, (), 0, num_classes))(keys)


class GANState(NamedTuple):
    """All that changes in training.

    Attributes:
        step: the number of finished iterations, int32.
        generator: the generator's numbers.
        critic: the critic's numbers.
        ema: None, or the averaged generator's variables.
    """

    step: Array
    generator: NetworkState
    critic: NetworkState
    ema: PyTree


def terms_of(gan: GAN, role: str) -> tuple[Term, ...]:
    """Returns all terms of one of a GAN's networks.

    Args:
        gan: the specification.
        role: "critic" or "generator".
    """
    tasks = tuple(term for task in gan.tasks if (term := getattr(task, role)) is not None)
    if role == "critic":
        penalty = () if gan.penalty is None else (gan.penalty,)
        observer = (gan.augment.term,) if gan.augment and gan.augment.term else ()
        return (Term(ADVERSARIAL, partial(_critic_loss, gan.loss), gan.adversarial_weight),
                *penalty, *tasks, *observer, *gan.critic_terms)
    steepness = () if gan.penalty else (Term("input_gradient", _steepness, 0.0, report=report_norms),)
    return (Term(ADVERSARIAL, partial(_generator_loss, gan.loss), gan.adversarial_weight),
            *steepness, *tasks, *gan.generator_terms)


def _critic_loss(loss: AdversarialLoss, view: View, state: PyTree) -> Value:
    real, fake = view.real.scores, view.fake.scores
    scores = view.gather((real, fake)) if loss.across_batch else (real, fake)
    return Value(loss.critic(*scores), {"wasserstein": real.mean() - fake.mean(),
                                        "real_score": real.mean(), "fake_score": fake.mean()})


def _generator_loss(loss: AdversarialLoss, view: View, state: PyTree) -> Array:
    if loss.share is not None:
        return of_highest(loss.generator, view.gather(view.fake.scores), loss.share(view.step))
    scores = (view.real.scores, view.fake.scores)
    return loss.generator(*(view.gather(scores) if loss.across_batch else scores))


def _steepness(view: View, state: PyTree) -> Value:
    """The norms of the critic's gradient at fakes, for critics that no penalty takes them of."""
    gradients = jax.grad(lambda shown: summed(view.judge(
        shown, view.fake.condition, kind="fake").scores))(jax.lax.stop_gradient(view.fake.shown))
    return Value(None, norm_moments(jax.vmap(optax.tree.norm)(gradients)))


def sample(
    gan: GAN,
    state: GANState,
    key: Key,
    num_samples: int,
    condition: PyTree | None = None,
    *,
    use_ema: bool = True,
) -> PyTree:
    """Draws samples, [num_samples, ...], from the averaged generator if there is one.

    Sample i depends on the key and on i alone, not on `num_samples`.

    Args:
        gan: the specification.
        state: its state.
        key: one typed key.
        num_samples: how many.
        condition: for conditional generators, a pytree of arrays [num_samples, ...].
        use_ema: False for the generator as trained.
    """
    check_type("num_samples", num_samples, Integral, "a whole number")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}")
    return generate(gan, state, draw_latents(gan, key, num_samples), condition, use_ema=use_ema)


def generate(
    gan: GAN,
    state: GANState,
    latents: PyTree,
    condition: PyTree | None = None,
    *,
    use_ema: bool = True,
) -> PyTree:
    """Maps given latents, like those of `draw_latents`, to samples: for fixed grids, interpolations."""
    batch_size(latents)  # has to be one
    expected = jax.eval_shape(lambda: draw_latents(gan, jax.random.key(0), 1))
    here, there = (jax.tree.map(lambda x: tuple(x.shape[1:]), tree) for tree in (latents, expected))
    if here != there:
        if isinstance(there, tuple) and len(there) == 1 and hasattr(latents, "shape"):
            raise ValueError(f"latents must have shape [batch, {there[0]}]; got {latents.shape}")
        raise ValueError(f"latents must be like those of the prior, each of a shape {there}; got "
                         f"{here}")
    variables = sampled_variables(state, use_ema=use_ema)
    samples, _ = samples_and_heads(gan.generator.apply(variables, latents, condition, train=False))
    return gan.lower(samples) if gan.lower else samples


def sampled_variables(state: Any, *, use_ema: bool = True) -> PyTree:
    """Returns the variables that samples are drawn with: the averaged generator's if there is one.

    Args:
        state: a GAN's, or another one that has `generator` and `ema`.
        use_ema: False for the generator as trained.
    """
    return state.generator.variables if state.ema is None or not use_ema else state.ema


def draw_latents(gan: GAN, key: Key, count: int) -> PyTree:
    """Draws latents from the prior, [count, ...], each from its own example's key.

    Args:
        gan: the specification.
        key: one typed key, or one for each example, [count].
        count: how many.
    """
    example_keys = keys.per_example(key, count)
    if gan.latent_size is not None:
        return keys.normal(example_keys, (gan.latent_size,))
    return cast("Prior", gan.prior)(example_keys)


def judge(gan: GAN, state: GANState, samples: PyTree, condition: PyTree | None = None) -> Judgement:
    """Returns what the critic says of samples, reals or fakes: scores [batch], and heads by name.

    In evaluation mode: nothing is drawn and no statistics change. A critic that scores packs gives a
    score for each of them, one that scores patches [batch, down, across].

    Args:
        gan: the specification.
        state: its state.
        samples: like the data, [batch, ...].
        condition: what they are conditioned on, a pytree of arrays [batch, ...].

    Raises:
        ValueError: the critic doesn't give one score for each.
        TypeError: samples that are no arrays.
    """
    batch_size(samples)  # has to be one
    return judge_shown(gan, state, *as_shown(gan, gan.lift(samples) if gan.lift else samples, condition))


def as_shown(gan: GAN, samples: PyTree, condition: PyTree) -> tuple[PyTree, PyTree]:
    """Returns what the critic is shown, in evaluation, of a generator's samples and their condition."""
    if gan.augment is None:
        return samples, condition
    return gan.augment.quiet(samples), gan.augment.condition(condition)


def judge_shown(gan: GAN, state: GANState, shown: PyTree, condition: PyTree) -> Judgement:
    """`judge` of what the critic is shown."""
    judgement = gan.critic.apply(state.critic.variables, shown, condition, train=False)
    return scores_and_heads(judgement, shown)


def scores_and_heads(judgement: PyTree, shown: PyTree) -> Judgement:
    """Returns what a critic has returned for what it was shown as scores and heads, {} if it has none.

    Raises:
        ValueError: the scores aren't one for each, or for each of its patches.
        TypeError: it is neither scores nor scores and heads.
    """
    pair = judgement if isinstance(judgement, tuple) else (judgement, {})
    if len(pair) != 2 or not hasattr(pair[0], "dtype") or not isinstance(pair[1], Mapping):
        raise TypeError("the critic must return scores, or (scores, heads), the heads being a dict; got "
                        f"{jax.tree.map(jnp.shape, judgement)!r}")
    scores, heads = pair
    count = batch_size(shown)
    check_scores(scores, count)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"the critic's scores must be floating point; got {scores.dtype}")
    return Judgement(scores, heads)


def samples_and_heads(generated: PyTree) -> WithHeads:
    """Returns what a generator has returned as samples and heads, {} if it has none."""
    return generated if isinstance(generated, WithHeads) else WithHeads(generated, {})


def has_batch_statistics(variables: PyTree) -> bool:
    """Whether a network normalises over the batch: whether it keeps BatchNorm's running averages."""
    paths = jax.tree_util.tree_flatten_with_path(variables.get("batch_stats", {}))[0]
    return any(path[-1].key in ("mean", "var") for path, _ in paths)


def scores_across(gan: GAN, critic_stats: PyTree, shown: PyTree, condition: PyTree) -> bool:
    """Whether the critic's scores of samples depend on the batch's other samples.

    Args:
        gan: the specification.
        critic_stats: the critic's collections but its parameters.
        shown: what it is shown, [batch, ...]; its values don't matter.
        condition: likewise.

    Raises:
        ValueError: its input gradient is penalised, or its batch comes in parts, and nothing says that
            this is meant.
    """
    if gan.across_batch:
        return True
    has_norm = has_batch_statistics(critic_stats)
    if not has_norm and not looks_across(gan.critic, shown, condition):
        return False
    if any(isinstance(term.value, Penalty) for term in terms_of(gan, "critic")):
        raise ValueError("a gradient penalty is not defined for a critic "
                         + ("with batch normalisation" if has_norm else
                            "whose scores depend on the other samples of the batch")
                         + ", which scores no sample by itself: use layer or spectral normalisation, or "
                         "no penalty, or say that it is meant, GAN(across_batch=True)")
    if gan.accumulate > 1 and not has_norm:
        raise ValueError("the critic's scores depend on the other samples of the batch, of which "
                         f"accumulate {gan.accumulate} shows it parts: set accumulate to 1, or say that "
                         "it is meant, GAN(across_batch=True)")
    return True
