"""The training loop: many steps a dispatch, and between them logs, samples and checkpoints.

It doesn't know what it trains: a `jaxgan.loops.Game` says that, and a GAN gives one.
"""

import dataclasses
import inspect
import math
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, keys
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import Part, Source, in_memory, pixels, windows
from jaxgan.descriptions import describe
from jaxgan.digests import file_digest, leaf_digests, params_digest
from jaxgan.evaluation import nearest
from jaxgan.gan import GAN
from jaxgan.loops import Game, draw_batches, run_steps
from jaxgan.memory import available, check_fits, release, size_of
from jaxgan.outlook import About, Outlook, introduce
from jaxgan.parallel import agreed, check_same, data_parallel, spread
from jaxgan.pictures import grid
from jaxgan.plans import Plan
from jaxgan.profiling import Operations, Trace, operations, peak_memory
from jaxgan.reporting import (
    Callback,
    Evaluate,
    Interrupted,
    Moment,
    Picture,
    Reporter,
    State,
    Watch,
    check_picture,
    early_stopping,
)
from jaxgan.runs import Run, RunError, read_result
from jaxgan.steps import game as game_of
from jaxgan.types import Batch, PyTree, check_callable, check_type

__all__ = ["About", "Callback", "Evaluate", "Interrupted", "Moment", "NotFiniteError", "Picture", "Plan",
           "check_processes", "early_stopping", "endings", "example_batch", "initial_state", "train"]
_SECONDS_A_DISPATCH = 0.5  # how long the progress bar and Ctrl-C wait
_WHOLE = Part()
_RETRIES = 3  # of a run that goes back when it diverges
# What the processes of one run may have each for itself: where things are, and how it is kept.
_OF_A_PROCESS = {"process_id", "data_dir", "inception", "keep_programs", "experiment_file"}


class NotFiniteError(ValueError):
    """Training has diverged: a metric or a parameter is NaN or infinite."""


def example_batch(source: Source, size: int) -> Batch:
    """A batch of the source's shapes and dtypes, for `init_state`."""
    shapes = jax.eval_shape(
        lambda arrays: draw_batches(source, arrays, jax.random.key(0), 0, batches_per_step=1,
                                    batch_size=size), source.arrays)
    return jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), shapes)


def initial_state(game: Game, seed: int, example: Batch, shardings: PyTree = None) -> State:
    """The state that training with this seed starts from, spread over devices if shardings are given."""
    return jax.jit(game.init, out_shardings=shardings)(keys.stream(keys.of_seed(seed), "init"), example)


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
    about: About | None = None,
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
            it an attribute `rehearse`, state -> the numbers' names, to be called instead. What an
            attribute `floor` returns, the same numbers of held-out reals by name, is drawn beside them.
        resume: None to start anew (in a folder without checkpoints), "latest" or a step to go on from
            there, "auto" for the latest if there is one.
        initial: None, or what the first state is made into, by `jaxgan.transfer.warm_start` for example.
        callbacks: called after each log point, evaluation and checkpoint; they can stop the run.
        experiment: if `run` is a path, the Python file that describes the experiment, whose path and
            digest are recorded, so that `experiments.sample` and the others can open the run with it.
        change: the names of what is meant to be another one than that of the checkpoint: fields of the
            GAN or the game, "plan" (batches and seed), "data", or "specification" for all of these. The
            run's history tells of it.
        about: what is said of the run at its start besides what is known of it here.
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
    one = prepared(game, source, run, plan, real=real, picture=picture, evaluate=evaluate, resume=resume,
                   initial=initial, callbacks=callbacks, experiment=experiment, change=change,
                   about=about, **planned)
    advance, put, part = on_devices(one.game, one.source, one.plan)
    count = partial(count_operations, advance)
    with (signals() as received,
          closing(one.course(received, put=put, part=part, count=count)) as course):
        try:
            due = next(course)
            while True:
                before = time.perf_counter()
                state, metrics = jax.block_until_ready(
                    advance(due.state, due.arrays, due.key, jnp.int32(due.count)))
                due = course.send(Done(state, metrics, due.count, time.perf_counter() - before))
        except StopIteration as end:
            return end.value


