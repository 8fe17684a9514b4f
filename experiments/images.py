"""WGAN-GP on a folder of one's own images, with the 64x64 ResNet of the paper or a DCGAN.

Gulrajani et al. 2017 (arXiv 1704.00028), with the networks and settings of its public code for 64x64;
for other sizes the ResNet has as many blocks as the size can be halved down to 4.
"""

import dataclasses
from functools import partial
from typing import Literal

from experiments import cli, measuring
from experiments.measuring import Reference
from jaxgan.data import Dataset, Source, load, open_folder
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Config):
    """The public code's settings for 64x64 images."""

    folder: str = ""
    """The folder with PNG or JPEG files, in class folders or not."""
    image_size: int = 64
    """Images are resized and cropped to this height and width."""
    on_demand: bool = False
    """With --stream: read each image whenever it is needed, for sets larger than the host's memory."""
    model: Literal["dcgan", "resnet"] = "resnet"
    """The networks."""
    width: int = 64
    """Channels next to the image; they double with each halving, up to 8 times."""
    latent_size: int = 128
    """Latent variables."""
    beta1: float = 0.0
    critic_norm: Literal["none", "batch", "layer", "spectral"] = "layer"
    steps: int = 200_000


def make_source(config: Config) -> Source:
    """Opens the data."""
    if not config.folder:
        raise ValueError("folder is missing: give a folder of PNG or JPEG files with --folder")
    if config.on_demand and not config.stream:
        raise ValueError("on_demand is for images that are streamed: give --stream as well")
    return cli.image_source(config, open_folder(config.folder, image_size=config.image_size)
                            if config.on_demand else open_data(config))


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load(f"folder:{config.folder}", split, image_size=config.image_size)


def make_reference(config: Config) -> Reference:
    """What samples are measured against; `--features classifier` is for images in class folders."""
    return measuring.of_images(partial(open_data, config), "raw")


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    shape = tuple(sample_shape)
    if config.model == "dcgan":
        return cli.make_gan(config,
                            DCGANGenerator(shape, config.width, norm="batch", output="tanh"),
                            DCGANCritic(config.width, norm=config.critic_norm), config.latent_size)
    blocks, size = 0, config.image_size
    while size % 2 == 0 and size > 4:
        blocks, size = blocks + 1, size // 2
    if not blocks or size > 8:
        raise ValueError(f"image_size {config.image_size} can't be halved down to between 4 and 8, as "
                         "the resnet needs: choose 32, 48, 64 or 128 for example, or --model dcgan")
    widths = tuple(config.width * min(8, 2**block) for block in range(blocks + 1))
    return cli.make_gan(config, ResNetGenerator(shape, widths[::-1], first_bias=False),
                        ResNetCritic(widths, down_blocks=blocks, stem="conv", head="flatten",
                                     norm=config.critic_norm, first_bias=False), config.latent_size)


def main(config: Config) -> None:
    """Trains."""
    source = make_source(config)
    cli.train("images", config, make_gan(config, source.sample_shape), source, make_reference(config))


if __name__ == "__main__":
    cli.main(Config, main)
