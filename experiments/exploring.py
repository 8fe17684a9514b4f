"""What `experiments.explore` shows of a run: samples, the critic's scores of them, and their command."""

import dataclasses
import math
import shlex
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, keys, styles
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import draw_step, windows
from jaxgan.data.scaling import Scaling, from_json
from jaxgan.extras import MissingExtra
from jaxgan.gan import GAN, draw_latents, generate, judge, sample
from jaxgan.loops import Game
from jaxgan.runs import check_data
from jaxgan.types import Array, Batch, Key, PyTree, batch_size

from . import measuring, opening
from .commands import called
from .opening import OpenRun
from .sample import label_number, spherical
from .saving import parts_of
from .showing import drawn, in_units, is_of_classes

_AT_ONCE = 100  # samples, as `sample` draws them
_COUNTS = 1, 4, 9, 16, 25, 36, 49, 64, 100, 400, 1000  # each is a program of its own
_MOST = {1: 1000, 2: 16, 3: 100, 4: 9}  # that one picture shows, by the axes of a sample
_MOST_LINES = 100
_LARGE = 64  # pixels of an image, of which few are drawn at first
_REALS = 100  # at least, whose scores are shown
_KEPT = 2  # checkpoints in memory
# What may go wrong with data and checkpoints, and is said in a sentence.
ERRORS = (ValueError, TypeError, OSError, MemoryError, MissingExtra, jax.errors.JaxRuntimeError)


class Controls(NamedTuple):
    """What there is to choose of a run's samples.

    Attributes:
        counts: how many samples may be drawn.
        count: how many are drawn at first.
        classes: the names of the classes, each another one; () of a run that isn't for classes.
        numbers: what the numbers are that samples are drawn for; None of a run that isn't for numbers.
        has_average: whether there is an averaged generator beside the one that was trained.
        has_truncation: whether styles can be truncated.
        between: in what samples of two seeds are joined: "latents", "styles", or "" where they can't be.
        has_scores: whether there is a critic.
    """

    counts: tuple[int, ...]
    count: int
    classes: tuple[str, ...]
    numbers: Scaling | None
    has_average: bool
    has_truncation: bool
    between: str
    has_scores: bool


class Asked(NamedTuple):
    """What is to be shown.

    Attributes:
        seed: of the latents, as for `sample --seed`.
        count: how many samples.
        label: of a run for classes: the number of the one to draw; None for all in turn.
        numbers: of a run for numbers: those to draw for, in the data's units; None for those of the
            held-out data.
        checkpoint: latest, best or a step.
        averaged: whether the averaged generator draws, where there is one.
        truncation: what is left of the styles' way from their average.
        other_seed: None, or the seed that `share` leads to.
        share: how far to go there, from 0 to 1.
    """

    seed: int = 0
    count: int = 64
    label: int | None = None
    numbers: tuple[float, ...] | None = None
    checkpoint: str = "latest"
    averaged: bool = True
    truncation: float = 1.0
    other_seed: int | None = None
    share: float = 0.0


class Shown(NamedTuple):
    """What is shown.

    Attributes:
        step: of the checkpoint.
        samples: as the generator gives them, [count, ...].
        picture: of them, uint8 [height, width, 3]; None of text.
        lines: the samples of text, a line each; None of others.
        scores: the critic's, one for each sample, or for each pack of them; [0] if there are none.
        real_scores: the same of samples of the training data.
        note: why some of the scores aren't there; "" if they are.
        commands: what draws these samples; of samples between two seeds those of both ends.
    """

    step: int
    samples: np.ndarray
    picture: np.ndarray | None
    lines: list[str] | None
    scores: np.ndarray
    real_scores: np.ndarray
    note: str
    commands: tuple[str, ...]


