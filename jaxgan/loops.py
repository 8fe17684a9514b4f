"""Many steps of a game in one dispatch, their batches drawn on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan import keys
from jaxgan.data import Source, draw_step
from jaxgan.parallel import share, sharers
from jaxgan.types import Array, Batch, Key, Metrics, PyTree, check_type


class Game(NamedTuple):
    """What a training loop needs of what it trains. A GAN gives one: `jaxgan.steps.game`.

    The state is any pytree of arrays that has a field `step`, int32, the number of finished steps, and
    has no axis of devices. A game of one's own makes its networks by `jaxgan.networks.network_state` and
    trains them by `update`.

    Attributes:
        init: (key, example batch) -> the initial state.
        step: (state, batches, key, *, axis_name) -> (state, metrics), one step, which adds 1 to
            `state.step`. The batches have a leading axis, [batches per step, batch, ...].
        networks: state -> the trained parameters by network. They are checked to be finite, and their
            digests tell two runs apart.
        sample: (state, key, count, condition=None) -> samples [count, ...]; None if there are none. The
            key is one, or one for each sample, [count], as `jaxgan.keys.per_example` takes them.
    """

    init: Callable[[Key, Batch], Any]
    step: Callable[..., tuple[Any, Metrics]]
    networks: Callable[[Any], dict[str, PyTree]]
    sample: Callable[..., PyTree] | None = None


def run_steps(
    game: Game,
    state: Any,
    arrays: PyTree,
    key: Key,
    num_steps: Array | int,
    *,
    source: Source,
    batches_per_step: int,
    batch_size: int,
    axis_name: str | None = None,
) -> tuple[Any, Metrics]:
    """Runs `num_steps` steps in one dispatch, drawing their batches on the device.

    Step i draws its batches at stream positions [i batches_per_step batch_size, ...) with the key
    `stream(key, "data")`, and steps with `fold_in(stream(key, "train"), i)`. The number of steps
    is a run-time value: one compiled program runs any number, so that n calls of one step and
    one call of n give the same bits.

    Args:
        game: what is trained.
        state: its state.
        arrays: `source.arrays`, or a window that holds these steps (`jaxgan.data.prefetch`), on the
            device; they are an argument so as not to be compiled in.
        key: the run's key.
        num_steps: how many, at least 1.
        source: where batches come from.
        batches_per_step: batches that a step consumes.
        batch_size: the global batch size.
        axis_name: the devices' axis; None on a single device.

    Returns:
        The new state and the last step's metrics.

    Raises:
        ValueError: the step returns another state than it was given.
        TypeError: `game` or `source` is something else.
    """
    check_type("game", game, Game, "a Game; of a GAN it is jaxgan.game(gan)")
    check_type("source", source, Source, "a Source, jaxgan.data.in_memory(arrays) for example")

    def iterate(state: Any) -> tuple[Any, Metrics]:
        batches = draw_batches(source, arrays, key, state.step, batches_per_step=batches_per_step,
                               batch_size=batch_size, axis_name=axis_name)
        return game.step(state, batches, jax.random.fold_in(keys.stream(key, "train"), state.step),
                         axis_name=axis_name)

    after, metrics = jax.eval_shape(iterate, state)
    _check_same(state, after)
    metrics = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
    return lax.fori_loop(0, num_steps, lambda _, carry: iterate(carry[0]), (state, metrics))


def draw_batches(
    source: Source,
    arrays: PyTree,
    key: Key,
    step: Array | int,
    *,
    batches_per_step: int,
    batch_size: int,
    axis_name: str | None = None,
) -> Batch:
    """Draws the batches of a step, [batches_per_step, batch, ...]: a function of (key, step) only.

    Args:
        source: where batches come from.
        arrays: as for `run_steps`.
        key: the run's key.
        step: its number.
        batches_per_step: how many.
        batch_size: the global batch size; on several devices each draws its part.
        axis_name: the devices' axis; None on a single device.

    Raises:
        ValueError: the devices don't divide the batch.
    """
    devices, device = (1, 0) if axis_name is None else (lax.axis_size(axis_name),
                                                        lax.axis_index(axis_name))
    sharing = devices * sharers()
    if batch_size % sharing:
        raise ValueError(f"batch_size must divide over {sharing} devices; got {batch_size}: choose a "
                         f"multiple of {sharing}")
    local = batch_size // devices
    rows = (jnp.arange(batches_per_step)[:, None] * batch_size
            + device * local + jnp.arange(local)[None, :])  # [batches_per_step, local]
    in_order = partial(draw_step, source, arrays, keys.stream(key, "data"), step,
                       batches_per_step * batch_size)
    if sharers() > 1:  # example by example, so that each device draws its own
        return share(jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(local, batches_per_step, *x.shape[1:]), 0, 1),
            in_order(rows.T.ravel())), 1)
    return jax.tree.map(lambda x: x.reshape(batches_per_step, local, *x.shape[1:]),
                        in_order(rows.ravel()))


def _check_same(before: Any, after: Any) -> None:
    """Raises ValueError for a state that a step has changed in structure, shapes or dtypes."""
    there, here = ({jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
                    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
                   for tree in (before, after))
    for path in sorted({*there, *here}):
        if there.get(path) != here.get(path):
            raise ValueError(f"the game's step returns another state than it is given: {path} is "
                             f"{there.get(path, 'absent')} before and {here.get(path, 'absent')} after")
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError("the game's step returns another state than it is given: "
                         f"{jax.tree.structure(before)} before and {jax.tree.structure(after)} after")
