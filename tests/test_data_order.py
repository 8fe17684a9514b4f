"""The order of the examples: positions exact, every epoch a permutation, no order preferred."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxgan.data import class_weights, epoch_and_offset, order, shuffled_index, weighted_index

EPOCHS, MAX_SIZE = 2000, 100

jit_index = jax.jit(shuffled_index, static_argnums=3)


@partial(jax.jit, static_argnums=0)
def whole_epoch(size, epoch, seed=0):
    offsets = jnp.arange(size, dtype=jnp.uint32)
    epochs = jnp.full(size, epoch, jnp.uint32)
    return shuffled_index(jax.random.key(seed), epochs, offsets, size)


@jax.jit
def permute_many(size, left, right):  # compiled once for all sizes
    offsets = jnp.arange(MAX_SIZE, dtype=jnp.uint32) % size
    rounds = jax.random.bits(jax.random.key(0), (EPOCHS, order._ROUNDS, 1), jnp.uint32)
    return jax.vmap(order._permute, (0, None, None, None, None))(rounds, offsets, size, left, right)


@cache
def many_epochs(size):
    numbers = (jnp.uint32(number) for number in (size, *order._sides(size)))
    return np.asarray(permute_many(*numbers))[:, :size]


def test_every_small_epoch_is_a_permutation():
    for size in range(1, 71):
        orders = np.sort(many_epochs(size), 1)
        np.testing.assert_array_equal(orders, np.arange(size) + np.zeros((EPOCHS, 1), int))


@pytest.mark.parametrize("size", [1, 2, 257, 60000])
def test_every_epoch_is_a_permutation(size):
    for epoch in (0, 3):
        index = whole_epoch(size, epoch)
        assert index.dtype == jnp.int32
        np.testing.assert_array_equal(np.sort(index), np.arange(size))


@pytest.mark.parametrize("size", [2**31 - 1, 2**20])
def test_large_epochs_do_not_overflow(size):
    offsets = np.r_[np.arange(500), np.arange(size - 500, size)].astype(np.uint32)
    index = np.asarray(jit_index(jax.random.key(0), jnp.zeros(1000, jnp.uint32), offsets, size))
    assert index.min() >= 0
    assert index.max() < size
    assert len(np.unique(index)) == 1000
    assert stats.kstest(index / size, "uniform").pvalue > 1e-3


def test_epochs_and_keys_give_different_orders():
    orders = [whole_epoch(1000, 0), whole_epoch(1000, 1), whole_epoch(1000, 0, seed=1)]
    for i in range(3):
        for j in range(i):
            assert jnp.mean(orders[i] == orders[j]) < 0.02
            assert abs(np.corrcoef(orders[i], orders[j])[0, 1]) < 0.15


def test_a_batch_may_straddle_epochs():
    epochs, offsets = jnp.asarray([6, 6, 7, 7], jnp.uint32), jnp.asarray([8, 9, 0, 1], jnp.uint32)
    index = jit_index(jax.random.key(0), epochs, offsets, 10)
    expected = jnp.concatenate([whole_epoch(10, 6)[8:], whole_epoch(10, 7)[:2]])
    np.testing.assert_array_equal(index, expected)


def test_jitted_and_vmapped_are_the_same():
    epochs = offsets = jnp.arange(12, dtype=jnp.uint32)
    key = jax.random.key(3)
    plain = shuffled_index(key, epochs, offsets, 12)
    np.testing.assert_array_equal(plain, jit_index(key, epochs, offsets, 12))
    rows = jax.vmap(lambda e, o: jit_index(key, e, o, 12))(epochs[:, None], offsets[:, None])
    np.testing.assert_array_equal(plain, rows[:, 0])


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 10, 17, 36, 100])
def test_no_order_is_preferred(size):
    orders = many_epochs(size)
    assert stats.chisquare(np.bincount(orders[:, 0], minlength=size)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(orders[:, -1], minlength=size)).pvalue > 1e-3
    fixed = (orders == np.arange(size)).sum(1)  # mean 1, variance 1 in a random permutation
    assert abs(fixed.mean() - 1) < 5 / np.sqrt(EPOCHS)
    rising = (orders[:, 1:] > orders[:, :-1]).mean()
    assert abs(rising - 0.5) < 3 / np.sqrt(EPOCHS)


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7, 10, 20])
def test_no_pair_is_preferred(size):
    orders = many_epochs(size)
    pairs = np.bincount(orders[:, 0] * size + orders[:, 1], minlength=size**2)
    pairs = pairs.reshape(size, size)
    assert not np.diag(pairs).any()
    assert stats.chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue > 1e-3


def test_all_permutations_of_four_are_equally_likely():
    _, counts = np.unique(many_epochs(4) @ 4 ** np.arange(4), return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_order_is_kept():
    # Written down from this code: a run resumed by a later version must see the same examples.
    assert whole_epoch(10, 0).tolist() == [8, 7, 1, 2, 6, 0, 3, 9, 5, 4]


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 2**32 - 1), per_step=st.integers(1, 2**31 - 1),
       size=st.integers(1, 2**31 - 1), data=st.data())
def test_positions_are_exact(step, per_step, size, data):
    rows = data.draw(st.lists(st.integers(0, per_step - 1), min_size=3, max_size=3))
    epochs, offsets = epoch_and_offset(jnp.uint32(step), per_step, jnp.asarray(rows), size)
    positions = [step * per_step + row for row in rows]
    assert epochs.tolist() == [position // size % 2**32 for position in positions]
    assert offsets.tolist() == [position % size for position in positions]


@pytest.mark.parametrize("size", [1, 7, 320, 1000])
@pytest.mark.parametrize("step", [0, 6, 2**22 + 1])
def test_positions_in_small_sets_are_exact(step, size):
    rows = np.arange(320)
    epochs, offsets = jax.jit(epoch_and_offset, static_argnums=(1, 3))(step, 320, rows, size)
    np.testing.assert_array_equal(epochs, (step * 320 + rows) // size)
    np.testing.assert_array_equal(offsets, (step * 320 + rows) % size)


def test_numbers_out_of_range_are_refused():
    none = jnp.zeros(0, jnp.uint32)
    with pytest.raises(ValueError, match=r"size must be in \[1, 2\*\*31\); got 0"):
        shuffled_index(jax.random.key(0), none, none, 0)
    with pytest.raises(ValueError, match=r"size must be .* got 2147483648"):
        epoch_and_offset(0, 1, none, 2**31)
    with pytest.raises(ValueError, match=r"examples_per_step must be .* got -1"):
        epoch_and_offset(0, -1, none, 5)


def weighted_epochs(weights, epochs=20):
    """What is drawn in some epochs, [epochs, size]."""
    size, ends = len(weights), order.shares(weights)
    index = jax.jit(lambda epoch: weighted_index(
        jax.random.key(0), jnp.full(size, epoch, jnp.uint32), jnp.arange(size, dtype=jnp.uint32), size,
        ends))
    return np.stack([np.asarray(index(jnp.uint32(epoch))) for epoch in range(epochs)])


@pytest.mark.parametrize(("size", "epochs"), [(1, 20), (2, 20), (7, 20), (100, 20), (1000, 20),
                                              (2**20, 1)])  # of strata so small that their ends occur
def test_equal_weights_give_permutations(size, epochs):
    for drawn in weighted_epochs(np.full(size, 0.3), epochs):
        np.testing.assert_array_equal(np.sort(drawn), np.arange(size))


def test_each_epoch_has_its_share_of_each_example():
    weights = np.array([0, 1, 2, 0.25, 0, 40, 1e-9, 3, 0] * 11)
    drawn = weighted_epochs(weights)
    expected = weights / weights.sum() * len(weights)
    counts = np.stack([np.bincount(epoch, minlength=len(weights)) for epoch in drawn])
    assert (np.abs(counts - expected) < 2).all()
    assert not counts[:, weights == 0].any()
    # Over the epochs, up to chance: a stratum that a share ends in is won or lost by a fair draw.
    assert (np.abs(counts.mean(0) - expected) < 4 * np.sqrt(2 / 4 / len(drawn))).all()
    assert (drawn[0] != drawn[1]).any()


def test_classes_are_drawn_equally_often():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    drawn = labels[weighted_epochs(class_weights(labels))]
    for epoch in drawn:
        assert np.abs(np.bincount(epoch) - 1000 / 3).max() < 2
    assert len(np.unique(weighted_epochs(class_weights(labels), 3))) > 400  # not always the same


def test_a_weighted_draw_depends_on_its_position_alone():
    ends, size = order.shares(np.arange(1.0, 51)), 50
    epochs, offsets = np.divmod(np.arange(40, 90, dtype=np.uint32), size)
    together = weighted_index(jax.random.key(3), epochs, offsets, size, ends)
    parts = [weighted_index(jax.random.key(3), epochs[part], offsets[part], size, ends)
             for part in (slice(0, 20), slice(20, 50))]
    np.testing.assert_array_equal(together, np.concatenate(parts))


@pytest.mark.parametrize(("weights", "message"), [
    ([1, -1], r"got -1.0 for example 1"), ([np.nan, 1], "got nan for example 0"), ([0, 0], "all be 0"),
    ([1, np.inf], "and 1 such in all"), ([[1]], "one number for each"), ([], "one number for each")])
def test_other_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        order.shares(np.array(weights))
