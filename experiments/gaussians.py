"""GANs on Gaussian mixtures and the Swiss roll in the plane.

By default a cross-entropy GAN with R1 and R2 (Mescheder et al. 2018, arXiv 1801.04406), whose weight
falls as the learning rate does, so that samples become sharp; on the roll it is WGAN-GP, with a
learning rate that falls. The preset `paper` has the settings of the public code of Gulrajani et al.
2017 (arXiv 1704.00028), figure 1; `flow` the terms of adversarial flow, 2025 (arXiv 2511.22475);
`drifting` has no critic: Deng et al. 2026 (arXiv 2602.04770). Samples are drawn over the critic's level
sets. For the mixtures,
`modes` counts the components that are nearest to one of 2,500 samples, and at most 3 sigma from it, as
do Srivastava et al. 2017 (arXiv 1705.07761).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import keys
from jaxgan.data import MIXTURES, Source, mixture
from jaxgan.data.toy import VIEW, swissroll_curve
from jaxgan.evaluation import Comparison, Metric, Number
from jaxgan.gan import GAN, judge
from jaxgan.loops import Game
from jaxgan.metrics import curve_distance, mode_coverage
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.pictures import plane
from jaxgan.steps import game as game_of
from jaxgan.training import Picture
from jaxgan.types import Array

from . import flags, launch, measuring
from .adversarial_flow import Flow, with_flow
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .measuring import Reference
from .settings import replace, since

_LATENTS = 2  # as many as a sample has coordinates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 128
    """Units in each of the three hidden layers."""
    drifting: bool = since(False, before=False)
    """Have no critic: samples drift towards data and away from each other."""
    temperatures: str | None = since(None, before=None)
    """With --drifting: of the field, in units of the mean distance, a list like 0.05,0.2; None: those of
    the article."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    dataset: Literal[*MIXTURES, "swissroll"] = "25gaussians"
    """Which set; without --preset the roll comes with the preset of its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What reaches the modes with sharp samples."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="non_saturating", penalty="r1_r2", penalty_weight=0.03,
                      final_penalty_weight=0.0003)
    flow: Flow = Flow()
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.0, beta2=0.99, decay_steps=100_000,
                                     decay="cosine", ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=1, batch_size=128, steps=100_000)
    data: Data = Data()
    run: Run = Run(log_every=500, sample_every=10_000, checkpoint_every=10_000)
    evaluation: Evaluation = Evaluation(eval_every=50_000)


_PAPER = Config(networks=Networks(width=512), loss=Loss(penalty_weight=0.1), optimiser=Optimiser(),
                schedule=Schedule(batch_size=256), run=Run(), evaluation=Evaluation(eval_every=1000))
PRESETS = {"default": Config(),
           # Of what was tried, WGAN-GP follows the curve best (experiments/README.md).
           "swissroll": replace(
               Config(), dataset="swissroll", loss="wasserstein", penalty="gradient_penalty",
               penalty_weight=0.1, final_penalty_weight=None, n_critic=3, steps=20_000,
               decay_steps=20_000, sample_every=5000, checkpoint_every=5000, eval_every=10_000),
           "paper": _PAPER,
           "flow": replace(
               Config(), loss="relativistic", finite_difference=0.01, transport_weight=0.2,
               final_transport_weight=0.005, centring_weight=0.01, normalise=True, beta2=0.9,
               steps=20_000, decay_steps=20_000, eval_every=10_000),
           "drifting": replace(
               Config(), drifting=True, loss="wasserstein", penalty="none", penalty_weight=10.0,
               final_penalty_weight=None, beta1=0.9, beta2=0.95, steps=20_000, decay_steps=20_000,
               eval_every=10_000),
           # Smaller networks and larger steps, for a minute on two cores.
           "laptop": replace(_PAPER, width=128, learning_rate=5e-4, steps=4000)}


def make_source(config: Config) -> Source:
    """Opens the data."""
    return mixture(config.data.dataset)


def make_game(config: Config, sample_shape: tuple[int, ...]) -> GAN | Game:
    """Specifies the GAN, or the game without a critic.

    Raises:
        ValueError: settings that don't go together.
    """
    networks, hidden = config.networks, (config.networks.width,) * 3
    generator = MLPGenerator(sample_shape, hidden)
    if networks.drifting:
        if config.flow != Flow():
            raise ValueError("transport_weight, centring_weight and normalise are not for drifting, "
                             "which has no critic: leave them out")
        return flags.make_drifting_game(config, generator, _LATENTS, networks.temperatures)
    if networks.temperatures is not None:
        raise ValueError(f"temperatures is for --drifting; got {networks.temperatures} without it")
    return with_flow(config, flags.make_gan(
        config, generator, MLPCritic(hidden, norm=networks.critic_norm), _LATENTS))


def make_picture(config: Config, game: GAN | Game, source: Source, reference: Reference,
                 count: int = 1000) -> Picture:
    """Returns a picture of samples, over the critic's level sets if there is one."""
    del reference
    key = jax.random.key(config.schedule.seed)
    real = source.draw(source.arrays, keys.stream(key, "real"), jnp.zeros(count, jnp.uint32),
                       jnp.arange(count, dtype=jnp.uint32)).samples
    ticks = jnp.linspace(*VIEW, 128)
    points = jnp.stack(jnp.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    packs = jnp.repeat(points, config.loss.pack, axis=0)  # of one point each
    sample = cast("Callable[..., Array]", game_of(game).sample)

    @jax.jit
    def draw(state: Any) -> tuple[Array, Array | None]:
        scores = judge(game, state, packs).scores if isinstance(game, GAN) else None
        return sample(state, keys.stream(key, "sample"), count), scores

    def picture(state: Any) -> np.ndarray:
        fake, scores = draw(state)
        levels = None if scores is None else np.asarray(scores).reshape(len(ticks), len(ticks))
        return plane(np.asarray(real), np.asarray(fake), levels, VIEW)

    return picture


def make_reference(config: Config) -> Reference:
    """What samples are measured against; of mixtures the modes are known, of the roll its curve."""
    dataset, metrics = config.data.dataset, "swd,mmd,pr,dc"
    if dataset in MIXTURES:
        quick, metrics = "modes,swd", f"modes,{metrics}"
        options = {"own": (make_modes(dataset),), "num_fake": 2500}
    else:
        quick, metrics, options = "curve,swd", f"curve,{metrics}", {"own": (CURVE,)}
    return measuring.of_source(lambda: make_source(config), dataset, "raw", quick, metrics, **options)


def _distance_to_curve(seen: Comparison) -> dict[str, float]:
    return {"curve": curve_distance(seen.fake.samples, swissroll_curve())}


CURVE = Metric("curve", _distance_to_curve, (
    Number("curve", "mean distance to the roll's curve", False),), samples=True)


def make_modes(dataset: str) -> Metric:
    """The metric that counts the components of the mixture that samples reach."""
    def measure(seen: Comparison) -> dict[str, float]:
        return mode_coverage(seen.fake.samples, *MIXTURES[dataset])

    return Metric("modes", measure, (
        Number("modes", f"modes of {len(MIXTURES[dataset].centres)}", True),
        Number("high_quality", "samples within 3 sigma of a mode", True),
        Number("modes_kl", "KL of modes from even (nats)", False),
    ), samples=True)


experiment = Experiment(Config, make_source, make_game, make_reference, picture=make_picture,
                        presets=PRESETS, preset_by="dataset")


if __name__ == "__main__":
    launch.main(experiment)
