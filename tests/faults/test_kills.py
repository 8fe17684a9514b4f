"""Processes that are killed, stopped, crowded out: nothing is lost, and nothing shows in the end."""

import os
import signal
import subprocess
import time

import pytest

from tests.faults import processes
from tests.faults.soak import soak

ENDLESS = ("--steps", 10**9, "--decay-steps", 6000, "--resume", "auto")


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "resumed"), [(3, 1), (20, 5)])
def test_kills_leave_no_trace(kills, resumed, tmp_path):
    figures = soak(tmp_path, kills=kills, seed=1)
    assert figures["resumed"] >= resumed  # it did go on in between
    assert figures["most_lost"] > 0  # and was not always killed right after a save


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "number"), [
    ("step", signal.SIGTERM),
    *(pytest.param(phase, number, marks=pytest.mark.slow) for phase, number in (
        ("step", signal.SIGINT), ("step", signal.SIGHUP), ("compile", signal.SIGTERM),
        ("save", signal.SIGTERM), ("evaluation", signal.SIGTERM)))])
def test_a_signal_is_followed_by_a_checkpoint_and_a_line(phase, number, tmp_path):
    run = tmp_path / "run"
    evaluating = phase == "evaluation"
    name, every = ("gaussians", 1) if evaluating else ("digits", 0)
    process = processes.start(name, *processes.TINY, *ENDLESS, "--sample-every", 10**6, "--eval-every",
                              every, "--run-dir", run,
                              "--checkpoint-every", 20 if phase == "save" else 10**6)
    begun = {
        "compile": lambda: (run / "samples" / "real.png").exists(),
        "step": lambda: processes.last_row(run) > 0,
        "save": lambda: any((run / "checkpoints").glob("unfinished_*")),
        "evaluation": lambda: processes.last_row(run) > 0,
    }[phase]
    processes.wait_until(begun, process)
    for _ in range(1 if number == signal.SIGINT else 3):  # however often, it is one request
        process.send_signal(number)
        time.sleep(0.01)
    sent = time.monotonic()
    last, status = processes.finish(process)
    assert time.monotonic() - sent < 5 + (10 if phase == "compile" else 1)  # one dispatch
    assert status == 128 + number
    step = max(int(path.name) for path in (run / "checkpoints").iterdir())
    assert f"stopped at step {step}; go on with: " in last
    assert last.endswith("--resume latest")
    if evaluating and processes.last_row(run) < step:  # abandoned: the next start begins with it
        flags = [*processes.TINY, "--steps", step + 1, "--decay-steps", 6000, "--eval-every", 1,
                 "--resume", "latest"]
        last, status = processes.finish(processes.start(name, *flags, "--run-dir", run))
        assert status == 0, last
        rows = processes.rows(run)
        assert [row["step"] for row in rows] == list(range(1, step + 2))
        assert "modes" in rows[-2]


@pytest.mark.slow
def test_two_processes_do_not_share_a_run(tmp_path):
    flags = (*processes.TINY, *ENDLESS, "--run-dir", tmp_path / "run")
    first = processes.start("digits", *flags)
    processes.wait_until(lambda: processes.last_row(tmp_path / "run") > 0, first)
    last, status = processes.finish(processes.start("digits", *flags))
    assert (status, first.poll()) == (2, None)
    assert f"is being written to by process {first.pid} on " in last
    processes.kill(first)  # and its lock with it
    last, status = processes.finish(processes.start("digits", *flags, "--max-hours", 1e-9))
    assert status == 75
    assert "the time being over; go on with: " in last


@pytest.mark.slow
def test_a_full_disk_stops_with_one_line_and_the_run_can_go_on(tmp_path):
    """On a file system of 3 MB, if this process may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=False,
                             capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        flags = (*processes.TINY, "--run-dir", small / "run", "--checkpoint-every", 20, "--keep", 50,
                 "--resume", "auto")
        last, status = processes.finish(processes.start(
            "digits", *flags, "--steps", 10**9, "--decay-steps", 6000))
        assert status == 2
        assert last.startswith("error: ")
        assert "free" in last
        assert not list((small / "run" / "checkpoints").glob("unfinished_*"))
        reached = max(int(path.name) for path in (small / "run" / "checkpoints").iterdir())
        assert subprocess.run(["mount", "-o", "remount,size=50m", small], check=False).returncode == 0
        last, status = processes.finish(processes.start(
            "digits", *flags, "--steps", reached + 20))
        assert status == 0, last
    finally:
        subprocess.run(["umount", small], check=False)
    assert os.listdir(small) == []
