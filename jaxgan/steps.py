"""The training steps: pure functions `(gan, state, batch, key) -> (state, metrics)`.

`jax.jit(partial(train_step, gan), donate_argnums=0)` is all that a training loop needs. Every step
takes `axis_name`, the mapped axis of the devices that share the global batch; gradients, statistics
and metrics are averaged over it (`jaxgan.parallel` maps them).

Metrics, float32 scalars: `critic/loss` (penalty and tasks included), `critic/penalty`,
`critic/wasserstein` (`E[D(real)] - E[D(fake)]`, with its sign), `critic/real_score`,
`critic/fake_score`, `critic/gradient_norm` and `generator/gradient_norm` (of the parameters' gradient),
`critic/input_gradient_mean` and `critic/input_gradient_std` (of the norms of the critic's gradient at
its input: at the penalty's points, or at the fakes if there is no penalty), `generator/loss`, and
where there are tasks, `critic/NAME`, `critic/NAME_weight` and the generator's likewise of each task and
of `adversarial`: a term of the loss, and the weight that it has in it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxgan import keys, penalties
from jaxgan.data import Source, draw_step
from jaxgan.gan import (
    GAN,
    GANState,
    NetworkState,
    base_weights,
    check_penalised,
    draw_latents,
    has_batch_statistics,
    scores_and_heads,
)
from jaxgan.tasks import Seen
from jaxgan.types import Array, Batch, Key, Metrics, PyTree
from jaxgan.weighting import ADVERSARIAL, fixed, shared_norms

Judgement = tuple[Array, dict[str, Array]]  # a critic's scores and heads


def critic_step(
    gan: GAN, state: GANState, batch: Batch, key: Key, *, axis_name: str | None = None
) -> tuple[GANState, Metrics]:
    """Updates the critic once, on fresh fakes; the generator stays bitwise as it is.

    Args:
        gan: the specification.
        state: its state.
        batch: real samples [batch, ...] and their condition; on several devices, this device's part.
        key: one typed key, the same on every device, not used for anything else.
        axis_name: the devices' axis; None on a single device.

    Returns:
        The new state and the `critic/...` metrics.

    Raises:
        ValueError: the critic's scores aren't one per sample, or it is penalised and has BatchNorm.
    """
    fake, _ = _fakes(gan, state.generator, batch, key, axis_name)
    return _critic_update(gan, state, batch, fake, key, axis_name)


def _critic_update(
    gan: GAN, state: GANState, batch: Batch, fake: Array, key: Key, axis_name: str | None
) -> tuple[GANState, Metrics]:
    """`critic_step` on given fakes."""
    check_penalised(gan, state.critic.stats)
    real = _as_critic_sees(gan, state, batch.samples, key, "real_noise", axis_name)
    fake = _as_critic_sees(gan, state, fake, key, "fake_noise", axis_name)
    penalty_keys = keys.example_keys(keys.stream(key, "penalty"), len(fake), axis_name)
    critic = _on_axis(gan.critic, axis_name)

    def terms_fn(params: PyTree) -> tuple[Metrics, tuple[PyTree, Metrics]]:
        network = state.critic._replace(params=params)
        (real_scores, real_heads), (fake_scores, fake_heads), stats = _judge_both(
            critic, network, real, fake, batch.condition)
        loss = gan.loss.critic(*_global_scores(gan, axis_name, real_scores, fake_scores))
        metrics = {
            "critic/wasserstein": real_scores.mean() - fake_scores.mean(),
            "critic/real_score": real_scores.mean(),
            "critic/fake_score": fake_scores.mean(),
        }
        if gan.penalty is not None:
            penalty = gan.penalty(lambda samples: scores_and_heads(
                _apply(critic, network, samples, batch.condition)[0], samples)[0],
                real, fake, penalty_keys)
            loss += penalty.value
            metrics |= {"critic/penalty": penalty.value} | _input_gradient_moments(penalty.norms)
        terms = _task_terms(gan, "critic", Seen(real, batch.condition, real_heads),
                            Seen(fake, batch.condition, fake_heads))
        return {ADVERSARIAL: loss} | terms, (stats, metrics)

    terms, pullback, (stats, metrics) = jax.vjp(terms_fn, state.critic.params, has_aux=True)
    network, metrics = _update(gan, "critic", state.critic, terms, lambda weights: pullback(weights)[0],
                               stats, metrics, axis_name)
    return state._replace(critic=network), metrics


def generator_step(
    gan: GAN, state: GANState, batch: Batch, key: Key, *, axis_name: str | None = None
) -> tuple[GANState, Metrics]:
    """Updates the generator and its average once, and counts the iteration; the critic stays as is.

    Args:
        gan: the specification.
        state: its state.
        batch: as for `critic_step`; its condition is what the fakes are drawn for, unless the GAN has
            a `generator_condition`; its samples are scored only by losses that compare with reals.
        key: one typed key, the same on every device, not used for anything else.
        axis_name: the devices' axis; None on a single device.

    Returns:
        The new state and the `generator/...` metrics.
    """
    critic = _on_axis(gan.critic, axis_name)
    real = _as_critic_sees(gan, state, batch.samples, key, "real_noise", axis_name)
    asked = batch
    if gan.generator_condition is not None:
        condition_keys = keys.example_keys(keys.stream(key, "condition"), len(real), axis_name)
        asked = batch._replace(condition=gan.generator_condition(condition_keys, batch.condition))

    def seen_fakes(params: PyTree) -> tuple[Array, PyTree]:
        fake, stats = _fakes(gan, state.generator._replace(params=params), asked, key, axis_name)
        return _as_critic_sees(gan, state, fake, key, "fake_noise", axis_name), stats

    def judged(samples: Array, condition: PyTree) -> Judgement:
        return _judge(critic, state.critic, samples, condition)[0]

    def terms_fn(judgement: Judgement, fake: Array) -> Metrics:
        # Most losses ignore the reals: no code is made for them.
        real_scores, real_heads = judged(real, batch.condition)
        loss = gan.loss.generator(*_global_scores(gan, axis_name, real_scores, judgement[0]))
        return {ADVERSARIAL: loss} | _task_terms(
            gan, "generator", Seen(real, batch.condition, real_heads),
            Seen(fake, asked.condition, judgement[1]))

    fake, generator_pullback, stats = jax.vjp(seen_fakes, state.generator.params, has_aux=True)
    judgement, critic_pullback = jax.vjp(lambda samples: judged(samples, asked.condition), fake)
    terms, terms_pullback = jax.vjp(terms_fn, judgement, fake)

    def pullback(weights: Metrics) -> PyTree:
        by_judgement, by_fake = terms_pullback(weights)
        by_critic, = critic_pullback(by_judgement)
        return generator_pullback(by_critic + by_fake if gan.tasks else by_critic)[0]

    metrics = {}
    if gan.penalty is None:
        input_gradients, = critic_pullback((jnp.ones_like(judgement[0]),
                                            jax.tree.map(jnp.zeros_like, judgement[1])))
        metrics |= _input_gradient_moments(jax.vmap(optax.tree.norm)(input_gradients))
    network, metrics = _update(gan, "generator", state.generator, terms, pullback, stats, metrics,
                               axis_name)
    state = state._replace(step=state.step + 1, generator=network)
    return state._replace(ema=_averaged(gan, state)), metrics


def train_step(
    gan: GAN, state: GANState, batches: Batch, key: Key, *, axis_name: str | None = None,
    fakes_at_once: bool = False,
) -> tuple[GANState, Metrics]:
    """Runs one iteration: a critic update on each of the batches, then one generator update.

    Args:
        gan: the specification.
        state: its state.
        batches: a Batch with a leading axis, [n_critic, batch, ...].
        key: one typed key for this iteration, the same on every device.
        axis_name: the devices' axis; None on a single device.
        fakes_at_once: draw the fakes of all critic updates in one call of the generator (as if one by
            one: BatchNorm keeps them apart), which takes n_critic times the memory.

    Returns:
        The new state and the metrics of the last critic update and of the generator update.

    Raises:
        ValueError: fewer batches than the generator's batch is made of.
    """
    n_critic = batches.samples.shape[0]
    if n_critic < gan.generator_batches:
        raise ValueError(f"generator_batches is {gan.generator_batches}, but an iteration has only "
                         f"{n_critic} critic batches: raise n_critic")
    critic_keys = jax.vmap(jax.random.fold_in, (None, 0))(
        keys.stream(key, "critic_step"), jnp.arange(n_critic))

    def fakes(batch: Batch, key: Key) -> Array:
        return _fakes(gan, state.generator, batch, key, axis_name)[0]

    def update(critic: NetworkState, inputs: tuple[Batch, Key, Array | None]):
        batch, key, fake = inputs
        updated, metrics = _critic_update(gan, state._replace(critic=critic), batch,
                                          fakes(batch, key) if fake is None else fake, key, axis_name)
        return updated.critic, metrics

    all_fakes = jax.vmap(fakes)(batches, critic_keys) if fakes_at_once else None
    critic, metrics = lax.scan(update, state.critic, (batches, critic_keys, all_fakes))
    state, generator_metrics = generator_step(
        gan, state._replace(critic=critic), _generator_batch(batches, gan.generator_batches),
        keys.stream(key, "generator_step"), axis_name=axis_name)
    return state, jax.tree.map(lambda values: values[-1], metrics) | generator_metrics


def train_steps(
    gan: GAN,
    state: GANState,
    arrays: PyTree,
    key: Key,
    num_steps: Array | int,
    *,
    source: Source,
    n_critic: int,
    batch_size: int,
    axis_name: str | None = None,
    fakes_at_once: bool = False,
) -> tuple[GANState, Metrics]:
    """Runs `num_steps` iterations in one dispatch, drawing their batches on the device.

    Iteration i draws its batches at stream positions [i n_critic batch_size, ...) with the key
    `stream(key, "data")`, and steps with `fold_in(stream(key, "train"), i)`. The number of iterations
    is a run-time value: one compiled program runs any number, so that n calls of one iteration and
    one call of n give the same bits.

    Args:
        gan: the specification.
        state: its state.
        arrays: `source.arrays`, or a window that holds these iterations (`jaxgan.data.prefetch`), on the
            device; they are an argument so as not to be compiled in.
        key: the run's key.
        num_steps: how many iterations, at least 1.
        source: where batches come from.
        n_critic: critic updates in an iteration.
        batch_size: the global batch size.
        axis_name: the devices' axis; None on a single device.
        fakes_at_once: as for `train_step`.

    Returns:
        The new state and the last iteration's metrics.
    """

    def iterate(state: GANState) -> tuple[GANState, Metrics]:
        batches = draw_batches(source, arrays, key, state.step, n_critic=n_critic,
                               batch_size=batch_size, axis_name=axis_name)
        step_key = jax.random.fold_in(keys.stream(key, "train"), state.step)
        return train_step(gan, state, batches, step_key, axis_name=axis_name,
                          fakes_at_once=fakes_at_once)

    metrics = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), jax.eval_shape(iterate, state)[1])
    return lax.fori_loop(0, num_steps, lambda _, carry: iterate(carry[0]), (state, metrics))


def draw_batches(
    source: Source,
    arrays: PyTree,
    key: Key,
    step: Array | int,
    *,
    n_critic: int,
    batch_size: int,
    axis_name: str | None = None,
) -> Batch:
    """Draws the batches of iteration `step`, [n_critic, batch, ...]: a function of (key, step) only.

    Args:
        source: where batches come from.
        arrays: as for `train_steps`.
        key: the run's key.
        step: the iteration.
        n_critic: critic updates in an iteration.
        batch_size: the global batch size; on several devices each draws its part.
        axis_name: the devices' axis; None on a single device.

    Raises:
        ValueError: the devices don't divide the batch.
    """
    devices, device = (1, 0) if axis_name is None else (lax.axis_size(axis_name),
                                                        lax.axis_index(axis_name))
    if batch_size % devices:
        raise ValueError(f"batch_size must divide over {devices} devices; got {batch_size}: choose a "
                         f"multiple of {devices}")
    local = batch_size // devices
    rows = (jnp.arange(n_critic)[:, None] * batch_size
            + device * local + jnp.arange(local)[None, :])  # [n_critic, local]
    batch = draw_step(source, arrays, keys.stream(key, "data"), step, n_critic * batch_size,
                      rows.ravel())
    return jax.tree.map(lambda x: x.reshape(n_critic, local, *x.shape[1:]), batch)


def _fakes(
    gan: GAN, network: NetworkState, batch: Batch, key: Key, axis_name: str | None
) -> tuple[Array, PyTree]:
    """One fake for each sample of the batch, and the generator's new statistics."""
    latent_keys = keys.example_keys(keys.stream(key, "latents"), batch.samples.shape[0], axis_name)
    return _apply(_on_axis(gan.generator, axis_name), network, draw_latents(gan, latent_keys,
                  batch.samples.shape[0]), batch.condition)


