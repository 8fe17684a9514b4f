"""A GAN on a folder of one's own images: WGAN-GP with a large ResNet, or a small DCGAN for a processor.

The preset `paper` has the networks and settings of the public code of Gulrajani et al. 2017 (arXiv
1704.00028) for 64x64; for other sizes the ResNet has as many blocks as the shorter side can be halved
down to 4. The preset `laptop` is for two processor cores, where it shows things in fewer updates: a
small DCGAN without normalisation, with kernels that the stride divides, and the relativistic loss with
R1 and R2 of Huang et al. 2024 (arXiv 2501.05441). What no flag says is the former's on an accelerator
and the latter's on a processor, and the images' size is then near to their own.
"""

import dataclasses
from collections import Counter
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import numpy as np

from jaxgan.data import Dataset, Source, load, open_folder, scaling
from jaxgan.data.folder import Files
from jaxgan.data.survey import sizes, suited
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator
from jaxgan.nn.norms import NORMS

from . import changing, conditions, flags, image_sets, launch, measuring, settings
from .experiment import Experiment
from .image_sets import Folder
from .measuring import Reference
from .settings import may_differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks; None: by the device."""

    model: Literal["dcgan", "resnet"] | None = None
    """The networks."""
    width: int | None = None
    """Channels next to the image; they double with each halving, of the ResNet up to 8 times."""
    latent_size: int | None = None
    """Latent variables."""
    critic_norm: Literal[*NORMS] | None = None
    """The critic's normalisation; a penalty excludes batch."""
    generator_norm: Literal["batch", "none"] | None = None
    """The generator's normalisation; None: batch, or by the device."""
    kernel_size: int | None = None
    """Size of the DCGAN's kernels; None: 5, or by the device. The ResNet's are 3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(flags.Loss):
    """What the networks minimise; None: by the device, or WGAN-GP's beside what is given."""

    loss: Literal[*flags.LOSSES] | None = None
    """What critic and generator minimise."""
    penalty: Literal[*flags.PENALTIES] | None = None
    """The penalty on the critic's input gradient."""
    penalty_weight: float | None = None
    """The penalty's weight (lambda, or gamma of R1 and R2)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimiser(flags.Optimiser):
    """The optimisers, and the average of the generator; None: by the device."""

    learning_rate: float | None = None
    """The learning rate of both networks."""
    beta1: float = 0.0
    """Adam's first decay."""
    beta2: float | None = None
    """Adam's second decay; RMSProp's decay."""
    ema_decay: float | None = None
    """Decay of the averaged generator that samples are drawn from; 0: the generator as trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(flags.Schedule):
    """How long and in which batches; None: by the device."""

    n_critic: int | None = None
    """Critic updates in an iteration."""
    steps: int | None = may_differ(None)
    """Iterations in all: n_critic critic updates and one generator update each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions(conditions.Conditions):
    """What samples are drawn for."""

    conditions: Literal["classes", "numbers"] | None = None
    """The images' classes, or their numbers in the table; None for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What is left open is settled by the device and the images, and recorded."""

    networks: Networks = Networks()
    conditions: Conditions = Conditions()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    data: Folder = Folder(image_size=None)


WGAN_GP = {"loss": "wasserstein", "penalty": "gradient_penalty", "penalty_weight": 10.0, "beta2": 0.9}
_OF_DCGAN = ("generator_norm", "kernel_size")  # which may stay open: batch and 5
PRESETS = {
    "device": Config(),
    "paper": settings.replace(Config(), **WGAN_GP, model="resnet", width=64, latent_size=128,
                              critic_norm="layer", learning_rate=1e-4, ema_decay=0.0, n_critic=5,
                              steps=200_000, image_size=64),
    "laptop": settings.replace(Config(), loss="relativistic", penalty="r1_r2", penalty_weight=1.0,
                               beta2=0.99, model="dcgan", width=32, latent_size=64, critic_norm="none",
                               generator_norm="none", kernel_size=4, learning_rate=5e-4,
                               ema_decay=0.998, n_critic=1, steps=3000, image_size=32),
}


def settle(config: Config) -> Config:
    """Fills in what is left open: as a run that goes on has it, or else by the device and the images.

    Raises:
        ValueError: the images aren't in classes or have no numbers, but samples are to be drawn for
            them.
    """
    chosen = settings.flat(PRESETS["laptop" if jax.default_backend() == "cpu" else "paper"])
    begun, is_given = changing.recorded(config), bool(config.loss.loss or config.loss.penalty)
    if is_given:
        chosen |= WGAN_GP | {"n_critic": max(2, chosen["n_critic"])}
    if begun is not None or is_given or config.networks.model == "resnet":
        chosen |= dict.fromkeys(_OF_DCGAN)  # of which runs of before had no choice
    if begun is not None:
        chosen |= begun
    elif config.data.image_size is None:
        _check_folder(config)
        height, width = suited(Counter(sizes(config.data.folder)), chosen["image_size"])
        chosen["image_size"] = height if height == width else f"{height}x{width}"
    config = settings.replace(config, **{
        name: chosen[name] for name, value in settings.flat(config).items()
        if value is None and name in (*_open(), *_OF_DCGAN)})
    asked, classes, numbers = config.conditions.conditions, 0, 0
    if asked:
        examples = open_examples(config)
        classes = len(examples.class_names) if asked == "classes" else 0
        if asked == "numbers":
            numbers = 0 if examples.numbers is None else examples.numbers.shape[1]
        if classes < 2 and not numbers:
            where = "class folders or in a table" if asked == "classes" else "a table"
            raise ValueError(f"--conditions {asked} is for images in {where} that has them, and "
                             f"{config.data.folder} has no {asked}")
        if len(untrained := np.setdiff1d(np.arange(classes), examples.labels)):
            raise ValueError(f"there are no images of the class {examples.class_names[untrained[0]]} to "
                             f"train on in {config.data.folder}: bring some, or leave its folder out")
    return conditions.settled(config, classes, numbers, config.data.folder)


