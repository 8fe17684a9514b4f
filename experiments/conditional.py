"""Class-conditional WGAN-GP, scored by how often a classifier reads the class that was asked for.

AC-GAN, Odena et al. 2017 (arXiv 1610.09585) with the weights of Gulrajani et al. 2017 (arXiv
1704.00028); a projection critic, Miyato and Koyama 2018 (arXiv 1802.05637); or a critic that sees the
class beside the image, Mirza and Osindero 2014 (arXiv 1411.1784). `classifier/accuracy` is the fraction
of samples in which a classifier that was trained on real images sees the class that was asked for.
"""

import dataclasses
from functools import partial
from typing import Literal

import flax.linen as nn

from jaxgan import tasks
from jaxgan.data import Source
from jaxgan.gan import GAN, uniform_labels
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator
from jaxgan.models.planes import class_planes

from . import flags, image_sets, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .image_sets import Images
from .measuring import Reference

_IN_COLOUR = ("cifar10", "folder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    model: Literal["dcgan", "resnet"] = "dcgan"
    """The networks; the ResNet is that of WGAN-GP's paper for CIFAR-10, where its width is 128."""
    width: int = 48
    """Channels: of the DCGAN critic's first layer, of all the ResNet's."""
    latent_size: int = 32
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Images):
    """The data."""

    num_classes: int = 10
    """How many classes the images are of; those of a folder are its sub-folders, or its table's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """How the networks meet the classes."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    classes: Classes = Classes()
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.0, decay_steps=6000, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=3, steps=6000)
    data: Data = Data(dataset="digits", image_size=64)
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=2000)
    evaluation: Evaluation = Evaluation(eval_every=2000)


def make_source(config: Config) -> Source:
    """Opens the data, with labels.

    Raises:
        ValueError: there are more classes, or fewer.
    """
    data = config.data
    source = image_sets.make_source(config, labels=True, value_range=(
        (-1.0, 1.0) if config.networks.model == "resnet" or data.dataset in _IN_COLOUR else (0.0, 1.0)))
    image_sets.check_classes(data, source)
    return source


def make_reference(config: Config) -> Reference:
    """What samples are measured against."""
    return measuring.of_images(partial(image_sets.open_data, config.data), quick="accuracy,fd",
                               metrics="accuracy,fd,kid,is,pr,dc,copying,swd")


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: flags that don't go together.
    """
    networks, classes, count = config.networks, config.classes, config.data.num_classes
    for name in () if classes.conditioning == "classes" else (
            "critic_class_weight", "critic_fake_weight", "generator_class_weight"):
        if getattr(classes, name) != getattr(Classes(), name):
            raise ValueError(f"{name} is for --conditioning classes: leave it out")
    terms = (tasks.classification(critic_weight=classes.critic_class_weight,
                                  generator_weight=classes.generator_class_weight,
                                  fake_weight=classes.critic_fake_weight),
             ) if classes.conditioning == "classes" else ()
    return flags.make_gan(
        config, *make_networks(config, tuple(sample_shape)), networks.latent_size, tasks=terms,
        generator_condition=uniform_labels(count) if classes.generator_labels == "uniform" else None)


def make_networks(config: Config, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """The generator and the critic.

    Raises:
        ValueError: the critic can't meet the class in this way.
    """
    networks, conditioning, count = config.networks, config.classes.conditioning, config.data.num_classes
    judging = {"norm": networks.critic_norm}
    if conditioning != "concatenation":
        judging |= {"conditioning": conditioning, "num_classes": count}
    elif networks.model == "dcgan":
        judging |= {"planes": partial(class_planes, num_classes=count)}
    else:
        raise ValueError("concatenation is for the dcgan: choose --conditioning projection for the "
                         "resnet")
    if networks.model == "resnet":
        widths = (networks.width,) * 4
        return ResNetGenerator(shape, widths, num_classes=count), ResNetCritic(widths, **judging)
    size = 3 if min(shape[:2]) < 16 else 5
    ends = {"norm": "batch", "output": "tanh"} if config.data.dataset in _IN_COLOUR else {}
    return (DCGANGenerator(shape, networks.width, kernel_size=size, num_classes=count, **ends),
            DCGANCritic(networks.width, kernel_size=size, **judging))


experiment = Experiment(Config, make_source, make_gan, make_reference)


if __name__ == "__main__":
    launch.main(experiment)
