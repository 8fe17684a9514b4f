"""What logs, pictures and checkpoints cost: `training.train` against bare `run_steps`, by turns."""

import contextlib
import dataclasses
import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.networks_jaxgan import configure
from experiments import launch, showing
from experiments.digits import experiment
from jaxgan import game, run_steps, training
from jaxgan.runs import Run
from jaxgan.training import example_batch, initial_state


class TimedRun(Run):
    """A run's folder that stops the clock half-way between two checkpoints, for something else.

    Args:
        folder: where.
        period: iterations from one such point to the next.
        interlude: what is done there; its time isn't the run's.
    """

    def __init__(self, folder: Path, period: int, interlude: Callable[[], None]):
        super().__init__(folder, {}, ())
        self.period, self.interlude = period, interlude
        self.started: float | None = None
        self.segments: list[float] = []
        self.finishing = 0.0

    def log(self, step: int, metrics: dict[str, float], digests: dict[str, str]) -> None:
        """Logs, and takes the time where one is due."""
        super().log(step, metrics, digests)
        if step % self.period == self.period // 2:
            if self.started is not None:
                self.segments.append(time.perf_counter() - self.started)
                self.interlude()
            self.started = time.perf_counter()

    def finish(self, *arguments: Any) -> None:
        """Finishes, and takes the time."""
        started = time.perf_counter()
        super().finish(*arguments)
        self.finishing = time.perf_counter() - started


class Reporting:
    """Trains `experiments.digits --model dcgan`, without evaluations.

    Args:
        changes: other settings, for a quick test.
    """

    def __init__(self, changes: dict):
        configure("float32")
        self.config = experiment.configure("dcgan", eval_every=0, **changes)
        self.source = experiment.make_source(self.config)
        self.gan = experiment.make_game(self.config, self.source.sample_shape)

    def measure(self, segments: int) -> dict:
        """Times equally long segments of a run and of bare iterations, by turns.

        A segment is as many iterations as there are from one checkpoint to the next: each holds one
        checkpoint, and the pictures and log points up to it.

        Returns:
            `train` and `bare`, the seconds of each segment; `finish`, the seconds at the run's end
            for its curves; `period`, iterations of a segment; `steps`, iterations of a whole run.
        """
        config, period = self.config, self.config.run.checkpoint_every
        bare, seconds = self._bare_loop(), []

        def interlude():
            started = time.perf_counter()
            bare(period)
            seconds.append(time.perf_counter() - started)

        plan = dataclasses.replace(launch.plan(config), steps=period * segments + period // 2,
                                   best_metric=None, devices=1)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            run = TimedRun(Path(folder) / "run", period, interlude)
            shown = {"value_range": self.source.value_range, "condition": None,
                     "sample_shape": self.source.sample_shape}
            training.train(
                self.gan, self.source, run, plan,
                real=showing.real_picture(self.source, config.schedule.seed, shown),
                picture=showing.sample_picture(self.gan, config.schedule.seed, shown, self.source))
        return {"train": run.segments, "bare": seconds, "finish": run.finishing, "period": period,
                "steps": config.schedule.steps}

    def _bare_loop(self) -> Callable[[int], None]:
        """Returns what runs a number of iterations, in dispatches of half a second as training does."""
        config = self.config.schedule
        key, arrays = jax.random.key(0), jax.device_put(self.source.arrays)
        state = initial_state(game(self.gan), 0, example_batch(self.source, config.batch_size))
        steps = jax.jit(partial(run_steps, game(self.gan), source=self.source,
                                batches_per_step=config.n_critic, batch_size=config.batch_size),
                        donate_argnums=0)

        def run(count: int) -> None:
            nonlocal state
            chunk = 1
            while count > 0:
                started = time.perf_counter()
                now = min(chunk, count)
                state, _ = jax.block_until_ready(steps(state, arrays, key, jnp.int32(now)))
                chunk = max(1, int(0.5 * now / (time.perf_counter() - started)))
                count -= now

        run(20)  # compiles
        return run
