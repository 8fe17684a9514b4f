"""Examples streamed to the device are those of a resident source, and fetched ahead of their use."""

import threading
from functools import partial

import jax
import numpy as np
import pytest
from tiny import same

from jaxgan.data import Dataset, draw_step, mixture, prefetch, resident, streaming, windows

KEY = jax.random.key(4)
SIZE, PER_STEP = 10, 7  # an epoch ends in the middle of a step, and of a window


class Made(Dataset):
    """Ten small labelled images that remember in `asked` the numbers that were asked for."""

    def __init__(self):
        images = np.random.default_rng(0).integers(0, 256, (SIZE, 2, 3, 1)).astype(np.uint8)
        super().__init__("made", images, np.arange(SIZE, dtype=np.int32) % 3, ("a", "b", "c"))
        object.__setattr__(self, "asked", [])

    def __getitem__(self, index):
        self.asked.append(index)
        return super().__getitem__(index)


@pytest.fixture
def window_of(monkeypatch):
    """Sets how many steps a window holds."""
    def set_steps(steps, per_step=PER_STEP, example_bytes=6 + 8 + 12):
        monkeypatch.setattr(prefetch, "_BYTES", steps * per_step * example_bytes)

    return set_steps


@pytest.mark.parametrize(("options", "steps"), [
    ({}, 0), ({"value_range": (0, 1)}, 1), ({"labels": True}, 3), ({"dequantize": True}, 100),
    ({"weights": np.arange(SIZE)}, 0), ({"weights": np.arange(SIZE)}, 3)], ids=str)
def test_a_window_of_any_length_draws_what_is_resident(window_of, options, steps):
    window_of(steps)
    sources = resident(Made(), **options), streaming(Made(), **options)
    draws = [jax.jit(partial(draw_step, source, examples_per_step=PER_STEP, rows=np.arange(PER_STEP)))
             for source in sources]
    step = 5
    for arrays, end in windows(sources[1], KEY, PER_STEP, step, 13):
        assert step < end <= step + max(1, steps)
        for now in range(step, end):
            batches = (draw(arrays, KEY, now) for draw, arrays
                       in zip(draws, (sources[0].arrays, arrays), strict=True))
            assert same(*batches)
        step = end
    assert step == 13
    assert draws[1]._cache_size() == 1  # the last window has the shape of the others


@pytest.mark.parametrize(("step", "per_step"), [(2**32 - 2, PER_STEP), (2**30 - 1, 4 * SIZE)])
def test_positions_may_exceed_32_bits(window_of, step, per_step):
    """In the second case the epochs, which are counted modulo 2**32, start again inside the window."""
    window_of(2, per_step)
    sources = resident(Made()), streaming(Made())
    (arrays, end), = windows(sources[1], KEY, per_step, step, step + 2)
    assert end == step + 2
    for now in (step, step + 1):
        assert same(*(draw_step(source, arrays, KEY, np.uint32(now), per_step, np.arange(per_step))
                      for source, arrays in zip(sources, (sources[0].arrays, arrays), strict=True)))


def test_a_window_fetches_just_the_rows_of_its_steps(window_of):
    window_of(3)
    examples = Made()
    source = streaming(examples)
    examples.asked.clear()
    list(windows(source, KEY, PER_STEP, 0, 10))
    assert [len(index) for index in examples.asked] == [3 * PER_STEP] * 4
    rows = np.concatenate(examples.asked)[:70]
    np.testing.assert_array_equal(np.sort(rows.reshape(7, SIZE), 1), np.tile(np.arange(SIZE), (7, 1)))


def test_the_next_window_is_fetched_while_one_is_used(window_of):
    window_of(1)
    fetched = threading.Semaphore(0)

    class Watched(Made):
        def __getitem__(self, index):
            fetched.release()
            return super().__getitem__(index)

    source = streaming(Watched())
    fetched.acquire()
    with_next = windows(source, KEY, PER_STEP, 0, 3)
    next(with_next)
    assert fetched.acquire(timeout=60)  # the first
    assert fetched.acquire(timeout=60)  # the second, though the first is still in use
    assert not fetched.acquire(timeout=0.1)  # no more than one ahead
    with_next.close()


def test_an_error_in_the_thread_reaches_the_caller(window_of):
    class Failing(Made):
        def __getitem__(self, index):
            if len(self.asked) == 3:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    window_of(1)
    threads = threading.active_count()
    feed = windows(streaming(Failing()), KEY, PER_STEP, 0, 10)
    assert next(feed)[1] == 1
    assert next(feed)[1] == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(feed)
    assert threading.active_count() == threads


def test_the_thread_ends_with_the_iterator(window_of):
    window_of(1)
    threads = threading.active_count()
    feed = windows(streaming(Made()), KEY, PER_STEP, 0, 10)
    next(feed)
    assert threading.active_count() == threads + 1
    feed.close()
    assert threading.active_count() == threads


@pytest.mark.parametrize("source", [resident(Made()), mixture("8gaussians")], ids=["images", "points"])
def test_what_is_resident_comes_once(source):
    (arrays, end), = windows(source, KEY, PER_STEP, 3, 1000)
    assert end == 1000
    assert same(arrays, source.arrays)


def test_arrays_are_put_where_they_are_wanted(window_of):
    window_of(2)
    device = jax.local_devices()[-1]
    for source in (streaming(Made(), labels=True), resident(Made())):
        feed = windows(source, KEY, PER_STEP, 0, 4, put=partial(jax.device_put, device=device))
        assert {x.device for arrays, _ in feed for x in jax.tree.leaves(arrays)} == {device}


def test_examples_of_other_types_are_refused():
    class Float(Made):
        def __getitem__(self, index):
            return self.images[index] / 255, self.labels[index]

    with pytest.raises(TypeError, match="must be uint8, as their scaling says; got float64"):
        streaming(Float())
    with pytest.raises(ValueError, match=r"needs the value_range \(-1, 1\); got \(0, 1\)"):
        streaming(Made(), value_range=(0, 1), dequantize=True)
