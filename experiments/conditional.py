"""Class-conditional WGAN-GP, scored by how often a classifier reads the class that was asked for.

AC-GAN, Odena et al. 2017 (arXiv 1610.09585) with the weights of Gulrajani et al. 2017 (arXiv
1704.00028); a projection critic, Miyato and Koyama 2018 (arXiv 1802.05637); or a critic that sees the
class beside the image, Mirza and Osindero 2014 (arXiv 1411.1784). `classifier/accuracy` is the fraction
of samples in which a classifier that was trained on real images sees the class that was asked for.
"""

import dataclasses
from functools import partial
from typing import Literal

from experiments import cli, image_sets, measuring
from experiments.measuring import Reference
from jaxgan import tasks
from jaxgan.data import Source
from jaxgan.gan import GAN, uniform_labels
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator
from jaxgan.models.planes import class_planes

_IN_COLOUR = ("cifar10", "folder")
_OF_CLASSES = ("critic_class_weight", "critic_fake_weight", "generator_class_weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(image_sets.Images):
    """Those of `experiments.digits`, which train in minutes on two cores."""

    num_classes: int = 10
    """How many classes the images are of; those of a folder are its sub-folders."""
    model: Literal["dcgan", "resnet"] = "dcgan"
    """The networks; the ResNet is that of WGAN-GP's paper for CIFAR-10, where its width is 128."""
    conditioning: Literal["classes", "projection", "concatenation"] = "classes"
    """How the critic meets the class: it classifies (AC-GAN), scores by projection, or sees a plane for
    each class beside the image (DCGAN only)."""
    critic_class_weight: float = 1.0
    """AC-GAN: the weight of the critic's classification of reals."""
    critic_fake_weight: float = 0.0
    """AC-GAN: how much fakes count in the critic's classification, beside the reals' 1; 1 is Odena's."""
    generator_class_weight: float = 0.1
    """AC-GAN: the weight of that of fakes, which the generator sees."""
    generator_labels: Literal["batch", "uniform"] = "batch"
    """What the generator's updates draw fakes for: the batch's labels, or all classes alike."""
    width: int = 48
    """Channels: of the DCGAN critic's first layer, of all the ResNet's."""


def make_source(config: Config) -> Source:
    """Opens the data, with labels.

    Raises:
        ValueError: there are more classes, or fewer.
    """
    source = image_sets.make_source(config, labels=True, value_range=(
        (-1.0, 1.0) if config.model == "resnet" or config.dataset in _IN_COLOUR else (0.0, 1.0)))
    if source.num_classes != config.num_classes:
        raise ValueError(f"num_classes is {config.num_classes}, but {config.folder or config.dataset} "
                         f"has {source.num_classes}: give --num-classes {source.num_classes}")
    return source


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(image_sets.open_data, config), quick="accuracy,fd",
                               metrics="accuracy,fd,kid,is,pr,dc,copying,swd")


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: flags that don't go together.
    """
    for name in () if config.conditioning == "classes" else _OF_CLASSES:
        if getattr(config, name) != getattr(Config, name):
            raise ValueError(f"{name} is for --conditioning classes: leave it out")
    shape, classes = tuple(sample_shape), config.num_classes
    judging = {"norm": config.critic_norm}
    if config.conditioning != "concatenation":
        judging |= {"conditioning": config.conditioning, "num_classes": classes}
    elif config.model == "dcgan":
        judging |= {"planes": partial(class_planes, num_classes=classes)}
    else:
        raise ValueError("concatenation is for the dcgan: choose --conditioning projection for the "
                         "resnet")
    if config.model == "resnet":
        widths = (config.width,) * 4
        networks = (ResNetGenerator(shape, widths, num_classes=classes), ResNetCritic(widths, **judging))
    else:
        size = 3 if min(shape[:2]) < 16 else 5
        ends = {"norm": "batch", "output": "tanh"} if config.dataset in _IN_COLOUR else {}
        networks = (DCGANGenerator(shape, config.width, kernel_size=size, num_classes=classes, **ends),
                    DCGANCritic(config.width, kernel_size=size, **judging))
    terms = (tasks.classification(critic_weight=config.critic_class_weight,
                                  generator_weight=config.generator_class_weight,
                                  fake_weight=config.critic_fake_weight),
             ) if config.conditioning == "classes" else ()
    return cli.make_gan(
        config, *networks, config.latent_size, tasks=terms,
        generator_condition=uniform_labels(classes) if config.generator_labels == "uniform" else None)


def main(config: Config) -> None:
    """Trains."""
    source = make_source(config)
    cli.train("conditional", config, make_gan(config, source.sample_shape), source,
              make_reference(config))


if __name__ == "__main__":
    cli.main(Config, main)