def controls(run: OpenRun, run_dir: str | Path) -> Controls:
    """Returns what there is to choose of a run; no checkpoint is looked at.

    Raises:
        ValueError: the run is none whose samples can be looked at so.
    """
    settings, game = run.settings, run.game
    shape, condition = tuple(settings["sample_shape"]), settings["condition"]
    if isinstance(game, Game) and game.sample is None:
        raise ValueError(f"{run_dir} has no samples to look at: what was trained has no `sample`")
    if isinstance(condition, list) and len(condition[0]) == len(shape) == 3:
        raise ValueError(f"{run_dir} translates images, and this page is for samples of latents: "
                         f"translate a folder with {called('sample')} {run_dir} --input FOLDER --out "
                         "OTHER_FOLDER")
    if not run.experiment.make_text and not (
            1 <= len(shape) <= 4 and all(isinstance(size, int) for size in shape)):
        raise ValueError(f"there are no pictures of samples of shape {shape}: save those of {run_dir} "
                         f"with {called('sample')}")
    is_gan = isinstance(game, GAN)
    is_styled = is_gan and styles.has_styles(game.generator)
    latents = jax.eval_shape(lambda: draw_latents(game, jax.random.key(0), 2)) if is_gan else None
    joined = isinstance(latents, jax.ShapeDtypeStruct) and latents.ndim == 2
    is_text, is_large = bool(run.experiment.make_text), len(shape) == 3 and max(shape[:2]) > _LARGE
    most = _MOST_LINES if is_text else _MOST[len(shape)]
    return Controls(
        counts=tuple(count for count in _COUNTS if count <= most),
        count=25 if is_text else 16 if is_large else 64 if len(shape) == 3 else most,
        classes=_class_names(settings) if is_of_classes(settings) else (),
        numbers=from_json(settings.get("numbers")),
        has_average=is_gan and game.ema_decay is not None and not opening.is_exported(run_dir),
        has_truncation=is_gan and hasattr(game.generator, "truncation_psi"),
        between=("styles" if is_styled else "latents") if joined else "",
        has_scores=is_gan)


