"""What a run shows of real and generated samples: grids of images, lines of text."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.experiment import AsLines
from jaxgan import keys
from jaxgan.data import Source, draw_step, pixels, windows
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN
from jaxgan.loops import Game
from jaxgan.pictures import grid
from jaxgan.steps import game as game_of
from jaxgan.types import PyTree


def is_of_classes(settings: Mapping[str, Any]) -> bool:
    """Whether the condition of a run's batches is a label."""
    return isinstance(settings["condition"], list)


def image_grid(game: GAN | Game, seed: int, settings: Mapping[str, Any], requests: Samples | None = None,
               count: int = 100) -> Callable[[Any], np.ndarray]:
    """Returns a picture of samples from the same latents each time; a column is of a class."""
    condition = requests.condition(np.arange(count)) if requests else None
    columns = min(settings["num_classes"], count) if is_of_classes(settings) else None
    draw = _same_samples(game, seed, condition, count)
    return lambda state: grid(pixels(draw(state), settings["value_range"]), columns)


def real_grid(source: Source, seed: int, count: int = 100) -> np.ndarray:
    """A picture of real samples."""
    return grid(pixels(_real_samples(source, seed, count), source.value_range))


def sample_text(game: GAN | Game, seed: int, as_lines: AsLines, count: int = 100
                ) -> Callable[[Any], str]:
    """Returns the text of samples from the same latents each time, one a line."""
    draw = _same_samples(game, seed, None, count)
    return lambda state: "\n".join(as_lines(draw(state))) + "\n"


def real_text(source: Source, seed: int, as_lines: AsLines, count: int = 100) -> str:
    """Real samples of text, one a line."""
    return "\n".join(as_lines(_real_samples(source, seed, count))) + "\n"


def _same_samples(game: GAN | Game, seed: int, condition: PyTree, count: int
                  ) -> Callable[[Any], jax.Array]:
    key, sample = keys.stream(jax.random.key(seed), "sample"), game_of(game).sample
    draw = jax.jit(lambda state, condition: sample(state, key, count, condition))
    return lambda state: draw(state, condition)


def _real_samples(source: Source, seed: int, count: int) -> jax.Array:
    count = min(count, source.size or count)
    key = keys.stream(jax.random.key(seed), "real")
    (arrays, _), = windows(source, key, count, 0, 1)
    return jax.jit(lambda arrays: draw_step(source, arrays, key, 0, count, jnp.arange(count)).samples
                   )(arrays)
