"""The arrays that a source is drawn from: one window of steps after the other, fetched ahead of use."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jaxgan.data.order import epoch_and_offset
from jaxgan.data.sources import Part, Source
from jaxgan.types import Device, Key, PyTree

_BYTES = 2**26  # of a window, unless a single step has more

_WHOLE = Part()

_positions = jax.jit(epoch_and_offset, static_argnums=(1, 3))


def windows(source: Source, key: Key, examples_per_step: int, start: int, stop: int, *,
            put: Callable[[PyTree], PyTree] = jax.device_put, part: Part = _WHOLE
            ) -> Generator[tuple[PyTree, int], None, None]:
    """Yields arrays to draw the steps from `start` to `stop` from, each with the step it ends before.

    Of a resident source that is `source.arrays`, once. Of one that streams, they are windows of equal
    shape, and while one is used a thread fetches the next; it ends with the iterator.

    Args:
        source: where from.
        key: the key that the examples will be drawn with, the same in every step.
        examples_per_step: how many examples all devices together consume in a step.
        start: the first step.
        stop: the step after the last.
        put: host arrays -> the same on the device or the devices.
        part: the examples that this process's devices draw, of a source that streams.
    """
    window = source.window
    if window is None:
        yield put(source.arrays), stop
        return
    example_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(source.arrays))
    step_bytes = examples_per_step * example_bytes * part.count // part.block
    steps = min(max(1, _BYTES // max(1, step_bytes)), stop - start)
    rows = np.arange(steps * examples_per_step, dtype=np.uint32)
    host = _host()
    key = jax.device_put(key, host)

    def fetch(step: int) -> PyTree:
        with jax.default_device(host):  # the accelerators are busy
            epochs, offsets = _positions(np.uint32(step), examples_per_step, rows, source.size)
            arrays = window(key, epochs, offsets, part)
        return put(arrays)

    with ThreadPoolExecutor(1) as thread:
        fetching = thread.submit(fetch, start)
        for step in range(start, stop, steps):
            arrays = fetching.result()
            if step + steps < stop:
                fetching = thread.submit(fetch, step + steps)
            yield arrays, min(step + steps, stop)


def _host() -> Device | None:
    """The processor as a device; None, which stands for the default, if jax was told not to use it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
