"""What a run shows of real and generated samples: pictures of any shape, lines of text."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import keys
from jaxgan.data import Source, draw_step, pixels, windows
from jaxgan.data.scaling import from_json
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN
from jaxgan.loops import Game
from jaxgan.pictures import grid, pairs, series, slices
from jaxgan.steps import game as game_of
from jaxgan.types import PyTree

from .experiment import AsLines

Decode = Callable[[Any], np.ndarray]  # samples -> what is shown of them


def is_of_classes(settings: Mapping[str, Any]) -> bool:
    """Whether the condition of a run's batches is a label, and no numbers."""
    condition = settings["condition"]  # the shape and the dtype, or a dictionary of such
    return isinstance(condition, list) and np.issubdtype(condition[1], np.integer)


def sample_picture(game: GAN | Game, seed: int, settings: Mapping[str, Any], source: Source,
                   requests: Samples | None = None, count: int = 100, decode: Decode = np.asarray
                   ) -> Callable[[Any], np.ndarray] | None:
    """Returns a picture of samples from the same latents each time; a column is of one class.

    None if there is no picture of such samples. `decode` makes of samples what is shown.
    """
    shape, asked = tuple(settings["sample_shape"]), requests or Samples("", None, np.asarray)
    if not 1 <= len(shape) <= 4:
        return None
    columns = _columns(settings["num_classes"], count) if is_of_classes(settings) else None
    condition = asked.condition(np.arange(count)) if asked.condition else None
    draw = _same_samples(game, seed, condition, count)
    real = in_units(_real_samples(source, seed, count), settings) if len(shape) == 1 else None
    return lambda state: drawn(decode(draw(state)), settings, columns, real)


def _columns(classes: int, count: int) -> int:
    """Images in a row, so that a column is of one class: of few classes several columns are."""
    return min(max(classes, 10 - 10 % max(classes, 1)), count)


def real_picture(source: Source, seed: int, settings: Mapping[str, Any], count: int = 100,
                 decode: Decode = np.asarray) -> np.ndarray | None:
    """A picture of real samples; None if there is none of such, or samples are shown beside them."""
    if not 2 <= len(source.sample_shape) <= 4:
        return None
    return drawn(decode(_real_samples(source, seed, count)), settings)


def drawn(samples: np.ndarray, settings: Mapping[str, Any], columns: int | None = None,
          real: np.ndarray | None = None) -> np.ndarray:
    """Returns a picture of samples, as a run's settings say what they are.

    Images and slices of volumes are shown from the lowest to the highest value there may be, of pages
    the first; series and vectors in their own units.

    Args:
        samples: as a generator gives them, [count, ...].
        settings: the run's.
        columns: images in a row; None for as square as can be.
        real: of vectors, reals to be shown beside them, in their own units.
    """
    axes = samples.ndim - 1
    if axes in (1, 2):
        values = in_units(samples, settings)
        return pairs(real, values) if axes == 1 else series(values)
    images = as_pixels(samples, settings)
    return grid(images, columns) if axes == 3 else slices(images)


def as_pixels(samples: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Returns images or volumes as they are shown, uint8, from the lowest to the highest value there
    may be; of pages the first.
    """
    low, high = settings["value_range"]
    images = pixels((samples - low) / (high - low), (0, 1))
    # Four pages are no colours with their opacity.
    return images[..., :1] if settings.get("colour") == "pages" else images


def in_units(samples: np.ndarray | jax.Array, settings: Mapping[str, Any]) -> np.ndarray:
    """Returns samples in the data's own units and type; images of bytes as bytes."""
    scaling = from_json(settings.get("scaling"))
    if scaling is not None:
        return scaling.to_data(samples)
    if len(settings["sample_shape"]) == 3 and tuple(settings["value_range"]) in ((0, 1), (-1, 1)):
        return pixels(samples, settings["value_range"])
    return np.asarray(samples)


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
    key, draw = keys.stream(jax.random.key(seed), "sample"), _drawing(game_of(game).sample, count)
    return lambda state: draw(state, key, condition)


@lru_cache(maxsize=8)
def _drawing(sample: Callable[..., PyTree], count: int) -> Callable[..., jax.Array]:
    """Compiled once for runs that are trained together."""
    return jax.jit(lambda state, key, condition: sample(state, key, count, condition))


def _real_samples(source: Source, seed: int, count: int) -> jax.Array:
    count = min(count, source.size or count)
    key = keys.stream(jax.random.key(seed), "real")
    (arrays, _), = windows(source, key, count, 0, 1)
    return jax.jit(lambda arrays: draw_step(source, arrays, key, 0, count, jnp.arange(count)).samples
                   )(arrays)