class Due(NamedTuple):
    """What the course of a run asks for: so many steps, at most.

    Attributes:
        state: from where; its memory may be taken for the new one.
        arrays: what their batches are drawn from.
        key: the run's.
        step: the number of steps that the state has behind it.
        count: how many.
    """

    state: State
    arrays: PyTree
    key: jax.Array
    step: int
    count: int


class Done(NamedTuple):
    """What it is given: the state after so many steps, 0 if none were done as all runs are to stop.

    Attributes:
        state: the new one.
        metrics: the last step's, of the last one that was done.
        count: how many steps.
        seconds: what they took.
    """

    state: State
    metrics: dict[str, jax.Array]
    count: int
    seconds: float


Course = Generator[Due, Done, tuple[State, dict]]


def prepared(
    game: GAN | Game, source: Source | Batch | PyTree, run: Run | str | Path, plan: Plan | None = None,
    *, real: np.ndarray | str | None = None, picture: Picture | None = None,
    evaluate: Evaluate | None = None, resume: str | int | None = None,
    initial: Callable[[State], State] | None = None, callbacks: Sequence[Callback] = (),
    experiment: str | Path | None = None, change: Sequence[str] = (), about: About | None = None,
    **planned: Any,
) -> "Prepared":
    """Checks what `train` is called with; arguments and errors as there."""
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
        check_picture("real", real)
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
    return Prepared(game, source, run, plan, real, picture, evaluate, resume, initial, callbacks,
                    None if "specification" in change else _described(specification, source, plan),
                    {*change, *run.change}, about or About())


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that is about to be trained; attributes as the arguments of `train`.

    Attributes:
        specification: what its checkpoints are of; None if the settings say that.
        may_change: the names of what may be another one than that of the checkpoint.
    """

    game: Game
    source: Source
    run: Run
    plan: Plan
    real: np.ndarray | str | None
    picture: Picture | None
    evaluate: Evaluate | None
    resume: str | int | None
    initial: Callable[[State], State] | None
    callbacks: Sequence[Callback]
    specification: dict[str, Any] | None
    may_change: set[str]
    about: About

    def course(self, received: list[int], *, put: Callable[[PyTree], PyTree] = jax.device_put,
               part: Part = _WHOLE, leads: bool = True,
               count: Callable[[Due], Operations | None] = lambda due: None) -> Course:
        """Trains, but for the steps themselves: it yields those that are due and is sent what came of
        them. It returns and raises what `train` does; whoever ends it before closes it.

        Args:
            received: the signals that have come, the first one first; the run ends at one.
            put: what puts the source's arrays where the steps are done.
            part: the part of each batch that this process draws.
            leads: whether it tells of its beginning, shows a bar and is traced; of runs that are trained
                together one does.
            count: what a step's operations are, where that is known.
        """
        game, source, run, plan = self.game, self.source, self.run, self.plan
        checkpoints = Checkpoints(run.checkpoints, plan.keep, plan.best_metric, run.identity,
                                  plan.best_is_highest, self.specification, self.may_change, run.before)
        deadline = time.monotonic() + 3600 * plan.max_hours if plan.max_hours else math.inf
        check_processes(run, plan, self.resume)
        try:
            resuming = _is_resuming(checkpoints, run, self.resume)
            example = example_batch(source, plan.batch_size)
            template = _template(game, source, plan, example)
            _check_game(game, template)
            shardings = _shardings(template, plan)
            check_fits("the networks and their optimisers take", template, "the width", shardings,
                       _with_shard(template, plan))
            begin = partial(_begin, game, plan.seed, example, self.initial, shardings)
            run.lock()
            state, retries = (_start(begin, template, checkpoints, plan, self.resume, shardings)
                              if resuming else (begin(), 0))
            result = _finished(run, plan, state, game.networks(state), stops=bool(self.callbacks))
            if result is not None:
                return state, result
            checkpoints.discard_unfinished()
            if leads:
                introduce(run, plan, source, jax.eval_shape(game.networks, template), int(state.step),
                          self.about, self.real is not None or self.picture is not None)
            outlook = Outlook(plan, self.about) if leads else None
            while True:
                run.start(int(state.step), checkpoints.changed)
                if self.real is not None:
                    run.save_real(self.real)
                try:
                    report = Reporter(game, run, plan, checkpoints, retries, self.picture,
                                      self.evaluate, Watch(received, deadline), self.callbacks)
                    state, result = yield from _loop(source, report, state, outlook, put, part, count)
                    break
                except NotFiniteError as error:
                    if plan.on_nan == "stop" or retries == _RETRIES:
                        raise
                    checkpoints.wait()
                    state, _ = _newest(begin, template, checkpoints, shardings)
                    retries += 1
                    warnings.warn(f"{error}; going on from step {int(state.step)} with other random "
                                  f"numbers, try {retries} of {_RETRIES}", UserWarning, stacklevel=2)
            checkpoints.wait()
            run.finish(result, getattr(self.evaluate, "floor", dict)())
            return state, result
        finally:
            try:
                checkpoints.close()
            finally:
                run.close()


def _described(specification: GAN | Game, source: Source, plan: Plan) -> dict[str, Any]:
    """What decides what a run computes, for its checkpoints."""
    data = source.digest or params_digest([leaf for leaf in jax.tree.leaves(source.arrays)
                                           if not getattr(leaf.dtype, "hasobject", False)])
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


def _begin(game: Game, seed: int, example: Batch, initial: Callable[[State], State] | None,
           shardings: PyTree) -> State:
    """The first state, which `initial` may change, but not in its structure."""
    state = initial_state(game, seed, example, shardings)
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
           resume: str | int | None, shardings: PyTree) -> tuple[State, int]:
    """The state to go on from and how often the run had gone back by then."""
    if resume in ("auto", "latest"):
        state, retries = _newest(begin, template, checkpoints, shardings)
    else:
        step = int(cast("str | int", resume))
        state = jax.device_put(checkpoints.restore(template, step), shardings)
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


def _newest(begin: Callable[[], State], template: State, checkpoints: Checkpoints,
            shardings: PyTree) -> tuple[State, int]:
    """The state of the newest good checkpoint, the initial one if there is none; and its retries."""
    state = checkpoints.restore_newest(template)
    if state is None:
        return begin(), 0
    return jax.device_put(state, shardings), checkpoints.manifest(int(state.step))["retries"]


def _loop(source: Source, report: Reporter, state: State, outlook: Outlook | None,
          put: Callable[[PyTree], PyTree], part: Part, count_of: Callable[[Due], Operations | None]
          ) -> Course:
    game, plan, checkpoints = report.game, report.plan, report.checkpoints
    operations, trace = None, Trace(report.run.folder / "profile", plan.profile if outlook else 0)
    report.rehearse(int(state.step), state, partial(_metric_names, report, source, state))
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
    with (closing(feed), closing(trace), console.Bar(plan.steps, initial=step, unit="step", postfix=(
            "compiling" if step < plan.steps else ""), leads=outlook is not None) as bar):
        while step < plan.steps and not report.has_enough:
            before = time.perf_counter()
            if step == end:
                arrays, end = next(feed)
            due = plan.next_stop(step)
            waited = time.perf_counter() - before
            count = min(due - step, chunk, end - step)
            asked = Due(state, arrays, key, step, trace.begin(count) if first_step_seconds else count)
            operations = operations or count_of(asked)
            state, device_metrics, count, elapsed = yield asked
            elapsed += waited
            trace.count(count)
            if count == 0:
                report.end(step, state, {name: float(value) for name, value in device_metrics.items()})
            if first_step_seconds is None:  # the first dispatch, of one step, compiles
                first_step_seconds = elapsed
                bar.set_postfix_str("", refresh=False)
            else:
                seconds, counted = seconds + elapsed, counted + count
                chunk = max(1, int(_SECONDS_A_DISPATCH * count / elapsed))
            step += count
            if int(state.step) != step:
                raise ValueError(f"the game's step must add 1 to state.step; after {count} from "
                                 f"{step - count} it is {int(state.step)}")
            bar.update(count)
            if outlook is not None:
                outlook(step, counted, seconds, operations.least if operations else None)
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
            if bar.disable and jax.process_index() == 0 and not console.ERRORS.isatty():
                console.warn(f"step {step} of {plan.steps}: {_summary(metrics, evaluation)}")
    return state, {
        "steps": step,
        "final": metrics,
        "evaluation": evaluation,
        "iterations_per_second": counted / seconds if counted else None,
        "first_step_seconds": first_step_seconds,
        "operations_per_iteration": [operations.least, operations.most] if operations else None,
        "peak_device_bytes": peak_memory(),
        "duration_seconds": time.perf_counter() - started,
        "retries": report.retries,
        "params_sha256": params_digest(*game.networks(state).values()),
        "leaves_sha256": leaf_digests(game.networks(state)),
    } | ({"stopped": True} if report.has_enough else {})


def _last_row(report: Reporter, source: Source, state: State
              ) -> tuple[dict[str, float], dict[str, float]]:
    """What was logged last: a step's metrics, and the numbers of its evaluation."""
    names = _metric_names(report, source, state)
    row = (report.run.metrics() or [{}])[-1]
    return ({name: value for name, value in row.items() if name in names},
            {name: value for name, value in row.items() if name not in names | {"step"}})


