"""Folders of images, translated by a run that makes images of images."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, keys
from jaxgan.data import open_folder, pixels, scale
from jaxgan.pictures import save_png
from jaxgan.steps import game as game_of
from jaxgan.types import Key

from .opening import OpenRun

_COLOURS = {1: "grey", 3: "rgb", 4: "rgba"}  # by channels
_OF_BOTH = ("run_dir", "input", "backwards", "out", "checkpoint", "experiment", "seed", "data_dir")


def translate(options: Any, run: OpenRun) -> None:
    """Translates a folder of images.

    Args:
        options: those of `experiments.sample`.
        run: what translates.

    Raises:
        ValueError: the run doesn't translate images, or not backwards; there is no folder for them, two
            images have one name, or that of a file that is there, or an option is for something else.
    """
    settings, condition = run.settings, run.settings["condition"]
    shape = tuple(settings["sample_shape"])
    if not isinstance(condition, list) or len(condition[0]) != 3 or len(shape) != 3:
        raise ValueError(f"{options.run_dir} is no run that translates images: leave out --input and "
                         "--backwards")
    if options.backwards and run.experiment.backwards is None:
        raise ValueError(f"{options.run_dir} translates one way alone: leave out --backwards")
    if not options.input or not options.out:
        raise ValueError("give the folder of images to translate with --input, and the one for their "
                         "translations with --out")
    for field in dataclasses.fields(options):
        if field.name not in _OF_BOTH and getattr(options, field.name) != field.default:
            raise ValueError(f"{field.name} is not for the translation of a folder: leave it out")
    made, given = (condition[0], shape) if options.backwards else (shape, condition[0])
    if given[2] not in _COLOURS:
        raise ValueError(f"images of {given[2]} channels are in no folder: translate them in Python")
    files = open_folder(options.input, "all", image_size=(given[0], given[1]), fit=settings.get("fit"),
                        colour=_COLOURS[given[2]])
    paths = [Path(options.out) / Path(file).with_suffix(".png") for file in files.files]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(f"two images in {options.input} would both be saved as {twice[0]}: rename one")
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise ValueError(f"{options.out} is a file: name a folder with --out")
    if there := next((path for path in paths if path.exists()), None):
        raise ValueError(f"there is {there} already: name another folder with --out")
    back = run.experiment.backwards and run.experiment.backwards(run.config, shape)
    sample = game_of(run.game).sample

    @jax.jit
    def draw(state: Any, example_keys: Key, images: jax.Array) -> jax.Array:
        if options.backwards:
            return back(state, images)
        return sample(state, example_keys, len(images), images)

    example_keys = keys.per_example(keys.stream(keys.of_seed(options.seed), "latents"), len(paths))
    for first in range(0, len(paths), 100):
        rows = np.arange(first, min(first + 100, len(paths)))
        images = scale(jnp.asarray(files[rows][0]), tuple(settings["value_range"]))
        translated = pixels(draw(run.state, example_keys[rows], images), settings["value_range"])
        for row, image in zip(rows, translated, strict=True):
            paths[row].parent.mkdir(parents=True, exist_ok=True)
            save_png(paths[row], image[..., 0] if made[2] == 1 else image)
    console.say(f"{options.out}: {console.counted(len(paths), 'translation')} of step "
                f"{int(run.state.step)}")
