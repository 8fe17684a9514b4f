"""Experiments as processes of their own, to be injured from outside."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--width", "8", "--batch-size", "8", "--n-critic", "2", "--log-every", "10",
        "--eval-every", "0")
_CACHE = tempfile.TemporaryDirectory()  # of compiled programs, so that a restart takes seconds


def environment(devices=1):
    """As a user has it, but with as many devices as are asked for, compiled in little time."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    return os.environ | {
        "XLA_FLAGS": " ".join((*flags, f"--xla_force_host_platform_device_count={devices}")),
        "XDG_CACHE_HOME": _CACHE.name, "NPROC": "16", "JAX_PLATFORMS": "cpu"}


def start(name, *flags, devices=1):
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *map(str, flags)], cwd=ROOT, text=True,
        env=environment(devices), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process, timeout=120):
    """Its last line and its status."""
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert "Traceback" not in errors, errors
    return (errors.splitlines() or [""])[-1], process.returncode


def wait_until(condition, process, seconds=120):
    """Waits for something, which must come before the process ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process):
    """Ends it as a crash of the machine's would: at once, with nothing it could do about it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def rows(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_row(folder):
    """The last step whose line is complete, 0 if none is."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def result(folder):
    return json.loads((folder / "result.json").read_text())


def events(folder):
    """The scalars of TensorBoard's one file, (name, step) -> value."""
    from tensorboardX.proto import event_pb2

    path, = folder.glob("events.out.tfevents.*")
    seen, data = {}, path.read_bytes()
    while data:
        # The record format: length (8 bytes), its checksum (4), the event, its checksum (4).
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12:12 + length])
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                assert (value.tag, event.step) not in seen, "doubled"
                seen[value.tag, event.step] = value.simple_value
        data = data[16 + length:]
    return seen
