"""The training steps of a GAN: pure functions `(gan, state, batch, key) -> (state, metrics)`.

`jax.jit(partial(train_step, gan), donate_argnums=0)` is all that a training loop needs. Every step
takes `axis_name`, the mapped axis of the devices that share the global batch; gradients, statistics
and metrics are averaged over it (`jaxgan.parallel` maps them). The steps are users of
`jaxgan.networks.update`, which trains any network on any terms.

Metrics, float32 scalars: `critic/loss` (penalty and tasks included), `critic/penalty`,
`critic/wasserstein` (`E[D(real)] - E[D(fake)]`, with its sign), `critic/real_score`,
`critic/fake_score`, `critic/gradient_norm` and `generator/gradient_norm` (of the parameters' gradient),
`critic/input_gradient_mean` and `critic/input_gradient_std` (of the norms of the critic's gradient at
its input: at the penalty's points, or at the fakes if there is no penalty), `generator/loss`, and
where a network minimises several terms, `critic/NAME`, `critic/NAME_weight` and the generator's likewise
of each task and of `adversarial`: a term of the loss, and the weight that it has in it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax.errors import InvalidRngError
from jax import lax

from jaxgan import keys
from jaxgan.data import Source
from jaxgan.gan import (
    GAN,
    GANState,
    draw_latents,
    sample,
    samples_and_heads,
    scores_and_heads,
    terms_of,
)
from jaxgan.loops import Game, run_steps
from jaxgan.memory import check_fits
from jaxgan.networks import NetworkState, See, check_values, moving_average, network_state, update
from jaxgan.types import Array, Batch, Key, Metrics, PyTree, batch_size, check_type
from jaxgan.views import Fakes, critic_view, generator_view, make_fakes


def game(gan: GAN | Game, *, fakes_at_once: bool = False) -> Game:
    """Returns what a training loop needs of a GAN; a game is that already.

    Args:
        gan: the specification.
        fakes_at_once: as for `train_step`.

    Raises:
        ValueError: `fakes_at_once` of a game that is no GAN.
    """
    if isinstance(gan, Game):
        if fakes_at_once:
            raise ValueError("fakes_at_once is for GANs, and this is a game of one's own: leave it out")
        return gan
    check_type("what is trained", gan, GAN, "a GAN or a Game")
    return Game(
        init=partial(init_state, gan),
        step=partial(train_step, gan, fakes_at_once=fakes_at_once),
        networks=lambda state: {"generator": state.generator.params, "critic": state.critic.params},
        sample=partial(sample, gan))


def init_state(gan: GAN, key: Key, example_batch: Batch) -> GANState:
    """Draws the initial state; pure, so `jax.jit(partial(init_state, gan))` is the quick way.

    Args:
        gan: the specification.
        key: one typed key.
        example_batch: a batch whose shapes and dtypes are those of training; its values don't matter.

    Raises:
        ValueError: the networks' shapes don't fit the batch or each other, a term can't be computed, or
            a penalty is asked of a critic whose scores depend on the rest of the batch, as with batch
            normalisation; or a network normalises over a batch of one sample.
        TypeError: samples that aren't floating point.
    """
    check_type("the example", example_batch, Batch, "a Batch(samples, condition)")
    samples, condition = example_batch
    for leaf in jax.tree.leaves(samples):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"samples must be floating point; got {leaf.dtype}: scale the pixels first")
    reals = gan.lift(samples) if gan.lift else samples
    generator_variables = _init_generator(gan, keys.stream(key, "generator"), example_batch, reals)

    shown, shown_condition, augment = reals, condition, gan.augment
    if augment is not None:
        shown, shown_condition = _zeros(lambda: (augment.quiet(reals), augment.condition(condition)))
    critic_variables = gan.critic.init(keys.stream(key, "critic"), shown, shown_condition, train=False)
    check_fits("the critic's parameters take", critic_variables, "its width")
    _evaluated("critic", lambda v: scores_and_heads(
        gan.critic.apply(v, shown, shown_condition, train=False), shown), critic_variables)

    bare = GANState(jnp.zeros((), jnp.int32), network_state(generator_variables, optax.identity()),
                    network_state(critic_variables, optax.identity()), None)
    fakes, _ = _zeros(lambda: make_fakes(gan, bare, bare.generator, example_batch, key, None))
    return GANState(
        step=jnp.zeros((), jnp.int32),
        generator=_started(gan, "generator", generator_variables, generator_view(
            gan, bare, example_batch, key, None)),
        critic=_started(gan, "critic", critic_variables, critic_view(
            gan, bare, example_batch, fakes, key, None)),
        ema=None if gan.ema_decay is None else jax.tree.map(jnp.copy, generator_variables),
    )


def critic_step(
    gan: GAN, state: GANState, batch: Batch, key: Key, *, fakes: Fakes | None = None,
    axis_name: str | None = None
) -> tuple[GANState, Metrics]:
    """Updates the critic once, on fresh fakes or given ones; the generator stays bitwise as it is.

    Args:
        gan: the specification.
        state: its state.
        batch: real samples [batch, ...] and their condition; on several devices, this device's part.
        key: one typed key, the same on every device, not used for anything else.
        fakes: None for the generator's, or what takes their place, as many as the reals.
        axis_name: the devices' axis; None on a single device.

    Returns:
        The new state and the `critic/...` metrics.

    Raises:
        ValueError: the critic's scores aren't one per sample, or it is penalised though they depend on
            the rest of the batch; or a network normalises over a batch of one sample.
    """
    check_type("what a step is given", batch, Batch, "a Batch(samples, condition)")
    network, metrics = update(
        state.critic, gan.critic_optimizer, terms_of(gan, "critic"),
        critic_view(gan, state, batch, fakes, key, axis_name),
        name="critic", axis_name=axis_name, weighting=gan.weighting, accumulate=gan.accumulate)
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
    check_type("what a step is given", batch, Batch, "a Batch(samples, condition)")
    network, metrics = update(
        state.generator, gan.generator_optimizer, terms_of(gan, "generator"),
        generator_view(gan, state, batch, key, axis_name),
        name="generator", axis_name=axis_name, weighting=gan.weighting, accumulate=gan.accumulate)
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
        ValueError: fewer batches than the generator's batch is made of; `fakes_at_once` of a GAN that
            accumulates.
    """
    check_type("what a step is given", batches, Batch, "a Batch(samples, condition)")
    n_critic = batch_size(batches)
    if n_critic < gan.generator_batches:
        raise ValueError(f"generator_batches is {gan.generator_batches}, but an iteration has only "
                         f"{n_critic} critic batches: raise n_critic")
    if fakes_at_once and gan.accumulate > 1:
        raise ValueError(f"fakes_at_once takes the memory that accumulate {gan.accumulate} saves: leave "
                         "one of them out")
    critic_keys = jax.vmap(jax.random.fold_in, (None, 0))(
        keys.stream(key, "critic_step"), jnp.arange(n_critic))

    def update_critic(critic: NetworkState, inputs: tuple[Batch, Key, Fakes | None]):
        batch, key, fakes = inputs
        updated, metrics = critic_step(gan, state._replace(critic=critic), batch, key,
                                       fakes=fakes, axis_name=axis_name)
        return updated.critic, metrics

    all_fakes = None
    if fakes_at_once:
        all_fakes, _ = jax.vmap(lambda batch, key: make_fakes(
            gan, state, state.generator, batch, key, axis_name))(batches, critic_keys)
    critic, metrics = lax.scan(update_critic, state.critic, (batches, critic_keys, all_fakes))
    state, generator_metrics = generator_step(
        gan, state._replace(critic=critic), _generator_batch(batches, gan.generator_batches),
        keys.stream(key, "generator_step"), axis_name=axis_name)
    return state, jax.tree.map(lambda values: values[-1], metrics) | generator_metrics