def _as_critic_sees(
    gan: GAN, state: GANState, samples: Array, key: Key, name: str, axis_name: str | None
) -> Array:
    """The samples, with the specification's input noise if it has any."""
    if gan.input_noise is None:
        return samples
    noise_keys = keys.example_keys(keys.stream(key, name), samples.shape[0], axis_name)
    return penalties.add_noise(samples, noise_keys, gan.input_noise(state.step))


def _apply(
    module: nn.Module, network: NetworkState, inputs: Array, condition: PyTree | None
) -> tuple[Array, PyTree]:
    """Applies a module in training mode; returns its output and its new statistics."""
    return module.apply(network.variables, inputs, condition, train=True,
                        mutable=list(network.stats))


def _judge(
    critic: nn.Module, network: NetworkState, samples: Array, condition: PyTree | None
) -> tuple[Judgement, PyTree]:
    """The samples' scores, in float32 at least, in which losses and metrics average them, and heads."""
    judgement, stats = _apply(critic, network, samples, condition)
    scores, heads = scores_and_heads(judgement, samples)
    return (scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), heads), stats


def _judge_both(
    critic: nn.Module, network: NetworkState, real: Array, fake: Array, condition: PyTree | None
) -> tuple[Judgement, Judgement, PyTree]:
    """Judges reals and fakes, in one call unless batch statistics have to be kept apart."""
    if has_batch_statistics(network.stats):
        of_real, stats = _judge(critic, network, real, condition)
        of_fake, stats = _judge(critic, network._replace(stats=stats), fake, condition)
        return of_real, of_fake, stats
    conditions = jax.tree.map(lambda c: jnp.concatenate([c, c]), condition)
    judgement, stats = _judge(critic, network, jnp.concatenate([real, fake]), conditions)
    of_real, of_fake = (jax.tree.map(lambda x, half=half: jnp.split(x, 2)[half], judgement)
                        for half in (0, 1))
    return of_real, of_fake, stats


