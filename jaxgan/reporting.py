"""What happens in a run between two dispatches: logs, samples, evaluations, checkpoints, callbacks."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, cast

import jax
import numpy as np

from jaxgan import console
from jaxgan.checkpoints import Checkpoints
from jaxgan.digests import leaf_digests
from jaxgan.evaluation import nearest
from jaxgan.loops import Game
from jaxgan.parallel import agreed
from jaxgan.plans import Plan
from jaxgan.runs import Run
from jaxgan.types import described


class Interrupted(Exception):
    """Training was stopped by a signal or when its time was over, after a checkpoint.

    Attributes:
        step: the step that the checkpoint is of.
        signal: the signal's number; None if the time was over.
        resume: how to go on: "latest", or "auto" where there may be no checkpoint yet.
    """

    resume = "latest"

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


@dataclasses.dataclass
class Watch:
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
class Reporter:
    """What happens between two dispatches."""

    game: Game
    run: Run
    plan: Plan
    checkpoints: Checkpoints
    retries: int
    picture: Picture | None
    evaluate: Evaluate | None
    watch: Watch
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
            check_picture("what picture returns", samples)
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

    def end(self, step: int, state: State, metrics: dict[str, float]) -> NoReturn:
        """Ends a run that waits for others at a step, which it has told of, when all are to stop.

        Raises:
            Interrupted: the state is saved.
        """
        stop, = self.watch()
        self.checkpoints.wait()
        if step not in self.checkpoints.steps():
            self.checkpoints.save(step, state, metrics, retries=self.retries, unscored=True)
            self.checkpoints.wait()
        raise Interrupted(step, stop or None)

    def rehearse(self, step: int, state: State, names_of_step: Callable[[], set[str]]) -> None:
        """Tries what comes later, so that what can't work is found out before it has cost anything.

        Args:
            step: the one that the run goes on from.
            state: its state.
            names_of_step: gives the names of a step's metrics; it is only asked if one is watched.

        Raises:
            ValueError: the picture is none, or there is no metric that is watched.
        """
        if self.picture is not None:
            check_picture("what picture returns", self.picture(state))
        if not self.plan.eval_every or self.evaluate is None:
            names: set[str] = set()  # of an evaluation's numbers
        elif step > 0:  # it was tried when the run began
            names = {name for row in self.run.metrics() for name in row} - {"step"}
        else:
            rehearse = getattr(self.evaluate, "rehearse", None)
            try:
                names = {*rehearse(state)} if rehearse else {*_numbers(self.evaluate(state, self._tick))}
            except _Abandoned:
                return  # the loop will be told, too
        watched = {self.plan.best_metric, *(getattr(callback, "watches", None)
                                            for callback in self.callbacks)} - {None} - names
        if not watched:
            return
        of_step = names_of_step()
        are_all = step == 0 or not self.plan.eval_every or (  # else none was evaluated, or not here
            jax.process_index() == 0 and not names <= of_step)
        if are_all and (unknown := sorted(cast("set[str]", watched) - of_step)):
            known = sorted(names | of_step)
            raise ValueError(f"no metric is called {unknown[0]!r}: {nearest(unknown[0], known)}")

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


def check_picture(what: str, picture: Any) -> None:
    """Raises TypeError for what is neither a picture nor text."""
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
