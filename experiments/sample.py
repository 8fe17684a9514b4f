"""Draws samples from a trained run."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxgan import console, keys
from jaxgan.data.scaling import from_json
from jaxgan.evaluation import Samples, nearest
from jaxgan.gan import GAN, draw_latents, generate
from jaxgan.loops import Game
from jaxgan.steps import game as game_of
from jaxgan.styles import has_styles
from jaxgan.types import Key, PyTree, batch_size

from . import launch, measuring, saving, styling, translating
from .commands import called
from .opening import folder_of, open_run
from .showing import is_of_classes

_FRAME_RATE = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(styling.Flags):
    """What to draw."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run's folder, or a .safetensors file of its networks."""
    input: str = ""
    """For a run that translates images: a folder of images to translate, each of which is saved under
    its own name, as PNG, in the folder --out."""
    backwards: bool = False
    """With --input, for a run that translates both ways: translate in the opposite direction."""
    num: int = 64
    """How many samples; with --interpolate or --mix, how many rows."""
    out: str = ""
    """The file: .png for a picture, .txt for text, one sample a line, .npy or .npz (for vectors
    also .csv) for the samples in the units and the type of the data, such as bytes for images; .npz also
    holds the labels that they were drawn for. With images, a folder (a name without a suffix) gets a PNG
    of each, and .gif or .mp4 with --interpolate is an animation. By default a new picture in the run's
    folder `drawn`; text is printed."""
    checkpoint: str = "latest"
    """The checkpoint: latest, best or a step."""
    as_trained: bool = False
    """Use the generator as it was trained, not its average."""
    experiment: str = ""
    """For a run of your own experiment: the Python file that holds it."""
    seed: int = 0
    """The seed of the latents."""
    data_dir: str = ""
    """Where the data are that samples are drawn for, such as masked images, if they have moved."""
    autoencoder: str = ""
    """For a run on latents: where its autoencoder is, if that has moved."""
    label: str = ""
    """For a run with classes: the class to draw, by its name or number; by default all in turn."""
    condition: str = ""
    """For a run with numbers: those to draw for, such as 0.3,1.2, in the data's units; by default those
    of the held-out data."""
    grid_by_class: bool = False
    """For a run with classes: a row for each class, of --columns samples."""
    interpolate: bool = False
    """Rows that go from one sample to another, along the great circle between their latents."""
    columns: int = 10
    """Samples in a row of an interpolation, of a class or of mixed styles; frames of an animation in one
    direction."""
    frame_rate: int | None = None
    """For an animation: frames per second; None: 20."""


def main(options: Options) -> None:
    """Draws the samples and saves them."""
    for name in ("num", "columns"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(options, name)}")
    run = open_run(options.run_dir, options.checkpoint, experiment=options.experiment,
                   data_dir=options.data_dir, autoencoder=options.autoencoder)
    if options.input or options.backwards:
        translating.translate(options, run)
        return
    settings, game, state = run.settings, styling.settled(run.game, options), run.state
    if options.as_trained and hasattr(state, "ema"):
        state = state._replace(ema=None)
    make_text = run.experiment.make_text
    as_lines = make_text(settings) if make_text else None
    out = _checked(options, tuple(settings["sample_shape"]), as_lines is not None, int(state.step))
    key = keys.of_seed(options.seed)

    classes = settings["num_classes"] if is_of_classes(settings) else 0
    _check_classes(options, classes)
    label = label_number(options.label, classes, settings.get("class_names")) if options.label else None
    rows, columns = options.num, options.columns
    num = (classes * columns if options.grid_by_class else
           rows if options.mix is None else rows + columns)
    numbers = _numbers(options, settings)
    condition = (np.tile(numbers, (num, 1)) if numbers is not None else
                 _condition(options, classes, label, num, measuring.requests(run.reference, settings)))
    if options.interpolate:
        condition = jax.tree.map(lambda x: x.repeat(columns, axis=0), condition)
    is_picture = out is not None and out.suffix == ".png"
    is_bordered = options.mix is not None and is_picture
    made_of, draw = _plan(game, options, key, condition, num, is_bordered)
    parts = saving.parts_of(jax.jit(partial(draw, state)), made_of, batch_size(made_of))
    if run.reference.decoding:
        parts = map(run.reference.decoding.decode, parts)
    if is_bordered:
        parts = _with_blank(parts, settings["value_range"][0])
    if out is None:
        for part in parts:
            console.say(*as_lines(part))
        return
    in_rows = options.interpolate or options.grid_by_class or options.mix is not None
    saving.save(out, parts, batch_size(made_of), settings,
                condition=condition if options.mix is None else None, as_lines=as_lines,
                columns=columns + is_bordered if in_rows else None, frames=columns,
                rate=options.frame_rate or _FRAME_RATE)
    console.say(f"{out}: {batch_size(made_of)} samples of step {int(state.step)}")


