"""What ends a command from outside: signals, and the loss of one of several processes.

When one of several processes dies, jax's runtime aborts the others from within, with a stack of C++
frames; so each runs below a parent that has the last word.
"""

import ctypes
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jaxgan import console
from jaxgan.training import endings

from .flags import Cluster

_SUPERVISED = "JAXGAN_SUPERVISED"  # the parent's number, and what is written to once all have joined
_PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies
_HEARTBEAT_SECONDS = 8  # silent for so long, a process counts as lost
_JOIN_SECONDS = 300  # for so long the first processes wait for the last one


class Terminated(BaseException):
    """SIGTERM or SIGHUP outside of the training loop, which has a handler of its own.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` where SIGTERM or SIGHUP comes, once: however often, it is one request."""
    asked = []

    def handle(number: int, frame) -> None:
        if not asked:
            asked.append(number)
            raise Terminated(number)

    before = {}
    try:
        for number in endings():
            before[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals go elsewhere
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(resume: str) -> str:
    """The command that this process was started by, to go on with; "" for what doesn't resume."""
    words = sys.orig_argv[1:]
    is_installed = words and Path(words[0]).name == "jaxgan"  # the command, by its whole path
    started = shlex.join(["jaxgan", *words[1:]] if is_installed else sys.orig_argv)
    started = re.sub(r" --resume(=| )\S+", "", started)
    return f"{started} --resume {resume}" if resume else started


def is_supervised() -> bool:
    """Whether this process runs below another one that supervises it."""
    return _SUPERVISED in os.environ


def supervise() -> int:
    """Runs this very command again below this process, and says how it ended: the exit status."""
    child, asked, (told, tells) = None, [], os.pipe()

    def forward(number: int, frame) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    for number in (signal.SIGINT, *endings()):
        signal.signal(number, forward)
    # In a group of its own: what a terminal sends to this one's would come to the child twice.
    child = subprocess.Popen(sys.orig_argv, env=os.environ | {_SUPERVISED: f"{os.getpid()} {tells}"},
                             process_group=0, pass_fds=(tells,))
    os.close(tells)
    for number in asked:  # meanwhile
        child.send_signal(number)
    status = child.wait()
    if status >= 0:
        return status
    lost = status == -signal.SIGABRT
    if lost and not os.read(told, 1):
        console.warn(f"error: the processes did not find each other within {_JOIN_SECONDS} s: start all "
                     "of them, each once, with the same --coordinator, which no other run may use")
        return 1
    what = ("another process was lost, and this one ended with it" if lost else
            f"this process was ended by {signal.Signals(-status).name}")
    console.warn(f"error: {what}: start all of them again with: {command('auto')}")
    return 1 if lost else 128 - status


def join(cluster: Cluster) -> None:
    """Joins the other processes.

    Raises:
        ValueError: they don't find each other, or the settings don't say how.
    """
    parent, tells = map(int, os.environ[_SUPERVISED].split())
    if sys.platform == "linux":  # who kills the parent means this process
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent != os.getppid():  # killed before
            os.kill(os.getpid(), signal.SIGKILL)
    known = {}
    if cluster.coordinator:
        if cluster.num_processes < 1 or not 0 <= cluster.process_id < cluster.num_processes:
            raise ValueError("coordinator needs num_processes and a process_id from 0 up to it; got "
                             f"{cluster.num_processes} and {cluster.process_id}")
        if cluster.process_id == 0:
            _check_free(cluster.coordinator)
        known = {"coordinator_address": cluster.coordinator, "num_processes": cluster.num_processes,
                 "process_id": cluster.process_id}
    # What waits for the others doesn't return to Python, where signals are handled.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, *endings())}
    try:
        jax.distributed.initialize(**known, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
                                   initialization_timeout=_JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the processes don't find each other ({str(error).splitlines()[0]}): give "
                         "--coordinator, --num-processes and --process-id") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    os.write(tells, b"!")
    os.close(tells)


def _check_free(coordinator: str) -> None:
    """Raises ValueError if another first process is there: jax would take its port beside it."""
    port = coordinator.rpartition(":")[2]
    try:
        socket.create_server(("", int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"coordinator {coordinator!r} can't be used by process 0 ({error}): another "
                         "one may be there; choose another port") from error
