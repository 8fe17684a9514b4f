"""WGAN-GP on MNIST or Fashion-MNIST.

Gulrajani et al. 2017 (arXiv 1704.00028), with the networks and settings of its public code: a DCGAN
without normalisation, pixels in [0, 1].
"""

import dataclasses
from functools import partial
from typing import Literal

from jaxgan.data import Dataset, Source, load
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator

from . import flags, launch, measuring
from .experiment import Experiment
from .flags import Schedule
from .measuring import Reference
from .settings import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 64
    """Channels of the critic's first layer; they double with each halving of the image."""
    latent_size: int = 128
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    dataset: Literal["mnist", "fashion_mnist"] = "mnist"
    """Which set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """The public code's settings for MNIST."""

    networks: Networks = Networks()
    schedule: Schedule = Schedule(batch_size=50, steps=200_000)
    data: Data = Data()


PRESETS = {"paper": Config(),
           # Half the width, for a quarter of an hour on two cores.
           "laptop": replace(Config(), width=32, steps=1500, eval_every=500)}


def make_source(config: Config) -> Source:
    """Opens the data."""
    return flags.image_source(config, open_data(config), value_range=(0.0, 1.0))


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load(config.data.dataset, split, data_dir=config.data.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(open_data, config))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    networks = config.networks
    return flags.make_gan(
        config,
        DCGANGenerator(tuple(sample_shape), networks.width),
        DCGANCritic(networks.width, norm=networks.critic_norm),
        networks.latent_size,
    )


experiment = Experiment(Config, make_source, make_gan, make_reference, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
