"""How the terms of a loss are weighted: by given weights, or by weights that follow the training.

A GAN's network has the term "adversarial" (its adversarial loss, the penalty included) and those of its
tasks by their names. Every scheme starts from the terms' own weights, the base weights.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgan.terms import ADVERSARIAL
from jaxgan.types import Array, PyTree

_LARGEST_RATIO = 1e4
_LEAST_LOSS = 1e-12  # a loss of 0 has fallen like one of this

Weights = Mapping[str, Array | float]


class Weighting(NamedTuple):
    """A scheme; its state is kept with the network's.

    Attributes:
        init: base weights, none of them 0 -> state.
        weights: (state, base weights) -> the weights of the next update.
        update: (state, values, norms) -> the state after an update: the terms' values, and where
            `by_gradient` the norms of their gradients, without weights; means over all devices.
        by_gradient: whether it needs these norms. Each term is then differentiated by itself.
        is_fixed: whether the weights are always the base weights, which may follow schedules then.
    """

    init: Callable[[Weights], PyTree]
    weights: Callable[[PyTree, Weights], Weights]
    update: Callable[[PyTree, Weights, Weights], PyTree]
    by_gradient: bool = False
    is_fixed: bool = False


def fixed() -> Weighting:
    """The base weights throughout."""
    return Weighting(lambda base: (), lambda state, base: base, lambda state, values, norms: state,
                     is_fixed=True)


def uncertainty(learning_rate: float = 0.01) -> Weighting:
    """Learned uncertainty: `sum_i exp(-s_i) L_i + s_i / 2` is minimised over s too, by gradient descent.

    s_i = log sigma_i^2 starts where exp(-s_i) is the base weight. At rest the weight is 1 / (2 L_i):
    all tasks contribute alike. The adversarial loss is no likelihood, and may be negative: its weight
    stays. Kendall et al. 2018 (arXiv 1705.07115), equation 10; there a regression's L is halved.

    Args:
        learning_rate: of s.
    """
    _check_positive("learning_rate", learning_rate)

    def update(logs: PyTree, values: Weights, norms: Weights) -> PyTree:
        return {name: log - learning_rate * (0.5 - jnp.exp(-log) * values[name])
                for name, log in logs.items()}

    return Weighting(
        lambda base: {name: -jnp.log(jnp.float32(weight)) for name, weight in base.items()
                      if name != ADVERSARIAL},
        lambda logs, base: dict(base) | {name: jnp.exp(-log) for name, log in logs.items()},
        update)


def gradnorm(alpha: float = 1.5, learning_rate: float = 0.025) -> Weighting:
    """GradNorm: terms that have fallen less get larger gradients, r_i^alpha times the mean one.

    `sum_i |w_i G_i - mean_j(w_j G_j) r_i^alpha|` is minimised over w by Adam, the mean being held, and
    the weights are scaled to the sum of the base weights. G_i is the norm of term i's gradient by the
    parameters that several terms share, r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)) over the tasks.
    The adversarial loss doesn't fall as it is trained, and has r = 1. Chen et al. 2018 (arXiv
    1711.02257), equations 1 and 2; there the shared parameters are those of one layer.

    Args:
        alpha: how strongly the terms that lag behind are favoured, from 0 on.
        learning_rate: of the weights.

    Raises:
        ValueError: a number out of range.
    """
    _check_positive("learning_rate", learning_rate)
    if not 0 <= alpha < jnp.inf:
        raise ValueError(f"alpha must be a number from 0 on; got {alpha}")
    optimizer = optax.adam(learning_rate)

    def init(base: Weights) -> PyTree:
        weights = {name: jnp.float32(weight) for name, weight in base.items()}
        return {"weights": weights, "first": {name: jnp.zeros(()) for name in base},
                "sum": jnp.float32(sum(base.values())), "opt_state": optimizer.init(weights)}

    def update(state: PyTree, values: Weights, norms: Weights) -> PyTree:
        weights, count = state["weights"], optax.tree.get(state["opt_state"], "count")
        first = {name: jnp.where(count == 0, values[name], value)
                 for name, value in state["first"].items()}
        falls = {name: jnp.maximum(values[name], 0.0) / jnp.maximum(value, _LEAST_LOSS)
                 for name, value in first.items() if name != ADVERSARIAL}
        mean_fall = jnp.maximum(sum(falls.values()) / max(len(falls), 1), _LEAST_LOSS)
        mean_norm = sum(weights[name] * norms[name] for name in weights) / len(weights)

        def slope(name: str) -> Array:
            target = mean_norm * (falls.get(name, mean_fall) / mean_fall) ** alpha
            return jnp.sign(weights[name] * norms[name] - target) * norms[name]

        steps, opt_state = optimizer.update({name: slope(name) for name in weights},
                                            state["opt_state"])
        moved = jax.tree.map(lambda w, step: jnp.maximum(w + step, 1e-3 * w), weights, steps)
        scale = state["sum"] / sum(moved.values())
        return {"weights": jax.tree.map(lambda w: scale * w, moved), "first": first,
                "sum": state["sum"], "opt_state": opt_state}

    return Weighting(init, lambda state, base: state["weights"], update, by_gradient=True)


def ratio(decay: float = 0.99) -> Weighting:
    """Each task's gradient is as large as the adversarial one, times the task's base weight.

    `w_i = base_i G_adversarial / G_i`, of moving averages of the norms of the gradients by the shared
    parameters. At most 10,000 times the base weight; the base weight in the first update. Esser et al.
    2021 (arXiv 2012.09841), equation 7, which weights the adversarial term instead.

    Args:
        decay: of the averages, in [0, 1).

    Raises:
        ValueError: another decay, or there is no adversarial term.
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be in [0, 1); got {decay}")

    def init(base: Weights) -> PyTree:
        if ADVERSARIAL not in base:
            raise ValueError("the ratio of gradients is that to the adversarial one: give it a weight "
                             "above 0")
        return {name: jnp.zeros(()) for name in base}

    def weights(averages: PyTree, base: Weights) -> Weights:
        whole = averages[ADVERSARIAL]  # all start at 0: what that takes away cancels in the ratio

        def weight(name: str) -> Array:
            ratio = whole / jnp.maximum(averages[name], whole / _LARGEST_RATIO)
            return base[name] * jnp.where(whole > 0, ratio, 1.0)

        return {name: weight(name) for name in averages}

    def update(averages: PyTree, values: Weights, norms: Weights) -> PyTree:
        return {name: decay * average + (1 - decay) * norms[name] for name, average in averages.items()}

    return Weighting(init, weights, update, by_gradient=True)


def shared_norms(gradients: PyTree) -> Array:
    """Returns the norm of each term's gradient by the parameters that several terms share, [terms].

    Args:
        gradients: by each parameter, [terms, ...]. One is shared if several of these aren't 0.
    """
    squares = jnp.stack([jnp.square(leaf).reshape(len(leaf), -1).sum(axis=1)
                         for leaf in jax.tree.leaves(gradients)])  # [parameters, terms]
    shared = (squares > 0).sum(axis=1, keepdims=True) > 1
    return jnp.sqrt(jnp.where(shared, squares, 0.0).sum(axis=0))


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < jnp.inf:
        raise ValueError(f"{name} must be above 0; got {value}")
