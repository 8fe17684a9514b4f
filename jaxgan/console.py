"""What is printed: a message is one line, in which nothing moves the cursor or starts another line.

Names and texts come from folders and files that aren't trusted. And a terminal or a pipe may be gone
before the run is over: what is written then is lost, and nothing else.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import jax

from jaxgan.extras import MissingExtra

try:
    from tqdm import tqdm
    from tqdm.utils import disp_len
except ModuleNotFoundError:
    raise MissingExtra("tqdm") from None

_GONE = OSError, ValueError, AttributeError  # a stream without another end, one that is closed, none
_TQDM_BAR, _LEAST_BAR = 10, 4  # columns of a bar: tqdm's where no width is given, and at least
# Of bars for what is not the training itself. What is quick needs none, and all else has a pace by then.
ASIDE = {"leave": False, "delay": 0.5}
_FULL = "{l_bar}{bar}{r_bar}"
_SHORT = "{l_bar}{bar}| {remaining} left, {rate_fmt}{postfix}"  # without the counts and the time so far


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


_SPEAKER = ContextVar("speaker", default="")  # what lines begin with
OUT, ERRORS = _Lasting("stdout"), _Lasting("stderr")


def printable(text: str) -> str:
    """Returns a text with what can't be seen, from escapes to line ends, spelt as in Python."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                   for letter in text)


def counted(count: int, what: str, plural: str = "s") -> str:
    """How many there are of something, "1 class" or "2 classes"."""
    return f"{count} {what}{'' if count == 1 else plural}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines, with cells of one width in each column."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells]


class Bar(tqdm):
    """A progress bar, by default of the first process and where there is a terminal to show it.

    What doesn't fit beside the bar, the pace and the time that is left goes by whole words: of what is
    said of the progress, which is parted by commas, the last first; the first of it goes at last. Of
    several runs that go on together one `leads`, and shows its own.
    """

    def __init__(self, total: int | None = None, *, leads: bool = True, **options: Any):
        defaults = {"file": ERRORS, "dynamic_ncols": "ncols" not in options,
                    "disable": True if jax.process_index() or not leads else None}
        super().__init__(total=total, **defaults | options)

    @staticmethod
    def format_meter(n: float, total: Any, elapsed: float, ncols: int | None = None,
                     postfix: str | None = None, **options: Any) -> str:
        """Returns the bar as a line; see tqdm."""
        said = (postfix or "").split(", ")
        forms = [*((_FULL, said[:count]) for count in range(len(said), 0, -1)),
                 (_SHORT, said[:1]), (_SHORT, [])]
        line, spare = "", _TQDM_BAR - _LEAST_BAR if total else 0
        for bar_format, words in forms:
            options.update(bar_format=bar_format if total else None, postfix=", ".join(words))
            line = tqdm.format_meter(n, total, elapsed, **options)
            if not ncols or disp_len(line) - spare <= ncols:
                break
        return tqdm.format_meter(n, total, elapsed, ncols, **options) if ncols else line


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Begins what is printed inside with a name, if it isn't empty."""
    token = _SPEAKER.set(f"{name}: " if name else "")
    try:
        yield
    finally:
        _SPEAKER.reset(token)


def say(*lines: str, to: _Lasting = OUT) -> None:
    """Prints lines, each of which stays one, beside progress bars if there are some."""
    for line in lines:
        tqdm.write(printable(_SPEAKER.get() + line), to)
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