def train_steps(
    gan: GAN, state: GANState, arrays: PyTree, key: Key, num_steps: Array | int, *, source: Source,
    n_critic: int, batch_size: int, axis_name: str | None = None, fakes_at_once: bool = False,
) -> tuple[GANState, Metrics]:
    """Runs many iterations in one dispatch: `jaxgan.loops.run_steps` of a GAN's game.

    Arguments, results and errors are theirs; `n_critic` is `batches_per_step`.
    """
    return run_steps(game(gan, fakes_at_once=fakes_at_once), state, arrays, key, num_steps,
                     source=source, batches_per_step=n_critic, batch_size=batch_size,
                     axis_name=axis_name)


def _init_generator(gan: GAN, key: Key, batch: Batch, reals: PyTree) -> PyTree:
    """The generator's variables; its samples have to be like the reals."""
    latents = _zeros(lambda: draw_latents(gan, key, batch_size(batch.samples)))
    variables = gan.generator.init(key, latents, batch.condition, train=False)
    check_fits("the generator's parameters take", variables, "its width or the latent size")
    fakes, _ = _evaluated("generator", lambda v: samples_and_heads(
        gan.generator.apply(v, latents, batch.condition, train=False)), variables)
    for leaf in jax.tree.leaves(fakes):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"the generator's samples must be floating point; got {leaf.dtype}")
    made, there = (jax.tree.map(lambda x: jnp.shape(x)[1:], tree) for tree in (fakes, reals))
    if made != there:
        raise ValueError(f"the generator makes samples of shape {made}, the data has {there}: give the "
                         "generator that shape" + (", or the GAN `lift` and `lower`" if gan.lift is None
                                                   and not hasattr(fakes, "shape") else ""))
    return variables


def _evaluated(role: str, apply: Callable[[PyTree], PyTree], variables: PyTree) -> PyTree:
    """The shapes of what a network gives in evaluation, where no random numbers are given."""
    try:
        return jax.eval_shape(apply, variables)
    except InvalidRngError as error:
        raise ValueError(f"a module of the {role} draws random numbers in evaluation, where there are "
                         f"none ({str(error).split(' (')[0]}): have it draw where train is True"
                         ) from error


def _started(gan: GAN, role: str, variables: PyTree, see: See) -> NetworkState:
    """A network's first state, when its terms have been checked."""
    terms, optimizer = terms_of(gan, role), getattr(gan, f"{role}_optimizer")
    check_values(network_state(variables, optax.identity()), terms, see, name=role)
    return network_state(variables, optimizer, terms, see, name=role, weighting=gan.weighting)


def _zeros(make) -> PyTree:
    """Zeros of the shapes and dtypes of what a function makes."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(make))


def _averaged(gan: GAN, state: GANState) -> PyTree | None:
    """The generator's moving average after an update."""
    if gan.ema_decay is None:
        return None
    return moving_average(state.ema, state.generator, gan.ema_decay, state.step)


def _generator_batch(batches: Batch, count: int) -> Batch:
    """The first `count` of the batches as one, sample by sample, so that devices hold slices of it."""
    return jax.tree.map(
        lambda x: jnp.swapaxes(x[:count], 0, 1).reshape(count * x.shape[1], *x.shape[2:]), batches)
