"""pix2pix: a U-Net translates images, taught by pairs: an L1 term, and a critic of patches.

Isola et al. 2017 (arXiv 1611.07004). The critic sees the translation, or the true partner, beside the
image. By default, outlines of digits become digits. `--preset paper` has the article's settings for a
folder of one's own.
"""

import dataclasses
from typing import Literal

import jax

from jaxgan import keys, tasks
from jaxgan.data import Source
from jaxgan.gan import GAN, GANState, sample
from jaxgan.models import PatchCritic, UNetTranslator
from jaxgan.models.translation import dropout_seeds
from jaxgan.nn.norms import IMAGE_NORMS
from jaxgan.training import Picture
from jaxgan.types import Array, PyTree

from . import domains, flags, launch
from .domains import Domains
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .measuring import Reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 16
    """Channels of both networks' first layers; they double with each halving, up to eightfold."""
    dropout: float = 0.5
    """The probability with which numbers are dropped in the generator, its only noise."""
    critic_norm: Literal[*IMAGE_NORMS] = "instance"
    """The critic's normalisation; a penalty excludes batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """The likeness to the true partner."""

    l1_weight: float = 100.0
    """The weight of the mean absolute difference from it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Small networks, which train in minutes on two cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="non_saturating", penalty="none")
    likeness: Likeness = Likeness()
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.5, beta2=0.999, decay="late",
                                     decay_steps=1500)
    schedule: Schedule = Schedule(n_critic=1, batch_size=16, steps=1500)
    data: Domains = Domains()
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=500)
    evaluation: Evaluation = Evaluation(eval_every=500)


PRESETS = {
    "default": Config(),
    "paper": Config(  # facades: 200 epochs of 400 images
        networks=Networks(width=64),
        optimiser=Optimiser(learning_rate=2e-4, beta1=0.5, beta2=0.999),
        schedule=Schedule(n_critic=1, batch_size=1, steps=80_000),
        data=Domains(image_size=256, jitter=1.117, flip=True),
        run=Run(log_every=100, sample_every=2000, checkpoint_every=2000), evaluation=Evaluation()),
}


def make_source(config: Config) -> Source:
    """Opens the data."""
    return domains.make_source(config, paired=True)


def make_reference(config: Config) -> Reference:
    """What translations are measured against."""
    return domains.make_reference(config, paired=True)


def beside(condition: PyTree) -> Array:
    """What the critic sees beside the image: the image to translate."""
    return condition


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    networks = config.networks
    return flags.make_gan(
        config,
        UNetTranslator(tuple(sample_shape), networks.width, dropout=networks.dropout),
        PatchCritic(networks.width, norm=networks.critic_norm, planes=beside),
        None, prior=dropout_seeds,
        tasks=(tasks.reconstruction(weight=config.likeness.l1_weight),))


def make_picture(config: Config, gan: GAN, source: Source, reference: Reference) -> Picture:
    """Returns the picture of held-out images, in rows: the image, its translation, its partner."""
    key = keys.stream(jax.random.key(config.schedule.seed), "sample")

    def translate(state: GANState, images: Array) -> Array:
        return sample(gan, state, key, len(images), images)

    return domains.make_picture(reference, [[translate]], shows_target=True)


experiment = Experiment(Config, make_source, make_gan, make_reference, picture=make_picture,
                        presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
