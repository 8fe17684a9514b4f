"""The same step over many devices, of one process or of several, with the state free of a device axis.

By `jax.pmap` each device holds all of the state. With `shard="state"` each holds a part of it: then one
program, by `jax.jit`, is for all of them, in which the step is as on one device, with the whole batch.
What computes with parameters or examples says where they are, which does nothing elsewhere:

    spread   how a state is stored: each array is cut along one of its axes
    whole    a network's parameters, gathered where it is applied
    share    arrays of examples, of which each device has a part
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgan.types import Device, PyTree

Shard = Literal["state"]
_SHARING = "jaxgan_examples"  # the axis of devices in a program that is for all of them
_SMALL = 2**12  # elements of an array that isn't worth being cut


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
    shard: Shard | None = None,
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
        shard: "state" to have the state spread over the devices, which are of one process then, as
            `spread` says; None for each to hold all of it. The step then has no `axis_name`: what is
            averaged or drawn by each device otherwise, is so for the global batch, as on one device.

    Returns:
        The mapped step. It raises ValueError if the devices don't divide the batch.

    Raises:
        ValueError: `shard` is another one, or for devices of several processes.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    check_shard(shard, devices)
    if shard is not None:
        return _sharing(step_fn, devices, batch_axis, donate)
    here = [device for device in devices if device.process_index == jax.process_index()]
    waits = _waits(devices)

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
    everywhere = _everywhere(here)

    def step(state: PyTree, batch: PyTree, *rest: Any) -> tuple[PyTree, PyTree]:
        if batch_axis is not None:
            _check_divides(batch, batch_axis, len(here))
            batch = split(batch_axis, batch)
        # A first state on one device is put where later ones are: another place is another program.
        result = mapped(numbers, jax.device_put(state, everywhere), batch, rest)
        return jax.block_until_ready(result) if waits else result

    return step


def _sharing(step_fn: Callable[..., tuple[PyTree, PyTree]], devices: Sequence[Device],
             batch_axis: int | None, donate: bool) -> Callable[..., tuple[PyTree, PyTree]]:
    """`data_parallel` with the state spread over the devices: one program for all of them."""
    mesh, waits = _mesh(devices), _waits(devices)

    @partial(jax.jit, donate_argnums=0 if donate else ())
    def program(state: PyTree, batch: PyTree, rest: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
        shared = batch if batch_axis is None else share(batch, batch_axis)
        after, metrics = step_fn(state, shared, *rest, axis_name=None)
        return lax.with_sharding_constraint((after, metrics), (
            spread(after, devices), jax.tree.map(lambda _: _everywhere(devices), metrics)))

    def step(state: PyTree, batch: PyTree, *rest: Any) -> tuple[PyTree, PyTree]:
        if batch_axis is not None:
            _check_divides(batch, batch_axis, len(devices))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # `share` and `whole` look at it
            result = program(jax.device_put(state, spread(state, devices)), batch, rest)
        return jax.block_until_ready(result) if waits else result

    return step


def spread(tree: PyTree, devices: Sequence[Device]) -> PyTree:
    """Returns the sharding of each array of a state that is spread over devices.

    Each is cut along its largest axis that their number divides, the last axis only if no other is: a
    device lays out arrays in rows of a fixed length. What has no such axis, or is small, all have whole.

    Args:
        tree: arrays, or their shapes and dtypes.
        devices: of one process.
    """
    mesh = _mesh(devices)
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _cut(leaf.shape, len(devices))), tree)


def _cut(shape: Sequence[int], count: int) -> PartitionSpec:
    axes = [axis for axis, size in enumerate(shape) if size % count == 0]
    if math.prod(shape) < _SMALL or not axes:
        return PartitionSpec()
    axis = max(axes, key=lambda axis: (axis < len(shape) - 1, shape[axis]))
    return PartitionSpec(*[None] * axis, _SHARING)


def share(tree: PyTree, axis: int = 0) -> PyTree:
    """Has each of the devices that share a program hold its share of arrays of examples.

    Args:
        tree: arrays; those without the axis, or where the devices don't divide it, are left alone.
        axis: that of the examples.
    """
    count, spec = sharers(), PartitionSpec(*[None] * axis, _SHARING)

    def shared(x: Any) -> Any:
        shape = jnp.shape(x)
        divides = len(shape) > axis and shape[axis] % count == 0
        return lax.with_sharding_constraint(x, spec) if divides else x

    return tree if count == 1 else jax.tree.map(shared, tree)


def whole(tree: PyTree) -> PyTree:
    """Has each of the devices that share a program hold all of arrays that are spread.

    Backwards, a gradient is summed over the devices, of which each keeps its part.
    """
    return tree if sharers() == 1 else jax.tree.map(
        lambda x: _whole(x) if jnp.issubdtype(x.dtype, jnp.inexact) else
        lax.with_sharding_constraint(x, PartitionSpec()), tree)


@jax.custom_jvp
def _whole(x: jax.Array) -> jax.Array:
    return lax.with_sharding_constraint(x, PartitionSpec())


@_whole.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents  # what is linear here is run backwards
    part = lax.with_sharding_constraint(tangent, _cut(x.shape, sharers()))
    return _whole(x), lax.with_sharding_constraint(part, PartitionSpec())


def sharers() -> int:
    """How many devices share the program that is being traced, without a name for their axis."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size if mesh.axis_names == (_SHARING,) else 1


def check_shard(shard: Any, devices: Sequence[Device]) -> None:
    """Raises ValueError for what can't be spread, or over devices of several processes."""
    if shard not in (None, "state"):
        raise ValueError(f"shard must be state or None; got {shard!r}")
    if shard and len({device.process_index for device in devices}) > 1:
        raise ValueError("shard is for the devices of one process, which saves and samples what they "
                         f"hold, and here are {jax.process_count()} processes: leave it out, or start "
                         "one process")


def _mesh(devices: Sequence[Device]) -> Mesh:
    return Mesh(np.array(devices), (_SHARING,))


def _everywhere(devices: Sequence[Device]) -> NamedSharding:
    """Whole on each of these devices."""
    return NamedSharding(_mesh(devices), PartitionSpec())


def _waits(devices: Sequence[Device]) -> bool:
    """jax 0.10's processor collectives can wait for each other for ever if calls pile up."""
    return len(devices) > 1 and devices[0].platform == "cpu"


def _check_divides(batch: PyTree, axis: int, count: int) -> None:
    for leaf in jax.tree.leaves(batch):
        if leaf.ndim <= axis or leaf.shape[axis] % count:
            raise ValueError(f"axis {axis} of the batch must divide over {count} devices; got shape "
                             f"{leaf.shape}: choose a multiple of {count} as batch size")


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
    everywhere = _everywhere(devices)

    def call(shared: PyTree, batch: PyTree) -> PyTree:
        sliced = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
        outputs = mapped(jax.device_put(shared, everywhere), sliced)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), outputs)

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
