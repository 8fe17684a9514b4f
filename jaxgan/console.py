"""What is printed: a message is one line, in which nothing moves the cursor or starts another line.

Names and texts come from folders and files that aren't trusted. And a terminal or a pipe may be gone
before the run is over: what is written then is lost, and nothing else.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tqdm import tqdm

_GONE = OSError, ValueError, AttributeError  # a stream without another end, one that is closed, none


class _Lasting:
    """A standard stream, as it is at the time, that never fails."""

    def __init__(self, name: str):
        self._name = name

    def write(self, text: str) -> int:
        try:
            with suppress(*_GONE):
                getattr(sys, self._name).write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode())
        return len(text)

    def flush(self) -> None:
        with suppress(*_GONE):
            getattr(sys, self._name).flush()

    def isatty(self) -> bool:
        with suppress(*_GONE):
            return getattr(sys, self._name).isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


OUT, ERRORS = _Lasting("stdout"), _Lasting("stderr")


def printable(text: str) -> str:
    """Returns a text with what can't be seen, from escapes to line ends, spelt as in Python."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                   for letter in text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines, with cells of one width in each column."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells]


def say(*lines: str, to: _Lasting = OUT) -> None:
    """Prints lines, each of which stays one, beside progress bars if there are some."""
    for line in lines:
        tqdm.write(printable(line), to)
    to.flush()


def warn(*lines: str) -> None:
    """Prints lines where errors go."""
    say(*lines, to=ERRORS)


def hold() -> None:
    """At the start of a program: opens standard streams that are closed, to nowhere.

    Else the next file that is opened has their number, and what a compiler logs is written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def release() -> None:
    """At the end of a program: what can't be written any more is not to be said by the interpreter."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except _GONE:
            with suppress(*_GONE):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
