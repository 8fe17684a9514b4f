"""The training loop: many steps a dispatch, and between them logs, samples and checkpoints.

It doesn't know what it trains: a `jaxgan.loops.Game` says that, and a GAN gives one.
"""

import dataclasses
import inspect
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxgan import console, keys
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import Part, Source, in_memory, pixels, windows
from jaxgan.descriptions import describe
from jaxgan.digests import file_digest, leaf_digests, params_digest
from jaxgan.evaluation import nearest
from jaxgan.gan import GAN
from jaxgan.loops import Game, draw_batches, run_steps
from jaxgan.memory import check_fits
from jaxgan.parallel import agreed, check_devices, check_same, data_parallel
from jaxgan.pictures import grid
from jaxgan.runs import Run, RunError, read_result
from jaxgan.steps import game as game_of
from jaxgan.types import Batch, PyTree, check_callable, check_type, described

_SECONDS_A_DISPATCH = 0.5  # how long the progress bar and Ctrl-C wait
_INTEGERS = 2**31  # what devices count in
_RETRIES = 3  # of a run that goes back when it diverges
# What the processes of one run may have each for itself: where things are, and how it is kept.
_OF_A_PROCESS = {"process_id", "data_dir", "inception", "keep_programs", "experiment_file"}


class NotFiniteError(ValueError):
    """Training has diverged: a metric or a parameter is NaN or infinite."""


class Interrupted(Exception):
    """Training was stopped by a signal or when its time was over, after a checkpoint.

    Attributes:
        step: the step that the checkpoint is of.
        signal: the signal's number; None if the time was over.
    """

    def __init__(self, step: int, number: int | None):
        super().__init__(f"stopped at step {step}" + ("" if number else ", the time being over"))
        self.step = step
        self.signal = number


class _Abandoned(Exception):
    """An evaluation is not to be finished: a signal came (its number), or the time is over (0)."""


State = Any  # a game's
Evaluate = Callable[[State, Callable[[], None]], dict[str, float]]
Picture = Callable[[State], np.ndarray | str]  # uint8 [height, width, 3], or text


class Moment(NamedTuple):
    """When a callback is called.

    Attributes:
        kind: "log", "evaluation" or "checkpoint": what has just been done.
        step: the number of the step.
        state: its state.
        metrics: the last step's metrics, with those of an evaluation.
        rows: all that was logged so far, a dict with "step" and numbers by name for each log point, in a
            resumed run those of before, too.
    """

    kind: str
    step: int
    state: State
    metrics: dict[str, float]
    rows: list[dict[str, float]]


# True stops the run, with a checkpoint. The metric named by an attribute `watches` has to be there.
Callback = Callable[[Moment], bool | None]


