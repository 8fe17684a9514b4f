"""Critics against the truth: the continuous Wasserstein-1 benchmark.

Korotin, Kolesov, Burnaev 2022 (arXiv 2206.07767): pairs of distributions whose distance and optimal
critic are known. A critic is trained alone, and `cos` and `l2` (its gradient against the optimal one's)
and `cost` (its estimate beside the true distance) are measured on fresh points. --method chooses the
critic: smooth, orthonormal and funnels have this library's settings, the others the published ones.
"""

import csv
import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, keys
from jaxgan.critics import CriticState, score_function
from jaxgan.data import DataNotFoundError, Source
from jaxgan.data.transport import (
    HALF,
    Funnels,
    cube,
    make_funnels,
    move,
    read_funnels,
    slope,
    transport_pair,
    true_distance,
)
from jaxgan.evaluation import Number
from jaxgan.files import reason
from jaxgan.loops import Game
from jaxgan.models import FunnelCritic, MLPCritic
from jaxgan.nn.activations import ACTIVATIONS
from jaxgan.penalties import gradient_norms
from jaxgan.pictures import plane
from jaxgan.training import Picture

from . import flags, launch
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .measuring import Judge, Reference
from .settings import replace

_PUBLISHED = ("gradient_penalty", "one_sided", "clip", "spectral", "sort")
METHODS = ("smooth", "orthonormal", "funnels", *_PUBLISHED)
_POINTS = 2**14  # that a critic is measured on; the paper takes 4096
_MOST = 4096  # dimensions, and funnels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The critic."""

    method: Literal[*METHODS] = "smooth"
    """Which critic: it names the preset that the other settings are taken from."""
    width: int | None = None
    """Units in each hidden layer, or learned funnels; None: by a rule, from the dimensions."""
    depth: int = 3
    """Hidden layers."""
    activation: Literal[*ACTIVATIONS] = "silu"
    """What follows each."""
    residual: bool = True
    """Hidden layers but the first add to their input."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The pair."""

    pair: str = "16,64"
    """Dimensions and funnels: D,N. With --data-dir DIR the published pair is read, from
    DIR/w1_benchmark/funnels.npz, if it is there; else one is made."""
    funnel_seed: int = 0
    """Of the funnels that are made."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """The settings of --method smooth."""

    networks: Networks = Networks()
    loss: Loss = Loss(penalty="one_sided", penalty_weight=10.0, final_penalty_weight=100.0)
    optimiser: Optimiser = Optimiser(learning_rate=2e-3, beta1=0.0, beta2=0.99, decay="cosine",
                                     decay_steps=12_000, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=1, batch_size=512, steps=12_000)
    data: Data = Data()
    run: Run = Run(log_every=500, sample_every=0, checkpoint_every=3000)
    evaluation: Evaluation = Evaluation(eval_every=3000)


_published = replace(
    Config(), depth=2, activation="relu", residual=False, final_penalty_weight=None, learning_rate=2e-4,
    beta2=0.9, decay="linear", decay_steps=0, ema_decay=0.0, batch_size=1024, steps=60_000)
_without = replace(_published, penalty="none", penalty_weight=0.0)
PRESETS = {
    "smooth": Config(),
    "orthonormal": replace(
        Config(), method="orthonormal", critic_norm="orthonormal", activation="maxmin", residual=False,
        penalty="none", penalty_weight=0.0, final_penalty_weight=None),
    "funnels": replace(
        Config(), method="funnels", depth=1, penalty="none", penalty_weight=0.0,
        final_penalty_weight=None, learning_rate=3e-2),
    "gradient_penalty": replace(_published, method="gradient_penalty", penalty="gradient_penalty"),
    "one_sided": replace(_published, method="one_sided"),
    "clip": replace(_without, method="clip", clip=0.04, steps=5000),
    "spectral": replace(_without, method="spectral", critic_norm="spectral", steps=10_000),
    "sort": replace(_without, method="sort", critic_norm="orthonormal", activation="sort", depth=3,
                    beta1=0.9, beta2=0.999, steps=25_000),
}


def pair(config: Config) -> tuple[int, int]:
    """The numbers of --pair: dimensions and funnels.

    Raises:
        ValueError: it is something else.
    """
    found = re.fullmatch(r"\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*", config.data.pair)
    numbers = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= min(numbers) <= max(numbers) <= _MOST:
        raise ValueError("pair must be dimensions and funnels like 16,64, each from 1 to "
                         f"{_MOST}; got {config.data.pair!r}")
    return numbers


def benchmark_folder(config: Config) -> Path | None:
    """Where the published pairs are; None if they are not there."""
    folder = Path(config.data.data_dir or ".") / "w1_benchmark"
    return folder if config.data.data_dir and (folder / "funnels.npz").is_file() else None


class Opened(NamedTuple):
    """A pair, opened.

    Attributes:
        funnels: its potential.
        published: the numbers of the published solvers, by solver; {} if there are none.
        is_made: whether the pair is none that was published.
    """

    funnels: Funnels
    published: dict[str, dict[str, float]]
    is_made: bool


@functools.lru_cache(maxsize=4)
def open_pair(config: Config) -> Opened:
    """Opens the published pair; where it isn't, makes one, and warns if it was to be there."""
    folder = benchmark_folder(config)
    if folder is not None:
        try:
            return Opened(read_funnels(folder / "funnels.npz", *pair(config)),
                          read_published(folder / "published.csv", *pair(config)), False)
        except DataNotFoundError:
            pass
    if config.data.data_dir:
        warnings.warn(f"there is no published pair {config.data.pair} in {config.data.data_dir}: one is "
                      f"made, with --funnel-seed {config.data.funnel_seed}", UserWarning, stacklevel=2)
    return Opened(make_funnels(*pair(config), config.data.funnel_seed), {}, True)