def _open() -> list[str]:
    """The settings that may be left open."""
    return [name for name, value in settings.flat(PRESETS["paper"]).items()
            if value is not None and settings.flat(PRESETS["device"])[name] is None]


def make_source(config: Config) -> Source:
    """Opens the data."""
    examples, asked = open_examples(config), config.conditions.conditions
    return flags.image_source(config, examples, labels=asked == "classes", numbers=asked == "numbers",
                              weights=image_sets.weights_of(config.data, examples))


def open_examples(config: Config) -> Dataset | Files:
    """Opens the images to train on.

    Raises:
        ValueError: there is no folder, or flags don't go together.
    """
    data = config.data
    _check_folder(config)
    if data.on_demand and not data.stream:
        raise ValueError("on_demand is for images that are streamed: give --stream as well")
    if data.on_demand:
        return open_folder(data.folder, **image_sets.wish(data))
    return open_data(config)


def _check_folder(config: Config) -> None:
    if not config.data.folder:
        raise ValueError("folder is missing: give a folder of images with --folder")


def open_data(config: Config, split: str = "train") -> Dataset:
    """Opens a split; the images are read once."""
    return _load(config.data.folder, split, *image_sets.wish(config.data).items())


@lru_cache(2)
def _load(folder: str, split: str, *wish: tuple[str, Any]) -> Dataset:
    return load(f"folder:{folder}", split, **dict(wish))


def make_reference(config: Config) -> Reference:
    """What samples are measured against; `--features classifier` is for images in classes."""
    opens = partial(open_data, config)
    asked = config.conditions.conditions
    if asked == "classes":
        return measuring.of_images(opens, quick="accuracy,fd",
                                   metrics="accuracy,fd,kid,is,pr,dc,copying,swd")
    reference = measuring.of_images(
        opens, lambda: measuring.untrained_features(opens("train").images.shape[1:]))
    if not asked:
        return reference

    def reals(split: str) -> Samples:
        train, found = opens("train"), opens(split)
        return conditions.with_numbers(reference.reals(split), found.numbers,
                                       scaling.found(train.numbers, by_channel=True))

    return reference._replace(reals=reals, requests=conditions.requests(config, reals), num_fake=2000,
                              own=conditions.metrics(config, reals), quick="condition,fd",
                              metrics=f"condition,{reference.metrics}")


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: a setting is left open, or the size is none for the networks.
    """
    if missing := [name for name in _open() if settings.flat(config)[name] is None]:
        raise ValueError(f"{', '.join(missing)} must be known by now: choose a preset")
    shape, networks = tuple(sample_shape), config.networks
    drawn_for, judging, tasks = conditions.of_networks(config)
    drawn_for["norm"] = networks.generator_norm or "batch"
    if networks.model == "dcgan":
        size = 5 if networks.kernel_size is None else networks.kernel_size
        return flags.make_gan(
            config, DCGANGenerator(shape, networks.width, None, size, output="tanh", **drawn_for),
            DCGANCritic(networks.width, None, size, norm=networks.critic_norm, **judging),
            networks.latent_size, tasks=tasks)
    if networks.kernel_size not in (None, 3):
        raise ValueError(f"kernel_size is {networks.kernel_size}, but the resnet's is 3: leave it "
                         "out, or choose --model dcgan")
    blocks, (height, width, _) = 0, shape
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        blocks, height, width = blocks + 1, height // 2, width // 2
    if not blocks or min(height, width) > 8:
        raise ValueError(f"image_size {config.data.image_size} can't be halved down to between 4 and 8, "
                         "as the resnet needs: choose 32, 64, 128 or 48x64 for example, or --model "
                         "dcgan")
    widths = tuple(networks.width * min(8, 2**block) for block in range(blocks + 1))
    return flags.make_gan(
        config, ResNetGenerator(shape, widths[::-1], first_bias=False, last_he=True, **drawn_for),
        ResNetCritic(widths, down_blocks=blocks, stem="conv", head="flatten", norm=networks.critic_norm,
                     first_bias=False, **judging), networks.latent_size, tasks=tasks)


experiment = Experiment(Config, make_source, make_gan, make_reference, settle=settle, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