def early_stopping(metric: str, patience: int, *, highest: bool = False) -> Callback:
    """Returns a callback that stops a run when a metric has not improved for so many evaluations.

    It counts in what was logged, so that a run that is killed and resumed stops where it would have.

    Args:
        metric: its name.
        patience: evaluations without a better value, at least 1.
        highest: whether higher is better.

    Raises:
        ValueError: `patience` is below 1.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1; got {patience}")

    def callback(moment: Moment) -> bool:
        if moment.kind != "evaluation":
            return False
        values = [row[metric] if highest else -row[metric] for row in moment.rows if metric in row]
        values = [-math.inf if math.isnan(value) else value for value in values]  # never the best
        return bool(values) and len(values) - 1 - values.index(max(values)) >= patience

    callback.watches = metric
    return callback


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train and how often to report.

    Attributes:
        steps: how many in all.
        batch_size: samples in a batch, over all devices.
        batches_per_step: batches that a step consumes; of a GAN the critic's updates in a step, which
            ends with one of the generator.
        seed: of everything random.
        log_every: steps between two log points.
        sample_every: steps between two looks at samples; 0 for one at the end only.
        eval_every: steps between two evaluations, the last one at the end; 0 for none.
        checkpoint_every: steps between two checkpoints; 0 for one at the end only.
        keep: how many of the latest checkpoints to keep.
        best_metric: None, or the metric whose lowest value marks the checkpoint to keep as well; with
            evaluations there is a checkpoint at each of them.
        best_is_highest: whether it is its highest value instead.
        devices: how many devices to use; 0 for all. On several processes it is all of theirs.
        on_nan: what to do when training diverges: "stop", or "rollback" to go on from the newest
            checkpoint with other random numbers, at most three times in a run.
        max_hours: stop after so long, with a checkpoint; 0 for no limit.
        n_critic: what `batches_per_step` is called of a GAN; it is kept there.
    """

    steps: int
    batch_size: int = 64
    batches_per_step: int = 1
    seed: int = 0
    log_every: int = 100
    sample_every: int = 1000
    eval_every: int = 0
    checkpoint_every: int = 1000
    keep: int = 3
    best_metric: str | None = None
    best_is_highest: bool = False
    devices: int = 0
    on_nan: str = "stop"
    max_hours: float = 0.0
    n_critic: dataclasses.InitVar[int | None] = None

    def __post_init__(self, n_critic: int | None):
        if n_critic is not None:
            if self.batches_per_step != 1:
                raise ValueError(f"n_critic is {n_critic} and batches_per_step {self.batches_per_step}, "
                                 "its other name: give one of the two")
            object.__setattr__(self, "batches_per_step", n_critic)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, "int") and (isinstance(value, bool) or not isinstance(value, int)):
                raise ValueError(f"{field.name} must be a whole number; got {value!r}")
            if field.type in (int, "int") and value >= _INTEGERS and field.name != "seed":
                raise ValueError(f"{field.name} must be below 2**31; got {value}")
        keys.check_seed(self.seed)
        for name in ("steps", "batch_size", "batches_per_step", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("sample_every", "eval_every", "checkpoint_every", "devices", "max_hours"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if self.on_nan not in ("stop", "rollback"):
            raise ValueError(f"on_nan must be stop or rollback; got {self.on_nan!r}")
        check_devices()
        available = jax.device_count()
        if jax.process_count() > 1 and self.devices not in (0, available):
            raise ValueError(f"devices is {self.devices}, but {jax.process_count()} processes use all "
                             f"of their {available}: leave it out")
        if self.devices > available:
            raise ValueError(f"devices is {self.devices}, but there are only {available}")
        if self.batch_size % (self.devices or available):
            raise ValueError(f"batch_size {self.batch_size} does not divide over "
                             f"{self.devices or available} devices: choose a multiple, or --devices 1")

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which there is something to do."""
        periods = (self.log_every, self.sample_every, self.eval_every, self.checkpoint_every)
        return min([self.steps, *(step - step % period + period for period in periods if period)])

    def is_due(self, period: int, step: int) -> bool:
        """Whether something that happens every `period` steps, and at the end, happens at `step`."""
        return step == self.steps or (period > 0 and step % period == 0)

    def is_evaluating(self, step: int) -> bool:
        """Whether there is an evaluation at `step`."""
        return self.eval_every > 0 and self.is_due(self.eval_every, step)


def example_batch(source: Source, size: int) -> Batch:
    """A batch of the source's shapes and dtypes, for `init_state`."""
    shapes = jax.eval_shape(
        lambda arrays: draw_batches(source, arrays, jax.random.key(0), 0, batches_per_step=1,
                                    batch_size=size), source.arrays)
    return jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), shapes)


def initial_state(game: Game, seed: int, example: Batch) -> State:
    """The state that training with this seed starts from."""
    return jax.jit(game.init)(keys.stream(keys.of_seed(seed), "init"), example)


