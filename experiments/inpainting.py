"""Inpainting: a context encoder completes masked images, by reconstruction and WGAN-GP.

Pathak et al. 2016 (arXiv 1604.07379) with the adversarial loss of Gulrajani et al. 2017 (arXiv
1704.00028). The critic sees the completed image, or the original, beside the mask. With
`--adversarial-weight 0` the same network learns by reconstruction alone.
"""

import dataclasses
from functools import cache, partial
from typing import Literal

import jax
import numpy as np

from jaxgan import evaluation, keys, tasks
from jaxgan.data import MASKS, Source, masked, pixels, quantize, resident
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN, GANState, draw_latents, generate
from jaxgan.models import ContextGenerator, DCGANCritic
from jaxgan.models.planes import masked_planes, paste
from jaxgan.pictures import grid
from jaxgan.tasks import Task
from jaxgan.training import Picture
from jaxgan.types import Array, Batch, PyTree

from . import flags, image_sets, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .image_sets import Images
from .measuring import Reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 32
    """Channels next to the image; they double with each halving."""
    latent_size: int = 32
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Images):
    """The data."""

    mask: Literal[*MASKS] = "boxes"
    """What is left out: the middle, one to three boxes, or one of four halves."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The reconstruction."""

    reconstruction_weight: float = 1.0
    """The weight of the reconstruction in the hole."""
    order: int = 1
    """1 for the reconstruction's absolute errors, 2 for their squares."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Small networks, which train in minutes on two cores."""

    networks: Networks = Networks()
    reconstruction: Reconstruction = Reconstruction()
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.0, decay_steps=6000, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=3, steps=6000)
    data: Data = Data(dataset="digits", image_size=64)
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=2000)
    evaluation: Evaluation = Evaluation(eval_every=2000)


def make_source(config: Config) -> Source:
    """Opens the data."""
    return masked(image_sets.make_source(config), config.data.mask)


def make_reference(config: Config) -> Reference:
    """What completed images are measured against: the originals, and images like them."""
    @cache
    def requests(split: str) -> Samples:
        source = masked(resident(image_sets.open_data(config.data, split)), config.data.mask)
        return evaluation.of_source(source, f"masked {split}",
                                    keys.stream(jax.random.key(0), f"masked {split}"), targets=targets)

    images = measuring.of_images(
        partial(image_sets.open_data, config.data), "raw" if config.data.folder else "classifier",
        "inpainting,fd", "inpainting,fd,kid,pr,swd")
    return images._replace(requests=requests,
                           baselines={"mean fill": lambda: mean_filled(requests("test"))})


def targets(batch: Batch, value_range: tuple[float, float] = (-1.0, 1.0)) -> dict[str, Array]:
    """What a completed image is compared with."""
    return {"image": quantize(batch.samples, value_range), "mask": batch.condition["mask"]}


def mean_filled(requests: Samples) -> Samples:
    """The masked images, with the mean of what is known of a channel in its hole."""
    def take(rows: np.ndarray) -> np.ndarray:
        image, mask = (requests.targets(rows)[name] for name in ("image", "mask"))
        mean = (image * (1 - mask)).sum((1, 2), keepdims=True) / (1 - mask).sum((1, 2), keepdims=True)
        return np.where(mask, np.rint(mean), image).astype(np.uint8)

    return requests._replace(name="mean fill", take=take)


def hole(condition: PyTree) -> Array:
    """Where the loss looks, and what the critic sees beside the image."""
    return condition["mask"]


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    shape, networks = tuple(sample_shape), config.networks
    size = 3 if min(shape[:2]) < 16 else 5
    reconstruction = config.reconstruction
    return flags.make_gan(
        config,
        ContextGenerator(shape, masked_planes, paste, networks.width, kernel_size=size, norm="batch",
                         output="tanh"),
        DCGANCritic(networks.width, kernel_size=size, norm=networks.critic_norm, planes=hole),
        networks.latent_size,
        tasks=(make_task(reconstruction.order, reconstruction.reconstruction_weight),))


def make_task(order: int, weight: float) -> Task:
    """The reconstruction in the hole."""
    return tasks.reconstruction(order=order, mask=hole, weight=weight)


def make_picture(config: flags.Config, gan: GAN, source: Source, reference: Reference, *,
                 columns: int = 12, bands: int = 3) -> Picture:
    """Returns the picture of held-out images, in rows: the original, what is known of it, completed."""
    requests = reference.requests("test")
    count = requests.count or columns * bands
    columns = min(columns, count)
    rows = np.arange(columns * min(bands, count // columns))
    condition = requests.condition(rows)
    image, mask = (requests.targets(rows)[name] for name in ("image", "mask"))
    latents = draw_latents(gan, keys.stream(jax.random.key(config.schedule.seed), "sample"), len(rows))
    draw, known = jax.jit(partial(generate, gan)), np.where(mask, np.uint8(128), image)

    def picture(state: GANState) -> np.ndarray:
        shown = np.stack([image, known, pixels(draw(state, latents, condition), source.value_range)])
        shown = shown.reshape(3, -1, columns, *image.shape[1:]).swapaxes(0, 1)
        return grid(shown.reshape(-1, *image.shape[1:]), columns)

    return picture


experiment = Experiment(Config, make_source, make_gan, make_reference, picture=make_picture)


if __name__ == "__main__":
    launch.main(experiment)
