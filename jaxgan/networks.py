"""One trained network: its numbers, and `update`, by which any game trains it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxgan.parallel import share, whole
from jaxgan.terms import Term, Value, View, check_terms, is_weighed
from jaxgan.types import Array, Metrics, PyTree, batch_size, check_type, described
from jaxgan.weighting import Weighting, fixed, shared_norms

_LARGE = 2**14  # elements of an array that devices exchange as it is
_NUMBERS = (jax.Array, np.ndarray, np.generic, int, float)

See = Callable[..., tuple[Any, PyTree]]  # parameters -> the view, and the new statistics


class NetworkState(NamedTuple):
    """One network's numbers.

    Attributes:
        params: the trained parameters; of several modules that are trained together, a dict of theirs.
        stats: every other collection (BatchNorm's averages, spectral norm's iterates).
        opt_state: the optimiser's state.
        weighting: that of the weights of its terms, see `jaxgan.weighting`.
        terms: the states of its terms, by the names of those that have one.
    """

    params: PyTree
    stats: PyTree
    opt_state: optax.OptState
    weighting: PyTree = ()
    terms: PyTree = ()

    @property
    def variables(self) -> PyTree:
        """What linen's `apply` takes, gathered where the state is spread over devices."""
        return whole({"params": self.params, **self.stats})


class _Lazy(NamedTuple):
    """The state of a term that isn't due in every update."""

    count: Array  # updates of the network
    last: Value  # when it was due, a mean over the devices
    state: PyTree


def network_state(
    variables: PyTree,
    optimizer: optax.GradientTransformation,
    terms: Sequence[Term] = (),
    see: See | None = None,
    *,
    name: str = "network",
    weighting: Weighting | None = None,
) -> NetworkState:
    """Returns the state that a network starts with.

    Args:
        variables: a linen module's, `{"params": ..., other collections}`.
        optimizer: as for `update`.
        terms: as for `update`.
        see: as for `update`; only asked for its shapes, and only if a term is not due every time.
        name: as for `update`.
        weighting: as for `update`.

    Raises:
        ValueError: terms that can't be a network's.
    """
    check_terms(name, tuple(terms))
    check_optimizer(name, optimizer)
    _scheme(name, terms, weighting)
    params = variables.get("params", {})
    stats = {kind: values for kind, values in variables.items() if kind != "params"}
    base, states = base_weights(terms), {}
    for term in terms:
        state = jax.tree.map(lambda x: jnp.array(x), term.init())  # each a buffer of its own
        if term.every > 1:
            if see is None:
                raise ValueError(f"the term {term.name} is due once in {term.every} updates: give "
                                 "network_state the function `see`, too")
            last = jax.eval_shape(lambda params, term=term, state=state: _value(
                term, see(params)[0], state), params)
            state = _Lazy(jnp.zeros((), jnp.int32),
                          jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), last), state)
        if jax.tree.leaves(state):
            states[term.name] = state
    return NetworkState(params, stats, optimizer.init(params),
                        weighting.init(base) if weighting and len(base) > 1 else (), states or ())