def train(
    game: GAN | Game,
    source: Source | Batch | PyTree,
    run: Run | str | Path,
    plan: Plan | None = None,
    *,
    real: np.ndarray | str | None = None,
    picture: Picture | None = None,
    evaluate: Evaluate | None = None,
    resume: str | int | None = None,
    initial: Callable[[State], State] | None = None,
    callbacks: Sequence[Callback] = (),
    experiment: str | Path | None = None,
    change: Sequence[str] = (),
    **planned: Any,
) -> tuple[State, dict]:
    """Trains a GAN, or a game of one's own, and writes the run's folder.

    `train(gan, images, "runs/a", steps=500)` is enough.

    Args:
        game: a GAN, or what is to be trained in its place.
        source: the data: a source, or arrays as `jaxgan.data.in_memory` takes them, samples or a
            `Batch` of samples and their condition.
        run: the folder, or where to make it.
        plan: how long, how often.
        real: a picture of real samples, uint8 [height, width, 3], or text.
        picture: state -> the same of samples; if `run` is a path, images are shown in a grid by default.
        evaluate: (state, tick) -> numbers about the state, logged every `plan.eval_every`. It calls
            `tick` often, which ends an evaluation that is interrupted: the resumed run begins with it.
            Before the first step it is tried, to find out then what can't work; if it takes long, give
            it an attribute `rehearse`, state -> the numbers' names, to be called instead.
        resume: None to start anew (in a folder without checkpoints), "latest" or a step to go on from
            there, "auto" for the latest if there is one.
        initial: None, or what the first state is made into, by `jaxgan.transfer.warm_start` for example.
        callbacks: called after each log point, evaluation and checkpoint; they can stop the run.
        experiment: if `run` is a path, the Python file that describes the experiment, whose path and
            digest are recorded, so that `experiments.sample` and the others can open the run with it.
        change: the names of what is meant to be another one than that of the checkpoint: fields of the
            GAN or the game, "plan" (batches and seed), "data", or "specification" for all of these. The
            run's history tells of it.
        planned: the fields of `Plan`, in place of one.

    Returns:
        The final state and what `result.json` holds.

    Raises:
        ValueError: the batch is larger than the data set; there is nothing (or too much) to resume;
            labels are beyond the networks' classes; what is trained is larger than the memory; no metric
            has the name that the plan or early stopping watches; one of several processes was started
            with other settings.
        TypeError: an argument is of another type, the picture is none.
        CheckpointError: the checkpoint doesn't fit, or was trained by another specification.
        RunError: another process has the folder, or it can't be written to.
        NotFiniteError: training diverged, and `plan.on_nan` lets it; the checkpoints are of before.
        Interrupted: SIGINT, SIGTERM or SIGHUP came or the time was over; a checkpoint was saved first.
    """
    if (plan is None) == (not planned):
        raise ValueError("give a Plan or its fields, steps=500 for example; got "
                         + ("neither" if plan is None else f"both, a Plan and {', '.join(planned)}"))
    names = [*inspect.signature(Plan).parameters]
    if unknown := sorted(planned.keys() - {*names}):
        raise ValueError(f"unknown field of a plan {unknown[0]!r}: {nearest(unknown[0], names)}")
    plan = plan or Plan(**planned)
    specification, game = game, game_of(game)
    check_type("plan", plan, Plan, "a Plan, Plan(steps=500) for example")
    check_type("run", run, (Run, str, Path), "a folder, or a Run; a plan is plan=")
    for name, function in (("picture", picture), ("evaluate", evaluate), ("initial", initial)):
        check_callable(name, function, "None or a function")
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks must be a list of functions; got {callbacks!r}")
    if not (resume in (None, "auto", "latest") or str(resume).isdecimal()):
        raise ValueError(f"resume must be auto, latest or a step; got {resume!r}")
    if real is not None:
        _check_picture("real", real)
    if isinstance(source, (str, Path)):
        raise TypeError("the data must be arrays, a Batch of them or a Source; got the path "
                        f"{str(source)!r}: open it by a function of jaxgan.data")
    source = source if isinstance(source, Source) else in_memory(source)
    if not isinstance(run, Run):
        picture = picture or _default_picture(game, source, plan.seed)
        run = _described_run(run, source, plan, experiment, change)
    if source.size is not None and plan.batch_size > source.size:
        raise ValueError(f"batch_size {plan.batch_size} is larger than the data set, which has "
                         f"{source.size} examples: choose a smaller one")
    if plan.eval_every and evaluate is None:
        raise ValueError(f"eval_every is {plan.eval_every}, but there is nothing to evaluate with")
    may_change = {*change, *run.change}
    checkpoints = Checkpoints(
        run.checkpoints, plan.keep, plan.best_metric, run.identity, plan.best_is_highest,
        None if "specification" in change else _described(specification, source, plan), may_change)
    deadline = time.monotonic() + 3600 * plan.max_hours if plan.max_hours else math.inf
    check_processes(run, plan, resume)
    try:
        resuming = _is_resuming(checkpoints, run, resume)
        with _signals() as received:
            example = example_batch(source, plan.batch_size)
            template = _template(game, source, plan, example)
            _check_game(game, template)
            check_fits("the networks and their optimisers take", template, "the width")
            begin = partial(_begin, game, plan.seed, example, initial)
            run.lock()
            state, retries = (_start(begin, template, checkpoints, plan, resume) if resuming
                              else (begin(), 0))
            result = _finished(run, plan, state, game.networks(state), stops=bool(callbacks))
            if result is not None:
                return state, result
            checkpoints.discard_unfinished()
            while True:
                run.start(int(state.step), checkpoints.changed)
                if real is not None:
                    run.save_real(real)
                try:
                    report = _Reporter(game, run, plan, checkpoints, retries, picture, evaluate,
                                       _Watch(received, deadline), callbacks)
                    state, result = _loop(source, report, state)
                    break
                except NotFiniteError as error:
                    if plan.on_nan == "stop" or retries == _RETRIES:
                        raise
                    checkpoints.wait()
                    state, _ = _newest(begin, template, checkpoints)
                    retries += 1
                    warnings.warn(f"{error}; going on from step {int(state.step)} with other random "
                                  f"numbers, try {retries} of {_RETRIES}", UserWarning, stacklevel=2)
        checkpoints.wait()
        run.finish(result)
        return state, result
    finally:
        try:
            checkpoints.close()
        finally:
            run.close()


