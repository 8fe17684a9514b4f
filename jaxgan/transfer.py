"""Starting from another run's weights, and freezing some of them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgan.types import PyTree

Misfits = list[str]


def warm_start(networks: Mapping[str, PyTree], *, partial: bool = False) -> Callable[[Any], Any]:
    """Returns an `initial` for `jaxgan.training.train`: the first state, with weights of another run.

    Parameters and statistics are taken over; optimisers and the states of terms start anew, and the
    averaged generator, if there is one, from the new generator.

    Args:
        networks: by the name of a field of the state, "generator" say, the variables to take:
            `{"params": ..., other collections}`, as `NetworkState.variables` and `GANState.ema` are.
        partial: take those leaves that are there with the same shape, and warn of each other one, rather
            than refuse.

    Returns:
        state -> state. It raises ValueError, and names the leaves, if some don't fit and `partial` is
        off, or if none fits.
    """
    def initial(state: Any) -> Any:
        for name, variables in networks.items():
            if not hasattr(state, name):
                raise ValueError(f"the state has no network {name!r}: choose from "
                                 f"{', '.join(getattr(state, '_fields', ()))}")
            network = getattr(state, name)
            fitted, misfits = fit(network.variables, variables)
            taken = len(jax.tree.leaves(network.variables)) - len(
                [misfit for misfit in misfits if not misfit.endswith("absent here")])
            if misfits and (not partial or not taken):
                raise ValueError(f"the weights for the {name} fit "
                                 + ("nowhere" if not taken else "only in part")
                                 + f": {'; '.join(misfits[:3])}"
                                 + (f" (and {len(misfits) - 3} more)" if len(misfits) > 3 else "")
                                 + (": take those that fit with partial=True" if taken else ""))
            for misfit in misfits:
                what = "left out" if misfit.endswith("absent here") else "left as it was drawn"
                warnings.warn(f"{name}: {misfit}: {what}", UserWarning, stacklevel=2)
            stats = {kind: values for kind, values in fitted.items() if kind != "params"}
            state = state._replace(**{name: network._replace(params=fitted["params"], stats=stats)})
        if getattr(state, "ema", None) is not None and "generator" in networks:
            state = state._replace(ema=jax.tree.map(jnp.copy, state.generator.variables))
        return state

    return initial


def fit(variables: PyTree, others: PyTree) -> tuple[PyTree, Misfits]:
    """Returns variables with the leaves of others that have the same path, shape and dtype.

    Args:
        variables: a pytree of arrays.
        others: another one.

    Returns:
        The new variables, and a line for each leaf that has no counterpart.
    """
    found = {jax.tree_util.keystr(path): leaf
             for path, leaf in jax.tree_util.tree_flatten_with_path(others)[0]}
    misfits = []

    def take(path: tuple, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        other = found.pop(name, None)
        if other is None or other.shape != leaf.shape or other.dtype != leaf.dtype:
            there = "absent" if other is None else f"{other.dtype}{list(other.shape)}"
            misfits.append(f"{name} is {there} there and {leaf.dtype}{list(leaf.shape)} here")
            return leaf
        return jnp.array(other)  # a copy: the loop donates its state's buffers

    fitted = jax.tree_util.tree_map_with_path(take, variables)
    return fitted, misfits + [f"{name} is {leaf.dtype}{list(leaf.shape)} there and absent here"
                              for name, leaf in found.items()]


def freeze(optimizer: optax.GradientTransformation, patterns: str | Sequence[str], *, name: str = ""
           ) -> optax.GradientTransformation:
    """Returns an optimiser that leaves some parameters as they are, bit for bit.

    Its state has the structure of the optimiser's own. BatchNorm's statistics are no parameters, and
    follow the data all the same.

    Args:
        optimizer: any optax transformation.
        patterns: paths of parameters, or of modules for all in them, with `*` and `?` as in file names:
            "Conv_*", "Dense_0/kernel".
        name: what the network is called: paths start with it then, "critic/Conv_0/kernel".

    Returns:
        The optimiser. Its `init` raises ValueError for a pattern that matches no parameter.
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)

    def is_frozen(path: tuple) -> bool:
        return any(matches(path, pattern, name) for pattern in patterns)

    def init(params: PyTree) -> optax.OptState:
        check_matches(patterns, {name: params} if name else params)
        return optimizer.init(params)

    def still(updates: PyTree) -> PyTree:
        # Minus zero, as -0 + 0 is 0, another number bit by bit.
        return jax.tree_util.tree_map_with_path(
            lambda path, update: jnp.full_like(update, -0.0) if is_frozen(path) else update, updates)

    def update(updates: PyTree, state: optax.OptState, params: PyTree | None = None
               ) -> tuple[PyTree, optax.OptState]:
        updates, state = optimizer.update(still(updates), state, params)
        return still(updates), state

    return optax.GradientTransformation(init, update)


def matches(path: tuple, pattern: str, name: str = "") -> bool:
    """Whether the pattern is of a parameter, by its path in a pytree, or of a module that holds it."""
    parts = ([name] if name else []) + jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return any(fnmatchcase("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def check_matches(patterns: Sequence[str], params: PyTree) -> None:
    """Raises ValueError for a pattern that matches no parameter, and says which there are."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    for pattern in patterns:
        if not any(matches(path, pattern) for path in paths):
            known = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
            raise ValueError(f"no parameter matches {pattern!r}: there are {', '.join(known[:8])}"
                             + (f" and {len(known) - 8} more" if len(known) > 8 else ""))
