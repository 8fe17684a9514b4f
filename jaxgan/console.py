"""What is printed: a message is one line, in which nothing moves the cursor or starts another line.

Names and texts come from folders and files that aren't trusted. And a terminal or a pipe may be gone
before the run is over: what is written then is lost, and nothing else.
"""

import sys
from typing import Any

from tqdm import tqdm


class _Lasting:
    """A standard stream, as it is at the time, that never fails."""

    def __init__(self, name: str):
        self._name = name

    def write(self, text: str) -> int:
        stream = getattr(sys, self._name)
        try:
            stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError, AttributeError):  # gone, closed, none to begin with
            pass
        return len(text)

    def flush(self) -> None:
        try:
            getattr(sys, self._name).flush()
        except (OSError, ValueError, AttributeError):
            pass

    def isatty(self) -> bool:
        try:
            return getattr(sys, self._name).isatty()
        except (OSError, ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


OUT, ERRORS = _Lasting("stdout"), _Lasting("stderr")


def printable(text: str) -> str:
    """Returns a text with what can't be seen, from escapes to line ends, spelt as in Python."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                   for letter in text)


def say(*lines: str, to: _Lasting = OUT) -> None:
    """Prints lines, each of which stays one, beside progress bars if there are some."""
    for line in lines:
        tqdm.write(printable(line), to)
    to.flush()


def warn(*lines: str) -> None:
    """Prints lines where errors go."""
    say(*lines, to=ERRORS)
