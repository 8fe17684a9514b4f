"""The training loop: many iterations a dispatch, and between them logs, pictures and checkpoints."""

import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxgan import keys
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import Source, windows
from jaxgan.gan import GAN, GANState, init_state
from jaxgan.parallel import data_parallel
from jaxgan.runs import Run, params_digest, read_result
from jaxgan.steps import draw_batches, train_steps
from jaxgan.types import Batch, PyTree

_SECONDS_A_DISPATCH = 0.5  # how long the progress bar and Ctrl-C wait


class NotFiniteError(ValueError):
    """Training has diverged: a metric or a parameter is NaN or infinite."""


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint.

    Attributes:
        step: the step that the checkpoint is of.
        signal: the signal's number.
    """

    def __init__(self, step: int, number: int):
        super().__init__(f"stopped at step {step}")
        self.step = step
        self.signal = number


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train and how often to report.

    Attributes:
        steps: iterations in all; one is n_critic critic updates and one generator update.
        batch_size: samples in a critic update, over all devices.
        n_critic: critic updates in an iteration.
        seed: of everything random.
        log_every: iterations between two log points.
        sample_every: iterations between two pictures; 0 for one at the end only.
        checkpoint_every: iterations between two checkpoints; 0 for one at the end only.
        keep: how many of the latest checkpoints to keep.
        best_metric: None, or the metric whose lowest value marks the checkpoint to keep as well.
        devices: how many devices to use; 0 for all local ones.
        fakes_at_once: as for `train_step`.
    """

    steps: int
    batch_size: int
    n_critic: int
    seed: int = 0
    log_every: int = 100
    sample_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 3
    best_metric: str | None = None
    devices: int = 0
    fakes_at_once: bool = False

    def __post_init__(self):
        for name in ("steps", "batch_size", "n_critic", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("sample_every", "checkpoint_every", "devices", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        available = jax.local_device_count()
        if self.devices > available:
            raise ValueError(f"devices is {self.devices}, but there are only {available}")
        if self.batch_size % (self.devices or available):
            raise ValueError(f"batch_size {self.batch_size} does not divide over "
                             f"{self.devices or available} devices: choose a multiple, or --devices 1")

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which there is something to do."""
        periods = (self.log_every, self.sample_every, self.checkpoint_every)
        return min([self.steps, *(step - step % period + period for period in periods if period)])

    def is_due(self, period: int, step: int) -> bool:
        """Whether something that happens every `period` steps, and at the end, happens at `step`."""
        return step == self.steps or (period > 0 and step % period == 0)


def example_batch(source: Source, size: int) -> Batch:
    """A batch of the source's shapes and dtypes, for `init_state`."""
    shapes = jax.eval_shape(
        lambda arrays: draw_batches(source, arrays, jax.random.key(0), 0, n_critic=1, batch_size=size),
        source.arrays)
    return jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), shapes)


def initial_state(gan: GAN, seed: int, example: Batch) -> GANState:
    """The state that training with this seed starts from."""
    return jax.jit(partial(init_state, gan))(keys.stream(jax.random.key(seed), "init"), example)


def train(
    gan: GAN,
    source: Source,
    run: Run,
    plan: Plan,
    *,
    real: np.ndarray | None = None,
    picture: Callable[[GANState], np.ndarray] | None = None,
    score: Callable[[GANState], dict[str, float]] | None = None,
    resume: str | int | None = None,
) -> tuple[GANState, dict]:
    """Trains a GAN and writes the run's folder.

    Args:
        gan: the specification.
        source: the data.
        run: the folder.
        plan: how long, how often.
        real: uint8 [height, width, 3], a picture of real samples.
        picture: state -> uint8 [height, width, 3], a picture of samples.
        score: state -> numbers about the samples, logged with each picture.
        resume: None to start anew (in a folder without checkpoints), "latest" or a step to go on from
            there, "auto" for the latest if there is one.

    Returns:
        The final state and what `result.json` holds.

    Raises:
        ValueError: the batch is larger than the data set, or there is nothing (or too much) to resume.
        CheckpointError: the checkpoint doesn't fit.
        NotFiniteError: training diverged; the checkpoints are of before.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was saved first.
    """
    if source.size is not None and plan.batch_size > source.size:
        raise ValueError(f"batch_size {plan.batch_size} is larger than the data set, which has "
                         f"{source.size} examples: choose a smaller one")
    checkpoints = Checkpoints(run.checkpoints, plan.keep, plan.best_metric)
    try:
        resuming = _is_resuming(checkpoints, run, resume)
        state = initial_state(gan, plan.seed, example_batch(source, plan.batch_size))
        if resuming:
            state = _restored(state, checkpoints, plan, resume)
            result = read_result(run.folder)
            if result is not None and result["steps"] == int(state.step) == plan.steps:
                return state, result  # finished already
        run.start(int(state.step))
        checkpoints.discard_unfinished()
        if real is not None:
            run.save_real(real)
        state, result = _loop(gan, source, run, plan, checkpoints, state, picture, score)
        checkpoints.wait()
        run.finish(result)
        return state, result
    finally:
        run.close()
        checkpoints.close()