def _described(specification: GAN | Game, source: Source, plan: Plan) -> dict[str, Any]:
    """What decides what a run computes, for its checkpoints."""
    data = {path.lstrip("."): digest for path, digest in leaf_digests(source.arrays).items()}
    return describe(specification, data=data, plan={
        "batch_size": plan.batch_size, "batches_per_step": plan.batches_per_step, "seed": plan.seed})


def check_processes(run: Run, plan: Plan, resume: str | int | None) -> None:
    """Checks that all processes of a run were started alike.

    `train` does so itself; who computes something together with other processes before asks first.

    Raises:
        ValueError: a process has other settings.
    """
    check_same({name: value for name, value in run.settings.items() if name not in _OF_A_PROCESS}
               | dataclasses.asdict(plan) | {"resume": resume})


def _described_run(folder: str | Path, source: Source, plan: Plan, experiment: str | Path | None,
                   change: Sequence[str]) -> Run:
    """A run with what is known of one that wasn't begun by an experiment's script."""
    file = Path(experiment).resolve() if experiment else None
    described = {"experiment": file.stem, "experiment_file": str(file),
                 "experiment_sha256": file_digest(file)} if file else {"experiment": "train"}
    condition = jax.tree.map(lambda x: [list(x.shape[1:]), str(x.dtype)],
                             example_batch(source, 1).condition)
    shape = source.sample_shape
    settings = {**described, "made_by": "train", **dataclasses.asdict(plan),
                "best_metric": plan.best_metric or "", "n_critic": plan.batches_per_step,
                "run_dir": str(folder),
                "sample_shape": jax.tree.map(int, list(shape) if isinstance(shape, tuple) else shape),
                "value_range": list(source.value_range), "num_classes": source.num_classes,
                "condition": condition, **({"data_sha256": source.digest} if source.digest else {})}
    of_plan = ("batch_size", "n_critic", "seed")
    return Run(folder, settings, (*of_plan, "sample_shape", "condition"),
               change={*change, *(of_plan if {"plan", "specification"} & {*change} else ()),
                       *({"data"} if "specification" in change else ())})


def _default_picture(game: Game, source: Source, seed: int, count: int = 64) -> Picture | None:
    """A grid of the same samples each time, if they are images that are drawn for no condition."""
    shape = source.sample_shape
    if (game.sample is None or not isinstance(shape, tuple) or len(shape) != 3 or shape[2] not in (1, 3)
            or tuple(source.value_range) not in ((0, 1), (-1, 1))
            or example_batch(source, 1).condition is not None):
        return None
    draw_samples = game.sample
    draw = jax.jit(lambda state: draw_samples(state, keys.stream(jax.random.key(seed), "sample"), count))
    return lambda state: grid(pixels(draw(state), source.value_range))


def _begin(game: Game, seed: int, example: Batch, initial: Callable[[State], State] | None) -> State:
    """The first state, which `initial` may change, but not in its structure."""
    state = initial_state(game, seed, example)
    if initial is None:
        return state
    changed = initial(state)
    there, here = (jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
                   for tree in (state, changed))
    if there != here:
        raise ValueError("initial must return a state of the same structure, shapes and dtypes as it is "
                         "given")
    return jax.tree.map(jnp.array, changed)  # copies: the loop gives its state's memory away


def _is_resuming(checkpoints: Checkpoints, run: Run, resume: str | int | None) -> bool:
    steps = checkpoints.steps()
    if resume is None and steps:
        raise ValueError(f"{run.folder} holds a run at step {steps[-1]}: go on with --resume latest, "
                         "or choose another --run-dir")
    if not steps and resume not in (None, "auto"):
        raise ValueError(f"there is nothing to resume in {run.folder}: start without --resume")
    return bool(steps)


