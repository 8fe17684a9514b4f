"""GAT: transformers that make images, or latents, and judge them at several depths.

GAT, 2025 (arXiv 2509.24935): a relativistic loss, with R1 and R2 by finite differences. The generator
makes several outputs, from equal depths; the critic sees all of them, each with a level of noise.
By default small networks train on small images in minutes on two processor cores. The presets s2, b2, l2
and xl2 have the article's networks and settings, for latents of 1000 classes, which --file gives.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from jaxgan.augment import alike, chain, noise_levels
from jaxgan.gan import GAN
from jaxgan.models import GATCritic, GATGenerator
from jaxgan.models.gat import SIZES, as_outputs, last_output
from jaxgan.regularisers import agreement, alignment
from jaxgan.types import Array

from . import flags, latents, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .latents import Latents
from .settings import replace

_FEATURES = 128  # of the classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 64
    """Features of a token."""
    depth: int = 4
    """Blocks of each network."""
    heads: int = 2
    """Heads of the attention; 4 times their number must divide the width."""
    patch: int = 2
    """Height and width of what is a token; it must divide the images', or latents'."""
    outputs: int = 4
    """Outputs of the generator, from equal depths, the last of which is the sample; their number must
    divide the depth."""
    class_width: int = 256
    """Dimensions in which the critic compares a sample with its class."""
    latent_size: int = 64
    """Latent variables."""
    critic_norm: Literal["none"] = "none"
    """The critic has norms of its own."""
    remat: bool = True
    """Recompute what is in a block for the gradient, to save memory; on a processor it costs little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(flags.Loss):
    """What the networks minimise."""

    agreement: float = 0.0
    """The weight of a term that draws the generator's other outputs to the last one (CAT, arXiv
    2605.26449); 0: none."""
    alignment: float = 0.0
    """The weight of a term that draws the critic's token towards what a classifier of the data's classes
    sees in the same image, for images in classes; 0: none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="relativistic", penalty="r1_r2", penalty_weight=0.1, finite_difference=0.01)
    optimiser: Optimiser = Optimiser(learning_rate=2e-3, beta1=0.0, beta2=0.99, max_gradient_norm=1.0,
                                     ema_decay=0.995)
    schedule: Schedule = Schedule(n_critic=1, steps=2000)
    data: Latents = Latents(dataset="digits", image_size=32, classes=10)
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=500)
    evaluation: Evaluation = Evaluation(eval_every=500)


def _published(size: str) -> Config:
    depth, width, heads = SIZES[size]
    return replace(
        Config(), depth=depth, width=width, heads=heads, class_width=2048, classes=1000, batch_size=512,
        learning_rate=2e-4 * 768 / width, ema_decay=0.999, augment="diffaugment", augment_p=1.0,
        augment_operations="colour=0.5,translation,cutout", precision="bfloat16", steps=150_000,
        log_every=100, sample_every=1000, checkpoint_every=1000, eval_every=0)


PRESETS = {"default": Config(), **{f"{size.lower()}2": _published(size) for size in SIZES}}


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: networks that can't be, or packs.
    """
    networks, outputs = config.networks, config.networks.outputs
    if config.loss.pack > 1:
        raise ValueError(f"pack doesn't go with several outputs; got {config.loss.pack}: leave it out")
    shape: dict[str, Any] = {
        "patch": networks.patch, "depth": networks.depth, "width": networks.width,
        "heads": networks.heads, "num_classes": config.data.classes}
    aligns, agrees = (flags.weight_of(config.loss, name) for name in ("alignment", "agreement"))
    if aligns is not None and config.data.file:
        raise ValueError("alignment is for images, and --file gives latents: leave it out")
    gan = flags.make_gan(
        config, GATGenerator(tuple(sample_shape), outputs=outputs, **shape),
        GATCritic(table=networks.class_width, align=0 if aligns is None else _FEATURES, **shape),
        networks.latent_size,
        lift=partial(as_outputs, outputs), lower=last_output,
        critic_terms=() if aligns is None else (alignment(_seen(config), aligns),),
        generator_terms=() if agrees is None else (agreement(agrees),))
    levels = noise_levels(outputs)
    return dataclasses.replace(
        gan, augment=levels if gan.augment is None else chain([alike(gan.augment), levels]))


def _seen(config: Config) -> Callable[[Array], Array]:
    """What a classifier sees in what the critic is shown, of several outputs in the last."""
    sees = measuring.classifier_sees(latents.make_reference(config))
    return lambda shown: sees((last_output(shown) + 1.0) / 2.0)


experiment = Experiment(Config, latents.make_source, make_gan, latents.make_reference,
                        settle=latents.settle, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
