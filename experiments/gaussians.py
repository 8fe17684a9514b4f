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

from experiments import cli, measuring
from experiments.measuring import Reference
from jaxgan import keys
from jaxgan.data import MIXTURES, Source, mixture
from jaxgan.data.toy import VIEW
from jaxgan.evaluation import Comparison, Metric, Number
from jaxgan.gan import GAN, GANState, sample
from jaxgan.metrics import mode_coverage
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.pictures import plane


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Config):
    """The paper's settings for its 2-D sets."""

    dataset: Literal["8gaussians", "25gaussians", "swissroll"] = "25gaussians"
    """Which set."""
    width: int = 512
    """Units in each of the three hidden layers."""
    penalty_weight: float = 0.1
    eval_every: int = 1000
    batch_size: int = 256


def make_source(config: Config) -> Source:
    """Opens the data."""
    return mixture(config.dataset)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    hidden = (config.width,) * 3
    return cli.make_gan(config, MLPGenerator(sample_shape, hidden),
                        MLPCritic(hidden, norm=config.critic_norm), latent_size=2)


def make_picture(gan: GAN, source: Source, seed: int, count: int = 1000):
    """Returns a picture of samples over the critic's level sets."""
    key = jax.random.key(seed)
    real = source.draw(source.arrays, keys.stream(key, "real"), jnp.zeros(count, jnp.uint32),
                       jnp.arange(count, dtype=jnp.uint32)).samples
    ticks = jnp.linspace(*VIEW, 128)
    points = jnp.stack(jnp.meshgrid(ticks, ticks), -1).reshape(-1, 2)

    @jax.jit
    def draw(state: GANState):
        scores = gan.critic.apply(state.critic.variables, points, None, train=False)
        return sample(gan, state, keys.stream(key, "sample"), count), scores

    def picture(state: GANState) -> np.ndarray:
        fake, scores = map(np.asarray, draw(state))
        return plane(np.asarray(real), fake, scores.reshape(len(ticks), len(ticks)), VIEW)

    return picture


def make_reference(config: Config) -> Reference:
    """What samples are measured against; the mixtures' modes are known, the Swiss roll has none."""
    quick, metrics, own = "swd", "swd,mmd,pr,dc", ()
    if config.dataset in MIXTURES:
        quick, metrics, own = "modes,swd", f"modes,{metrics}", (make_modes(config),)
    return measuring.of_source(lambda: make_source(config), config.dataset, "raw", quick, metrics,
                               own=own)


def make_modes(config: Config) -> Metric:
    """The metric that counts the components of the mixture that samples reach."""
    def measure(seen: Comparison) -> dict[str, float]:
        return mode_coverage(seen.fake.samples, *MIXTURES[config.dataset])

    return Metric("modes", measure, (
        Number("modes", f"modes of {len(MIXTURES[config.dataset].centres)}", True),
        Number("high_quality", "samples within 3 sigma of a mode", True),
        Number("modes_kl", "KL of modes from even (nats)", False),
    ), samples=True)


def main(config: Config) -> None:
    """Trains."""
    source = make_source(config)
    gan = make_gan(config, source.sample_shape)
    cli.train("gaussians", config, gan, source, make_reference(config),
              picture=make_picture(gan, source, config.seed))


if __name__ == "__main__":
    cli.main(Config, main)
