"""What an augmentation costs: updates of a critic alone, whose images are changed in each way."""

import jax
import optax

from benchmarks.networks_jaxgan import configure
from benchmarks.updates import Updates
from jaxgan import GAN, Batch
from jaxgan.augment import ADA, Augmentation, ada, diffaugment
from jaxgan.losses import non_saturating
from jaxgan.models import DCGANCritic, DCGANGenerator
from jaxgan.penalties import r1

MADE: dict[str, Augmentation | None] = {
    "none": None, "diffaugment": diffaugment(), "ada": ada(probability=0.5),
    "all": ada(ADA, probability=0.5)}


class Augmentations(Updates):
    """A DCGAN's critic with R1, which goes through the augmentation, on given fakes.

    Args:
        width: channels of its first layer.
        shape: of a batch of images.
    """

    def __init__(self, width: int, shape: tuple[int, ...]):
        configure("float32")
        real, fake = (jax.random.uniform(jax.random.key(seed), shape, minval=-1.0) for seed in (1, 2))
        optimizer = optax.adam(1e-4, 0.0, 0.9)
        super().__init__({
            way: GAN(DCGANGenerator(tuple(shape[1:]), width), DCGANCritic(width), 16, non_saturating(),
                     optimizer, optimizer, penalty=r1(0.1), augment=augmentation)
            for way, augmentation in MADE.items()}, Batch(real), fake)
