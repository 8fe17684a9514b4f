"""Distributions in the plane that WGAN papers draw: Gaussian mixtures and the Swiss roll.

Source: Gulrajani et al. 2017, arXiv 1704.00028, figure 1, with the numbers of its public code.
"""

import difflib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.data.sources import Source, position_keys
from jaxgan.keys import normal, uniform
from jaxgan.types import Array, Batch, Key, PyTree

VIEW = (-3.0, 3.0)  # the square that the paper's figure shows
_ROLLED = 7.5  # what the Swiss roll is divided by


class Mixture(NamedTuple):
    """Equally likely round Gaussians, as drawn: after scaling.

    Attributes:
        centres: [components, 2] float32.
        sigma: the standard deviation along each axis.
    """

    centres: np.ndarray
    sigma: float


def _ring(count: int, radius: float) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _grid(values: list[float]) -> np.ndarray:
    return np.stack(np.meshgrid(values, values, indexing="ij"), -1).reshape(-1, 2)


MIXTURES: dict[str, Mixture] = {
    "8gaussians": Mixture((_ring(8, 2.0) / 1.414).astype(np.float32), 0.02 / 1.414),
    "25gaussians": Mixture((_grid([-4, -2, 0, 2, 4]) / 2.828).astype(np.float32), 0.05 / 2.828),
}


def _spiral(turn: Array) -> Array:
    t = 1.5 * jnp.pi * (1 + 2 * turn)
    return jnp.stack([t * jnp.cos(t), t * jnp.sin(t)], -1)


def swissroll_curve(count: int = 1000) -> np.ndarray:
    """Points in order on the curve that the Swiss roll's samples lie about, [count, 2]."""
    return np.asarray(_spiral(jnp.linspace(0, 1, count)) / _ROLLED)


def mixture(name: str) -> Source:
    """Returns an endless source of points in the plane, [2], of no class.

    "8gaussians" and "25gaussians" are `MIXTURES`. "swissroll" is (t cos t, t sin t) with
    t = 3/2 pi (1 + 2 u), u uniform in [0, 1), plus Gaussian noise of deviation 0.25, all divided
    by 7.5: columns 0 and 2 of scikit-learn's `make_swiss_roll`.

    Raises:
        ValueError: the name is another one.
    """
    names = (*MIXTURES, "swissroll")
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown mixture {name!r}: did you mean {close!r}? "
                         f"There are {', '.join(names)}")

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        del arrays
        keys = jax.vmap(jax.random.split, out_axes=1)(position_keys(key, epochs, offsets))
        which, noise = uniform(keys[0]), normal(keys[1], (2,))
        if name == "swissroll":
            return Batch((_spiral(which) + 0.25 * noise) / _ROLLED)
        centres, sigma = MIXTURES[name]
        component = (which * len(centres)).astype(jnp.int32)
        return Batch(jnp.asarray(centres)[component] + sigma * noise)

    return Source((), draw, None, (2,), VIEW, 0)
