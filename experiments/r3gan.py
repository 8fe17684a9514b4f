"""R3GAN: a relativistic loss with R1 and R2, and residual networks of grouped convolutions.

Huang et al. 2024 (arXiv 2501.05441). The presets that name a data set have the networks and settings of
the article's configurations: widths, cosine schedules by images of learning rate, penalty, Adam's second
decay, average and augmentation. By default small networks train on small images in minutes on two
processor cores.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from jaxgan.gan import GAN
from jaxgan.models import R3GANCritic, R3GANGenerator

from . import flags, image_sets, launch
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .image_sets import ClassImages
from .settings import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int | str = "64,32"
    """Channels of each stage, from the smallest images upwards, each of twice the height and width; or
    one number for all of them, down to a height or width of 4."""
    blocks: int = 1
    """Residual blocks of a stage."""
    cardinality: str | None = None
    """Groups of the 3x3 convolutions: one number, or one for each stage; None: width / 8."""
    expansion: int = 2
    """How much wider a block is inside than outside."""
    latent_size: int = 64
    """Latent variables."""
    critic_norm: Literal["none"] = "none"
    """R3GAN has no normalisation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="relativistic", penalty="r1_r2", penalty_weight=0.5,
                      final_penalty_weight=0.05)
    optimiser: Optimiser = Optimiser(
        learning_rate=2e-3, final_learning_rate=1e-4, beta1=0.0, beta2=0.9, final_beta2=0.99,
        decay="cosine", decay_steps=3000, ema_half_life=0.0, final_ema_half_life=20_000.0)
    schedule: Schedule = Schedule(n_critic=1, steps=3000)
    data: ClassImages = ClassImages(dataset="digits", image_size=32)
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=1000)
    evaluation: Evaluation = Evaluation(eval_every=1000)


# All of ADA's operations on pixels and colours, and holes; colours half as often (arXiv 2501.05441).
_OPERATIONS = ("xflip,rotate90,xint,scale,rotate,aniso,xfrac,brightness=0.5,contrast=0.5,lumaflip=0.5,"
               "hue=0.5,saturation=0.5,cutout")


def _published(width: str, cardinality: str, batch_size: int, penalty: float, augment: float,
               half_life: float, *, images: int = 20_000_000, **changes: Any) -> Config:
    """A configuration of the article: what changes does so by a cosine over so many images."""
    return replace(
        Config(), width=width, blocks=2, cardinality=cardinality, batch_size=batch_size,
        learning_rate=2e-4, final_learning_rate=5e-5, penalty_weight=penalty,
        final_penalty_weight=penalty / 10, augment="ada", augment_p=0.0, final_augment_p=augment,
        augment_operations=_OPERATIONS, flip=True, decay_steps=0, schedule_images=images,
        final_ema_half_life=half_life, steps=-(-images // batch_size), precision="bfloat16",
        log_every=100, sample_every=1000, checkpoint_every=1000, eval_every=0, **changes)


PRESETS = {
    "default": Config(),
    "cifar10": _published("768,768,768,768", "96", 512, 0.05, 0.55, 5e6, dataset="cifar10",
                          classes=10),
    "ffhq64": _published("768,768,768,768,384", "96,96,96,96,48", 256, 2.0, 0.3, 5e5, dataset="folder",
                         image_size=64),
    "ffhq256": _published("768,768,768,768,384,192,96", "96,96,96,96,48,24,12", 256, 150.0, 0.3, 5e5,
                          dataset="folder", image_size=256),
    "imagenet32": _published("1536,1536,1536,1536", "96", 4096, 0.5, 0.5, 5e7, dataset="folder",
                             image_size=32, classes=1000, images=200_000_000),
    "imagenet64": _published("1536,1536,1536,1536,1536", "96", 4096, 1.0, 0.4, 5e7, dataset="folder",
                             image_size=64, classes=1000, images=200_000_000),
}


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: widths or cardinalities that no network can have.
    """
    networks = config.networks
    widths = flags.as_numbers("width", networks.width)
    if len(widths) == 1:
        widths *= _stages(sample_shape[:2])
    groups = None if networks.cardinality is None else flags.as_numbers(
        "cardinality", networks.cardinality)
    shape: dict[str, Any] = {
        "widths": widths, "blocks": networks.blocks, "expansion": networks.expansion,
        "cardinality": groups[0] if groups is not None and len(groups) == 1 else groups,
        "num_classes": config.data.classes}
    return flags.make_gan(config, R3GANGenerator(tuple(sample_shape), **shape), R3GANCritic(**shape),
                          networks.latent_size)


def _stages(size: Sequence[int]) -> int:
    """How many there are if height and width are halved while both are even, and 4 at least remain."""
    height, width = size
    if height % 2 or width % 2 or min(size) < 8:
        return 1
    return 1 + _stages((height // 2, width // 2))


experiment = Experiment(Config, image_sets.make_class_source, make_gan, image_sets.make_class_reference,
                        presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