def _with_blank(parts: Iterator[np.ndarray], value: float) -> Iterator[np.ndarray]:
    """The same samples, the first of which is blank."""
    for index, part in enumerate(parts):
        yield part if index else np.concatenate([np.full_like(part[:1], value), part[1:]])


def _plan(game: GAN | Game, options: Options, key: Key, condition: PyTree, num: int, is_bordered: bool
          ) -> tuple[tuple[PyTree, ...], Callable]:
    """What samples are made of, and what makes them: a function of the state and of some of that."""
    rows, columns = options.num, options.columns
    if isinstance(game, GAN) and has_styles(game.generator):
        draw = partial(styling.draw, game, options)
        if options.mix is not None:
            return (styling.mixed(game, options, key, rows, columns, condition, bordered=is_bordered),
                    ), draw
        if options.interpolate and options.between == "styles":
            return (styling.rows_between(game, options, key, rows, columns, condition),), draw
        if options.noise == "random":
            latents = (_interpolations(game, key, rows, columns) if options.interpolate else
                       draw_latents(game, keys.stream(key, "latents"), num))
            return (styling.single(options, key, latents, condition),), draw
    if options.interpolate:
        return (_interpolations(game, key, rows, columns), condition), partial(generate, game)
    return (keys.per_example(keys.stream(key, "latents"), num), condition), partial(_drawn, game)


def _drawn(game: GAN | Game, state: Any, example_keys: Key, condition: PyTree) -> jax.Array:
    """One sample of each key.

    Raises:
        ValueError: the game has none.
    """
    sample = game_of(game).sample
    if sample is None:
        raise ValueError("this run has no samples: a critic alone is measured by "
                         f"{called('evaluate')}, and a game of one's own needs a `sample`")
    return sample(state, example_keys, len(example_keys), condition)


def _interpolations(game: GAN | Game, key: Key, rows: int, columns: int) -> jax.Array:
    """Latents from one to another, row by row, [rows * columns, latent_size].

    Raises:
        ValueError: there are no latents in which that can be done.
    """
    latents = None if isinstance(game, Game) else draw_latents(game, keys.stream(key, "latents"), rows)
    if not hasattr(latents, "shape") or latents.ndim != 2:
        raise ValueError("interpolate is for GANs whose latents are vectors: leave it out")
    ends = draw_latents(game, keys.stream(key, "ends"), rows)
    weights = jnp.linspace(0.0, 1.0, columns)
    between = jax.vmap(jax.vmap(spherical, (None, None, 0)), (0, 0, None))(latents, ends, weights)
    return between.reshape(-1, latents.shape[-1])


