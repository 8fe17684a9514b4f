"""Several runs at once: of one program, each with its own seed, numbers and folder."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console
from jaxgan.data import Source, in_memory
from jaxgan.gan import GAN
from jaxgan.loops import Game, run_steps
from jaxgan.memory import available, size_of
from jaxgan.plans import Plan
from jaxgan.reporting import Interrupted, State
from jaxgan.runs import Run
from jaxgan.steps import game as game_of
from jaxgan.training import (
    Course,
    Done,
    Due,
    NotFiniteError,
    count_operations,
    example_batch,
    initial_state,
    on_devices,
    prepared,
    signals,
)
from jaxgan.types import Batch, Device, PyTree

Outcomes = dict[str, tuple[State, dict]]
Remake = Callable[[Mapping[str, Any]], GAN | Game]


class Lane(NamedTuple):
    """One of several runs.

    Attributes:
        name: what its messages begin with.
        game: a GAN, or what is trained in its place.
        run: its folder, or where to make it.
        plan: how long, how often. All lanes have the same batches, each a seed of its own, as a rule.
        options: what else `jaxgan.training.train` is told of it, by name.
        numbers: those in which it differs from the other lanes, if there are any.
    """

    name: str
    game: GAN | Game
    run: Run | str | Path
    plan: Plan
    options: Mapping[str, Any] = {}
    numbers: Mapping[str, float] = {}


def train_seeds(game: GAN | Game, source: Source | Batch | PyTree, folder: str | Path,
                seeds: Iterable[int], *, together: bool | None = None,
                options: Mapping[str, Any] = {}, **planned: Any) -> Outcomes:
    """Trains a run for each of several seeds, in `folder/seed_N`.

    `train_seeds(gan, images, "runs/a", range(4), steps=500)` is enough.

    Args:
        game: a GAN, or what is to be trained in its place.
        source: the data, as for `jaxgan.training.train`.
        folder: where to make the runs' folders.
        seeds: which.
        together: as for `train_lanes`.
        options: what else `jaxgan.training.train` is told of each run.
        planned: the fields of `Plan`, but for the seed.

    Returns:
        The final state and what `result.json` holds of each run, by "seed_N".

    Raises:
        ValueError: there is no seed, or one twice; else as `train_lanes`.
    """
    seeds = [*seeds]
    if not seeds or len({*seeds}) < len(seeds):
        raise ValueError(f"seeds must be one or more whole numbers, each once; got {seeds}")
    source = source if isinstance(source, Source) else in_memory(source)
    return train_lanes(source, [
        Lane(f"seed_{seed}", game, Path(folder) / f"seed_{seed}", Plan(seed=seed, **planned), options)
        for seed in seeds], together=together)


def train_lanes(source: Source, lanes: Sequence[Lane], *, together: bool | None = None,
                remake: Remake | None = None, ended: Callable[[str, dict], object] = lambda *_: None
                ) -> Outcomes:
    """Trains several runs, all at once by `jax.vmap` or one after the other.

    Each draws the noise and the data that it draws alone, and is a run like any other: it is resumed,
    evaluated and sampled by its folder. One after the other they have the bits that they have alone.
    Together the sums are taken in another order. Several devices share the lanes. A lane that diverges
    or stops early leaves the others to go on.

    Args:
        source: the data.
        lanes: the runs.
        together: whether all at once; None for where that is quicker and fits the memory: on an
            accelerator. Kernels of convolutions become those of grouped ones then.
        remake: numbers, which are traced -> the GAN or game that has them; for lanes with numbers,
            together.
        ended: called with the name of each lane that ends and what its `result.json` holds.

    Returns:
        The final state and what `result.json` holds of each run, by its name.

    Raises:
        ValueError: there are several processes, lanes whose batches differ, or numbers that decide
            what is computed or a state that is spread, which one program can't have.
        NotFiniteError: lanes have diverged; the others are trained to their end.
        Interrupted: a signal came or the time was over; each lane that had begun is saved.
        Exception: as `jaxgan.training.train`; the others end where they were last saved.
    """
    if jax.process_count() > 1:
        raise ValueError(f"several runs at once are for one process; there are {jax.process_count()}: "
                         "start each run by itself")
    if len({lane.name for lane in lanes}) < len(lanes):
        raise ValueError(f"lanes must have names of their own; got {[lane.name for lane in lanes]}")
    sizes = {(lane.plan.batch_size, lane.plan.batches_per_step) for lane in lanes}
    if len(sizes) > 1:
        raise ValueError(f"lanes must have batches of one size; got {sorted(sizes)}")
    if together and any(lane.plan.shard for lane in lanes):
        raise ValueError("shard is for runs one after the other: those of one program share the devices "
                         "by runs; give --sequential, or leave --shard out")
    games = {id(lane.game): game_of(lane.game) for lane in lanes}  # the same one is compiled once
    runs = {lane.name: replace(prepared(lane.game, source, lane.run, lane.plan, **lane.options),
                               game=games[id(lane.game)]) for lane in lanes}
    outcomes: Outcomes = {}
    failed: dict[str, NotFiniteError] = {}

    def go(courses: Mapping[str, Course], advance: Advance) -> None:
        for name, outcome in _ends(courses, advance):
            if isinstance(outcome, NotFiniteError):
                failed[name] = outcome
            else:
                outcomes[name] = outcome
                ended(name, outcome[1])

    with signals() as received:
        if goes_together(source, lanes) if together is None else together:
            _check_one_program(lanes, remake)
            step = Together(games[id(lanes[0].game)], source, lanes, remake)
            go({name: run.course(received, put=step.put(name), leads=name == lanes[0].name)
                for name, run in runs.items()}, step)
        else:
            programs: dict[int, Any] = {}  # of one game it is compiled once
            for name, run in runs.items():
                advance, put, part = programs.setdefault(
                    id(run.game), on_devices(run.game, source, run.plan))
                go({name: run.course(received, put=put, part=part,
                                     count=partial(count_operations, advance))},
                   partial(_alone, advance))
    if failed:
        name, error = next(iter(failed.items()))
        others = f"; so did {', '.join([*failed][1:])}" if len(failed) > 1 else ""
        raise NotFiniteError(f"{name}: {error}{others}; {len(outcomes)} of {len(lanes)} runs are "
                             "trained to their end")
    return outcomes


def _check_one_program(lanes: Sequence[Lane], remake: Remake | None) -> None:
    """Raises ValueError for lanes that differ in more than seeds and numbers."""
    names = {tuple(sorted(lane.numbers)) for lane in lanes}
    if len(names) > 1:
        raise ValueError("lanes of one program must have numbers of the same names; got "
                         f"{sorted(names)}")
    if len({id(lane.game) for lane in lanes}) > 1 and not (remake and lanes[0].numbers):
        raise ValueError("lanes of one program must have one game, or differ in numbers by which "
                         "`remake` makes it: give these, or together=False")


def goes_together(source: Source, lanes: Sequence[Lane]) -> bool:
    """Whether lanes are trained at once, if nobody says how: on an accelerator that holds them all."""
    devices = jax.local_devices()[:lanes[0].plan.devices or None]
    if devices[0].platform == "cpu" or any(lane.plan.shard for lane in lanes):
        return False
    state = jax.eval_shape(partial(initial_state, game_of(lanes[0].game), 0,
                                   example_batch(source, lanes[0].plan.batch_size)))
    needed = 2 * size_of(state) * math.ceil(len(lanes) / len(devices))  # before and after a step
    if needed <= available():
        return True
    warnings.warn(f"the {len(lanes)} runs go one after the other: together their networks and "
                  f"optimisers take {needed / 1e9:.4g} GB of a device", UserWarning, stacklevel=3)
    return False


Advance = Callable[[Mapping[str, Due], int], Mapping[str, tuple[State, dict[str, jax.Array]]]]


def _ends(courses: Mapping[str, Course], advance: Advance
          ) -> Iterator[tuple[str, tuple[State, dict] | NotFiniteError]]:
    """Takes courses to their ends, those that are behind first, and yields what comes of each.

    Raises:
        Interrupted: a course was stopped, and all others with it.
    """
    waiting: dict[str, Due] = {}
    last: dict[str, dict[str, jax.Array]] = {}  # metrics
    stops: list[Interrupted] = []

    def proceed(name: str, done: Done | None = None) -> Iterator[tuple[str, Any]]:
        waiting.pop(name, None)
        try:
            with console.speaking(name):
                waiting[name] = courses[name].send(done) if done else next(courses[name])
        except StopIteration as end:
            yield name, end.value
        except NotFiniteError as error:
            yield name, error
        except Interrupted as stop:
            stop.resume = "auto"
            stops.append(stop)

    with ExitStack() as stack:
        for name, course in courses.items():
            stack.enter_context(closing(course))
            yield from proceed(name)
        while waiting:
            before = time.perf_counter()
            step = min(due.step for due in waiting.values())
            behind = {name: due for name, due in waiting.items() if due.step == step}
            count = 0 if stops else min(due.count for due in behind.values())
            results = (advance(behind, count) if count else
                       {name: (due.state, last.get(name, {})) for name, due in waiting.items()})
            seconds = time.perf_counter() - before
            for name, (state, metrics) in results.items():
                last[name] = metrics
                yield from proceed(name, Done(state, metrics, count, seconds))
    if stops:
        raise stops[0]


def _alone(advance: Callable, dues: Mapping[str, Due], count: int
           ) -> dict[str, tuple[State, dict[str, jax.Array]]]:
    """The steps of each run by itself."""
    return {name: jax.block_until_ready(advance(due.state, due.arrays, due.key, jnp.int32(count)))
            for name, due in dues.items()}


class Together:
    """The steps of several lanes at once, in one program for each device; they take lanes in turn."""

    def __init__(self, game: Game, source: Source, lanes: Sequence[Lane], remake: Remake | None):
        plan = lanes[0].plan
        devices = jax.local_devices()[:plan.devices or None]
        self._devices = {lane.name: devices[i % len(devices)] for i, lane in enumerate(lanes)}
        self._numbers = {lane.name: {name: np.float32(number) for name, number in lane.numbers.items()}
                         for lane in lanes}
        self._game, self._remake = game, remake
        self._source, self._plan = source, plan
        self._resident: dict[Device, PyTree] = {}
        self._program = jax.jit(self.steps, static_argnums=0, donate_argnums=1)

    def put(self, name: str) -> Callable[[PyTree], PyTree]:
        """What puts a lane's arrays on its device; those that all lanes have are there once."""
        device, arrays = self._devices[name], self._source.arrays

        def place(those: PyTree) -> PyTree:
            if those is not arrays:
                return jax.device_put(those, device)
            if device not in self._resident:
                self._resident[device] = jax.device_put(those, device)
            return self._resident[device]

        return place

    def __call__(self, dues: Mapping[str, Due], count: int
                 ) -> dict[str, tuple[State, dict[str, jax.Array]]]:
        """The states of lanes, and their last metrics, after so many steps more."""
        results = {}
        for device in dict.fromkeys(self._devices[name] for name in dues):  # none waits for another
            names = [name for name in dues if self._devices[name] is device]
            states = jax.device_put(tuple(dues[name].state for name in names), device)
            arrays = [dues[name].arrays for name in names]
            is_same = all(those is arrays[0] for those in arrays)
            results |= zip(names, self._program(
                (alike(states), None if is_same else 0), states,
                arrays[0] if is_same else _stacked(arrays),
                _stacked([dues[name].key for name in names]), jnp.int32(count),
                _stacked([self._numbers[name] for name in names])), strict=True)
        return jax.block_until_ready(results)

    def steps(self, mapped: tuple[tuple[bool, ...], int | None], states: tuple[State, ...],
              arrays: PyTree, keys: jax.Array, count: jax.Array | int, numbers: PyTree
              ) -> tuple[tuple[State, dict[str, jax.Array]], ...]:
        """The program of one device's lanes.

        Args:
            mapped: which leaves of the states all lanes have in common, as `alike` says; and None if
                they have the arrays in common, too, or 0 if these are of each lane, along that axis.
            states: of each lane.
            arrays: as for `run_steps`.
            keys: of each lane.
            count: how many steps.
            numbers: in which the lanes differ, an array of each by name.

        Returns:
            The new state and the last metrics of each lane.
        """
        common, of_arrays = mapped
        structure = jax.tree.structure(states[0])
        if any(jax.tree.structure(state) != structure for state in states):
            raise self._differing()

        def one(leaves: list[jax.Array], arrays: PyTree, key: jax.Array, numbers: PyTree
                ) -> tuple[State, dict[str, jax.Array]]:
            state = jax.tree.unflatten(structure, leaves)
            return run_steps(self._with(numbers), state, arrays, key, count, source=self._source,
                             batches_per_step=self._plan.batches_per_step,
                             batch_size=self._plan.batch_size)

        columns = zip(*map(jax.tree.leaves, states), strict=True)
        leaves = [column[0] if is_common else jnp.stack(column)
                  for column, is_common in zip(columns, common, strict=True)]
        axes = [None if is_common else 0 for is_common in common]
        after = jax.vmap(one, in_axes=(axes, of_arrays, 0, 0))(
            leaves, arrays, keys, numbers)
        return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], after) for i in range(len(states)))

    def _with(self, numbers: Mapping[str, Any]) -> Game:
        if not numbers or self._remake is None:
            return self._game
        try:
            return game_of(self._remake(numbers))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
                jax.errors.TracerIntegerConversionError) as error:
            raise self._differing() from error

    def _differing(self) -> ValueError:
        names = dict.fromkeys(name for numbers in self._numbers.values() for name in numbers)
        return ValueError(f"{' and '.join(names) or 'the games'} can't differ within one program, where "
                          "what is computed depends on them: train the runs one after the other, "
                          "--sequential")


def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def alike(states: Sequence[State]) -> tuple[bool, ...]:
    """Which leaves of states are counts that all of them have in common.

    They stay one for all, so that what is due in some updates alone is computed in no others.
    """
    columns = [*zip(*map(jax.tree.leaves, states), strict=True)]
    are_counts = [leaf.shape == () and jnp.issubdtype(leaf.dtype, jnp.integer) for leaf, *_ in columns]
    counts = iter(jax.device_get([column for column, is_count in zip(columns, are_counts, strict=True)
                                  if is_count]))
    return tuple(is_count and len({*map(int, next(counts))}) == 1 for is_count in are_counts)
