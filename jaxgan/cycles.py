"""CycleGAN: two generators, each the other's inverse, and two critics, as a game.

Zhu et al. 2017 (arXiv 1703.10593). Images of a source and of a target are given, but no pairs of them.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgan import keys, losses
from jaxgan.gan import sampled_variables, scores_and_heads
from jaxgan.loops import Game
from jaxgan.losses import AdversarialLoss
from jaxgan.networks import (
    NetworkState,
    See,
    check_values,
    moving_average,
    network_state,
    part_of,
    update,
)
from jaxgan.nn import module_rngs
from jaxgan.terms import Term, Value, check_weight
from jaxgan.types import Array, Batch, Key, Metrics, PyTree, ScoreLoss, batch_size
from jaxgan.views import applied

DOMAINS = ("source", "target")
DIRECTIONS = ("backward", "forward")  # to the source, and to the target


class CycleState(NamedTuple):
    """All that changes in the training of a CycleGAN.

    Attributes:
        step: the number of finished steps, int32.
        generator: the generators' numbers, each collection a dict by `DIRECTIONS`.
        critic: the critics' numbers, each collection a dict by `DOMAINS`.
        history: earlier fakes by domain, [size, ...]; {} if none are kept.
        ema: None, or the averaged generators' variables.
    """

    step: Array
    generator: NetworkState
    critic: NetworkState
    history: PyTree
    ema: PyTree


class _Place(NamedTuple):
    """Where samples are: on which device, and in which part of its batch."""

    axis_name: str | None
    part: Array | int = 0
    parts: int = 1


class CycleView(NamedTuple):
    """What the terms of a CycleGAN see of an update; each is a dict by `DOMAINS`.

    Attributes:
        step: the iteration, int32.
        real: samples of each domain, [batch, ...].
        fake: translations into each domain; in the critics' update what they are shown of them.
        again: the translations translated back, to be as `real`; None in the critics' update.
        same: what the generator into a domain makes of samples that are in it already, to be as `real`;
            None if nothing asks for it.
        real_scores: the critics' of `real`, of all devices if the loss compares them across the batch.
        fake_scores: the same of `fake`.
    """

    step: Array
    real: dict[str, Array]
    fake: dict[str, Array]
    again: dict[str, Array] | None
    same: dict[str, Array] | None
    real_scores: dict[str, Array]
    fake_scores: dict[str, Array]


def cycle_game(
    generator: nn.Module,
    critic: nn.Module,
    generator_optimizer: optax.GradientTransformation,
    critic_optimizer: optax.GradientTransformation,
    *,
    loss: AdversarialLoss | None = None,
    adversarial_weight: float = 2.0,
    cycle_weight: float = 10.0,
    identity_weight: float = 5.0,
    history_size: int = 50,
    ema_decay: float | optax.Schedule | None = None,
    accumulate: int = 1,
) -> Game:
    """Returns the game of a CycleGAN: F translates the source x into the target y, and G back.

        L_F,G = w (L(D_Y, F(x)) + L(D_X, G(y)))
                + lambda (E |G(F(x)) - x|_1 + E |F(G(y)) - y|_1)
                + mu (E |F(y) - y|_1 + E |G(x) - x|_1)

    Equations 1 to 3, and that of section 5.2 for mu. A batch's samples are of the target, its condition
    is as many samples of the source, of one shape and drawn independently. The critics are shown fakes
    from a history: each new one is shown, and kept while there is room. Later, half of the time, it
    takes the place of an old one, which is shown instead (Shrivastava et al. 2017, arXiv 1612.07828,
    section 2.3). The history is part of the state, and the same on all devices. A step updates the
    critics on each of its batches, then the generators on the first.

    Args:
        generator: the module of both generators, samples [batch, ...] -> samples of the same shape.
        critic: the module of both critics, samples [batch, ...] -> scores, as of a GAN.
        generator_optimizer: any optax transformation, of both generators.
        critic_optimizer: the same, of both critics; schedules count their updates.
        loss: what they minimise; by default least squares.
        adversarial_weight: w of the generators. `losses.least_squares` is half of a square, the paper's
            generators minimise the whole: hence 2.
        cycle_weight: lambda.
        identity_weight: mu, the paper's is half of lambda where it has this term; 0 for none.
        history_size: how many fakes of each domain are kept; 0: the newest are shown.
        ema_decay: None, or the decay of the averaged generators, which `sample` prefers then; a number
            or a schedule.
        accumulate: into how many parts each update's batch is cut, which are computed one after the
            other, in the memory of one; their gradients are averaged. Translations for the critics are
            made of the whole batch, so that the history is the same.

    Raises:
        ValueError: a weight or the size of the history is negative, or `accumulate` is below 1, or more
            for a loss that compares scores across the batch.
    """
    if history_size < 0:
        raise ValueError(f"history_size must not be negative; got {history_size}")
    for name, weight in (("cycle", cycle_weight), ("identity", identity_weight)):
        check_weight(name, weight)
    objective = losses.least_squares() if loss is None else loss
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1; got {accumulate}")
    if accumulate > 1 and objective.across_batch:
        raise ValueError(f"the loss compares scores across the batch, of which accumulate {accumulate} "
                         "shows it parts: set accumulate to 1")
    critic_terms = (Term("adversarial", lambda view, state: _of_critics(objective, view)),)
    generator_terms = (
        Term("adversarial", lambda view, state: _both(objective.generator, view), adversarial_weight),
        Term("cycle", lambda view, state: _apart(view.again, view.real), cycle_weight),
        *[Term("identity", lambda view, state: _apart(view.same, view.real), identity_weight)]
        * (identity_weight > 0))

    def cut(tree: PyTree, part: Array | int | None, axis_name: str | None) -> tuple[PyTree, _Place]:
        """What a part of the batch has of a tree, or the whole of it, and where that is."""
        if part is None:
            return tree, _Place(axis_name)
        return part_of(tree, part, accumulate), _Place(axis_name, part, accumulate)

    def generated(network: NetworkState, direction: str, samples: Array, key: Key, kind: str,
                  place: _Place) -> tuple[Array, NetworkState]:
        rngs = _rngs(keys.stream(key, f"generator_{kind}"), samples, place)
        made, stats = applied(generator, _one(network, direction), samples, None, rngs, place.axis_name)
        return made, _with_stats(network, direction, stats)

    def judged(network: NetworkState, domain: str, samples: Array, key: Key, kind: str, place: _Place
               ) -> tuple[Array, NetworkState]:
        rngs = _rngs(keys.stream(key, f"critic_{kind}_{domain}"), samples, place)
        judgement, stats = applied(critic, _one(network, domain), samples, None, rngs, place.axis_name)
        scores, _ = scores_and_heads(judgement, samples)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        if objective.across_batch and place.axis_name is not None:
            scores = lax.all_gather(scores, place.axis_name, tiled=True)
        return scores, _with_stats(network, domain, stats)

    def scored(network: NetworkState, real: dict[str, Array], fake: dict[str, Array], key: Key,
               place: _Place) -> tuple[dict[str, Array], dict[str, Array], NetworkState]:
        of_real, of_fake = {}, {}
        for name in DOMAINS:
            of_real[name], network = judged(network, name, real[name], key, "real", place)
            of_fake[name], network = judged(network, name, fake[name], key, "fake", place)
        return of_real, of_fake, network

    def translated(network: NetworkState, samples: dict[str, Array], key: Key, kind: str, place: _Place
                   ) -> tuple[dict[str, Array], NetworkState]:
        """What the generators make of samples, by the domain that it is in."""
        made = {}
        for into, direction, out_of in zip(DOMAINS, DIRECTIONS, DOMAINS[::-1], strict=True):
            made[into], network = generated(network, direction, samples[out_of], key,
                                            f"{kind}_{direction}", place)
        return made, network

    def see_critics(state: CycleState, real: dict[str, Array], shown: dict[str, Array], key: Key,
                    axis_name: str | None) -> See:
        def see(params: PyTree, part: Array | int | None = None) -> tuple[CycleView, PyTree]:
            (own, seen), place = cut((real, shown), part, axis_name)
            of_real, of_fake, network = scored(state.critic._replace(params=params), own, seen, key,
                                               place)
            return CycleView(state.step, own, seen, None, None, of_real, of_fake), network.stats

        return see

    def see_generators(state: CycleState, real: dict[str, Array], key: Key, axis_name: str | None
                       ) -> See:
        def see(params: PyTree, part: Array | int | None = None) -> tuple[CycleView, PyTree]:
            network, same = state.generator._replace(params=params), None
            own, place = cut(real, part, axis_name)
            fake, network = translated(network, own, key, "fake", place)
            again, network = translated(network, fake, key, "again", place)
            if identity_weight > 0:
                already = {"source": own["target"], "target": own["source"]}
                same, network = translated(network, already, key, "same", place)
            of_real, of_fake, _ = scored(state.critic, own, fake, key, place)
            return CycleView(state.step, own, fake, again, same, of_real, of_fake), network.stats

        return see

    def init(key: Key, example: Batch) -> CycleState:
        real = _domains(example)
        samples = real["target"]
        generators = _several(generator, DIRECTIONS, keys.stream(key, "generator"), samples)
        critics = _several(critic, DOMAINS, keys.stream(key, "critic"), samples)
        history = {name: jnp.zeros((history_size, *samples.shape[1:]), samples.dtype)
                   for name in DOMAINS} if history_size else {}
        step = jnp.zeros((), jnp.int32)
        bare = CycleState(step, network_state(generators, optax.identity()),
                          network_state(critics, optax.identity()), history, None)
        made = jax.eval_shape(
            lambda: translated(bare.generator, real, key, "fake", _Place(None))[0])["target"]
        if made.shape != samples.shape:
            raise ValueError(f"the generator makes samples of shape {made.shape[1:]} of those of shape "
                             f"{samples.shape[1:]}: give it that shape")
        check_values(bare.generator, generator_terms, see_generators(bare, real, key, None),
                     name="generator")
        check_values(bare.critic, critic_terms, see_critics(bare, real, real, key, None), name="critic")
        return CycleState(
            step, network_state(generators, generator_optimizer, generator_terms, name="generator"),
            network_state(critics, critic_optimizer, critic_terms, name="critic"), history,
            None if ema_decay is None else jax.tree.map(jnp.copy, generators))

    def step(state: CycleState, batches: Batch, key: Key, *, axis_name: str | None = None
             ) -> tuple[CycleState, Metrics]:
        count = batch_size(batches)

        def update_critics(carry: tuple[NetworkState, PyTree], inputs: tuple[Batch, Key, Array]):
            critics, history = carry
            batch, key, index = inputs
            real = _domains(batch)
            fake, _ = translated(state.generator, real, key, "fake", _Place(axis_name))
            size = len(real["target"]) * (1 if axis_name is None else lax.axis_size(axis_name))
            # Whatever is beyond the history's size counts alike: 2^31 images are more than int32 holds.
            first = (jnp.minimum(state.step, history_size) * count + index) * size
            shown = fake
            if history_size:
                history, shown = remember(history, fake, first, keys.stream(key, "history"), axis_name)
            critics, metrics = update(
                critics, critic_optimizer, critic_terms,
                see_critics(state._replace(critic=critics), real, shown, key, axis_name),
                name="critic", axis_name=axis_name, accumulate=accumulate)
            return (critics, history), metrics

        critic_keys = jax.vmap(jax.random.fold_in, (None, 0))(
            keys.stream(key, "critic_step"), jnp.arange(count))
        (critics, history), metrics = lax.scan(
            update_critics, (state.critic, state.history), (batches, critic_keys, jnp.arange(count)))
        state = state._replace(critic=critics, history=history)
        generators, more = update(
            state.generator, generator_optimizer, generator_terms, see_generators(
                state, _domains(jax.tree.map(lambda x: x[0], batches)),
                keys.stream(key, "generator_step"), axis_name),
            name="generator", axis_name=axis_name, accumulate=accumulate)
        number = state.step + 1
        average = None if ema_decay is None else moving_average(state.ema, generators, ema_decay, number)
        return (CycleState(number, generators, critics, history, average),
                jax.tree.map(lambda values: values[-1], metrics) | more)

    def sample(state: CycleState, key: Key, count: int, condition: PyTree | None = None) -> Array:
        if condition is None:
            raise ValueError("the samples of a CycleGAN are translations: give the images to translate "
                             "as the condition")
        return translate(generator, state, condition)

    return Game(init, step, lambda state: {"generator": state.generator.params,
                                           "critic": state.critic.params}, sample)


def translate(generator: nn.Module, state: CycleState, samples: Array, *, direction: str = "forward"
              ) -> Array:
    """Returns what a trained generator, or the averaged one, makes of samples, in evaluation mode.

    Args:
        generator: the module of both.
        state: a CycleGAN's.
        samples: of the source, [batch, ...]; or of the target.
        direction: "forward", or "backward" from the target to the source.
    """
    return cast("Array", generator.apply(_of(sampled_variables(state), direction), samples, None,
                                         train=False))


def remember(history: dict[str, Array], fakes: dict[str, Array], first: Array, key: Key,
             axis_name: str | None = None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the history after new fakes, and what is shown in their place; see `cycle_game`.

    Args:
        history: earlier fakes by name, [size, ...].
        fakes: new ones, [batch, ...], on several devices this device's.
        first: how many were made before, int32; of more than `size` any number that is so.
        key: one typed key.
        axis_name: the devices' axis; None on a single device.
    """
    kept, shown = {}, {}
    for name, fake in fakes.items():
        new, start, size = fake, 0, len(history[name])
        if axis_name is not None:  # all that were made, so that the history is the same on all devices
            new = lax.all_gather(fake, axis_name, tiled=True)
            start = lax.axis_index(axis_name) * len(fake)

        def one(past: Array, inputs: tuple[Array, Array, Key], size: int = size) -> tuple[Array, Array]:
            number, fake, key = inputs
            is_room = number < size
            is_kept = is_room | jax.random.bernoulli(key)
            slot = jnp.where(is_room, number,
                             jax.random.randint(jax.random.fold_in(key, 1), (), 0, size))
            seen = jnp.where(is_kept & ~is_room, past[slot], fake)
            return past.at[slot].set(jnp.where(is_kept, fake, past[slot])), seen

        kept[name], seen = lax.scan(one, history[name], (
            first + jnp.arange(len(new)), new,
            keys.example_keys(keys.stream(key, name), len(new))))
        shown[name] = lax.dynamic_slice_in_dim(seen, start, len(fake))
    return kept, shown