def _condition(options: Options, classes: int, label: int | None, num: int, requests: Samples | None
               ) -> PyTree:
    """What the samples are drawn for."""
    if classes and options.grid_by_class:
        return (np.arange(num) // options.columns).astype(np.int32)
    if label is not None:
        return np.full(num, label, np.int32)
    return requests.condition(np.arange(num)) if requests else None


def _numbers(options: Options, settings: dict[str, Any]) -> np.ndarray | None:
    """The numbers to draw for, scaled as the run has them, float32 [1, numbers]; None if none are given.

    Raises:
        ValueError: the run isn't for numbers, or for so many.
    """
    if not options.condition:
        return None
    scaling = from_json(settings.get("numbers"))
    if scaling is None:
        raise ValueError(f"{options.run_dir} is no run for numbers: leave out --condition")
    try:
        numbers = np.array([float(word) for word in options.condition.split(",")], np.float64)
    except ValueError:
        raise ValueError(f"condition must be numbers like 0.3,1.2; got {options.condition!r}") from None
    if len(numbers) != len(scaling.low) or not np.isfinite(numbers).all():
        wanted = console.counted(len(scaling.low), "finite number")
        raise ValueError(f"condition must be {wanted} for this run; got {options.condition!r}")
    if outside := [f"{value:g} is not in {low:g} to {high:g}" for value, low, high in
                   zip(numbers, scaling.low, scaling.high, strict=True) if not low <= value <= high]:
        console.warn(f"warning: {outside[0]}, where the run's data are: what is drawn is a guess")
    return scaling.to_float(numbers[None])


def _checked(options: Options, shape: tuple[int, ...], is_text: bool, step: int) -> Path | None:
    """The file, or the folder; None to print text.

    Raises:
        ValueError: samples of the run aren't saved there, or not in this way.
    """
    path = Path(options.out or folder_of(options.run_dir) / "drawn" / f"step_{step:08d}.png")
    is_animation = path.suffix in saving.ANIMATED
    if is_animation and not options.interpolate:
        raise ValueError(f"{options.out} shows the way from one sample to another: give --interpolate, "
                         "and with --columns the number of frames")
    if options.frame_rate is not None and not is_animation:
        raise ValueError("frame-rate is for animations, .gif or .mp4: leave it out")
    if options.frame_rate is not None and options.frame_rate < 1:
        raise ValueError(f"frame-rate must be at least 1; got {options.frame_rate}")
    if is_text and not options.out:
        return None
    saving.check(path, shape, is_text=is_text)
    if options.out:
        return launch.file_to_write(options.out)
    path.parent.mkdir(exist_ok=True)
    first, count = path, 1
    while path.exists():
        path, count = first.with_stem(f"{first.stem}_{count}"), count + 1
    return path


def _check_classes(options: Options, classes: int) -> None:
    if (options.label or options.grid_by_class) and not classes:
        raise ValueError(f"{options.run_dir} is no run for classes: leave out --label and "
                         "--grid-by-class")
    if options.grid_by_class and (options.interpolate or options.label):
        raise ValueError("--grid-by-class goes neither with --interpolate nor with --label")
    if options.mix is not None and (options.grid_by_class or options.interpolate):
        raise ValueError("--mix goes neither with --grid-by-class nor with --interpolate")
    if options.between == "styles" and not options.interpolate:
        raise ValueError("--between styles goes with --interpolate: give both, or none")


def label_number(asked: str, classes: int, names: Any) -> int:
    """The number of a class, of a run whose settings may name them all.

    Raises:
        ValueError: there is no such class.
    """
    names = names if isinstance(names, list) and len(names) == classes else []
    if asked in names:
        return names.index(asked)
    if asked.isdecimal() and int(asked) < classes:
        return int(asked)
    shown = [name for name in map(str, names) if name.isprintable()]
    known = f", which is no class's name either: {nearest(asked, shown)}" if shown else ""
    raise ValueError(f"label must be in [0, {classes}); got {asked}{known}")


def spherical(start: jax.Array, end: jax.Array, weight: jax.Array) -> jax.Array:
    """Goes from one latent to another along the great circle, where Gaussian latents are likely.

    Shoemake 1985, "Animating rotation with quaternion curves"; White 2016 (arXiv 1609.04468).
    """
    cosine = jnp.vdot(start, end) / (jnp.linalg.norm(start) * jnp.linalg.norm(end))
    angle = jnp.arccos(jnp.clip(cosine, -0.9999, 0.9999))
    return (jnp.sin((1 - weight) * angle) * start + jnp.sin(weight * angle) * end) / jnp.sin(angle)


if __name__ == "__main__":
    launch.tool(main, Options)
