"""The same step over many devices: `jax.pmap` with the state free of a device axis."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from jaxgan.types import PyTree


def data_parallel(
    step_fn: Callable[..., tuple[PyTree, PyTree]],
    *,
    devices: Sequence[jax.Device] | None = None,
    batch_axis: int | None = 0,
    axis_name: str = "devices",
) -> Callable[..., tuple[PyTree, PyTree]]:
    """Maps a step over devices, each taking an equal slice of the batch.

    `data_parallel(partial(critic_step, gan))` is called as the step itself, with the global batch,
    and gives the same result up to the order of floating-point sums. The state comes and goes without
    a device axis (replicated), so sampling and checkpoints don't know of the devices. The state passed
    in is donated.

    Args:
        step_fn: `(state, batch, key, *rest, axis_name) -> (state, metrics)`, as in `jaxgan.steps`.
        devices: which devices; all local ones by default.
        batch_axis: the batch's axis of samples: 0 for `critic_step` and `generator_step`, 1 for
            `train_step`, None for `train_steps`, whose second argument every device needs whole.
        axis_name: what to call the devices' axis.

    Returns:
        The mapped step; it raises ValueError if the devices don't divide the batch.
    """
    devices = list(jax.local_devices() if devices is None else devices)

    @partial(jax.jit, donate_argnums=0)
    def mapped(state: PyTree, batch: PyTree, *rest: Any) -> tuple[PyTree, PyTree]:
        return jax.pmap(
            partial(step_fn, axis_name=axis_name), axis_name, devices=devices,
            in_axes=(None, batch_axis, *(None for _ in rest)), out_axes=None,
        )(state, batch, *rest)

    return mapped