def update(
    network: NetworkState,
    optimizer: optax.GradientTransformation,
    terms: Sequence[Term],
    see: See,
    *,
    name: str,
    axis_name: str | None = None,
    weighting: Weighting | None = None,
    accumulate: int = 1,
) -> tuple[NetworkState, Metrics]:
    """Updates a network once, by the gradient of the weighted sum of its terms.

    One pass forward and one backward, whatever the number of terms; one collective, in which gradients,
    statistics and what was observed are averaged over the devices. Of statistics that have no mean,
    integers, truths and random keys, the first device's are taken.

    With `accumulate`, n parts of the batch are computed one after the other, in the memory of one. They
    are to each other as devices are: all start from the same statistics, and the same is averaged.

    Args:
        network: its state, from `network_state` for the same terms.
        optimizer: any optax transformation.
        terms: what it minimises.
        see: parameters -> (what the terms see, the network's new statistics). The view is a type of the
            game's own, of which nothing is known here but, for weights that follow a schedule, `step`.
        name: what the network is called in the metrics.
        axis_name: the devices' axis; None on a single device.
        weighting: how the terms' weights follow the training, from `jaxgan.weighting`; None for not.
        accumulate: into how many parts the batch is cut. With several `see` takes a part's number, too,
            (parameters, number), from 0 on: it sees `part_of(batch, number, accumulate)`.

    Returns:
        The new state, and the metrics, scalars in float32 at least: `NAME/loss`, the weighted sum;
        `NAME/gradient_norm`, that of the parameters' gradient; where there are several terms each one's
        `NAME/TERM`, without its weight, and `NAME/TERM_weight`; for each part of a term, `NAME/PART`,
        with its weight; and what the terms report.

    Raises:
        ValueError: terms that can't be a network's; a term that gives no scalar, or changes the
            structure of its state; a weighting that doesn't go with them.
    """
    check_terms(name, tuple(terms))
    check_optimizer(name, optimizer)
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1; got {accumulate}")
    states, scheme = dict(network.terms or {}), _scheme(name, terms, weighting)
    for term in terms:
        if term.name not in states and (term.every > 1 or jax.tree.leaves(term.init())):
            raise ValueError(f"the state of the {name} lacks that of its term {term.name}: make it by "
                             "network_state (or init_state) with the same terms")
    fed = {term.name: states.get(term.name, ()) for term in terms if term.absorb}
    for term, state in fed.items():
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)):
            raise ValueError(f"the state of the term {term}, which the backward pass feeds, must be of "
                             f"floating-point numbers; got {jax.tree.map(jnp.result_type, state)}")

    def losses_fn(params: PyTree, fed: PyTree, *part: Array
                  ) -> tuple[dict[str, Any], tuple[PyTree, PyTree, PyTree]]:
        view, stats = see(params, *part)
        values = {term.name: _due_value(term, view, (states | fed).get(term.name, ()))
                  for term in terms}
        weights: dict[str, Any] = {term.name: term.weight(view.step) if callable(term.weight)
                                   else term.weight for term in terms}
        losses: dict[str, Any] = {term.name: values[term.name].loss for term in terms
                                  if term.part_of is None and values[term.name].loss is not None}
        _check_parts(terms, values)
        for term in terms:
            if term.part_of is not None and values[term.name].loss is not None:
                losses[term.part_of] += weights[term.name] * values[term.name].loss
        return losses, (stats, values, weights)

    params = whole(network.params)

    def differentiated(*part: Array) -> tuple[PyTree, ...]:
        losses, pullback, (stats, values, weights) = jax.vjp(
            lambda params, fed: losses_fn(params, fed, *part), params, fed, has_aux=True)
        base = {term: weights[term] for term in base_weights(terms) if term in losses}
        head_weights = scheme.weights(network.weighting, base)
        head_weights = {term: jnp.asarray(head_weights.get(term, 0.0), loss.dtype)
                        for term, loss in losses.items()}
        if scheme.by_gradient:  # in a loop, which is compiled once
            ones = dict(zip(base, jnp.eye(len(base)), strict=True))
            gradients, cotangents = lax.map(pullback, {
                term: ones.get(term, jnp.zeros(len(base))).astype(loss.dtype)
                for term, loss in losses.items()})
        else:
            gradients, cotangents = pullback(head_weights)
        return gradients, cotangents, stats, losses, values, weights, head_weights

    gradients, cotangents, stats, losses, values, weights, head_weights = (
        differentiated() if accumulate == 1 else _mean_of_parts(differentiated, accumulate))
    base = [term for term in base_weights(terms) if term in losses]
    if axis_name is not None:
        numbers = jax.tree.map(lambda x: x if is_inexact(x) else None, stats)
        gradients, cotangents, numbers, losses, values = _mean_of_devices(
            (gradients, cotangents, numbers, losses, values), axis_name)
        stats = jax.tree.map(lambda x, mean: _first(x, axis_name) if mean is None else mean,
                             stats, numbers)
    norms = {}
    if scheme.by_gradient:
        norms = dict(zip(base, shared_norms(gradients), strict=True))
        mixture = jnp.stack([head_weights[term] for term in base])
        gradients = jax.tree.map(lambda each: jnp.tensordot(mixture, each, 1), gradients)

    loss = sum(head_weights[term] * loss for term, loss in losses.items())
    metrics = {f"{name}/loss": cast("Array", loss), f"{name}/gradient_norm": optax.tree.norm(gradients)}
    for term, reported in _reported(name, terms, states, losses, head_weights, weights, values):
        if taken := sorted(reported.keys() & metrics.keys()):
            raise ValueError(f"two metrics are called {taken[0]!r}, the second one of the term {term}: "
                             "rename the term, or what it reports")
        metrics |= reported
    opt_updates, opt_state = optimizer.update(gradients, network.opt_state, network.params)
    return NetworkState(
        optax.apply_updates(network.params, opt_updates), stats, opt_state,
        scheme.update(network.weighting, losses, norms),
        {term.name: _advanced(term, states[term.name], values[term.name], cotangents)
         for term in terms if term.name in states} or network.terms), metrics