def _start(begin: Callable[[], State], template: State, checkpoints: Checkpoints, plan: Plan,
           resume: str | int | None) -> tuple[State, int]:
    """The state to go on from and how often the run had gone back by then."""
    if resume in ("auto", "latest"):
        state, retries = _newest(begin, template, checkpoints)
    else:
        step = int(cast("str | int", resume))
        state = jax.device_put(checkpoints.restore(template, step))
        retries = checkpoints.manifest(step)["retries"]
    step = int(state.step)
    if step > plan.steps:
        raise ValueError(f"the checkpoint is of step {step}, beyond --steps {plan.steps}: resume from "
                         "an earlier one or train longer")
    if jax.process_index() == 0:
        for later in checkpoints.steps():  # what an earlier try reached beyond where this one starts
            if later > step:
                checkpoints.delete(later)
    return state, retries


def _finished(run: Run, plan: Plan, state: State, networks: dict[str, PyTree], *, stops: bool
              ) -> dict[str, Any] | None:
    """What `result.json` says, if it is of this state and nothing is left to do; else None.

    On several processes it is the first one's file that counts.
    """
    try:
        result = read_result(run.folder)
    except RunError as error:
        result = None
        if jax.process_index() == 0:
            warnings.warn(f"{error}; it is written anew", UserWarning, stacklevel=3)
    if result is not None and result["steps"] == int(state.step) and (
            result["steps"] == plan.steps or (stops and result.get("stopped"))):
        if result["params_sha256"] != params_digest(*networks.values()):
            result = None
            if jax.process_index() == 0:
                warnings.warn(f"{run.folder}/result.json is of other parameters than the checkpoint of "
                              f"step {int(state.step)}; it is written anew", UserWarning, stacklevel=3)
    else:
        result = None
    is_finished, = agreed(result is not None and jax.process_index() == 0)
    return (result or {}) if is_finished else None


def _newest(begin: Callable[[], State], template: State,
            checkpoints: Checkpoints) -> tuple[State, int]:
    """The state of the newest good checkpoint, the initial one if there is none; and its retries."""
    state = checkpoints.restore_newest(template)
    if state is None:
        return begin(), 0
    return jax.device_put(state), checkpoints.manifest(int(state.step))["retries"]


@dataclasses.dataclass
class _Watch:
    """Whether the run is to stop: a signal came, or its time is over."""

    received: list[int]
    deadline: float

    def __call__(self, *values: int) -> tuple[Any, ...]:
        """Returns the values, and the signal's number, 0 if the time is over, or None to go on.

        Several processes take the largest of each: all do the same, and stop if one was told to.
        """
        *found, number, late = agreed(*values, self.received[0] if self.received else 0,
                                      time.monotonic() > self.deadline)
        return *found, number if number or late else None


