"""Drifting: a generator of one step that learns without a critic.

Deng et al. 2026 (arXiv 2602.04770). A field moves samples towards data and away from each other, and the
generator learns to make what was moved. Images drift in what a classifier of the data's classes sees in
them, and as they are; with --classes each class by itself. By default dense layers draw digits, in
minutes on two processor cores; with --dataset mnist or fashion_mnist a DCGAN draws these. --n-critic is
how many batches of reals a step takes. Points in the plane drift by
`experiments.gaussians --preset drifting`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxgan.data import Source
from jaxgan.loops import Game
from jaxgan.models import DCGANGenerator, MLPGenerator
from jaxgan.types import Array, PyTree

from . import flags, image_sets, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .image_sets import ClassImages
from .settings import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    model: Literal["mlp", "dcgan"] = "mlp"
    """The generator."""
    width: int = 384
    """Units in each of the MLP's three hidden layers; channels of the DCGAN's last layer but one, which
    double with each halving of the image."""
    latent_size: int = 32
    """Latent variables."""
    critic_norm: Literal["none"] = "none"
    """There is no critic."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """What drifts, and how far it looks."""

    space: Literal["both", "classifier", "pixels"] = "both"
    """Whether a classifier's features drift, which is trained first unless one is kept, or pixels, or
    both."""
    temperatures: str | None = None
    """Of the field, in units of the mean distance, a list like 0.05,0.2; None: those of the article."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Dense layers for digits."""

    networks: Networks = Networks()
    loss: Loss = Loss(penalty="none")
    drift: Drift = Drift()
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.9, beta2=0.95, decay="cosine",
                                     decay_steps=6000, ema_decay=0.99)
    schedule: Schedule = Schedule(n_critic=1, batch_size=128, steps=6000)
    data: ClassImages = ClassImages(dataset="digits", image_size=32)
    run: Run = Run(log_every=50, sample_every=1000, checkpoint_every=2000)
    evaluation: Evaluation = Evaluation(eval_every=2000)


_MNIST = replace(Config(), dataset="mnist", model="dcgan", width=32, latent_size=128)
PRESETS = {"digits": Config(), "mnist": _MNIST,
           "fashion_mnist": replace(_MNIST, dataset="fashion_mnist")}


def make_source(config: Config) -> Source:
    """Opens the training images, in [0, 1], with labels if asked."""
    return image_sets.make_class_source(config, value_range=(0.0, 1.0))


def make_game(config: Config, sample_shape: tuple[int, ...]) -> Game:
    """Specifies the game."""
    shape, networks = tuple(sample_shape), config.networks
    make = (partial(MLPGenerator, hidden=(networks.width,) * 3) if networks.model == "mlp" else
            partial(DCGANGenerator, width=networks.width))
    generator = make(shape, output="sigmoid", num_classes=config.data.classes)
    return flags.make_drifting_game(config, generator, networks.latent_size, config.drift.temperatures,
                                    features=features(config))


def features(config: Config) -> Callable[[Array], PyTree] | None:
    """What drifts in images' place; None for themselves.

    Raises:
        ValueError: what a classifier sees is asked for, and the images are in no classes.
    """
    if config.drift.space == "pixels":
        return None
    reference = image_sets.make_class_reference(config)
    if callable(reference.features) and reference.features() != "classifier":
        raise ValueError(f"the images in {config.data.folder} are in no classes, which a classifier "
                         "could learn: give --space pixels")
    sees = measuring.classifier_sees(reference)

    def seen(images: Array) -> dict[str, Array]:
        found = {"classifier": sees(images)}
        return found | {"pixels": images} if config.drift.space == "both" else found

    return seen


experiment = Experiment(Config, make_source, make_game, image_sets.make_class_reference,
                        presets=PRESETS, preset_by="dataset")


if __name__ == "__main__":
    launch.main(experiment)