def part_of(batch: PyTree, index: Array | int, count: int) -> PyTree:
    """Returns one of `count` equal parts of a batch, a pytree of arrays [batch, ...], by its number.

    Raises:
        ValueError: `count` doesn't divide the batch.
    """
    size = batch_size(batch)
    if size % count:
        raise ValueError(f"a batch of {size} examples on a device can't be cut into {count} equal parts"
                         f": choose a multiple of {count}")
    return share(jax.tree.map(
        lambda x: lax.dynamic_slice_in_dim(x, index * (size // count), size // count), batch))


def half_life(images: float | optax.Schedule, batch_size: int, *, ramp: float | None = None
              ) -> optax.Schedule:
    """Returns the decay of a moving average that forgets half of what it holds in so many images.

    It is 2^(-batch_size / images), 0 for a half-life of 0. Karras et al. 2018 (arXiv 1710.10196); 2020
    (arXiv 2006.06676), appendix C, for the ramp.

    Args:
        images: the half-life, images that the networks have seen; or a schedule of the iteration.
        batch_size: images in an iteration, over all devices.
        ramp: None, or what share of the images seen so far the half-life is at most.

    Raises:
        ValueError: a number is out of its range.
    """
    if not callable(images) and not 0 <= images < np.inf:
        raise ValueError(f"a half-life must be from 0 images on; got {images}")
    if batch_size < 1 or (ramp is not None and not ramp > 0):
        raise ValueError(f"batch_size must be at least 1 and ramp above 0; got {batch_size} and {ramp}")

    def decay(step: ArrayLike) -> Array:
        life = jnp.asarray(images(step) if callable(images) else images, jnp.float32)
        if ramp is not None:
            life = jnp.minimum(life, ramp * batch_size * jnp.asarray(step, jnp.float32))
        return jnp.exp2(-batch_size / jnp.maximum(life, 1e-8))

    return decay


def moving_average(average: PyTree, variables: PyTree | NetworkState, decay: float | optax.Schedule,
                   step: Array) -> PyTree:
    """Returns the moving average of a network's variables after an update.

    What has no mean, integers, truths or random keys, is the network's own.

    Args:
        average: as it was.
        variables: after the update; or the network, of which then nothing has to be gathered.
        decay: in [0, 1), early on `(1 + step) / (10 + step)` if that is less; or a schedule, step ->
            decay, which nothing limits.
        step: how many updates there were, int32.
    """
    if isinstance(variables, NetworkState):
        variables = {"params": variables.params, **variables.stats}
    count = step.astype(jnp.float32)
    limited = decay(step) if callable(decay) else jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(
        lambda new, old: jnp.asarray(optax.incremental_update(new, old, 1.0 - limited), old.dtype)
        if is_inexact(new) else new, variables, average)


def is_inexact(x: Array) -> bool:
    """Whether an array is of numbers of which there is a mean: not of integers, truths or keys."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _mean_of_parts(function: Callable[[Array], PyTree], count: int) -> PyTree:
    """The mean of what a function gives for parts of a batch; of what has no mean the first part's."""
    def numbers(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x if is_inexact(x) else None, tree)

    def arrays(index: Array) -> PyTree:
        return jax.tree.map(jnp.asarray, function(index))

    def add(total: PyTree, index: Array) -> tuple[PyTree, PyTree]:
        found = arrays(index)
        return (jax.tree.map(jnp.add, total, numbers(found)),
                jax.tree.map(lambda x: None if is_inexact(x) else x, found))

    shapes = jax.eval_shape(arrays, jnp.int32(0))
    total, others = lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), numbers(shapes)),
                             jnp.arange(count))
    return jax.tree.map(lambda shape, sum_, each: each[0] if sum_ is None else sum_ / count,
                        shapes, total, others)


def _mean_of_devices(tree: PyTree, axis_name: str) -> PyTree:
    """The mean over the devices, in one collective.

    Small arrays go as one: XLA would treat some of them differently, and make several collectives. Large
    ones it joins to that one by itself, and copying them into one array would cost more than adding.
    """
    leaves, structure = jax.tree.flatten(tree)
    large = [jnp.size(leaf) >= _LARGE for leaf in leaves]
    small, unravel = ravel_pytree([leaf for leaf, is_large in zip(leaves, large, strict=True)
                                   if not is_large])
    small, means = lax.pmean(
        (small, [leaf for leaf, is_large in zip(leaves, large, strict=True) if is_large]), axis_name)
    small, means = iter(unravel(small)), iter(means)
    return structure.unflatten([next(means if is_large else small) for is_large in large])


def _first(x: Array, axis_name: str) -> Array:
    """The first device's."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_first(jax.random.key_data(x), axis_name),
                                        impl=jax.random.key_impl(x))
    return lax.all_gather(x, axis_name)[0]


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raises TypeError for what is no optax transformation, as the optimiser of the network `name`."""
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(f"the optimizer of the {name} must be an optax transformation, optax.adam(1e-4) "
                        f"for example; got {described(optimizer)}")


def check_values(network: NetworkState, terms: Sequence[Term], see: See, *, name: str) -> None:
    """Raises ValueError for a term that can't be computed; arguments as for `update`."""
    def compute(params: PyTree) -> None:
        view, _ = see(params)
        values = {}
        for term in terms:
            try:
                values[term.name] = _value(term, view, term_state(network, term))
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                what = (f"there is no {error}{_there(view)}" if isinstance(error, KeyError)
                        else str(error).partition("\n")[0])
                raise ValueError(f"the {name}'s term {term.name} can't be computed: {what}") from error
        _check_parts(terms, values)

    jax.eval_shape(compute, network.params)


def _check_parts(terms: Sequence[Term], values: Mapping[str, Value]) -> None:
    """Raises ValueError for a part of a term that has no loss to be a part of."""
    for term in terms:
        if term.part_of is not None and values[term.part_of].loss is None:
            raise ValueError(f"the term {term.name} is part of {term.part_of}, which gives no loss: "
                             "leave part_of out")


def _there(view: Any) -> str:
    """What a GAN's view has that a term may have looked for."""
    if not isinstance(view, View):
        return ""
    heads = ", ".join(map(repr, sorted(view.real.heads))) or "no heads: have it return (scores, heads)"
    return (f"; the condition is {jax.tree.map(jnp.shape, view.real.condition)}, and the critic returns "
            f"{heads}")


def term_state(network: NetworkState, term: Term) -> PyTree:
    """Returns the state of one of a network's terms, or the one it starts with."""
    if term.name not in (network.terms or {}):
        return jax.tree.map(jnp.array, term.init())
    state = network.terms[term.name]
    return state.state if term.every > 1 else state


def base_weights(terms: Sequence[Term]) -> dict[str, Any]:
    """Returns the weights that a network's terms start with, but for those of weight 0 and for parts."""
    return {term.name: term.weight for term in terms
            if term.part_of is None and is_weighed(term)}


def _scheme(name: str, terms: Sequence[Term], weighting: Weighting | None) -> Weighting:
    """The weighting, if there is anything to weigh."""
    if weighting is None or len(base_weights(terms)) < 2:
        return fixed()
    for term in terms:
        if callable(term.weight) and term.part_of is None and not weighting.is_fixed:
            raise ValueError(f"the weight of {term.name} in the {name} follows a schedule, which only "
                             "the weighting fixed() leaves alone")
        if weighting.by_gradient and (term.every > 1 or term.absorb):
            raise ValueError(f"a weighting by gradients needs every term's gradient in every update; "
                             f"{term.name} of the {name} is "
                             + ("lazy" if term.every > 1 else "fed by the backward pass"))
    return weighting


def _value(term: Term, view: Any, state: PyTree) -> Value:
    """The term's value, checked."""
    value = term.value(view, state)
    if not isinstance(value, Value):
        check_type(f"the value of the term {term.name}", value, _NUMBERS, "a scalar, or a Value")
        value = Value(value)
    if value.loss is not None and jnp.shape(value.loss) != ():
        raise ValueError(f"the term {term.name} must give a scalar; got shape "
                         f"{jnp.shape(value.loss)}: take the mean")
    if value.loss is None and is_weighed(term):
        raise ValueError(f"the term {term.name} gives no loss: give it the weight 0, for it to observe")
    for leaf in jax.tree.leaves(value):
        check_type(f"what the term {term.name} gives", leaf, _NUMBERS, "numbers")
    return jax.tree.map(  # numbers of which there is a mean
        lambda x: jnp.asarray(x, None if jnp.issubdtype(jnp.result_type(x), jnp.inexact)
                              else jnp.float32), value)


def _due_value(term: Term, view: Any, state: PyTree) -> Value:
    """The term's value; of a lazy one that isn't due, the loss 0 and what was observed last."""
    if term.every == 1:
        return _value(term, view, state)
    skipped = Value(jax.tree.map(jnp.zeros_like, state.last.loss), state.last.observed)
    return lax.cond(state.count % term.every == 0, lambda: _value(term, view, state.state),
                    lambda: skipped)


def _advanced(term: Term, state: PyTree, value: Value, cotangents: PyTree) -> PyTree:
    """The term's state after an update."""
    before = state.state if term.every > 1 else state
    after = before
    if term.absorb:
        after = term.absorb(after, cotangents[term.name])
    after = term.update(after, value.observed)
    there, here = (jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", tree)
                   for tree in (before, after))
    if there != here:
        raise ValueError(f"the term {term.name} changes its state from {there} to {here}: keep its "
                         "structure, shapes and dtypes")
    after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, before)
    if term.every == 1:
        return after
    is_due = state.count % term.every == 0
    last, after = jax.tree.map(partial(jnp.where, is_due), (value, after), (state.last, before))
    return _Lazy(state.count + 1, last, after)