@dataclasses.dataclass
class _Reporter:
    """What happens between two dispatches."""

    game: Game
    run: Run
    plan: Plan
    checkpoints: Checkpoints
    retries: int
    picture: Picture | None
    evaluate: Evaluate | None
    watch: _Watch
    callbacks: Sequence[Callback]
    has_enough: bool = False  # a callback has stopped the run

    def __call__(self, step: int, state: State, metrics: dict[str, float], stop: int | None = None,
                 *, saved: bool = False) -> dict[str, float]:
        """Does what is due at a step, and returns the numbers of an evaluation, if there is one.

        Args:
            step: its number.
            state: its state.
            metrics: the last iteration's.
            stop: None to go on, or the number of a signal, or 0 when the time is over.
            saved: whether there is a checkpoint of this step, from before its evaluation.

        Raises:
            Interrupted: the run was to stop, or was told to in the evaluation; it is saved.
        """
        evaluating, evaluation, done = self.plan.is_evaluating(step), {}, []
        if self.plan.is_due(self.plan.sample_every, step) and self.picture is not None:
            samples = self.picture(state)
            _check_picture("what picture returns", samples)
            self.run.save_samples(step, samples)
            if isinstance(samples, str) and step < self.plan.steps and jax.process_index() == 0:
                console.warn(f"step {step}: {samples.splitlines()[0]}")
        if evaluating and self.evaluate is not None:
            try:
                self._tick(stop)
                evaluation = _numbers(self.evaluate(state, self._tick))
            except _Abandoned as abandoned:
                stop, = abandoned.args
        is_scored = evaluating and stop is None
        if is_scored or (not evaluating and (self.plan.is_due(self.plan.log_every, step)
                                             or self.plan.is_due(self.plan.sample_every, step))):
            self.run.log(step, metrics | evaluation, leaf_digests(self.game.networks(state)))
            done.append("log")
        if is_scored:
            done.append("evaluation")
        is_rated = is_scored and self.plan.best_metric is not None
        if saved and is_rated:
            if jax.process_index() == 0:
                self.checkpoints.delete(step)
            agreed(0)  # the others go on when it is gone
        save = partial(self.checkpoints.save, step, state, metrics | evaluation, retries=self.retries)
        if is_rated or (not saved and (
                stop is not None or self.plan.is_due(self.plan.checkpoint_every, step))):
            save(unscored=not is_scored if self.plan.eval_every else stop is not None)
            done.append("checkpoint")
        for kind in done:
            self.tell(kind, step, state, metrics | evaluation)
        if self.has_enough and not saved and "checkpoint" not in done:
            save(unscored=not is_scored)
            self.tell("checkpoint", step, state, metrics | evaluation)
        if stop is not None:
            self.checkpoints.wait()
            raise Interrupted(step, stop or None)
        return evaluation

    def rehearse(self, step: int, state: State, names: set[str]) -> None:
        """Tries what comes later, so that what can't work is found out before it has cost anything.

        Args:
            step: the one that the run goes on from.
            state: its state.
            names: those of a step's metrics.

        Raises:
            ValueError: the picture is none, or there is no metric that is watched.
        """
        if self.picture is not None:
            _check_picture("what picture returns", self.picture(state))
        if not self.plan.eval_every or self.evaluate is None:
            return self._check_watched(names)
        rehearse = getattr(self.evaluate, "rehearse", None)
        if rehearse is not None:
            names |= {*rehearse(state)}
        elif step == 0:
            try:
                names |= _numbers(self.evaluate(state, self._tick)).keys()
            except _Abandoned:
                return None  # the loop will be told, too
        else:
            logged = {name for row in self.run.metrics() for name in row} - {"step"}
            if jax.process_index() > 0 or logged <= names:  # not evaluated, or not here
                return None
            names |= logged
        return self._check_watched(names)

    def _check_watched(self, names: set[str]) -> None:
        for metric in (self.plan.best_metric, *(getattr(callback, "watches", None)
                                                for callback in self.callbacks)):
            if metric is not None and metric not in names:
                raise ValueError(f"no metric is called {metric!r}: {nearest(metric, sorted(names))}")

    def is_behind(self, step: int) -> bool:
        """Whether a run that resumes at a step has yet to evaluate it."""
        logged = [row["step"] for row in self.run.metrics()[-1:]]
        # As the first process sees it: others may have read the log before that one cut it.
        behind, = agreed(jax.process_index() == 0 and step > 0 and self.plan.is_evaluating(step)
                         and logged != [step])
        return bool(behind)

    def catch_up(self, step: int, state: State) -> None:
        """Evaluates the step that a run resumes at."""
        self(step, state, self.checkpoints.manifest(step)["metrics"], saved=True)

    def tell(self, kind: str, step: int, state: State, metrics: dict[str, float]) -> None:
        """Calls the callbacks, which may stop the run."""
        if not self.callbacks:
            return
        moment = Moment(kind, step, state, metrics, self.run.metrics())
        stops = [callback(moment) for callback in self.callbacks]  # each is called
        for stop in stops:
            if not isinstance(stop, bool | np.bool_ | None):
                raise TypeError(f"a callback must return True to stop the run, or None; got {stop!r}")
        enough, = agreed(any(stops))
        self.has_enough |= bool(enough)

    def _tick(self, stop: int | None = None) -> None:
        if stop is None:
            stop, = self.watch()
        if stop is not None:
            raise _Abandoned(stop)


