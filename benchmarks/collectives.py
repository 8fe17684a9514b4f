"""What devices exchange, read from the text of a compiled program."""

from typing import NamedTuple

from benchmarks.programs import operations


class AllReduce(NamedTuple):
    """An all-reduce of a program.

    Attributes:
        times: how often it runs when the program runs once.
        arrays: how many arrays it sums, fused into one operation.
        bytes: how many bytes those are on each device.
        source: where in the source it came from, as XLA names it.
    """

    times: int
    arrays: int
    bytes: int
    source: str


def all_reduces(program: str) -> list[AllReduce]:
    """The all-reduces of a compiled program, those in loops counted as often as the loop runs.

    Of a conditional's branches the one that exchanges most is counted.

    Args:
        program: HLO text, `jax.jit(f).lower(...).compile().as_text()`.

    Raises:
        ValueError: the text isn't a program's, or one is in a loop of unknown length.
    """
    out = []
    for operation in operations(program):
        if operation.opcode.removesuffix("-done") == "all-reduce":
            if operation.times is None:
                raise ValueError("an all-reduce is in a loop whose length isn't known")
            out.append(AllReduce(operation.times, operation.arrays, operation.bytes, operation.source))
    return out
