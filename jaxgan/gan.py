"""The specification of a GAN, its state, and what needs no training step: `init_state`, `sample`."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgan import keys
from jaxgan.losses import AdversarialLoss
from jaxgan.penalties import Penalty
from jaxgan.tasks import Seen, Task
from jaxgan.types import Array, Batch, Key, PyTree
from jaxgan.weighting import ADVERSARIAL, Weighting, fixed


@dataclasses.dataclass(frozen=True)
class GAN:
    """Everything that defines a GAN but its numbers: two networks, a loss, optimisers.

    The networks are linen modules, called as `generator(latents, condition, train=...)`, giving
    samples, and `critic(samples, condition, train=...)`, giving scores [batch], or where there are tasks
    `(scores, heads)`, the heads being predictions [batch, ...] by name. A module with a field
    `axis_name` gets the devices' axis there, so that its BatchNorm sees the global batch.

    Attributes:
        generator: latents [batch, latent_size] -> samples [batch, ...].
        critic: samples [batch, ...] -> scores [batch], or scores and heads.
        latent_size: the number of latent variables, z ~ N(0, I).
        loss: what both minimise, from `jaxgan.losses`.
        generator_optimizer: any optax transformation; schedules count generator updates.
        critic_optimizer: the same for the critic; schedules count *critic* updates.
        tasks: terms besides the adversarial ones, from `jaxgan.tasks`.
        adversarial_weight: of either network's adversarial loss, the penalty included, beside these; 0
            for the tasks alone.
        weighting: how these weights and those of the tasks change in training, from `jaxgan.weighting`.
        generator_condition: None, or (keys [batch], the batch's condition) -> the condition that the
            generator's update draws its fakes for, by a key each, instead of the batch's, for example
            `uniform_labels`. The critic always compares reals and fakes of one condition.
        penalty: None, or a penalty on the critic's input gradient, from `jaxgan.penalties`.
        input_noise: None, or the standard deviation of Gaussian noise on everything that the critic
            sees, as a function of the iteration (an optax schedule): the article's remedy for high
            dimensions, `optax.linear_schedule(0.1, 0.0, 10_000)` for example.
        ema_decay: None, or the decay of the averaged generator (parameters and statistics) that
            `sample` prefers; early on it is `(1 + step) / (10 + step)` if that is less.
        generator_batches: how many of an iteration's critic batches make up the generator's batch
            (2 in the CIFAR ResNet of WGAN-GP: critic 64, generator 128).
    """

    generator: nn.Module
    critic: nn.Module
    latent_size: int
    loss: AdversarialLoss
    generator_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    tasks: tuple[Task, ...] = ()
    adversarial_weight: float = 1.0
    weighting: Weighting = dataclasses.field(default_factory=fixed)
    generator_condition: Callable[[Key, PyTree], PyTree] | None = None
    penalty: Penalty | None = None
    input_noise: optax.Schedule | None = None
    ema_decay: float | None = None
    generator_batches: int = 1

    def __post_init__(self):
        for name in ("latent_size", "generator_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        names = [task.name for task in self.tasks]
        if len({*names}) < len(names) or ADVERSARIAL in names:
            raise ValueError(f"tasks must have different names, none of them {ADVERSARIAL}; got "
                             f"{', '.join(names)}")
        if not 0.0 <= self.adversarial_weight < jnp.inf:
            raise ValueError("adversarial_weight must be a number from 0 on; got "
                             f"{self.adversarial_weight}")
        if self.ema_decay is not None and not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must be in [0, 1); got {self.ema_decay}")


def uniform_labels(num_classes: int) -> Callable[[Key, PyTree], Array]:
    """Returns a `GAN.generator_condition` of labels, int32 [batch], each class being as likely."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}")
    return lambda keys, condition: jax.vmap(
        lambda key: jax.random.randint(key, (), 0, num_classes))(keys)


class NetworkState(NamedTuple):
    """One network's numbers.

    Attributes:
        params: the trained parameters.
        stats: every other collection (BatchNorm's averages, spectral norm's iterates).
        opt_state: the optimiser's state.
        weighting: that of the weights of its loss's terms, see `jaxgan.weighting`.
    """

    params: PyTree
    stats: PyTree
    opt_state: optax.OptState
    weighting: PyTree = ()

    @property
    def variables(self) -> PyTree:
        """What linen's `apply` takes."""
        return {"params": self.params, **self.stats}


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
    ema: PyTree | None


def init_state(gan: GAN, key: Key, example_batch: Batch) -> GANState:
    """Draws the initial state; pure, so `jax.jit(partial(init_state, gan))` is the quick way.

    Args:
        gan: the specification.
        key: one typed key.
        example_batch: a batch whose shapes and dtypes are those of training; its values don't matter.

    Raises:
        ValueError: the networks' shapes don't fit the batch or each other, or a penalty is asked of
            a critic with batch normalisation.
        TypeError: samples that aren't floating point.
    """
    samples, condition = example_batch
    if not jnp.issubdtype(samples.dtype, jnp.floating):
        raise TypeError(f"samples must be floating point; got {samples.dtype}: scale the pixels first")
    latents = jnp.zeros((samples.shape[0], gan.latent_size))

    generator_variables = gan.generator.init(
        keys.stream(key, "generator"), latents, condition, train=False)
    fake = jax.eval_shape(
        lambda v: gan.generator.apply(v, latents, condition, train=False), generator_variables)
    if fake.shape != samples.shape:
        raise ValueError(f"the generator makes samples of shape {fake.shape[1:]}, the data has "
                         f"{samples.shape[1:]}: give the generator that shape")

    critic_variables = gan.critic.init(keys.stream(key, "critic"), samples, condition, train=False)
    _, heads = jax.eval_shape(lambda v: scores_and_heads(
        gan.critic.apply(v, samples, condition, train=False), samples), critic_variables)
    _check_tasks(gan, samples, condition, heads)
    check_penalised(gan, critic_variables)

    return GANState(
        step=jnp.zeros((), jnp.int32),
        generator=_network_state(gan, "generator", generator_variables, gan.generator_optimizer),
        critic=_network_state(gan, "critic", critic_variables, gan.critic_optimizer),
        ema=None if gan.ema_decay is None else jax.tree.map(jnp.copy, generator_variables),
    )


