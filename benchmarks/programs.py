"""What a compiled program does, read from its text: operations, how often each runs, what it costs.

XLA writes a program as computations, each a list of instructions in the order in which they run;
loops, branches and calls name the computations that they run. A TPU's compiler adds to an instruction
the cycles that it expects it to take.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

LONGEST = 100_000  # trips of a loop whose length has to be found by counting
BRANCHES = ("cheapest", "dearest")

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(?.*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply)=%?([\w.\-]+)")
_LOOP = re.compile(r"\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|true_computation=%?([\w.\-]+), "
                       r"false_computation=%?([\w.\-]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_INDEX = re.compile(r"\bindex=(\d+)")
_DIRECTION = re.compile(r"\bdirection=(\w+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_HOST = re.compile("callback|host", re.IGNORECASE)
_ON_HOST = re.compile(r"\bS\(5\)")  # the memory space of the host
_ELSEWHERE = re.compile(r"\bS\([1-9]\d*\)")  # not in the device's large memory

_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute",
                "collective-broadcast", "ragged-all-to-all")
_PRODUCTS = {"convolution", "dot"}
_MOVES = {"copy", "transpose", "reshape", "reverse", "slice", "dynamic-slice", "dynamic-update-slice",
          "concatenate", "pad"}
_STILL = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "broadcast", "fusion"}
_NOTHING = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "conditional",
            "call", "after-all", "partition-id", "replica-id"}
_SAME = {"copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "opt-barrier"}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "minimum": min,
    "maximum": max}
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge, "EQ": operator.eq,
    "NE": operator.ne}


class Operation(NamedTuple):
    """Something that a device does when the program runs once.

    Attributes:
        name: what the program calls it.
        opcode: what it does; "fusion" for several things in one.
        kind: "product" (a convolution or matrix product, whatever is fused with it), "convert" (other
            number formats and nothing more), "move" (copies, layouts, slices: nothing is computed),
            "collective", "host" (an exchange with the host) or "other".
        times: how often it runs; None in a loop of unknown length.
        cycles: what it takes each time by the compiler's estimate; 0 where there is none.
        arrays: how many arrays it makes.
        bytes: of what it makes.
        memory: bytes that it reads from the device's large memory and writes there; but of slices all
            that it is given counts, though it may read a part.
        in_loop: whether it is in a loop.
        overlapped: whether something else runs meanwhile, of collectives.
        source: where in the source it came from, as XLA names it.
    """

    name: str
    opcode: str
    kind: str
    times: int | None
    cycles: int
    arrays: int
    bytes: int
    memory: int
    in_loop: bool
    overlapped: bool
    source: str


class _Instruction(NamedTuple):
    """A line of a computation: its result's type, its operands' names, and the rest of the line."""

    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    literal: str
    rest: str


def operations(program: str, branch: str = "dearest", unknown: int | None = None) -> list[Operation]:
    """What a program does, in the order of its text, what is in loops and branches included.

    Args:
        program: HLO text, `jax.jit(f).lower(...).compile().as_text()`.
        branch: of each conditional only one branch counts: the "cheapest" or the "dearest" by cycles,
            or where they are equal in these by the bytes of its collectives.
        unknown: how often a loop counts whose length isn't known, as it depends on the data; None for
            operations without a number of times.

    Raises:
        ValueError: the text isn't a program's.
    """
    return _Walk(program, BRANCHES.index(branch), unknown).run()


def total(done: Iterable[Operation], value: Callable[[Operation], float]) -> float:
    """The sum of a value over all runs of all operations.

    Raises:
        ValueError: an operation with such a value is in a loop of unknown length.
    """
    result = 0
    for operation in done:
        amount = value(operation)
        if amount and operation.times is None:
            raise ValueError(f"{operation.name} is in a loop whose length isn't known")
        result += amount * (operation.times or 0)
    return result


class _Walk:
    """Goes through a program as a device does, with the numbers that loops count by."""

    def __init__(self, program: str, dearest: int, unknown: int | None):
        self.computations, entry = _parse(program)
        if entry is None:
            raise ValueError("this is not the text of an HLO module: it has no ENTRY")
        self.entry, self.dearest, self.unknown = entry, dearest, unknown
        self._kinds: dict[str, set[str]] = {}

    def run(self) -> list[Operation]:
        return self._visit(self.entry, (), 1, False, False)

    def _visit(self, name: str, arguments: tuple, times: int | None, in_loop: bool,
               overlapped: bool) -> list[Operation]:
        out: list[Operation] = []
        frame = _Frame(self.computations, name, arguments)
        for line in self.computations[name].values():
            if line.opcode not in _NOTHING:
                out.append(self._operation(name, line, times, in_loop, overlapped))
            if line.opcode == "while":
                loop = _LOOP.search(line.rest)
                if loop is None:
                    raise ValueError(f"{line.name} is a loop whose body isn't given")
                condition, body = loop.groups()
                start = frame.value(line.operands[0])
                trips = self._trips(line, condition, body, start)
                kept = (self._kept(body, start),)
                many = None if trips is None or times is None else times * trips
                tests = None if many is None or times is None else many + times
                out += self._visit(condition, kept, tests, True, overlapped)
                out += self._visit(body, kept, many, True, overlapped)
            elif line.opcode == "conditional":
                found = _BRANCHES.search(line.rest)
                names = re.findall(r"[\w.\-]+", " ".join(filter(None, found.groups()))) if found else []
                ways = [self._visit(way, (), times, in_loop, overlapped) for way in names]
                if ways:
                    out += (max if self.dearest else min)(ways, key=_cost)
            elif line.opcode in ("call", "async-start", "fusion"):
                later = overlapped or line.opcode == "async-start"
                for other in _CALLED.findall(line.rest):
                    inner = self._visit(other, tuple(map(frame.value, line.operands)), times, in_loop,
                                        later)
                    # What is fused has no time of its own, but a collective's bytes.
                    out += inner if line.opcode != "fusion" else [
                        operation._replace(cycles=0, memory=0) for operation in inner
                        if operation.kind == "collective"]
        return out

    def _operation(self, name: str, line: _Instruction, times: int | None, in_loop: bool,
                   overlapped: bool) -> Operation:
        made = _ARRAY.findall(line.type)
        cycles, source = _CYCLES.search(line.rest), _SOURCE.search(line.rest)
        return Operation(line.name, line.opcode, self._kind(line), times,
                         int(cycles[1]) if cycles else 0, len(made), sum(map(_size, made)),
                         self._memory(self.computations[name], line), in_loop,
                         overlapped or line.opcode.endswith("-done"), source[1] if source else "")

    def _memory(self, lines: Mapping[str, _Instruction], line: _Instruction) -> int:
        """Bytes to and from the large memory; of what is asynchronous, at its end."""
        given, of_part = line.operands, line.opcode in ("slice", "dynamic-slice")
        if line.opcode.endswith("-start") or line.opcode == "async-done":  # whose inside counts
            return 0
        if line.opcode.endswith("-done") and line.operands and line.operands[0] in lines:
            given, of_part = lines[line.operands[0]].operands, True
        made = _ARRAY.findall(line.type)
        read = _ARRAY.findall(" ".join(lines[name].type for name in given if name in lines))
        most = sum(map(_size, made)) if of_part else math.inf
        return (sum(min(_size(array), most) for array in read if not _ELSEWHERE.search(array[2]))
                + sum(_size(array) for array in made if not _ELSEWHERE.search(array[2])))

    def _kind(self, line: _Instruction) -> str:
        target = _TARGET.search(line.rest)
        if not line.opcode.endswith("-done") and (
                line.opcode in ("infeed", "outfeed") or "is_host_transfer=true" in line.rest
                or _ON_HOST.search(line.type) or (target and _HOST.search(target[1]))):
            return "host"
        if line.opcode in _COLLECTIVES or line.opcode.removesuffix("-done") in _COLLECTIVES:
            return "collective"
        done = {line.opcode}
        if line.opcode == "fusion":
            for other in _CALLED.findall(line.rest):
                done |= self._opcodes(other)
        if done & _PRODUCTS:
            return "product"
        if done & (_MOVES | {"convert"}) and done <= _MOVES | _STILL | {"convert"}:
            return "convert" if "convert" in done else "move"
        return "other"

    def _opcodes(self, name: str) -> set[str]:
        """The opcodes of a fused computation and of those inside."""
        if name not in self._kinds:
            self._kinds[name] = found = set()
            for line in self.computations.get(name, {}).values():
                found.add(line.opcode)
                if line.opcode == "fusion":
                    found |= set().union(*map(self._opcodes, _CALLED.findall(line.rest)))
        return self._kinds[name]

    def _trips(self, line: _Instruction, condition: str, body: str, start: Any) -> int | None:
        """How often a loop runs: as the compiler says, or found by counting as it does, or as told."""
        known = _TRIPS.search(line.rest)
        if known:
            return int(known[1])
        state = start
        for trips in range(LONGEST):
            goes_on = _Frame(self.computations, condition, (state,)).root()
            if goes_on is None or not isinstance(state, tuple):
                return self.unknown
            if not goes_on:
                return trips
            state = _Frame(self.computations, body, (state,)).root()
        return self.unknown

    def _kept(self, body: str, start: Any) -> Any:
        """What a loop starts with, without the numbers that it changes."""
        if not isinstance(start, tuple):
            return None
        marks = tuple(object() for _ in start)
        end = _Frame(self.computations, body, (marks,)).root()
        if not isinstance(end, tuple):
            return None
        return tuple(value if mark is after else None
                     for value, mark, after in zip(start, marks, end, strict=True))


class _Frame:
    """A computation with what it is given: finds the whole numbers in it, None for anything else."""

    def __init__(self, computations: Mapping[str, dict[str, _Instruction]], name: str,
                 arguments: tuple):
        self.computations, self.lines = computations, computations.get(name, {})
        self.arguments = arguments
        self.found: dict[str, Any] = {}

    def root(self) -> Any:
        """What the computation gives."""
        return self.value(next(reversed(self.lines), ""))

    def value(self, name: str) -> Any:
        """The number that an instruction gives, or a tuple of such."""
        if name not in self.found:
            self.found[name] = self._find(self.lines[name]) if name in self.lines else None
        return self.found[name]

    def _find(self, line: _Instruction) -> Any:
        if line.opcode == "tuple":
            return tuple(map(self.value, line.operands))
        if line.opcode == "parameter":
            number = int(line.literal)
            return self.arguments[number] if number < len(self.arguments) else None
        if line.opcode == "get-tuple-element":
            whole, index = self.value(line.operands[0]), _INDEX.search(line.rest)
            return whole[int(index[1])] if isinstance(whole, tuple) and index else None
        if line.opcode == "opt-barrier":
            return self.value(line.operands[0])
        if not re.match(r"\(?(s\d+|pred)\[\]", line.type):  # loops are counted in signed numbers
            return None
        if line.opcode == "constant":
            return {"true": 1, "false": 0}.get(line.literal) if line.type.startswith("pred") else int(
                line.literal)
        if line.opcode in _SAME:
            return self.value(line.operands[0])
        if line.opcode in ("fusion", "call"):
            called = _CALLED.search(line.rest)
            given = tuple(map(self.value, line.operands))
            return _Frame(self.computations, called[1], given).root() if called else None
        direction = _DIRECTION.search(line.rest)
        compute = _COMPARED.get(direction[1]) if direction else _ARITHMETIC.get(line.opcode)
        values = [self.value(operand) for operand in line.operands] if compute else []
        if not compute or not all(isinstance(value, int) for value in values):
            return None
        return int(compute(*values))


def _parse(program: str) -> tuple[dict[str, dict[str, _Instruction]], str | None]:
    """The computations by name, their instructions by name with the root last, and the entry's name."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry = lines = root = None
    for text in program.splitlines():
        header = None if text.startswith((" ", "HloModule")) else _HEADER.match(text)
        if header:
            lines, root = {}, None
            computations[header[2]] = lines
            entry = header[2] if header[1] else entry
        elif lines is not None and (start := _INSTRUCTION.match(text)):
            line = _instruction(start[2], text[start.end():])
            if line is not None:
                lines[line.name] = line
                root = line if start[1] else root
        elif lines is not None and text.startswith("}") and root is not None:
            lines[root.name] = lines.pop(root.name)
    return computations, entry


def _instruction(name: str, text: str) -> _Instruction | None:
    """Splits `type opcode(operands), rest`."""
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    opcode = _OPCODE.match(text, end)
    if opcode is None:
        return None
    close = _closing(text, opcode.end() - 1)
    inside = text[opcode.end():close - 1]
    return _Instruction(name, opcode[1], text[:end], tuple(_NAME.findall(inside)), inside, text[close:])


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` has closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    return len(text)


def _cost(done: list[Operation]) -> tuple[float, float]:
    return tuple(sum(value * (math.inf if operation.times is None else operation.times)
                     for operation in done if (value := of(operation)))
                 for of in (lambda x: x.cycles, lambda x: x.bytes if x.kind == "collective" else 0))


def _size(array: tuple[str, str, str]) -> int:
    """The bytes of an array, by its type and shape."""
    bits = 8 if array[0] == "pred" else int((re.search(r"\d+", array[0]) or ["0"])[0])
    return -(-bits * math.prod(int(n) for n in array[1].split(",") if n) // 8)