def _metric_names(report: Reporter, source: Source, state: State) -> set[str]:
    """The names of a step's metrics."""
    plan = report.plan
    return {*jax.eval_shape(partial(
        run_steps, report.game, source=source, batches_per_step=plan.batches_per_step,
        batch_size=plan.batch_size), state, source.arrays, jax.random.key(0), 1)[1]}


def on_devices(game: Game, source: Source, plan: Plan
                ) -> tuple[Callable, Callable[[PyTree], PyTree], Part]:
    """Returns `run_steps` on one device or several, what puts its arrays there, and which part of
    each batch this process draws.
    """
    step_fn = partial(run_steps, game, source=source, batches_per_step=plan.batches_per_step,
                      batch_size=plan.batch_size)
    devices = jax.devices()[:plan.devices or None]
    if len(devices) == 1:
        return _Steps(step_fn), jax.device_put, Part()
    here = [device for device in devices if device.process_index == jax.process_index()]
    everywhere = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(here), "devices"),
                                            jax.sharding.PartitionSpec())
    count = plan.batch_size // len(devices) * len(here)
    return (data_parallel(step_fn, devices=devices, batch_axis=None, donate=True, shard=plan.shard),
            partial(jax.device_put, device=everywhere),
            Part(plan.batch_size, jax.process_index() * count, count))


