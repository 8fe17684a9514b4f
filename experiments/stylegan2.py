"""StyleGAN2: latents become styles, styles scale what convolutions of images start from.

Karras et al. 2020 (arXiv 1912.04958), with the labels and the adaptive augmentation of 2020 (arXiv
2006.06676). The presets have the networks and settings of these articles. By default small networks
train on small images in minutes on two processor cores. `experiments.sample` truncates and mixes
styles, `experiments.project` finds the styles of an image.
"""

import dataclasses
from typing import Any, Literal

from jaxgan import penalties
from jaxgan.gan import GAN
from jaxgan.models import StyleGAN2Critic, StyleGAN2Generator
from jaxgan.models.stylegan2 import ARCHITECTURES, NOISES
from jaxgan.terms import lazy

from . import flags, image_sets, launch
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .image_sets import ClassImages
from .settings import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 64
    """Channels of the smallest activations;"""
    base: int = 1024
    """those of r x r pixels have base / r, if that is less."""
    latent_size: int = 64
    """Latent variables."""
    w_size: int = 64
    """Dimensions of a style."""
    mapping_layers: int = 2
    """Dense layers between latents and styles."""
    style_mixing: float = 0.9
    """The probability, in training, that the later layers get other latents' styles."""
    noise: Literal[*NOISES] = "random"
    """What is added to the generator's activations: new noise, the same noise each time, or none."""
    architecture: Literal[*ARCHITECTURES] = "residual"
    """The critic's: with skip connections, or without."""
    group_size: int = 4
    """Samples among which the critic sees how much they differ."""
    critic_norm: Literal["none"] = "none"
    """StyleGAN2's critic has no normalisation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathLength:
    """The path length regularisation."""

    path_weight: float = 2.0
    """The weight of the path length regularisation; 0: none."""
    path_every: int = 4
    """Generator updates in one of which it is due, and is so many times as heavy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    path: PathLength = PathLength()
    loss: Loss = Loss(loss="non_saturating", penalty="r1", penalty_weight=0.1, penalty_every=16)
    optimiser: Optimiser = Optimiser(learning_rate=2.5e-3, beta1=0.0, beta2=0.99, ema_half_life=10_000.0)
    schedule: Schedule = Schedule(n_critic=1, batch_size=32, steps=8000)
    data: ClassImages = ClassImages(dataset="digits", image_size=32)
    run: Run = Run(log_every=50, sample_every=1000, checkpoint_every=2000)
    evaluation: Evaluation = Evaluation(eval_every=2000)


def _published(batch_size: int, gamma: float, half_life: float, *, base: int = 32768,
               images: int = 25_000_000, **changes: Any) -> Config:
    """A configuration of the articles; half-life and length by images."""
    return replace(
        Config(), base=base, width=512, latent_size=512, w_size=512, batch_size=batch_size,
        penalty_weight=gamma, ema_half_life=half_life, precision="bfloat16", steps=images // batch_size,
        log_every=100, sample_every=1000, checkpoint_every=1000, eval_every=0,
        **{"dataset": "folder", "augment": "ada"} | changes)


def _automatic(size: int) -> Config:
    """The rule that the authors' code has for images of any size."""
    batch_size = min(4096 // size, 32)
    return _published(batch_size, 2e-4 * size**2 / batch_size, batch_size * 10_000 / 32,
                      base=32768 if size >= 512 else 16384, ema_ramp=0.05, image_size=size,
                      learning_rate=2e-3 if size >= 1024 else 2.5e-3)


PRESETS = {
    "default": Config(),
    "cifar10": _published(64, 0.01, 500_000.0, images=100_000_000, dataset="cifar10", classes=10,
                          group_size=32, ema_ramp=0.05, style_mixing=0.0, path_weight=0.0,
                          architecture="plain"),
    "ffhq256": _published(64, 1.0, 20_000.0, base=16384, image_size=256, mapping_layers=8, group_size=8),
    "ffhq1024": _published(32, 2.0, 10_000.0, image_size=1024, mapping_layers=8, learning_rate=2e-3,
                           augment="none"),
    **{f"auto{size}": _automatic(size) for size in (64, 128, 256, 512, 1024)},
}


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: images that no network can have, or settings that don't go together.
    """
    networks, path = config.networks, config.path
    if not path.path_weight >= 0:
        raise ValueError(f"path_weight must not be negative; got {path.path_weight}")
    if path.path_every < 1:
        raise ValueError(f"path_every must be at least 1; got {path.path_every}")
    terms = (lazy(penalties.path_length(path.path_weight), path.path_every),) if path.path_weight else ()
    shared: dict[str, Any] = {"base": networks.base, "most": networks.width,
                              "num_classes": config.data.classes}
    generator = StyleGAN2Generator(
        tuple(sample_shape), **shared, w_size=networks.w_size, mapping_layers=networks.mapping_layers,
        style_mixing=networks.style_mixing, noise=networks.noise)
    critic = StyleGAN2Critic(**shared, architecture=networks.architecture,
                             group_size=networks.group_size)
    return flags.make_gan(config, generator, critic, networks.latent_size, generator_terms=terms,
                          across_batch=True)


experiment = Experiment(Config, image_sets.make_class_source, make_gan, image_sets.make_class_reference,
                        presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
