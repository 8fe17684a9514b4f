"""A process of its own for each column: its memory, its threads and its settings are its own."""

import importlib
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

# As in training, but several frameworks share a GPU here.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Failed(Exception):
    """What a child was asked to do didn't work out; the message says why."""


class Child:
    """An object in a child process; a context manager that ends the process.

    Args:
        target: its class, as "module:name".
        arguments: of its constructor.
        timeout: seconds that each call may take.
        environment: variables that it has besides this process's.

    Raises:
        Failed: the object can't be made.
    """

    def __init__(self, target: str, *arguments: Any, timeout: float = 1200.0,
                 environment: Mapping[str, str] = MappingProxyType({})):
        context = multiprocessing.get_context("spawn")
        self._timeout = timeout
        self._busy = True
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(pipe, target, arguments), daemon=True)
        with mock.patch.dict(os.environ, environment):
            self._process.start()
        self.pid = self._process.pid
        pipe.close()
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method and returns its result.

        Raises:
            Failed: it raised an error, took too long, or the process is gone.
        """
        return self.timed(method, *arguments)[1]

    def timed(self, method: str, *arguments: Any) -> tuple[float, Any]:
        """Calls a method and returns the seconds it took, in the child, and its result."""
        self._busy = True
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise Failed("the process is gone") from None
        return self._receive()

    def peak_memory(self) -> int:
        """The process's largest resident memory so far, in bytes."""
        return self.call("peak_memory")

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()  # an idle child then returns
        if not self._busy:
            self._process.join(3)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> tuple[float, Any]:
        try:
            if not self._pipe.poll(self._timeout):
                self.close()
                raise Failed(f"took more than {self._timeout:.0f} s")
            seconds, result, error = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            raise Failed(f"the process ended with status {self._process.exitcode}") from None
        self._busy = False
        if error is not None:
            raise Failed(error)
        return seconds, result


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets SIGINT and SIGTERM, however they were treated before, end what is inside, children too."""
    def stop(number: int, frame) -> None:
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def carried_out(work: Callable[[], None], out: Path) -> int:
    """Does a command's work, which writes a report; returns the exit status."""
    try:
        with stoppable():
            work()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print(f"wrote {out}", file=sys.stderr)
    return 0


def write(out: Path, lines: Iterable[str]) -> None:
    """Writes a report's lines, all of them or none."""
    partial = out.with_name(out.name + ".partial")
    partial.write_text("\n".join(lines) + "\n")
    os.replace(partial, out)


def write_part(out: Path, title: str, lines: Iterable[str]) -> None:
    """Writes the part of a report that has this title, and leaves the others as they are."""
    parts = re.split(r"(?m)^(?=# )", out.read_text() if out.exists() else "")
    part = "\n".join([f"# {title}", "", *lines]) + "\n"
    kept = [other for other in parts if other.strip()]
    for i, other in enumerate(kept):
        if other.splitlines()[0] == f"# {title}":
            kept[i] = part
            break
    else:
        kept.append(part)
    write(out, ["\n\n".join(each.strip("\n") for each in kept)])


def peak_memory() -> int:
    """This process's largest resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _serve(pipe: Connection, target: str, arguments: tuple) -> None:
    """Makes the object, then answers calls until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    module, name = target.split(":")
    made: list[Any] = []
    answer = _attempt(lambda: made.append(getattr(importlib.import_module(module), name)(*arguments)))
    pipe.send(answer)
    if not made:
        return
    while True:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        function = peak_memory if method == "peak_memory" else getattr(made[0], method)
        pipe.send(_attempt(function, *arguments))


def _attempt(function, *arguments) -> tuple[float, Any, str | None]:
    """Calls; returns seconds, result, and None or the error in one line."""
    started = time.perf_counter()
    try:
        result = function(*arguments)
    except Exception as error:
        if os.environ.get("BENCHMARKS_DEBUG"):
            raise
        if isinstance(error, ModuleNotFoundError):
            return 0.0, None, f"{error.name} is not installed"
        text = (str(error).strip() or repr(error)).splitlines()[0][:200]
        name = "" if type(error).__name__ == "Unavailable" else f"{type(error).__name__}: "
        return 0.0, None, name + text
    return time.perf_counter() - started, result, None
