"""WGAN-GP on scikit-learn's 8x8 digits: nothing to download, legible in two minutes on two cores."""

import dataclasses
from functools import partial

from experiments import cli, measuring
from experiments.measuring import Reference
from jaxgan.data import Source, load
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Config):
    """Small networks, larger steps than the paper's."""

    width: int = 48
    """Channels of the critic's first layer; they double with each halving of the image."""
    latent_size: int = 32
    """Latent variables."""
    learning_rate: float = 1e-3
    beta1: float = 0.0
    decay_steps: int = 6000
    n_critic: int = 3
    ema_decay: float = 0.999
    steps: int = 6000
    log_every: int = 50
    sample_every: int = 500
    eval_every: int = 2000
    eval_metrics: str = "fd,kid,is,pr,dc,copying,swd"
    checkpoint_every: int = 2000


def make_source(config: Config) -> Source:
    """Opens the data."""
    return cli.image_source(config, load("digits"), value_range=(0.0, 1.0))


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(load, "digits"))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    return cli.make_gan(
        config,
        DCGANGenerator(tuple(sample_shape), config.width, kernel_size=3),
        DCGANCritic(config.width, kernel_size=3, norm=config.critic_norm),
        config.latent_size,
    )


def main(config: Config) -> None:
    """Trains."""
    source = make_source(config)
    cli.train("digits", config, make_gan(config, source.sample_shape), source, make_reference(config))


if __name__ == "__main__":
    cli.main(Config, main)
