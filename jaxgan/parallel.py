"""The same step over many devices, of one process or of several: `jax.pmap`, with the state free of a
device axis.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgan.types import Device, PyTree


def check_devices() -> None:
    """Looks whether jax has devices of the kind that it was told to use.

    Raises:
        ValueError: it has none.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # what jax raises, by kind and version
        asked = getattr(jax.config, "jax_platforms", None)
        raise ValueError(f"jax has no device of the platform {asked!r}, which JAX_PLATFORMS asks for: "
                         f"unset it, or install jax for that platform ({str(error)[:200] or 'none'})"
                         if asked else f"jax has no device ({str(error)[:200]})") from error


def data_parallel(
    step_fn: Callable[..., tuple[PyTree, PyTree]],
    *,
    devices: Sequence[Device] | None = None,
    batch_axis: int | None = 0,
    axis_name: str = "devices",
    donate: bool = False,
) -> Callable[..., tuple[PyTree, PyTree]]:
    """Maps a step over devices, each taking an equal slice of the batch.

    `data_parallel(partial(critic_step, gan))` is called as the step itself, with the global batch,
    and gives the same result up to the order of floating-point sums. The state comes and goes
    without a device axis (replicated), so that sampling and checkpoints don't know of the devices.

    Args:
        step_fn: `(state, batch, key, *rest, axis_name=...) -> (state, metrics)`, as in
            `jaxgan.steps`.
        devices: which devices; all local ones by default. Those of several processes are mapped
            together if each of these calls the step with the same state, and, unless `batch_axis` is
            None, with its own part of the batch.
        batch_axis: the batch's axis of samples: 0 for `critic_step` and `generator_step`, 1 for
            `train_step`, None for `run_steps`, which draws each device's part on the device.
        axis_name: what to call the devices' axis.
        donate: whether the new state takes the memory of the old one, which can't be used again then.

    Returns:
        The mapped step. It raises ValueError if the devices don't divide the batch.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    here = [device for device in devices if device.process_index == jax.process_index()]
    # jax 0.10's processor collectives can wait for each other for ever if calls pile up.
    waits = len(devices) > 1 and devices[0].platform == "cpu"

    @partial(jax.jit, static_argnums=0)
    def split(axis: int, batch: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.reshape(
            *x.shape[:axis], len(here), x.shape[axis] // len(here), *x.shape[axis + 1:]), batch)

    # pmap takes a fixed number of arguments, one of them mapped: what follows the batch travels as
    # one, and the devices' numbers are there for steps whose batch is not mapped.
    mapped = jax.pmap(
        lambda numbers, state, batch, rest: step_fn(state, batch, *rest, axis_name=axis_name),
        axis_name, devices=devices, in_axes=(0, None, batch_axis, None), out_axes=None,
        donate_argnums=1 if donate else ())
    numbers = jnp.arange(len(here))
    everywhere = NamedSharding(Mesh(np.array(here), axis_name), PartitionSpec())

    def step(state: PyTree, batch: PyTree, *rest: Any) -> tuple[PyTree, PyTree]:
        if batch_axis is not None:
            for leaf in jax.tree.leaves(batch):
                if leaf.ndim <= batch_axis or leaf.shape[batch_axis] % len(here):
                    raise ValueError(
                        f"axis {batch_axis} of the batch must divide over {len(here)} devices; "
                        f"got shape {leaf.shape}: choose a multiple of {len(here)} as batch size")
            batch = split(batch_axis, batch)
        # A first state on one device is put where later ones are: another place is another program.
        result = mapped(numbers, jax.device_put(state, everywhere), batch, rest)
        return jax.block_until_ready(result) if waits else result

    return step


def map_batches(
    fn: Callable[[PyTree, PyTree], PyTree],
    *,
    devices: Sequence[Device] | None = None,
) -> Callable[[PyTree, PyTree], PyTree]:
    """Maps `(shared, batch) -> outputs` over devices, each taking an equal slice of the batch.

    Args:
        fn: a pure function; its outputs have the batch's leading axis.
        devices: which of this process's; all by default.

    Returns:
        The mapped function, whose outputs come in the batch's order, on the host. The devices have to
        divide the batch.
    """
    devices = list(devices or jax.local_devices())
    count = len(devices)
    if count == 1:
        single = jax.jit(fn)
        return lambda shared, batch: jax.tree.map(np.asarray, single(shared, batch))
    mapped = jax.pmap(fn, in_axes=(None, 0), devices=devices)

    def call(shared: PyTree, batch: PyTree) -> PyTree:
        sliced = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), mapped(shared, sliced))

    return call


def agreed(*values: int) -> tuple[int, ...]:
    """Returns the largest of each value over all processes, so that all of them decide alike."""
    if jax.process_count() == 1:
        return values
    return tuple(int(value) for value in multihost_utils.process_allgather(np.array(values)).max(0))


_SAID_BYTES = 2**16  # of what each process tells the others about itself


def check_same(values: Mapping[str, Any]) -> None:
    """Checks that all processes were started alike, before one waits for what another never does.

    Args:
        values: JSON values by name, of at most 64 KB.

    Raises:
        ValueError: a process has another value, and which; each of the processes raises it.
    """
    if jax.process_count() == 1:
        return
    said = json.dumps(values, sort_keys=True).encode()
    if len(said) > _SAID_BYTES:
        raise ValueError(f"settings must take {_SAID_BYTES} bytes at most; got {len(said)}")
    told = np.frombuffer(said.ljust(_SAID_BYTES), np.uint8)
    everyone = [json.loads(bytes(one)) for one in multihost_utils.process_allgather(told)]
    for index, other in enumerate(everyone):
        for name in sorted({*other, *everyone[0]}):
            if other.get(name) != everyone[0].get(name):
                raise ValueError(f"process {index} was started with {name} {other.get(name)!r} and "
                                 f"process 0 with {everyone[0].get(name)!r}: start all of them alike")
