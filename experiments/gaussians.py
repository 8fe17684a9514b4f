"""GANs on Gaussian mixtures and the Swiss roll in the plane.

By default a cross-entropy GAN with R1 and R2 (Mescheder et al. 2018, arXiv 1801.04406), whose weight
falls as the learning rate does, so that samples become sharp; on the roll it is WGAN-GP, with a
learning rate that falls. The preset `paper` has the settings of the public code of Gulrajani et al.
2017 (arXiv 1704.00028), figure 1. Samples are drawn over the critic's level sets. For the mixtures,
`modes` counts the components that are nearest to one of 2,500 samples, and at most 3 sigma from it, as
do Srivastava et al. 2017 (arXiv 1705.07761).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import keys
from jaxgan.data import MIXTURES, Source, mixture
from jaxgan.data.toy import VIEW, swissroll_curve
from jaxgan.evaluation import Comparison, Metric, Number
from jaxgan.gan import GAN, GANState, judge, sample
from jaxgan.metrics import curve_distance, mode_coverage
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.pictures import plane
from jaxgan.training import Picture

from . import flags, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .measuring import Reference
from .settings import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 128
    """Units in each of the three hidden layers."""


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
           # Smaller networks and larger steps, for a minute on two cores.
           "laptop": replace(_PAPER, width=128, learning_rate=5e-4, steps=4000)}


def make_source(config: Config) -> Source:
    """Opens the data."""
    return mixture(config.data.dataset)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    hidden = (config.networks.width,) * 3
    return flags.make_gan(config, MLPGenerator(sample_shape, hidden),
                          MLPCritic(hidden, norm=config.networks.critic_norm), latent_size=2)


def make_picture(config: Config, gan: GAN, source: Source, reference: Reference, count: int = 1000
                 ) -> Picture:
    """Returns a picture of samples over the critic's level sets."""
    del reference
    key = jax.random.key(config.schedule.seed)
    real = source.draw(source.arrays, keys.stream(key, "real"), jnp.zeros(count, jnp.uint32),
                       jnp.arange(count, dtype=jnp.uint32)).samples
    ticks = jnp.linspace(*VIEW, 128)
    points = jnp.stack(jnp.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    packs = jnp.repeat(points, config.loss.pack, axis=0)  # of one point each

    @jax.jit
    def draw(state: GANState):
        scores = judge(gan, state, packs).scores
        return sample(gan, state, keys.stream(key, "sample"), count), scores

    def picture(state: GANState) -> np.ndarray:
        fake, scores = map(np.asarray, draw(state))
        return plane(np.asarray(real), fake, scores.reshape(len(ticks), len(ticks)), VIEW)

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


experiment = Experiment(Config, make_source, make_gan, make_reference, picture=make_picture,
                        presets=PRESETS, preset_by="dataset")


if __name__ == "__main__":
    launch.main(experiment)
