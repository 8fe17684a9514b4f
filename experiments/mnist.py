"""WGAN-GP on MNIST or Fashion-MNIST.

Gulrajani et al. 2017 (arXiv 1704.00028), with the networks and settings of its public code: a DCGAN
without normalisation, pixels in [0, 1].
"""

import dataclasses
from functools import partial
from typing import Literal

from experiments import cli, measuring
from experiments.measuring import Reference
from jaxgan.data import Dataset, Source, load
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Config):
    """The public code's settings for MNIST."""

    dataset: Literal["mnist", "fashion_mnist"] = "mnist"
    """Which set."""
    width: int = 64
    """Channels of the critic's first layer; they double with each halving of the image."""
    latent_size: int = 128
    """Latent variables."""
    batch_size: int = 50
    steps: int = 200_000


def make_source(config: Config) -> Source:
    """Opens the data."""
    return cli.image_source(config, open_data(config), value_range=(0.0, 1.0))


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load(config.dataset, split, data_dir=config.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(open_data, config))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    return cli.make_gan(
        config,
        DCGANGenerator(tuple(sample_shape), config.width),
        DCGANCritic(config.width, norm=config.critic_norm),
        config.latent_size,
    )


def main(config: Config) -> None:
    """Trains."""
    source = make_source(config)
    cli.train("mnist", config, make_gan(config, source.sample_shape), source, make_reference(config))


if __name__ == "__main__":
    cli.main(Config, main)