def _task_terms(gan: GAN, role: str, real: Seen, fake: Seen) -> Metrics:
    """The tasks' terms for a network, by their names."""
    return {task.name: getattr(task, role)(real, fake) for task in gan.tasks if getattr(task, role)}


def _global_scores(gan: GAN, axis_name: str | None, *scores: Array) -> tuple[Array, ...]:
    """The scores of all devices for losses that compare samples, else this device's."""
    if axis_name is None or not gan.loss.across_batch:
        return scores
    return tuple(lax.all_gather(part, axis_name, tiled=True) for part in scores)


def _update(
    gan: GAN, role: str, network: NetworkState, terms: Metrics, pullback: Callable[[Metrics], PyTree],
    stats: PyTree, metrics: Metrics, axis_name: str | None,
) -> tuple[NetworkState, Metrics]:
    """Weights the terms, averages over the devices, in one collective, and applies the optimiser."""
    optimizer = gan.critic_optimizer if role == "critic" else gan.generator_optimizer
    base = base_weights(gan, role)
    scheme = gan.weighting if len(base) > 1 else fixed()
    weights = scheme.weights(network.weighting, base)
    weights = {name: jnp.asarray(weights.get(name, 0.0), term.dtype) for name, term in terms.items()}
    if scheme.by_gradient:  # in a loop, which is compiled once
        ones = dict(zip(base, jnp.eye(len(base)), strict=True))
        gradients = lax.map(pullback, {name: ones.get(name, jnp.zeros(len(base))).astype(term.dtype)
                                       for name, term in terms.items()})
    else:
        gradients = pullback(weights)
    if axis_name is not None:
        # As one array: XLA makes several collectives of a tree whose leaves it treats differently.
        flat, unravel = ravel_pytree((gradients, stats, terms, metrics))
        gradients, stats, terms, metrics = unravel(lax.pmean(flat, axis_name))
    norms = {}
    if scheme.by_gradient:
        norms = dict(zip(base, shared_norms(gradients), strict=True))
        mixture = jnp.stack([weights[name] for name in base])
        gradients = jax.tree.map(lambda each: jnp.tensordot(mixture, each, 1), gradients)
    weighting = scheme.update(network.weighting, terms, norms)
    metrics[f"{role}/loss"] = sum(weights[name] * term for name, term in terms.items())
    if gan.tasks:
        metrics |= {f"{role}/{name}": term for name, term in terms.items()}
        metrics |= {f"{role}/{name}_weight": weight for name, weight in weights.items()}
    if "critic/input_gradient_mean" in metrics:  # from the moments to the standard deviation
        variance = (metrics.pop("critic/input_gradient_square")
                    - jnp.square(metrics["critic/input_gradient_mean"] - 1.0))
        metrics["critic/input_gradient_std"] = jnp.sqrt(jnp.maximum(variance, 0.0))
    metrics[f"{role}/gradient_norm"] = optax.tree.norm(gradients)
    updates, opt_state = optimizer.update(gradients, network.opt_state, network.params)
    params = optax.apply_updates(network.params, updates)
    return NetworkState(params, stats, opt_state, weighting), metrics


def _input_gradient_moments(norms: Array) -> Metrics:
    """The mean and the mean square: they, not the standard deviation, can be averaged over devices.

    The square is of the distance from 1, where a penalty drives the norms, to lose no digits there.
    """
    norms = lax.stop_gradient(norms)
    return {"critic/input_gradient_mean": norms.mean(),
            "critic/input_gradient_square": jnp.square(norms - 1.0).mean()}


def _averaged(gan: GAN, state: GANState) -> PyTree | None:
    """The generator's moving average after an update (parameters and statistics)."""
    if gan.ema_decay is None:
        return None
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(gan.ema_decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(state.generator.variables, state.ema, 1.0 - decay)


def _generator_batch(batches: Batch, count: int) -> Batch:
    """The first `count` of the batches as one, sample by sample, so that devices hold slices of it."""
    return jax.tree.map(
        lambda x: jnp.swapaxes(x[:count], 0, 1).reshape(count * x.shape[1], *x.shape[2:]), batches)


def _on_axis(module: nn.Module, axis_name: str | None) -> nn.Module:
    """The module with the devices' axis in its field `axis_name`, if it has one."""
    if axis_name is None or "axis_name" not in type(module).__dataclass_fields__:
        return module
    return module.clone(axis_name=axis_name)