def _is_resuming(checkpoints: Checkpoints, run: Run, resume: str | int | None) -> bool:
    steps = checkpoints.steps()
    if resume is None and steps:
        raise ValueError(f"{run.folder} holds a run at step {steps[-1]}: go on with --resume latest, "
                         "or choose another --run-dir")
    if not steps and resume not in (None, "auto"):
        raise ValueError(f"there is nothing to resume in {run.folder}: start without --resume")
    return bool(steps)


def _restored(state: GANState, checkpoints: Checkpoints, plan: Plan, resume: str | int) -> GANState:
    state = checkpoints.restore(state, None if resume in ("auto", "latest") else int(resume))
    if int(state.step) > plan.steps:
        raise ValueError(f"the checkpoint is of step {int(state.step)}, beyond --steps {plan.steps}: "
                         "resume from an earlier one or train longer")
    for step in checkpoints.steps():  # what an earlier try reached beyond where this one starts
        if step > int(state.step):
            checkpoints.delete(step)
    return state


def _loop(gan: GAN, source: Source, run: Run, plan: Plan, checkpoints: Checkpoints, state: GANState,
          picture: Callable | None, score: Callable | None) -> tuple[GANState, dict]:
    advance, put = _on_devices(gan, source, plan)
    started = time.perf_counter()
    step, chunk, seconds, counted = int(state.step), 1, 0.0, 0
    first_step_seconds, end, key = None, step, jax.random.key(plan.seed)
    feed = windows(source, keys.stream(key, "data"), plan.n_critic * plan.batch_size, step, plan.steps,
                   put=put)
    metrics = {name: value for name, value in (run.metrics() or [{}])[-1].items() if name != "step"}
    with (_signals() as received, closing(feed),
          tqdm(total=plan.steps, initial=step, unit="step", disable=None, dynamic_ncols=True) as bar):
        while step < plan.steps:
            before = time.perf_counter()
            if step == end:
                arrays, end = next(feed)
            stop = plan.next_stop(step)
            count = min(stop - step, chunk, end - step)
            state, device_metrics = jax.block_until_ready(
                advance(state, arrays, key, jnp.int32(count)))
            elapsed = time.perf_counter() - before
            if first_step_seconds is None:  # the first dispatch, of one step, compiles
                first_step_seconds = elapsed
            else:
                seconds, counted = seconds + elapsed, counted + count
                chunk = max(1, int(_SECONDS_A_DISPATCH * count / elapsed))
            step += count
            bar.update(count)
            interrupted = received[-1] if received and step < plan.steps else None
            if step < stop and interrupted is None:
                continue

            metrics = {name: float(value) for name, value in sorted(device_metrics.items())}
            _check_finite(step, metrics, state)
            bar.set_postfix_str(_summary(metrics))
            if plan.is_due(plan.sample_every, step):
                if picture is not None:
                    run.save_picture(step, picture(state))
                if score is not None:
                    metrics |= score(state)
            if plan.is_due(plan.log_every, step) or plan.is_due(plan.sample_every, step):
                run.log(step, metrics)
                if bar.disable:
                    print(f"step {step} of {plan.steps}: {_summary(metrics)}", file=sys.stderr,
                          flush=True)
            if plan.is_due(plan.checkpoint_every, step) or interrupted is not None:
                checkpoints.save(step, state, metrics)
            if interrupted is not None:
                checkpoints.wait()
                raise Interrupted(step, interrupted)
    return state, {
        "steps": step,
        "final": metrics,
        "iterations_per_second": counted / seconds if counted else None,
        "first_step_seconds": first_step_seconds,
        "duration_seconds": time.perf_counter() - started,
        "params_sha256": params_digest(state.generator.params, state.critic.params),
    }


def _on_devices(gan: GAN, source: Source, plan: Plan) -> tuple[Callable, Callable[[PyTree], PyTree]]:
    """Returns `train_steps` on one device or several, and what puts its arrays there."""
    step_fn = partial(train_steps, gan, source=source, n_critic=plan.n_critic,
                      batch_size=plan.batch_size, fakes_at_once=plan.fakes_at_once)
    devices = jax.local_devices()[:plan.devices or None]
    if len(devices) == 1:
        return jax.jit(step_fn, donate_argnums=0), jax.device_put
    everywhere = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), "devices"),
                                            jax.sharding.PartitionSpec())
    return (data_parallel(step_fn, devices=devices, batch_axis=None, donate=True),
            partial(jax.device_put, device=everywhere))


def _check_finite(step: int, metrics: dict[str, float], state: GANState) -> None:
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not bad and not _all_finite((state.generator.params, state.critic.params)):
        bad = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_flatten_with_path(
            {"generator": state.generator.params, "critic": state.critic.params})[0]
            if not np.isfinite(leaf).all()]
    if bad:
        raise NotFiniteError(f"training diverged: {bad[0]} is not finite at step {step}; the last "
                             "checkpoint is of before. Try a lower learning rate or another seed")


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that they end an iteration, not interrupt it."""
    received: list[int] = []

    def handle(number: int, frame) -> None:
        if received:  # who asks twice doesn't want to wait
            raise KeyboardInterrupt
        received.append(number)

    handlers = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals go elsewhere
        pass
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _summary(metrics: dict[str, float]) -> str:
    names = ("critic/loss", "generator/loss", "critic/wasserstein", "modes")
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names if name in metrics)