def _loop(source: Source, report: _Reporter, state: State) -> tuple[State, dict]:
    game, plan, checkpoints = report.game, report.plan, report.checkpoints
    advance, put, part = _on_devices(game, source, plan)
    report.rehearse(int(state.step), state, _metric_names(report, source, state))
    started = time.perf_counter()
    step, chunk, seconds, counted = int(state.step), 1, 0.0, 0
    first_step_seconds, end, key = None, step, jax.random.key(plan.seed)
    if report.retries:
        key = jax.random.fold_in(key, report.retries)
    feed = windows(source, keys.stream(key, "data"), plan.batches_per_step * plan.batch_size, step,
                   plan.steps, put=put, part=part)
    if report.is_behind(step):
        report.catch_up(step, state)
    elif step > 0 and plan.is_evaluating(step):  # whatever that evaluation made of the run is to hold
        metrics, evaluation = _last_row(report, source, state)
        report.tell("evaluation", step, state, metrics | evaluation)
    metrics, evaluation = ({}, {})
    if step == plan.steps or report.has_enough:
        metrics, evaluation = _last_row(report, source, state)
    with (closing(feed),
          tqdm(total=plan.steps, initial=step, unit="step", dynamic_ncols=True, file=console.ERRORS,
               disable=None if jax.process_index() == 0 else True) as bar):
        while step < plan.steps and not report.has_enough:
            before = time.perf_counter()
            if step == end:
                arrays, end = next(feed)
            due = plan.next_stop(step)
            count = min(due - step, chunk, end - step)
            state, device_metrics = jax.block_until_ready(
                advance(state, arrays, key, jnp.int32(count)))
            elapsed = time.perf_counter() - before
            if first_step_seconds is None:  # the first dispatch, of one step, compiles
                first_step_seconds = elapsed
            else:
                seconds, counted = seconds + elapsed, counted + count
                chunk = max(1, int(_SECONDS_A_DISPATCH * count / elapsed))
            step += count
            if int(state.step) != step:
                raise ValueError(f"the game's step must add 1 to state.step; after {count} from "
                                 f"{step - count} it is {int(state.step)}")
            bar.update(count)
            chunk, stop = report.watch(chunk)
            if step == plan.steps and not plan.is_evaluating(step):
                stop = None  # all but finished
            if step < due and stop is None:
                continue

            if stop is not None or plan.is_due(plan.checkpoint_every, step):
                checkpoints.wait()  # so that what is lost is never more than an interval before this one
            metrics = {name: float(value) for name, value in sorted(device_metrics.items())}
            _check_finite(step, metrics, game.networks(state), source)
            bar.set_postfix_str(console.printable(_summary(metrics, {})))
            evaluation = report(step, state, metrics, stop)
            if bar.disable and jax.process_index() == 0:
                console.warn(f"step {step} of {plan.steps}: {_summary(metrics, evaluation)}")
    return state, {
        "steps": step,
        "final": metrics,
        "evaluation": evaluation,
        "iterations_per_second": counted / seconds if counted else None,
        "first_step_seconds": first_step_seconds,
        "duration_seconds": time.perf_counter() - started,
        "retries": report.retries,
        "params_sha256": params_digest(*game.networks(state).values()),
        "leaves_sha256": leaf_digests(game.networks(state)),
    } | ({"stopped": True} if report.has_enough else {})


def _last_row(report: _Reporter, source: Source, state: State
              ) -> tuple[dict[str, float], dict[str, float]]:
    """What was logged last: a step's metrics, and the numbers of its evaluation."""
    names = _metric_names(report, source, state)
    row = (report.run.metrics() or [{}])[-1]
    return ({name: value for name, value in row.items() if name in names},
            {name: value for name, value in row.items() if name not in names | {"step"}})


def _metric_names(report: _Reporter, source: Source, state: State) -> set[str]:
    """The names of a step's metrics."""
    plan = report.plan
    return {*jax.eval_shape(partial(
        run_steps, report.game, source=source, batches_per_step=plan.batches_per_step,
        batch_size=plan.batch_size), state, source.arrays, jax.random.key(0), 1)[1]}


def _on_devices(game: Game, source: Source, plan: Plan
                ) -> tuple[Callable, Callable[[PyTree], PyTree], Part]:
    """Returns `run_steps` on one device or several, what puts its arrays there, and which part of
    each batch this process draws.
    """
    step_fn = partial(run_steps, game, source=source, batches_per_step=plan.batches_per_step,
                      batch_size=plan.batch_size)
    if jax.device_count() == 1 or plan.devices == 1:
        return jax.jit(step_fn, donate_argnums=0), jax.device_put, Part()
    devices = jax.devices()[:plan.devices or None]
    here = [device for device in devices if device.process_index == jax.process_index()]
    everywhere = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(here), "devices"),
                                            jax.sharding.PartitionSpec())
    count = plan.batch_size // len(devices) * len(here)
    return (data_parallel(step_fn, devices=devices, batch_axis=None, donate=True),
            partial(jax.device_put, device=everywhere),
            Part(plan.batch_size, jax.process_index() * count, count))


def _check_finite(step: int, metrics: dict[str, float], networks: dict[str, PyTree], source: Source
                  ) -> None:
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad or not _all_finite(networks):
        leaves = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_flatten_with_path(
            networks)[0] if not np.isfinite(keys.on_host(leaf)).all()]
        what = bad[0] if bad else leaves[0]
        leaf = f" (and the parameter {leaves[0]})" if bad and leaves else ""
        whole = any(map(_is_whole, jax.tree.leaves(example_batch(source, 1).condition)))
        labels = ". Labels that are none of a network's classes give NaN, too" if whole else ""
        raise NotFiniteError(f"training diverged: {what} is not finite at step {step}{leaf}; the last "
                             "checkpoint is of before. Try a lower learning rate, another seed or "
                             f"--on-nan rollback{labels}")


