"""Inpainting: a context encoder completes masked images, by reconstruction and WGAN-GP.

Pathak et al. 2016 (arXiv 1604.07379) with the adversarial loss of Gulrajani et al. 2017 (arXiv
1704.00028). The critic sees the completed image, or the original, beside the mask. With
`--adversarial-weight 0` the same network learns by reconstruction alone.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import jax
import numpy as np

from experiments import cli, image_sets, measuring
from experiments.measuring import Reference
from jaxgan import evaluation, keys, tasks
from jaxgan.data import Source, masked, pixels, quantize, resident
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN, GANState, draw_latents, generate
from jaxgan.models import ContextGenerator, DCGANCritic
from jaxgan.models.planes import masked_planes, paste
from jaxgan.pictures import grid
from jaxgan.tasks import Task
from jaxgan.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(image_sets.Images):
    """Those of `experiments.digits`, with smaller networks, which train in minutes on two cores."""

    mask: Literal["centre", "boxes", "half"] = "boxes"
    """What is left out: the middle, one to three boxes, or one of four halves."""
    reconstruction_weight: float = 1.0
    """The weight of the reconstruction in the hole."""
    order: int = 1
    """1 for the reconstruction's absolute errors, 2 for their squares."""
    width: int = 32
    """Channels next to the image; they double with each halving."""


def make_source(config: Config) -> Source:
    """Opens the data."""
    return masked(image_sets.make_source(config), config.mask)


def make_reference(config: Config) -> Reference:
    """What completed images are measured against: the originals, and images like them."""
    @cache
    def requests(split: str) -> Samples:
        source = masked(resident(image_sets.open_data(config, split)), config.mask)
        return evaluation.of_source(source, f"masked {split}",
                                    keys.stream(jax.random.key(0), f"masked {split}"), targets=targets)

    images = measuring.of_images(
        partial(image_sets.open_data, config), "raw" if config.folder else "classifier",
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
    shape = tuple(sample_shape)
    size = 3 if min(shape[:2]) < 16 else 5
    return cli.make_gan(
        config,
        ContextGenerator(shape, masked_planes, paste, config.width, kernel_size=size, norm="batch",
                         output="tanh"),
        DCGANCritic(config.width, kernel_size=size, norm=config.critic_norm, planes=hole),
        config.latent_size, tasks=(make_task(config),))


def make_task(config: Any) -> Task:
    """The reconstruction in the hole, by a configuration's `order` and `reconstruction_weight`."""
    return tasks.reconstruction(order=config.order, mask=hole, weight=config.reconstruction_weight)


def make_picture(config: cli.Config, gan: GAN, requests: Samples,
                 value_range: tuple[float, float] = (-1.0, 1.0), *, columns: int = 12, bands: int = 3
                 ) -> Callable[[GANState], np.ndarray]:
    """Returns the picture of held-out images, in rows: the original, what is known of it, completed."""
    count = requests.count or columns * bands
    columns = min(columns, count)
    rows = np.arange(columns * min(bands, count // columns))
    condition = requests.condition(rows)
    image, mask = (requests.targets(rows)[name] for name in ("image", "mask"))
    latents = draw_latents(gan, keys.stream(jax.random.key(config.seed), "sample"), len(rows))
    draw, known = jax.jit(partial(generate, gan)), np.where(mask, np.uint8(128), image)

    def picture(state: GANState) -> np.ndarray:
        shown = np.stack([image, known, pixels(draw(state, latents, condition), value_range)])
        shown = shown.reshape(3, -1, columns, *image.shape[1:]).swapaxes(0, 1)
        return grid(shown.reshape(-1, *image.shape[1:]), columns)

    return picture


def main(config: Config) -> None:
    """Trains."""
    source, reference = make_source(config), make_reference(config)
    gan = make_gan(config, source.sample_shape)
    cli.train("inpainting", config, gan, source, reference,
              picture=make_picture(config, gan, reference.requests("test")))


if __name__ == "__main__":
    cli.main(Config, main)
