"""What devices exchange, read from the text of a compiled program."""

import math
import re
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
          "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(?.*\{\s*$")
_ARRAY = re.compile(r"\b(" + "|".join(_BYTES) + r")\[([\d,]*)\]")
_ALL_REDUCE = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = (.*?) all-reduce(?:-start)?\(")
_CALLED = re.compile(r"\b(?:body|condition|to_apply|calls|true_computation|false_computation)="
                     r"%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SOURCE = re.compile(r'op_name="([^"]*)"')


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

    Args:
        program: HLO text, `jax.jit(f).lower(...).compile().as_text()`.

    Raises:
        ValueError: the text isn't a program's, or one is in a loop of unknown length.
    """
    computations: dict[str, list[str]] = {}
    entry = lines = None
    for line in program.splitlines():
        found = None if line.startswith((" ", "HloModule")) else _COMPUTATION.match(line)
        if found:
            lines = computations[found[2]] = []
            entry = found[2] if found[1] else entry
        elif lines is not None:
            lines.append(line)
    if entry is None:
        raise ValueError("this is not the text of an HLO module: it has no ENTRY")

    out: list[AllReduce] = []

    def visit(name: str, times: int | None) -> None:
        for line in computations[name]:
            found = _ALL_REDUCE.match(line)
            if found:
                if times is None:
                    raise ValueError("an all-reduce is in a loop whose length isn't known")
                arrays = _ARRAY.findall(found[1])
                source = _SOURCE.search(line)
                out.append(AllReduce(times, len(arrays), sum(map(_size, arrays)),
                                     source[1] if source else ""))
                continue  # what it applies is a sum
            trips = 1
            if " while(" in line:
                known = _TRIPS.search(line)
                trips = int(known[1]) if known else None
            called = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                called += re.findall(r"[\w.\-]+", branches)
            for other in called:
                if other in computations:
                    visit(other, None if times is None or trips is None else times * trips)

    visit(entry, 1)
    return out


def _size(array: tuple[str, str]) -> int:
    dtype, shape = array
    return _BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
