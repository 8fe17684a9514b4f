"""The order in which a data set is gone through: a fresh permutation every epoch, or by weights.

Batches are a pure function of the seed and the step. Nothing is sorted and no permutation is held
in memory: where an example goes is computed for itself, by a small keyed cipher.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.keys import stream
from jaxgan.types import Array, Key

_ROUNDS = 16  # with 8, epochs of 5 or 6 examples are visibly uneven


def epoch_and_offset(step: int | Array, examples_per_step: int, rows: Array,
                     size: int) -> tuple[Array, Array]:
    """Returns where in the stream of epochs the rows of a step are, exactly.

    Row r of step s is at position s * examples_per_step + r of the stream; its epoch is that
    divided by the size, its offset the remainder. The product is never formed, so it may exceed
    32 bits: exact for steps below 2**32; epochs are counted modulo 2**32.

    Args:
        step: the number of the step, scalar integer, may be traced.
        examples_per_step: how many examples all devices together consume in a step, below 2**31.
        rows: which are meant, counted from the step's first, [batch] integers in [0, 2**32); from
            `examples_per_step` on they are later steps'.
        size: the number of examples in an epoch, below 2**31.

    Returns:
        The epochs and the offsets, both uint32 [batch].

    Raises:
        ValueError: a number is out of range.
    """
    _check(examples_per_step=examples_per_step, size=size)
    position = [divmod(examples_per_step << bit, size) for bit in range(32)]  # of step 2**bit
    chosen = jnp.asarray(step, jnp.uint32) >> np.arange(32, dtype=np.uint32) & 1
    epochs = chosen * np.array([epoch % 2**32 for epoch, _ in position], np.uint32)
    offsets = chosen * np.array([offset for _, offset in position], np.uint32)
    while len(offsets) > 1:
        epochs, offsets = _carry(epochs[::2] + epochs[1::2], offsets[::2] + offsets[1::2], size)
    rows = jnp.asarray(rows, jnp.uint32)
    return _carry(epochs[0] + rows // size, offsets[0] + rows % size, size)


def _carry(epochs: Array, offsets: Array, size: int) -> tuple[Array, Array]:
    """Returns the same positions with offsets below the size, given offsets below twice that."""
    over = offsets >= size
    return epochs + over, jnp.where(over, offsets - size, offsets)


def shuffled_index(key: Key, epochs: Array, offsets: Array, size: int) -> Array:
    """Returns which example comes at each offset of each epoch; a permutation in every epoch.

    A Feistel cipher on pairs (left, right) with left * right >= size, whose numbers outside
    [0, size) are enciphered again until they fall inside, after Black and Rogaway, "Ciphers with
    Arbitrary Finite Domains" (2002), section "Generalized-Feistel Cipher". Its round keys are
    random bits of the key and the epoch; its round function is a mixer of 32-bit integers.

    Args:
        key: one typed key, shape ().
        epochs: the number of the epoch, uint32 [batch].
        offsets: the place in the epoch, uint32 [batch], in [0, size).
        size: the number of examples in an epoch, in [1, 2**31).

    Returns:
        int32 [batch], in [0, size).

    Raises:
        ValueError: the size is out of range.
    """
    _check(size=size)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, epochs)
    rounds = jax.vmap(lambda key: jax.random.bits(key, (_ROUNDS,), jnp.uint32), out_axes=1)(keys)
    return _permute(rounds, jnp.asarray(offsets, jnp.uint32), size, *_sides(size))


def position_keys(key: Key, epochs: Array, offsets: Array) -> Key:
    """Returns one key per example, [batch], folded from its position in the stream."""
    return jax.vmap(lambda *position: jax.random.fold_in(jax.random.fold_in(key, position[0]),
                                                         position[1]))(epochs, offsets)


def shares(weights: np.ndarray) -> np.ndarray:
    """Returns what `weighted_index` draws by: where each example's share of 2**32 ends, but the last's.

    Args:
        weights: one number from 0 on for each example, [size]; only their proportions count.

    Returns:
        uint32 [size - 1].

    Raises:
        ValueError: they aren't [size], one is negative, NaN or infinite, or all are 0.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not len(weights):
        raise ValueError(f"weights must be one number for each example; got the shape {weights.shape}")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise ValueError(f"weights must be finite and not negative; got {weights[wrong][0]} for example "
                         f"{int(wrong.argmax())}, and {int(wrong.sum())} such in all")
    if not weights.any():
        raise ValueError("weights must not all be 0: there would be nothing to draw")
    ends = np.cumsum(weights / weights.max())
    # No example of weight 0 at the end may get what rounding leaves over.
    return np.minimum(np.rint(ends[:-1] / ends[-1] * 2**32), 2**32 - 1).astype(np.uint32)


def weighted_index(key: Key, epochs: Array, offsets: Array, size: int,
                   ends: Array | np.ndarray) -> Array:
    """Returns which example comes at each offset of each epoch if some are to come more often.

    The numbers below 2**32 are cut into as many even strata as there are examples; at an offset, a
    number is drawn from the stratum that a fresh permutation puts there, and the example is the one in
    whose share it lies. So an example of share p comes p * size times in an epoch, rounded up or down
    or, where its share begins and ends within strata, one more or less.

    Args:
        key: one typed key, shape ().
        epochs: the number of the epoch, uint32 [batch].
        offsets: the place in the epoch, uint32 [batch], in [0, size).
        size: the number of examples in an epoch, in [1, 2**31).
        ends: `shares` of the examples' weights.

    Returns:
        int32 [batch], in [0, size).
    """
    stratum = shuffled_index(stream(key, "strata"), epochs, offsets, size).astype(jnp.uint32)
    width, wider = divmod(2**32, size) if size > 1 else (2**32 - 1, 0)  # so many are one wider
    random = jax.vmap(lambda key: jax.random.bits(key, (), jnp.uint32))(
        position_keys(key, epochs, offsets))
    start = stratum * jnp.uint32(width) + jnp.minimum(stratum, jnp.uint32(wider))
    number = start + random % (jnp.uint32(width) + (stratum < wider))
    return jnp.searchsorted(jnp.asarray(ends), number, side="right").astype(jnp.int32)


def _sides(size: int) -> tuple[int, int]:
    """Returns the smallest near-square that holds the size: few numbers need a second turn."""
    left = math.isqrt(size - 1) + 1
    return left, -(-size // left)


def _permute(rounds: Array, offsets: Array, size: int, left: int, right: int) -> Array:
    """Returns the offsets [batch], enciphered by the round keys [_ROUNDS, batch]."""
    def encipher(state: tuple[Array, Array]) -> tuple[Array, Array]:
        index, outside = state
        first, second = index // right, index % right
        for i in range(0, _ROUNDS, 2):
            first = (first + _mix(second + rounds[i]) % left) % left
            second = (second + _mix(first + rounds[i + 1]) % right) % right
        index = jnp.where(outside, first * right + second, index)
        return index, index >= size

    start = offsets, jnp.ones_like(offsets, bool)  # all are to be enciphered at least once
    index, _ = jax.lax.while_loop(lambda state: jnp.any(state[1]), encipher, start)
    return index.astype(jnp.int32)


def _mix(x: Array) -> Array:
    """Returns uint32 numbers scrambled one by one (the finaliser of MurmurHash3)."""
    x = (x ^ x >> 16) * jnp.uint32(0x85EBCA6B)
    x = (x ^ x >> 13) * jnp.uint32(0xC2B2AE35)
    return x ^ x >> 16


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if not 1 <= number < 2**31:
            raise ValueError(f"{name} must be in [1, 2**31); got {number}")