def make_source(config: Config) -> Source:
    """Opens the pair."""
    return transport_pair(open_pair(config).funnels)


def make_critic(config: Config) -> nn.Module:
    """The critic, as wide as the rule says if nothing else is asked for."""
    networks, (dimensions, _) = config.networks, pair(config)
    if networks.method == "funnels":
        return FunnelCritic(networks.width or 1024, spread=HALF)
    factor = 2 if networks.method in _PUBLISHED else 4
    width = networks.width or max(factor * dimensions, 128)
    return MLPCritic((width,) * networks.depth, norm=networks.critic_norm,
                     activation=networks.activation, residual=networks.residual)


def make_game(config: Config, sample_shape: tuple[int, ...]) -> Game:
    """Specifies the critic and how it is trained."""
    del sample_shape
    _check(config)
    return flags.make_critic_game(config, make_critic(config))


def _check(config: Config) -> None:
    """Raises ValueError for settings that are not those of the method, or that it has no use for."""
    preset, networks = PRESETS[config.networks.method], config.networks
    told = {"critic_norm": (networks.critic_norm, preset.networks.critic_norm),
            "penalty": (config.loss.penalty, preset.loss.penalty),
            "clip": (config.loss.clip > 0, preset.loss.clip > 0)}
    if networks.method == "funnels":  # it has no layers, and computes in float32 at least
        told |= {name: (getattr(networks, name), getattr(preset.networks, name))
                 for name in ("depth", "activation", "residual", "precision")}
    for name, (given, there) in told.items():
        if given != there:
            raise ValueError(f"method {networks.method} goes with {name} {there}; got {given}: choose "
                             f"another method, or leave {name}, --preset and --config out")


def make_reference(config: Config) -> Reference:
    """What a critic is measured against: the truth."""
    open_pair(config)  # what is amiss there is to be said before anything is trained
    return Reference(
        _no_samples, "raw", "", "", judge=Judge(
            lambda game: make_judge(config), NUMBERS, functools.partial(table, config)))


def _no_samples(split: str) -> Any:
    raise ValueError("a critic alone has no samples: there is nothing to compare with reals")


