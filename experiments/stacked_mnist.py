"""Stacked MNIST: three digits in the channels of an image, 1000 modes to cover.

Metz et al. 2017 (arXiv 1611.02163) count the modes that samples reach with a classifier of MNIST's
digits. The networks are those of `experiments.mnist`, for images of three channels; by default they
train by the relativistic loss with R1 and R2 of Huang et al. 2024 (arXiv 2501.05441), which covers all
modes evenly. The preset `paper` has WGAN-GP's settings; `pacgan` those of Lin et al. 2018 (arXiv
1712.04086), a DCGAN whose critic sees two images at once.
"""

import dataclasses
from functools import cache
from typing import Literal

import jax
import numpy as np

from jaxgan import evaluation, keys
from jaxgan.data import Dataset, Source, load, stacked
from jaxgan.evaluation import Comparison, Metric, Number
from jaxgan.features import FeatureNetwork
from jaxgan.features.classifier import predict
from jaxgan.gan import GAN
from jaxgan.metrics import class_coverage
from jaxgan.models import DCGANCritic, DCGANGenerator

from . import flags, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Schedule
from .measuring import Reference
from .settings import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 32
    """Channels of the critic's first layer; they double with each halving of the image."""
    latent_size: int = 128
    """Latent variables."""
    generator_norm: Literal["batch", "none"] | None = None
    """The generator's normalisation; None: none."""
    output: Literal["sigmoid", "tanh"] | None = None
    """What bounds the generator's pixels; None: sigmoid."""
    stages: int | None = None
    """How often both networks halve or double the image; None: 3 times."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    stacks: int | None = None
    """How many stacks there are to train on; None: every stack that is drawn is a new one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What covers the modes, in minutes on a GPU and in 100 on two processor cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="relativistic", penalty="r1_r2", penalty_weight=1.0)
    optimiser: Optimiser = Optimiser(learning_rate=3e-4, beta1=0.0, beta2=0.99, decay_steps=24_000,
                                     ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=1, steps=24_000)
    data: Data = Data()
    evaluation: Evaluation = Evaluation(eval_every=8000)


# WGAN-GP's settings for MNIST, with a batch of 64.
_PAPER = Config(networks=Networks(width=64), loss=Loss(), optimiser=Optimiser(), schedule=Schedule(),
                evaluation=Evaluation())
PRESETS = {"default": Config(),
           "paper": _PAPER,
           # 50 epochs; initial weights are WGAN-GP's.
           "pacgan": replace(
               _PAPER, generator_norm="batch", critic_norm="batch", output="tanh", stages=4,
               latent_size=100, loss="non_saturating", penalty="none", pack=2, learning_rate=2e-4,
               beta2=0.999, n_critic=1, batch_size=64, stacks=128_000, steps=100_000)}


def make_source(config: Config) -> Source:
    """Opens the data."""
    value_range = (-1.0, 1.0) if config.networks.output == "tanh" else (0.0, 1.0)
    return stacked(open_data(config), value_range=value_range, count=config.data.stacks)


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split of MNIST."""
    return load("mnist", split, data_dir=config.data.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against: stacks of either split's digits.

    26,000 samples are taken, as in Srivastava et al. 2017 (arXiv 1705.07761).
    """
    def reals(split: str) -> evaluation.Samples:
        return evaluation.of_source(stacked(open_data(config, split)), f"stacked_mnist {split}",
                                    keys.stream(jax.random.key(0), f"reals {split}"))

    return Reference(cache(reals), "random_projection", "modes", "modes,fd,kid,pr,dc,swd",
                     own=(make_modes(config),), num_fake=26_000)


def make_modes(config: Config) -> Metric:
    """The metric that counts the stacks of three digits that MNIST's classifier sees in images."""
    @cache
    def network() -> FeatureNetwork:
        return measuring.obtain_classifier(open_data(config, "train"), open_data(config, "test")).network

    def measure(seen: Comparison) -> dict[str, float]:
        channels = np.moveaxis(seen.fake.samples, 3, 1)  # [count, 3, height, width]
        digits = predict(network(), channels.reshape(-1, *channels.shape[2:], 1)).reshape(-1, 3)
        return class_coverage(digits @ np.array([100, 10, 1]), 1000)

    return Metric("modes", measure, (
        Number("modes", "modes of 1000", True),
        Number("modes_kl", "KL of modes from even (nats)", False),
    ), samples=True, ready=network)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    networks = config.networks
    return flags.make_gan(
        config,
        DCGANGenerator(tuple(sample_shape), networks.width, networks.stages,
                       norm=networks.generator_norm or "none", output=networks.output or "sigmoid"),
        DCGANCritic(networks.width, networks.stages, norm=networks.critic_norm),
        networks.latent_size,
    )


experiment = Experiment(Config, make_source, make_gan, make_reference, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
