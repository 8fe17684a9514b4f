"""Kills a training run again and again, and checks that nothing ever shows in the end.

    python -m tests.faults.soak --kills 100
"""

import argparse
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from jaxgan.checkpoints import Checkpoints
from tests.faults import processes

INTERVAL = 20  # iterations between two checkpoints: most kills fall into a save
FLAGS = (*processes.TINY, "--checkpoint-every", INTERVAL, "--sample-every", 50, "--resume", "auto")


def soak(folder: Path, kills: int, seed: int, report=lambda text: None) -> dict[str, float]:
    """Returns figures about so many kills, all of which were survived."""
    chance = random.Random(seed)
    run, lost, resumed_at = folder / "killed", [], []
    flags = (*FLAGS, "--steps", 10**9, "--decay-steps", 6000, "--run-dir", run)
    for killed in range(1, kills + 1):
        base, opened = max(Checkpoints(run / "checkpoints").steps(), default=0), _events(run)
        process = processes.start("digits", *flags)
        if chance.random() < 0.25:  # while it starts, restores, compiles
            time.sleep(chance.uniform(0.0, 4.0))
        else:  # once it goes on; what was logged beyond the checkpoint is cut back by then
            processes.wait_until(partial(_went_on, run, opened, base), process)
            time.sleep(chance.uniform(0.0, 0.6))
        processes.kill(process)
        reached = processes.last_row(run)
        newest = max(Checkpoints(run / "checkpoints").steps(), default=0)
        lost.append(reached - newest)
        resumed_at.append(newest)
        # The save of the last interval may have been under way: then the one before it counts.
        due = reached // INTERVAL * INTERVAL
        assert newest >= due - INTERVAL, f"at {reached} only {newest} was saved"
        report(f"kill {killed}: at step {reached}, the newest checkpoint is of {newest}")
    steps = resumed_at[-1] + 2 * INTERVAL
    whole = folder / "whole"
    for one in (run, whole):
        last, status = processes.finish(processes.start(
            "digits", *FLAGS, "--steps", steps, "--run-dir", one))
        assert status == 0, last
    for name in ("params_sha256", "leaves_sha256", "final", "steps"):
        assert processes.result(run)[name] == processes.result(whole)[name], name
    for name in ("metrics.jsonl", "digests.jsonl"):
        assert (run / name).read_text() == (whole / name).read_text(), name
    assert processes.events(run) == processes.events(whole) == {
        (name, row["step"]): np.float32(value) for row in processes.rows(run)
        for name, value in row.items() if name != "step"}
    assert not list((run / "checkpoints").glob("unfinished_*"))
    assert not list((run / "checkpoints").glob("damaged_*"))
    return {"kills": kills, "steps": steps, "most_lost": max(lost), "resumed": len(set(resumed_at))}


def _went_on(run: Path, opened: set[str], base: int) -> bool:
    return bool(_events(run) - opened) and processes.last_row(run) > base


def _events(run: Path) -> set[str]:
    return {path.name for path in run.glob("events.out.tfevents.*")}


def main() -> None:
    """Soaks and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        figures = soak(Path(folder), options.kills, options.seed,
                       lambda text: print(text, file=sys.stderr, flush=True))
    print(f"{figures['kills']} kills over {figures['steps']} steps in {time.monotonic() - start:.0f} s: "
          f"every restart resumed, at {figures['resumed']} different steps; at most "
          f"{figures['most_lost']} steps lost, with a checkpoint every {INTERVAL}; final digests, logs "
          "and TensorBoard's numbers equal those of the run that was never killed")


if __name__ == "__main__":
    main()