class _Steps:
    """`run_steps` compiled; what compiling took of the memory is given back before the first step.

    Attributes:
        trace: as of `jax.jit`.
    """

    def __init__(self, step_fn: Callable):
        self._compiled = jax.jit(step_fn, donate_argnums=0)
        self.trace = self._compiled.trace
        self._is_new = True

    def __call__(self, *arguments: Any) -> tuple[State, dict[str, jax.Array]]:
        if self._is_new:
            self._compiled.lower(*arguments).compile()  # which the call finds
            release()
            self._is_new = False
        return self._compiled(*arguments)


def _shardings(template: State, plan: Plan) -> PyTree:
    """How the state is spread over devices; None if each holds all of it."""
    devices = jax.devices()[:plan.devices or None]
    return spread(template, devices) if plan.shard and len(devices) > 1 else None


def _with_shard(template: State, plan: Plan) -> str:
    """What --shard would do about a state that is too large; "" if nothing."""
    devices = jax.devices()[:plan.devices or None]
    part = size_of(template, spread(template, devices))
    if plan.shard or len(devices) == 1 or jax.process_count() > 1 or part > available():
        return ""
    return (f", or give --shard state, with which each of {len(devices)} devices holds "
            f"{part / 1e9:.4g} GB and gathers a network where it is used")


def count_operations(advance: Callable, due: Due) -> Operations | None:
    """Of a step of `run_steps` on one device, which is then traced for its first call, too."""
    trace = getattr(advance, "trace", None)  # several devices have another function
    return trace and operations(trace(due.state, due.arrays, due.key, jnp.int32(1)).jaxpr)


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


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def endings() -> tuple[int, ...]:
    """The signals that ask a program to end, but for a SIGHUP that it was started to ignore."""
    ignores = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # by nohup
    return (signal.SIGTERM,) if ignores else (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals() -> Iterator[list[int]]:
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
    return ", ".join(f"{name} {numbers[name]:.3g}" for name in names if name in numbers)
