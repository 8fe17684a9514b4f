"""Samples of generators that have styles: truncated, mixed, between two styles, with new noise."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import keys
from jaxgan.gan import GAN, GANState, draw_latents
from jaxgan.loops import Game
from jaxgan.styles import has_styles, styles, synthesise
from jaxgan.types import Array, Key, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """How styles are used."""

    between: Literal["latents", "styles"] = "latents"
    """With --interpolate, StyleGAN2 only: go straight from style to style instead."""
    mix: int | None = None
    """StyleGAN2 only: draw --num rows and --columns columns of samples, each with the styles of its row
    in the layers before this one (the first is 0), and those of its column from this one on. A picture
    also shows the samples that rows and columns come from."""
    truncation: float | None = None
    """StyleGAN2 and GAT only: scale how far styles are from their average, GAT's from their class's. 0.7
    gives fewer odd samples, which differ less; None: 1, as they are."""
    truncation_cutoff: int | None = None
    """With --truncation: do so in this many layers, from the first on; None: in all."""
    noise: Literal["stored", "random", "none"] = "stored"
    """StyleGAN2 only: the noise inside the generator is the same in all samples, new for each, or left
    out."""


class Blend(NamedTuple):
    """What samples are made of; leaves have a leading axis, [count, ...].

    Attributes:
        first: latents and condition.
        second: None, or others.
        share: None where layers decide, or how much of the second's styles there is.
        noise_keys: None for the stored noise.
    """

    first: tuple[Array, PyTree]
    second: tuple[Array, PyTree] | None
    share: Array | None
    noise_keys: Key | None


def settled(game: GAN | Game, flags: Flags) -> GAN | Game:
    """What is sampled: truncated, and without noise, if that is asked for.

    Raises:
        ValueError: it has no styles, or a flag goes with another one.
    """
    asked = [field.name for field in dataclasses.fields(Flags)
             if getattr(flags, field.name) != field.default]
    if not asked:
        return game
    if not isinstance(game, GAN) or not (has_styles(game.generator) or (
            asked == ["truncation"] and hasattr(game.generator, "truncation_psi"))):
        raise ValueError(f"{asked[0].replace('_', '-')} is for generators that have styles, like "
                         "StyleGAN2's: leave it out")
    if flags.truncation_cutoff is not None and flags.truncation is None:
        raise ValueError("truncation-cutoff goes with --truncation: give that as well")
    if not math.isfinite(flags.truncation or 0.0):
        raise ValueError(f"truncation must be a finite number; got {flags.truncation}")
    if flags.truncation_cutoff is not None and flags.truncation_cutoff < 1:
        raise ValueError(f"truncation-cutoff must be at least 1; got {flags.truncation_cutoff}")
    if flags.noise == "random" and game.generator.noise == "none":
        raise ValueError("this run's generator has no noise: leave out --noise")
    changes: dict[str, Any] = {}
    if flags.truncation is not None:
        changes["truncation_psi"] = flags.truncation
    if flags.truncation_cutoff is not None:
        changes["truncation_cutoff"] = flags.truncation_cutoff
    if flags.noise != "stored":
        changes["noise"] = flags.noise
    return dataclasses.replace(game, generator=game.generator.clone(**changes))


def single(flags: Flags, key: Key, latents: Array, condition: PyTree) -> Blend:
    """Samples of latents."""
    return Blend((latents, condition), None, None, _noise_keys(flags, key, len(latents)))


def rows_between(gan: GAN, flags: Flags, key: Key, rows: int, columns: int, condition: PyTree) -> Blend:
    """Rows from one sample's styles to another's; the condition is of all samples."""
    start, end = (draw_latents(gan, keys.stream(key, name), rows).repeat(columns, axis=0)
                  for name in ("latents", "ends"))
    share = jnp.tile(jnp.linspace(0.0, 1.0, columns), rows)
    return Blend((start, condition), (end, condition), share, _noise_keys(flags, key, rows * columns))


def mixed(gan: GAN, flags: Flags, key: Key, rows: int, columns: int, condition: PyTree, *,
          bordered: bool) -> Blend:
    """A grid of mixed samples; arguments as in `rows_between`, and

    Args:
        condition: of the rows, and then of the columns.
        bordered: whether the first row is of the columns' own samples and the first column of the rows';
            what is first in both has no meaning.
    """
    latents = draw_latents(gan, keys.stream(key, "latents"), rows + columns)
    of_rows, of_columns = np.arange(rows)[:, None], np.arange(rows, rows + columns)[None]
    first, second = np.broadcast_arrays(of_rows, of_columns)
    if bordered:
        first, second = (np.block([[np.zeros((1, 1), int), of_columns], [of_rows, inner]])
                         for inner in (first, second))
    sources = (latents, condition)
    return Blend(_taken(sources, first), _taken(sources, second), None,
                 _noise_keys(flags, key, first.size))


def _taken(sources: tuple[Array, PyTree], which: np.ndarray) -> tuple[Array, PyTree]:
    return jax.tree.map(lambda x: x[which.ravel()], sources)


def draw(gan: GAN, flags: Flags, state: GANState, blend: Blend) -> Array:
    """The samples of a blend.

    Raises:
        ValueError: styles can't be mixed from such a layer on.
    """
    ws = styles(gan, state, *blend.first)
    if blend.second is not None:
        others, layers = styles(gan, state, *blend.second), ws.shape[1]
        if blend.share is None:
            if flags.mix is None or not 0 < flags.mix < layers:
                raise ValueError(f"mix must be a layer from 1 to {layers - 1}; got {flags.mix}")
            share = (jnp.arange(layers) >= flags.mix)[None, :, None]
        else:
            share = blend.share[:, None, None]
        ws = (1 - share) * ws + share * others
    return synthesise(gan, state, ws, blend.noise_keys)


def _noise_keys(flags: Flags, key: Key, count: int) -> Key | None:
    return keys.per_example(keys.stream(key, "noise"), count) if flags.noise == "random" else None