def _class_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What the classes are called, each in another way."""
    count, names = settings["num_classes"] or 0, settings.get("class_names")
    if not isinstance(names, list) or len(names) != count:
        return tuple(map(str, range(count)))
    shown = [console.printable(str(name)) for name in names]
    return tuple(name if shown.count(name) == 1 and name else f"{name} ({number})"
                 for number, name in enumerate(shown))


class Explorer:
    """A run, opened to be looked at. What it draws it draws one after the other, for any thread.

    Args:
        run_dir: the run's folder, or an exported file of its networks, as it was given.
        experiment: the file of the user's own experiment that was run.
        data_dir: where the data are, if not where they were.
        autoencoder: of a run on latents, where what decodes them is, if not where it was.
        reals: whether the run's data are opened, for samples of them beside the generated ones.

    Raises:
        ValueError: the run can't be opened, or has no samples to be looked at.
    """

    def __init__(self, run_dir: str, experiment: str = "", data_dir: str = "", autoencoder: str = "", *,
                 reals: bool = True):
        self.run_dir, self._shows_reals = run_dir, reals
        self._where = {"experiment": experiment, "data-dir": data_dir, "autoencoder": autoencoder}
        self.run = opening.open_run(run_dir, None, experiment=experiment, data_dir=data_dir,
                                    autoencoder=autoencoder)
        self.controls = controls(self.run, run_dir)
        self._lock = threading.Lock()
        self._states: dict[tuple[Any, ...], Any] = {}
        self._real_scores: dict[tuple[Any, ...], np.ndarray] = {}

    def checkpoints(self) -> list[str]:
        """The checkpoints that are there now: latest, best if one is, and the steps, the last first.

        Raises:
            ValueError: there are none.
        """
        if opening.is_exported(self.run_dir):
            return ["latest"]
        found = Checkpoints(Path(self.run_dir) / "checkpoints",
                            best_metric=self.run.config.run.best_metric or None)
        steps = found.steps()
        if not steps:
            raise ValueError(f"there is no checkpoint in {self.run_dir}")
        return ["latest", *["best"] * (found.best_step() is not None), *map(str, reversed(steps))]

    def draw(self, asked: Asked) -> Shown:
        """Draws samples, and has the critic score them.

        Raises:
            ValueError: there is no such checkpoint, or something that was asked for is out of its range.
        """
        with self._lock:
            return self._draw(asked)

    def _draw(self, asked: Asked) -> Shown:
        asked = self._checked(asked)
        run, make_text = self.run, self.run.experiment.make_text
        which, state = self._state(asked.checkpoint)
        if not asked.averaged and self.controls.has_average:
            state = state._replace(ema=None)
        condition = self._condition(asked)
        samples = self._samples(state, asked, condition)
        scores = real_scores = np.zeros(0)
        note = ""
        if self.controls.has_scores:
            scores = self._scores(state, samples, condition)
            if not len(scores):
                note = (f"The critic scores {self._pack} samples at once: draw at least as many to see "
                        "scores.")
            real_scores, missing = self._scores_of_reals(which, state, max(asked.count, _REALS))
            note = missing or note
        picture = lines = None
        if make_text:
            lines = make_text(run.settings)(samples)
        else:
            reals = self._reals if samples.ndim == 2 else None
            beside = (in_units(reals.samples[:max(asked.count, _REALS)], run.settings)
                      if isinstance(reals, Batch) else None)
            if decoding := run.reference.decoding:
                samples = decoding.decode(samples)
            picture = drawn(samples, run.settings, None, beside)
        return Shown(int(state.step), samples, picture, lines, scores, real_scores, note,
                     self.commands(asked))

    def _checked(self, asked: Asked) -> Asked:
        """What is asked for, without what is at neither end of a way.

        Raises:
            ValueError: something of it is out of its range.
        """
        chosen = self.controls
        keys.check_seed(asked.seed)
        if asked.count not in chosen.counts:
            raise ValueError("the number of samples must be one of "
                             f"{', '.join(map(str, chosen.counts))}; got {asked.count}")
        if asked.label is not None and not 0 <= asked.label < len(chosen.classes):
            raise ValueError(f"this run has {console.counted(len(chosen.classes), 'class', 'es')}, and "
                             f"none of the number {asked.label}")
        if asked.numbers is not None and (
                chosen.numbers is None or len(asked.numbers) != len(chosen.numbers.low)
                or not all(map(math.isfinite, asked.numbers))):
            raise ValueError(f"these are no finite numbers that this run draws for: {asked.numbers}")
        if not math.isfinite(asked.truncation):
            raise ValueError(f"truncation must be a finite number; got {asked.truncation}")
        if asked.other_seed is None or not chosen.between:
            return asked._replace(other_seed=None, share=0.0)
        keys.check_seed(asked.other_seed, "the other seed")
        if not 0 <= asked.share <= 1:
            raise ValueError(f"the share must be from 0 to 1; got {asked.share}")
        if asked.share == 0 or asked.other_seed == asked.seed:
            return asked._replace(other_seed=None, share=0.0)
        if asked.share == 1:
            return asked._replace(seed=asked.other_seed, other_seed=None, share=0.0)
        return asked

    def commands(self, asked: Asked) -> tuple[str, ...]:
        """The commands that draw what is asked for: one, or those of both ends of a way."""
        asked, chosen = self._checked(asked), self.controls
        flags = {"num": str(asked.count)}
        if asked.checkpoint != "latest":
            flags["checkpoint"] = asked.checkpoint
        if asked.label is not None:
            flags["label"] = self._spelt(asked.label)
        if asked.numbers is not None:
            flags["condition"] = ",".join(map(repr, map(float, asked.numbers)))
        if chosen.has_truncation and asked.truncation != 1:
            flags["truncation"] = repr(float(asked.truncation))
        flags |= {name: value for name, value in self._where.items() if value}
        words = [f"--{name}={value}" for name, value in flags.items()]
        if chosen.has_average and not asked.averaged:
            words.append("--as-trained")
        seeds = [seed for seed in (asked.seed, asked.other_seed) if seed is not None]
        return tuple(" ".join((called("sample"), shlex.join([self.run_dir, f"--seed={seed}", *words])))
                     for seed in seeds)

    def _spelt(self, label: int) -> str:
        """A class as `sample --label` takes it: by its name, if that says which one it is."""
        settings = self.run.settings
        names, count = settings.get("class_names"), len(self.controls.classes)
        named = names[label] if isinstance(names, list) and len(names) == count else None
        is_told = (isinstance(named, str) and named and named.isprintable()
                   and label_number(named, count, names) == label)
        return named if is_told else str(label)

    def _state(self, checkpoint: str) -> tuple[tuple[Any, ...], Any]:
        """What names a checkpoint, and its state, on the device and without the optimisers'."""
        steps = self.checkpoints()[1:]
        which = checkpoint, *steps
        if which not in self._states:
            state = self._opened(checkpoint)
            if isinstance(self.run.game, GAN):
                state = state._replace(**{
                    role: getattr(state, role)._replace(opt_state=(), weighting=(), terms=())
                    for role in ("generator", "critic")})
            while len(self._states) >= _KEPT:
                self._states.pop(next(iter(self._states)))
            self._states[which] = jax.device_put(state)
        return which, self._states[which]

    def _opened(self, checkpoint: str) -> Any:
        run = self.run
        if opening.is_exported(self.run_dir):
            return opening.open_run(self.run_dir, checkpoint, **{
                name.replace("-", "_"): value for name, value in self._where.items()}).state
        return opening.restore(self.run_dir, run.config, run.game, run.settings, run.reference,
                               checkpoint)

    def _condition(self, asked: Asked) -> PyTree:
        """What samples are drawn for, as `sample` has it; leaves are [count, ...]."""
        if asked.numbers is not None:
            scaled = self.controls.numbers.to_float(np.array([asked.numbers], np.float64))
            return np.tile(scaled, (asked.count, 1))
        if asked.label is not None:
            return np.full(asked.count, asked.label, np.int32)
        return self._requests.condition(np.arange(asked.count)) if self._requests else None

    @cached_property
    def _requests(self) -> Any:
        return measuring.requests(self.run.reference, self.run.settings)

    def _samples(self, state: Any, asked: Asked, condition: PyTree) -> np.ndarray:
        def keys_of(seed: int) -> Key:
            return keys.per_example(keys.stream(keys.of_seed(seed), "latents"), asked.count)

        psi, firsts = np.float32(asked.truncation), keys_of(asked.seed)
        if asked.other_seed is None:
            return _in_parts(lambda *part: self._plain(state, psi, *part), _AT_ONCE, firsts, condition)
        share = np.float32(asked.share)
        return _in_parts(lambda *part: self._between(state, psi, share, *part), _AT_ONCE, firsts,
                         keys_of(asked.other_seed), condition)

    @cached_property
    def _plain(self) -> Callable[..., Array]:
        """Samples of keys, compiled once for each number of them."""
        return jax.jit(lambda state, psi, example_keys, condition: (
            self.run.game.sample(state, example_keys, len(example_keys), condition)
            if isinstance(self.run.game, Game) else
            sample(self._truncated(psi), state, example_keys, len(example_keys), condition)))

    @cached_property
    def _between(self) -> Callable[..., Array]:
        """Samples between those of two sets of keys."""
        def draw(state: Any, psi: Array, share: Array, firsts: Key, seconds: Key, condition: PyTree
                 ) -> PyTree:
            gan, count = self._truncated(psi), len(firsts)
            start, end = (draw_latents(gan, example_keys, count) for example_keys in (firsts, seconds))
            if self.controls.between == "latents":
                latents = jax.vmap(spherical, (0, 0, None))(start, end, share)
                return generate(gan, state, latents, condition)
            start, end = (styles.styles(gan, state, latents, condition) for latents in (start, end))
            return styles.synthesise(gan, state, (1 - share) * start + share * end)

        return jax.jit(draw)

    def _truncated(self, psi: Array) -> GAN:
        """The GAN with truncated styles, if it has some; a number that is no part of the program."""
        if not self.controls.has_truncation:
            return self.run.game
        return dataclasses.replace(self.run.game,
                                   generator=self.run.game.generator.clone(truncation_psi=psi))

    @property
    def _pack(self) -> int:
        return self.run.settings.get("pack") or 1

    def _scores(self, state: Any, samples: PyTree, condition: PyTree) -> np.ndarray:
        """The critic's, one for each whole pack, float [count // pack]; of patches their mean."""
        count = batch_size(samples) // self._pack * self._pack
        if not count:
            return np.zeros(0)
        samples, condition = jax.tree.map(lambda x: x[:count], (samples, condition))
        at_once = max(_AT_ONCE // self._pack, 1) * self._pack
        scores = _in_parts(lambda *part: self._judged(state, *part), at_once, samples, condition)
        return scores.reshape(len(scores), -1).mean(1)

    @cached_property
    def _judged(self) -> Callable[..., Array]:
        return jax.jit(lambda state, samples, condition: judge(
            self.run.game, state, samples, condition).scores)

    def _scores_of_reals(self, which: tuple[Any, ...], state: Any, count: int) -> tuple[np.ndarray, str]:
        """Those of so many training samples, and "" or why there are none."""
        reals = self._reals
        if isinstance(reals, str):
            return np.zeros(0), reals
        if (which, count) not in self._real_scores:
            samples, condition = jax.tree.map(lambda x: x[:count], (reals.samples, reals.condition))
            scores = self._scores(state, samples, condition)
            while len(self._real_scores) >= 2 * _KEPT:
                self._real_scores.pop(next(iter(self._real_scores)))
            self._real_scores[which, count] = scores
        return self._real_scores[which, count], ""

    @cached_property
    def _reals(self) -> Batch | str:
        """Some samples of the training data; or why there are none, in a sentence."""
        run, settings = self.run, self.run.settings
        if not self._shows_reals:
            return "The run's data weren't opened, as --no-reals asks."
        try:
            source = run.experiment.make_source(run.config)
            check_data(self.run_dir, settings, {"data_sha256": source.digest or None})
            if [*source.sample_shape] != (shape := opening.trained_shape(settings)):
                raise ValueError(f"the data are of shape {tuple(source.sample_shape)}, and those of the "
                                 f"run of {tuple(shape)}")
            key = keys.stream(keys.of_seed(run.config.schedule.seed), "real")
            most = max(self.controls.counts[-1], _REALS)
            count = min(most, source.size or most)
            (arrays, _), = windows(source, key, count, 0, 1)
            batch = jax.jit(lambda arrays: draw_step(source, arrays, key, 0, count, jnp.arange(count)))(
                arrays)
        except ERRORS as error:
            return f"The run's data can't be shown beside ({error})."
        return jax.tree.map(np.asarray, batch)


def _in_parts(make: Callable[..., Array], at_once: int, *trees: PyTree) -> np.ndarray:
    """What a function makes of some examples at a time, all of it."""
    return np.concatenate([*parts_of(make, trees, batch_size(trees), at_once)])