def _check_game(game: Game, template: State) -> None:
    """Raises ValueError for a state that the loop can't count, or one without networks."""
    step = getattr(template, "step", None)
    if step is None or step.shape != () or not jnp.issubdtype(step.dtype, jnp.integer):
        there = "none" if step is None else f"{step.dtype}{list(step.shape)}"
        raise ValueError("a game's state must have a field `step`, an int32 that starts at 0; got "
                         + there)
    networks = jax.eval_shape(game.networks, template)
    if not isinstance(networks, dict) or not jax.tree.leaves(networks):
        raise ValueError("a game's `networks` must return the trained parameters by network, a dict; "
                         f"got {networks!r}")


def _template(game: Game, source: Source, plan: Plan, example: Batch) -> State:
    """The shapes of a state.

    If the condition has integers, labels say, the networks are shown those of the data that hold the
    lowest and the highest, and raise ValueError for what they have no place for.
    """
    if not any(map(_is_whole, jax.tree.leaves(example.condition))):
        return jax.eval_shape(partial(initial_state, game, plan.seed, example))
    key, size = keys.stream(jax.random.key(plan.seed), "data"), plan.batch_size
    arrays, count = source.arrays, source.size or size
    if source.window is not None:  # a batch, and not all images for their labels
        count = size
        rows = jnp.arange(count, dtype=jnp.uint32)
        arrays = source.window(key, jnp.zeros_like(rows), rows, Part())

    @jax.jit
    def conditions(arrays: PyTree, rows: jax.Array) -> PyTree:
        return source.draw(arrays, key, jnp.zeros_like(rows), rows).condition

    @jax.jit
    def extremes(arrays: PyTree) -> jax.Array:
        leaves = jax.tree.leaves(conditions(arrays, jnp.arange(count, dtype=jnp.uint32)))
        whole = [leaf.reshape(count, -1) for leaf in leaves if _is_whole(leaf)]
        return jnp.stack([row for leaf in whole for row in (leaf.min(1).argmin(), leaf.max(1).argmax())])

    shown, template = np.unique(extremes(arrays)).astype(np.uint32), None
    for first in range(0, len(shown), size):
        condition = conditions(arrays, jnp.asarray(np.resize(shown[first:first + size], size)))
        template = jax.eval_shape(lambda samples, condition=condition: game.init(
            jax.random.key(0), Batch(samples, condition)), example.samples)
    return template


def _is_whole(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.integer)


def _check_picture(what: str, picture: Any) -> None:
    if not isinstance(picture, str) and (getattr(picture, "dtype", None) != np.uint8
                                         or picture.ndim != 3 or picture.shape[2] != 3):
        given = (f"{picture.dtype}{list(picture.shape)}" if hasattr(picture, "dtype")
                 else described(picture))
        raise TypeError(f"{what} must be a picture, uint8 [height, width, 3], or text; got {given}: "
                        "jaxgan.data.pixels makes pixels of samples")


def _numbers(values: Any) -> dict[str, float]:
    """What an evaluation has returned, as numbers by name."""
    try:
        return {str(name): float(value) for name, value in values.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"evaluate must return numbers by name; got {str(values)[:200]}") from error


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def endings() -> tuple[int, ...]:
    """The signals that ask a program to end, but for a SIGHUP that it was started to ignore."""
    ignores = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # by nohup
    return (signal.SIGTERM,) if ignores else (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects what asks the run to end, so that it ends an iteration, not interrupts it.

    However often, it is one request: a cluster's signal comes by several ways. Only a second Ctrl-C is
    from who doesn't want to wait.
    """
    received: list[int] = []

    def handle(number: int, frame) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)

    handlers = {}
    try:
        for number in (signal.SIGINT, *endings()):
            handlers[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals go elsewhere
        pass
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _summary(metrics: dict[str, float], evaluation: dict[str, float]) -> str:
    """The losses and the first number of the evaluation, if there was one."""
    losses = [name for name in metrics if name.endswith("/loss")]
    names = (*losses[:4], "critic/wasserstein", *list(evaluation)[:1])
    numbers = metrics | evaluation
    return ", ".join(f"{name} {numbers[name]:.4g}" for name in names if name in numbers)
