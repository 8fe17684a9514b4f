"""WGAN-GP on CIFAR-10, with the DCGAN or the ResNet.

Gulrajani et al. 2017 (arXiv 1704.00028), with the networks and settings of its public code: each of the
two networks has its own, a preset of its name, which `--model` chooses as well.
"""

import dataclasses
from functools import partial
from typing import Literal

from jaxgan.data import Dataset, Source, load
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator

from . import flags, launch, measuring
from .experiment import Experiment
from .flags import Optimiser, Schedule
from .measuring import Reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    model: Literal["resnet", "dcgan"] = "resnet"
    """The networks; without --preset they come with the settings that the public code has for them."""
    width: int = 128
    """Channels: of the DCGAN critic's first layer, of all the ResNet's."""
    latent_size: int = 128
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """The public code's settings for CIFAR-10 and the ResNet."""

    networks: Networks = Networks()
    optimiser: Optimiser = Optimiser(learning_rate=2e-4, beta1=0.0, decay_steps=100_000)
    schedule: Schedule = Schedule(steps=100_000)


PRESETS = {
    "resnet": Config(),
    "dcgan": Config(networks=Networks(model="dcgan"),
                    optimiser=Optimiser(learning_rate=1e-4, beta1=0.5, decay_steps=0),
                    schedule=Schedule(steps=200_000)),
}


def make_source(config: Config) -> Source:
    """Opens the data; the ResNet is fed dequantised pixels."""
    return flags.image_source(config, open_data(config), dequantize=config.networks.model == "resnet")


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load("cifar10", split, data_dir=config.data.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(open_data, config))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN; the ResNet's generator is trained on twice the critic's batch."""
    shape, networks = tuple(sample_shape), config.networks
    if networks.model == "dcgan":
        return flags.make_gan(config,
                              DCGANGenerator(shape, networks.width, norm="batch", output="tanh"),
                              DCGANCritic(networks.width, norm=networks.critic_norm),
                              networks.latent_size)
    widths = (networks.width,) * 4
    return flags.make_gan(config, ResNetGenerator(shape, widths),
                          ResNetCritic(widths, norm=networks.critic_norm), networks.latent_size,
                          generator_batches=min(2, config.schedule.n_critic))


experiment = Experiment(Config, make_source, make_gan, make_reference, presets=PRESETS,
                        preset_by="model")


if __name__ == "__main__":
    launch.main(experiment)
