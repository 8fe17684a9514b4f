"""WGAN-GP on Gaussian mixtures and the Swiss roll in the plane.

Gulrajani et al. 2017 (arXiv 1704.00028), figure 1, with the settings of its public code. The
samples are drawn over the critic's level sets; for the mixtures, `modes` counts the components that
are nearest to at least 1 % of 10,000 samples.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import flags, launch, measuring
from experiments.experiment import Experiment
from experiments.flags import Evaluation, Loss, Schedule
from experiments.measuring import Reference
from experiments.settings import replace
from jaxgan import keys
from jaxgan.data import MIXTURES, Source, mixture
from jaxgan.data.toy import VIEW
from jaxgan.evaluation import Comparison, Metric, Number
from jaxgan.gan import GAN, GANState, judge, sample
from jaxgan.metrics import mode_coverage
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.pictures import plane
from jaxgan.training import Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 512
    """Units in each of the three hidden layers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    dataset: Literal[*MIXTURES, "swissroll"] = "25gaussians"
    """Which set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """The paper's settings for its 2-D sets."""

    networks: Networks = Networks()
    loss: Loss = Loss(penalty_weight=0.1)
    schedule: Schedule = Schedule(batch_size=256)
    data: Data = Data()
    evaluation: Evaluation = Evaluation(eval_every=1000)


PRESETS = {"paper": Config(),
           # Smaller networks and larger steps, for a minute on two cores.
           "laptop": replace(Config(), width=128, learning_rate=5e-4, steps=4000)}


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

    @jax.jit
    def draw(state: GANState):
        scores = judge(gan, state, points).scores
        return sample(gan, state, keys.stream(key, "sample"), count), scores

    def picture(state: GANState) -> np.ndarray:
        fake, scores = map(np.asarray, draw(state))
        return plane(np.asarray(real), fake, scores.reshape(len(ticks), len(ticks)), VIEW)

    return picture


def make_reference(config: Config) -> Reference:
    """What samples are measured against; the mixtures' modes are known, the Swiss roll has none."""
    quick, metrics, own = "swd", "swd,mmd,pr,dc", ()
    dataset = config.data.dataset
    if dataset in MIXTURES:
        quick, metrics, own = "modes,swd", f"modes,{metrics}", (make_modes(dataset),)
    return measuring.of_source(lambda: make_source(config), dataset, "raw", quick, metrics, own=own)


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
                        presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