def _reported(name: str, terms: Sequence[Term], states: PyTree, losses: Metrics, head_weights: Metrics,
              weights: PyTree, values: dict[str, Value]) -> Iterator[tuple[str, Metrics]]:
    """The metrics of each term."""
    for term in terms:
        value: Any = values[term.name]
        if term.every > 1:  # what it was when it was due, on average over the devices
            is_due = states[term.name].count % term.every == 0
            value = jax.tree.map(partial(jnp.where, is_due), value, states[term.name].last)
        if value.loss is not None and term.part_of is not None:
            yield term.name, {f"{name}/{term.name}": weights[term.name] * value.loss}
        elif value.loss is not None and len(losses) > 1:
            yield term.name, {
                f"{name}/{term.name}": losses[term.name] if term.every == 1 else value.loss,
                f"{name}/{term.name}_weight": head_weights[term.name]}
        yield term.name, {key if "/" in key else f"{name}/{key}": number
                          for key, number in _scalars(term, value.observed).items()}


def _scalars(term: Term, observed: PyTree) -> Metrics:
    """What a term reports, checked."""
    reported = term.report(observed)
    if not isinstance(reported, Mapping) or not all(
            isinstance(key, str) and isinstance(number, _NUMBERS) and jnp.shape(number) == ()
            for key, number in reported.items()):
        raise TypeError(f"the report of the term {term.name} must give scalars by name; got "
                        f"{described(reported)}")
    return dict(reported)