NUMBERS = (
    Number("cos", "cosine of the critic's gradient and the optimal one's", True),
    Number("l2", "mean squared distance of the two", False),
    Number("cost", "estimated distance", None),  # the nearer to the true one the better
    Number("true", "true distance", None),
    Number("norm", "mean norm of the critic's gradient", None),  # the nearer to 1
)


def make_judge(config: Config) -> Callable[[CriticState], dict[str, float]]:
    """Returns what measures a critic: its gradient and its estimate beside the true ones."""
    funnels, critic = open_pair(config).funnels, make_critic(config)
    key = keys.stream(jax.random.key(0), "evaluation")

    @jax.jit
    def measure(state: CriticState) -> dict[str, jax.Array]:
        scores = score_function(critic, state)
        for_real, for_fake = (jax.random.split(keys.stream(key, kind), _POINTS)
                              for kind in ("real", "fake"))
        start = cube(for_real, pair(config)[0])
        real, fake = move(funnels, start), cube(for_fake, pair(config)[0])
        gradient, optimal = jax.grad(lambda x: scores(x).sum())(real), -slope(funnels, start)
        norms = gradient_norms(scores, real)
        return {"cos": ((gradient * optimal).sum(axis=-1) / jnp.maximum(norms, 1e-12)).mean(),
                "l2": jnp.square(gradient - optimal).sum(axis=-1).mean(),
                "cost": scores(real).mean() - scores(fake).mean(), "norm": norms.mean()}

    @functools.cache
    def truth() -> float:
        return true_distance(funnels, keys.stream(key, "truth"))

    return lambda state: {**{name: float(value) for name, value in measure(state).items()},
                          "true": truth()}


def table(config: Config, values: Mapping[str, float]) -> list[str]:
    """The measured critic beside the published solvers, as lines."""
    dimensions, count = pair(config)
    _, published, is_made = open_pair(config)
    rows = [("critic", "cos", "l2", "cost", "of the distance")]
    rows += [_row(config.networks.method, values, values["true"])]
    rows += [_row(f"{name} (published)", found, values["true"]) for name, found in published.items()]
    made = f", made (seed {config.data.funnel_seed})" if is_made else ""
    return [f"{dimensions} dimensions, {count} funnels{made}; the distance is {values['true']:.4f}",
            *console.aligned(rows)]


def _row(name: str, values: Mapping[str, float], distance: float) -> tuple[str, ...]:
    return (name, *(f"{values[number]:.3f}" for number in ("cos", "l2", "cost")),
            f"{100 * values['cost'] / distance:.0f} %")


def read_published(path: Path, dimensions: int, count: int) -> dict[str, dict[str, float]]:
    """The published numbers of a pair by solver; {} if there are none.

    Raises:
        ValueError: the table is damaged.
    """
    if not path.is_file():
        return {}
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            for row in rows:
                if (int(row["dim"]), int(row["funnels"])) == (dimensions, count):
                    found[row["method"]] = {name: float(row[name]) for name in ("cos", "l2", "cost")}
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"line {rows.line_num} of {path} must have dim, funnels, method, cos, l2 "
                             f"and cost ({reason(error)}): bring the file back, or remove it") from error
    return found


def make_picture(config: Config, game: Game, source: Source, reference: Reference) -> Picture | None:
    """Returns a picture, in the plane, of both distributions over the critic's level sets."""
    del game, reference
    if pair(config)[0] != 2:
        return None
    critic, view = make_critic(config), (-HALF, HALF)
    batch = source.draw(source.arrays, jax.random.key(config.schedule.seed),
                        jnp.zeros(1000, jnp.uint32), jnp.arange(1000, dtype=jnp.uint32))
    real, fake = map(np.asarray, batch.samples)
    ticks = jnp.linspace(*view, 128)
    points = jnp.stack(jnp.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    draw = jax.jit(lambda state: score_function(critic, state)(points))
    return lambda state: plane(real, fake, np.asarray(draw(state)).reshape(128, 128), view)


experiment = Experiment(Config, make_source, make_game, make_reference, picture=make_picture,
                        presets=PRESETS, preset_by="method")


if __name__ == "__main__":
    launch.main(experiment)
