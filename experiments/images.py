"""WGAN-GP on a folder of one's own images, with the 64x64 ResNet of the paper or a DCGAN.

Gulrajani et al. 2017 (arXiv 1704.00028), with the networks and settings of its public code for 64x64;
for other sizes the ResNet has as many blocks as the shorter side can be halved down to 4. The preset
`laptop` is a small DCGAN for images of 32x32, whose samples are worth a look after minutes on two cores.
"""

import dataclasses
from functools import partial
from typing import Literal

from experiments import flags, image_sets, launch, measuring
from experiments.experiment import Experiment
from experiments.flags import Optimiser, Run, Schedule
from experiments.image_sets import Folder
from experiments.measuring import Reference
from jaxgan.data import Dataset, Source, load, open_folder
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    model: Literal["dcgan", "resnet"] = "resnet"
    """The networks."""
    width: int = 64
    """Channels next to the image; they double with each halving, up to 8 times."""
    latent_size: int = 128
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """The public code's settings for 64x64 images."""

    networks: Networks = Networks(critic_norm="layer")
    optimiser: Optimiser = Optimiser(beta1=0.0)
    schedule: Schedule = Schedule(steps=200_000)
    data: Folder = Folder(image_size=64)


PRESETS = {
    "paper": Config(),
    "laptop": Config(networks=Networks(model="dcgan", width=32, latent_size=64),
                     optimiser=Optimiser(learning_rate=1e-3, beta1=0.0, decay_steps=2000,
                                         ema_decay=0.995),
                     schedule=Schedule(n_critic=2, steps=2000),
                     data=Folder(image_size=32),
                     run=Run(log_every=50, sample_every=200, checkpoint_every=500)),
}


def make_source(config: Config) -> Source:
    """Opens the data."""
    data = config.data
    if not data.folder:
        raise ValueError("folder is missing: give a folder of images with --folder")
    if data.on_demand and not data.stream:
        raise ValueError("on_demand is for images that are streamed: give --stream as well")
    return flags.image_source(config, open_folder(data.folder, **image_sets.wish(data))
                              if data.on_demand else open_data(config))


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load(f"folder:{config.data.folder}", split, **image_sets.wish(config.data))


def make_reference(config: Config) -> Reference:
    """What samples are measured against; `--features classifier` is for images in class folders."""
    return measuring.of_images(partial(open_data, config), "raw")


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    shape, networks = tuple(sample_shape), config.networks
    if networks.model == "dcgan":
        return flags.make_gan(config,
                              DCGANGenerator(shape, networks.width, norm="batch", output="tanh"),
                              DCGANCritic(networks.width, norm=networks.critic_norm),
                              networks.latent_size)
    blocks, (height, width, _) = 0, shape
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        blocks, height, width = blocks + 1, height // 2, width // 2
    if not blocks or min(height, width) > 8:
        raise ValueError(f"image_size {config.data.image_size} can't be halved down to between 4 and 8, "
                         "as the resnet needs: choose 32, 64, 128 or 48x64 for example, or --model "
                         "dcgan")
    widths = tuple(networks.width * min(8, 2**block) for block in range(blocks + 1))
    return flags.make_gan(config, ResNetGenerator(shape, widths[::-1], first_bias=False),
                          ResNetCritic(widths, down_blocks=blocks, stem="conv", head="flatten",
                                       norm=networks.critic_norm, first_bias=False),
                          networks.latent_size)


experiment = Experiment(Config, make_source, make_gan, make_reference, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