def sample(
    gan: GAN,
    state: GANState,
    key: Key,
    num_samples: int,
    condition: PyTree | None = None,
    *,
    use_ema: bool = True,
) -> Array:
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
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}")
    return generate(gan, state, draw_latents(gan, key, num_samples), condition, use_ema=use_ema)


def generate(
    gan: GAN,
    state: GANState,
    latents: Array,
    condition: PyTree | None = None,
    *,
    use_ema: bool = True,
) -> Array:
    """Maps given latents, [batch, latent_size], to samples: for fixed grids and interpolations."""
    if latents.ndim != 2 or latents.shape[1] != gan.latent_size:
        raise ValueError(f"latents must have shape [batch, {gan.latent_size}]; got {latents.shape}")
    averaged = use_ema and state.ema is not None
    variables = state.ema if averaged else state.generator.variables
    return gan.generator.apply(variables, latents, condition, train=False)


def draw_latents(gan: GAN, key: Key, count: int) -> Array:
    """Draws latents z ~ N(0, I), [count, latent_size], each from its own example's key."""
    return keys.normal(keys.per_example(key, count), (gan.latent_size,))


def scores_and_heads(judgement: Array | tuple[Array, dict[str, Array]], samples: Array
                     ) -> tuple[Array, dict[str, Array]]:
    """Returns what a critic has returned for samples as scores and heads, {} if it has none.

    Raises:
        ValueError: the scores aren't one per sample.
    """
    scores, heads = judgement if isinstance(judgement, tuple) else (judgement, {})
    if scores.shape != samples.shape[:1]:
        raise ValueError(f"the critic must return one score per sample, shape {samples.shape[:1]}; "
                         f"got {scores.shape}: squeeze the last axis")
    return scores, heads


def base_weights(gan: GAN, role: str) -> dict[str, float]:
    """Returns the weights that the terms of a network's loss start with, but for those of weight 0.

    Args:
        gan: the specification.
        role: "critic" or "generator".
    """
    weights = {ADVERSARIAL: gan.adversarial_weight} | {
        task.name: getattr(task, f"{role}_weight") for task in gan.tasks if getattr(task, role)}
    return {name: weight for name, weight in weights.items() if weight > 0}


def has_batch_statistics(variables: PyTree) -> bool:
    """Whether a network normalises over the batch: whether it keeps BatchNorm's running averages."""
    paths = jax.tree_util.tree_flatten_with_path(variables.get("batch_stats", {}))[0]
    return any(path[-1].key in ("mean", "var") for path, _ in paths)


def check_penalised(gan: GAN, critic_variables: PyTree) -> None:
    """Raises ValueError for a penalty on a critic that doesn't score each sample by itself."""
    if gan.penalty is not None and has_batch_statistics(critic_variables):
        raise ValueError(
            "a gradient penalty is not defined for a critic with batch normalisation, which scores "
            "no sample by itself: use layer or spectral normalisation, or no penalty")


def _check_tasks(gan: GAN, samples: Array, condition: PyTree, heads: dict[str, Array]) -> None:
    """Raises an error for a task that can't be computed from such batches and heads."""
    def see(heads: dict[str, Array]) -> Seen:  # what is known of the condition stays known
        return Seen(samples, condition, heads)

    for task in gan.tasks:
        if missing := [head for head in task.heads if head not in heads]:
            raise ValueError(
                f"the task {task.name} reads the critic's head {missing[0]!r}, but the critic returns "
                f"{', '.join(map(repr, sorted(heads))) or 'scores alone'}: have it return "
                "(scores, heads)")
        for term in filter(None, (task.critic, task.generator)):
            try:
                value = jax.eval_shape(lambda heads, term=term: term(see(heads), see(heads)), heads)
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                raise ValueError(f"the task {task.name} can't be computed for the condition "
                                 f"{jax.tree.map(jnp.shape, condition)}: {error}") from error
            if value.shape != ():
                raise ValueError(f"the task {task.name} must give a scalar; got shape {value.shape}: "
                                 "take the mean")


def _network_state(gan: GAN, role: str, variables: PyTree, optimizer: optax.GradientTransformation
                   ) -> NetworkState:
    stats = {name: values for name, values in variables.items() if name != "params"}
    params = variables.get("params", {})
    return NetworkState(params, stats, optimizer.init(params), _weighting_state(gan, role))


def _weighting_state(gan: GAN, role: str) -> PyTree:
    base = base_weights(gan, role)
    return gan.weighting.init(base) if len(base) > 1 else ()
