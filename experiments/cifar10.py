"""WGAN-GP on CIFAR-10, with the DCGAN or the ResNet.

Gulrajani et al. 2017 (arXiv 1704.00028), with the networks and settings of its public code. Settings
that the two networks don't share are filled in for the model chosen.
"""

import dataclasses
from functools import partial
from typing import Literal

from experiments import cli, measuring
from experiments.measuring import Reference
from jaxgan.data import Dataset, Source, load
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator

# What the public code sets for each network.
DEFAULTS = {
    "dcgan": {"learning_rate": 1e-4, "beta1": 0.5, "steps": 200_000, "decay_steps": 0},
    "resnet": {"learning_rate": 2e-4, "beta1": 0.0, "steps": 100_000, "decay_steps": 100_000},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Config):
    """The public code's settings for CIFAR-10; None is filled in for the model."""

    model: Literal["dcgan", "resnet"] = "resnet"
    """The networks."""
    width: int = 128
    """Channels: of the DCGAN critic's first layer, of all the ResNet's."""
    latent_size: int = 128
    """Latent variables."""
    learning_rate: float | None = None
    beta1: float | None = None
    decay_steps: int | None = None
    steps: int | None = None


def resolve(config: Config) -> Config:
    """Fills in what the model decides."""
    return dataclasses.replace(config, **{
        name: value for name, value in DEFAULTS[config.model].items() if getattr(config, name) is None})


def make_source(config: Config) -> Source:
    """Opens the data; the ResNet is fed dequantised pixels."""
    return cli.image_source(config, open_data(config), dequantize=config.model == "resnet")


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load("cifar10", split, data_dir=config.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(open_data, config))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN; the ResNet's generator is trained on twice the critic's batch."""
    shape = tuple(sample_shape)
    if config.model == "dcgan":
        return cli.make_gan(config,
                            DCGANGenerator(shape, config.width, norm="batch", output="tanh"),
                            DCGANCritic(config.width, norm=config.critic_norm), config.latent_size)
    widths = (config.width,) * 4
    return cli.make_gan(config, ResNetGenerator(shape, widths),
                        ResNetCritic(widths, norm=config.critic_norm), config.latent_size,
                        generator_batches=min(2, config.n_critic))


def main(config: Config) -> None:
    """Trains."""
    config = resolve(config)
    source = make_source(config)
    cli.train("cifar10", config, make_gan(config, source.sample_shape), source, make_reference(config))


if __name__ == "__main__":
    cli.main(Config, main)