def _of_critics(loss: AdversarialLoss, view: CycleView) -> Value:
    real, fake = view.real_scores, view.fake_scores
    means = [sum(scores[name].mean() for name in DOMAINS) / 2 for scores in (real, fake)]
    return Value(_both(loss.critic, view), {"wasserstein": means[0] - means[1],
                                            "real_score": means[0], "fake_score": means[1]})


def _both(loss: ScoreLoss, view: CycleView) -> Array:
    """The sum of a loss over the domains."""
    return cast("Array", sum(loss(view.real_scores[name], view.fake_scores[name]) for name in DOMAINS))


def _apart(made: dict[str, Array] | None, real: dict[str, Array]) -> Array:
    """The sum over the domains of the mean absolute difference."""
    return cast("Array", sum(jnp.abs(cast("Any", made)[name] - real[name]).mean() for name in DOMAINS))


def _domains(batch: Batch) -> dict[str, Array]:
    """A batch's samples by domain.

    Raises:
        ValueError: the condition isn't like the samples.
    """
    shapes = [jax.tree.map(jnp.shape, samples) for samples in (batch.condition, batch.samples)]
    if shapes[0] != shapes[1] or not isinstance(shapes[0], tuple):
        raise ValueError("a CycleGAN takes samples of the target and, as their condition, as many of "
                         f"the source, of one shape; got samples {shapes[1]} and the condition "
                         f"{shapes[0]}")
    return dict(zip(DOMAINS, (cast("Array", batch.condition), batch.samples), strict=True))


def _rngs(key: Key, samples: Array, place: _Place) -> dict[str, Key]:
    return module_rngs(key, len(samples), place.axis_name, part=place.part, parts=place.parts)


def _several(module: nn.Module, names: tuple[str, ...], key: Key, samples: Array) -> PyTree:
    """The variables of a module, drawn for each name, each collection a dict of them."""
    each = {name: module.init(keys.stream(key, name), samples, None, train=False) for name in names}
    return {kind: {name: each[name][kind] for name in names} for kind in each[names[0]]}


def _of(variables: PyTree, name: str) -> PyTree:
    return {kind: values[name] for kind, values in variables.items()}


def _one(network: NetworkState, name: str) -> NetworkState:
    """One of several modules that are trained together."""
    return NetworkState(network.params[name], _of(network.stats, name), ())


def _with_stats(network: NetworkState, name: str, stats: PyTree) -> NetworkState:
    return network._replace(stats={kind: values | {name: stats[kind]}
                                   for kind, values in network.stats.items()})
