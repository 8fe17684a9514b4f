"""Class-conditional WGAN-GP: AC-GAN or a projection critic, scored by how often a class can be read.

Odena et al. 2017 (arXiv 1610.09585) with the weights of Gulrajani et al. 2017 (arXiv 1704.00028), or
Miyato and Koyama 2018 (arXiv 1802.05637). `classifier/accuracy` is the fraction of samples in which a
classifier that was trained on real images sees the class that was asked for.
"""

import dataclasses
from functools import partial
from typing import Literal

from experiments import cli, digits, measuring
from experiments.measuring import Reference
from jaxgan import tasks
from jaxgan.data import Dataset, Source, load
from jaxgan.gan import GAN, uniform_labels
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator

CLASSES = 10  # of every set here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(digits.Config):
    """Those of `experiments.digits`, which train in minutes on two cores."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10"] = "digits"
    """Which set; CIFAR-10 is for the ResNet of the paper, the others for a DCGAN."""
    conditioning: Literal["classes", "projection"] = "classes"
    """How the critic sees the class: it classifies (AC-GAN), or scores by projection."""
    critic_class_weight: float = 1.0
    """AC-GAN: the weight of the critic's classification of reals."""
    generator_class_weight: float = 0.1
    """AC-GAN: the weight of that of fakes, which the generator sees."""
    generator_labels: Literal["batch", "uniform"] = "batch"
    """What the generator's updates draw fakes for: the batch's labels, or all classes alike."""
    width: int = 48
    """Channels: of the DCGAN critic's first layer, of all the ResNet's."""
    eval_metrics: str = ""


def make_source(config: Config) -> Source:
    """Opens the data, with labels."""
    value_range = (-1.0, 1.0) if config.dataset == "cifar10" else (0.0, 1.0)
    return cli.image_source(config, open_data(config), value_range=value_range, labels=True)


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split."""
    return load(config.dataset, split, data_dir=config.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(open_data, config), quick="accuracy,fd",
                               metrics="accuracy,fd,kid,is,pr,dc,copying,swd")


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    shape = tuple(sample_shape)
    judging = {"norm": config.critic_norm, "conditioning": config.conditioning, "num_classes": CLASSES}
    if config.dataset == "cifar10":
        widths = (config.width,) * 4
        networks = (ResNetGenerator(shape, widths, num_classes=CLASSES), ResNetCritic(widths, **judging))
    else:
        size = 3 if min(shape[:2]) < 16 else 5
        networks = (DCGANGenerator(shape, config.width, kernel_size=size, num_classes=CLASSES),
                    DCGANCritic(config.width, kernel_size=size, **judging))
    terms = (tasks.classification(critic_weight=config.critic_class_weight,
                                  generator_weight=config.generator_class_weight),
             ) if config.conditioning == "classes" else ()
    return cli.make_gan(
        config, *networks, config.latent_size, tasks=terms,
        generator_condition=uniform_labels(CLASSES) if config.generator_labels == "uniform" else None)


def main(config: Config) -> None:
    """Trains."""
    source = make_source(config)
    cli.train("conditional", config, make_gan(config, source.sample_shape), source,
              make_reference(config))


if __name__ == "__main__":
    cli.main(Config, main)
