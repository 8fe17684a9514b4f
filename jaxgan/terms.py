"""Terms: what a network minimises, each a record of pure functions that see one view of an update.

A loss, a penalty, a task and a regulariser are all terms. A term may have a state (a running mean, a
probability), which is kept with its network, and may be due in every n-th update only. What it sees, the
view, is the game's own type; that of a GAN is `View`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxgan.types import Array, Key, Metrics, PyTree, check_callable, check_type

ADVERSARIAL = "adversarial"  # the name of a GAN's own term, in either network


class Value(NamedTuple):
    """What a term is at one view.

    Attributes:
        loss: what is minimised, a scalar; None if the term only observes.
        observed: arrays by name, of which `update` takes the means over all devices, for the term's
            `update` and `report`.
    """

    loss: Array | None
    observed: PyTree = {}  # noqa: RUF012 (never changed)


def keep(state: PyTree, observed: PyTree) -> PyTree:
    """The `Term.update` of terms that have no state, or always the same."""
    return state


def scalars(observed: PyTree) -> Metrics:
    """The `Term.report` of most terms: what was observed and is a number, by its name."""
    if not isinstance(observed, Mapping):
        return {}
    return {name: value for name, value in observed.items() if jnp.shape(value) == ()}


class Term(NamedTuple):
    """One of the terms that a network minimises.

    Attributes:
        name: unique in its network. `critic/NAME` is the term without its weight where a network
            minimises several, and `critic/NAME_weight` the weight.
        value: (view, state) -> `Value`, or a scalar alone. What is nonlinear in a mean over the batch
            has to take it by `view.mean`, so that several devices compute what one would.
        weight: of the loss, from 0 on; or a schedule, iteration -> weight. With 0 it only observes.
        init: () -> state.
        update: (state, observed) -> the state after an update, of the same structure.
        every: the term is due in every n-th update of its network, the first one included; its last
            metrics are reported in between. See `lazy`.
        part_of: None, or the name of a term whose part it is: `weight` times the loss is added to that
            term's loss before it is weighted (a penalty to the adversarial loss), and
            `critic/NAME` is what is added.
        report: observed -> metrics by name; a name without a slash gets the network's in front.
        absorb: None, or (state, cotangent) -> state, before `update`: for a state that the *backward*
            pass feeds. The losses are differentiated with respect to the state too, and what a
            `jax.custom_vjp` of the term gives as its cotangent, averaged over the devices, is absorbed.
    """

    name: str
    value: Callable[[Any, PyTree], "Value | Array"]
    weight: float | optax.Schedule = 1.0
    init: Callable[[], PyTree] = tuple
    update: Callable[[PyTree, PyTree], PyTree] = keep
    every: int = 1
    part_of: str | None = None
    report: Callable[[PyTree], Metrics] = scalars
    absorb: Callable[[PyTree, PyTree], PyTree] | None = None


class Seen(NamedTuple):
    """Reals or fakes, and what the critic says of them.

    Attributes:
        samples: a pytree of arrays, [batch, ...]; reals as the generator's samples are structured.
        shown: what the critic saw of them, see `jaxgan.augment`.
        condition: the batch's condition, or what the fakes were drawn for.
        scores: the critic's, one for each that was shown, [batch] unless samples are packed, or for each
            of its patches, [batch, down, across].
        heads: the critic's predictions by name, each [batch, ...].
    """

    samples: PyTree
    shown: PyTree
    condition: PyTree
    scores: Array
    heads: dict[str, Array]


class Judgement(NamedTuple):
    """What a critic says: scores [batch], or [batch, down, across] of patches, and predictions
    [batch, ...] by name, {} if it has none.
    """

    scores: Array
    heads: dict[str, Array]


class View(NamedTuple):
    """What a term sees of one update of a GAN.

    In the critic's update the functions use the critic's parameters that are being trained and the
    generator as it is; in the generator's update the reverse.

    Attributes:
        real: the batch's reals.
        fake: as many fakes.
        latents: what the fakes were made from.
        generator_heads: what the generator returned besides them, by name, each [batch, ...].
        step: the iteration, int32.
        batch_size: samples of one kind, over all devices.
        judge: (shown, condition, kind="judge") -> `Judgement`, in training mode. Modules that draw
            random numbers draw the same for the same kind; "real" and "fake" are those of the scores.
        show: (kind, samples) -> what the critic is shown of them. "real" and "fake" repeat the draws of
            the reals and the fakes, another kind has its own.
        generate: (latents, condition, kind="generate", method=None) -> samples and heads of the
            generator, in training mode; the kind as for `judge`. Or what a method of the module gives,
            which is called as the module is.
        keys: (name, count=None) -> one key for each example, [count], by default one a sample. They
            depend on the update, the name and the example's index in the global batch alone.
        mean: the mean of arrays over all devices.
        gather: the examples of all devices, [batch, ...] -> [global batch, ...].
    """

    real: Seen
    fake: Seen
    latents: PyTree
    generator_heads: dict[str, Array]
    step: Array
    batch_size: int
    judge: Callable[..., Judgement]
    show: Callable[[str, PyTree], PyTree]
    generate: Callable[..., Any]
    keys: Callable[..., Key]
    mean: Callable[[PyTree], PyTree]
    gather: Callable[[PyTree], PyTree]


def lazy(term: Term, every: int) -> Term:
    """Returns the term as due in every n-th update, n times as heavy, so that its mean gradient stays.

    Karras et al. 2020 (arXiv 1912.04958), section 3.1, "lazy regularization". There Adam is changed
    too, see `lazy_adam`. `term._replace(every=n)` leaves the weight as it is.

    Args:
        term: whose weight is a number or a schedule.
        every: n, at least 1.

    Raises:
        ValueError: `every` is below 1.
    """
    _check_every(term.name, every)
    weight = term.weight
    return term._replace(every=every, weight=(lambda step: every * weight(step)) if callable(weight)
                         else every * weight)


def lazy_adam(learning_rate: float, b1: float, b2: float, every: int) -> dict[str, float]:
    """Returns Adam's settings for a network with a term that is due in every n-th update.

    The learning rate times c and the decays to the power of c = n / (n + 1), as if the regular and the
    lazy part were two updates. Karras et al. 2020 (arXiv 1912.04958), appendix B.

    Args:
        learning_rate: without lazy terms; the decays likewise.
        b1: Adam's first decay.
        b2: Adam's second decay.
        every: n, at least 1.

    Returns:
        `learning_rate`, `b1` and `b2`, for `optax.adam(**lazy_adam(...))`.
    """
    _check_every("lazy_adam", every)
    share = every / (every + 1)
    return {"learning_rate": share * learning_rate, "b1": b1**share, "b2": b2**share}


def check_terms(name: str, terms: tuple[Term, ...]) -> None:
    """Raises ValueError, or TypeError, for terms that can't be a network's, called `name`."""
    for term in terms:
        check_type(f"each term of the {name}", term, Term, "a Term, in a tuple")
        for field in ("value", "init", "update", "report"):
            check_callable(f"{field} of the term {term.name}", getattr(term, field), "a function")
    names = [term.name for term in terms]
    if twice := sorted({term for term in names if names.count(term) > 1}):
        raise ValueError(f"the terms of the {name} must have different names; {twice[0]!r} is there "
                         f"{names.count(twice[0])} times")
    if taken := sorted({*names} & {"loss", "gradient_norm"}):
        raise ValueError(f"a term of the {name} can't be called {taken[0]!r}, which is a metric's name: "
                         "rename it")
    heads = {term.name for term in terms if term.part_of is None}
    for term in terms:
        _check_every(term.name, term.every)
        if not callable(term.weight):
            check_weight(term.name, term.weight)
        if term.absorb and term.every > 1:
            raise ValueError(f"the term {term.name} is fed by the backward pass, which has to come "
                             f"every time: its `every` must be 1; got {term.every}")
        if term.part_of is not None and term.part_of not in heads:
            raise ValueError(f"the term {term.name} is part of {term.part_of!r}, which is no term of "
                             f"the {name}: choose from {', '.join(sorted(heads)) or 'none'}")


def check_weight(name: str, weight: float) -> None:
    """Raises ValueError for a weight that is no number from 0 on."""
    try:
        is_fine = 0.0 <= float(weight) < math.inf
    except (TypeError, ValueError):
        is_fine = False
    if not is_fine:
        raise ValueError(f"the weight of {name} must be a number from 0 on; got {weight}")


def is_weighed(term: Term) -> bool:
    """Whether a term may have a weight above 0."""
    return callable(term.weight) or float(term.weight) > 0


def _check_every(name: str, every: int) -> None:
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ValueError(f"{name}: every must be a whole number, at least 1; got {every}")
