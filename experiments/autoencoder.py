"""The first stage of GANs in latents: an autoencoder of images, by reconstruction, KL and a critic.

Rombach et al. 2022 (arXiv 2112.10752), in small. The encoder makes moments of latents, smaller than the
image, and the decoder an image of what is drawn from them. Three losses are mixed, as --weighting says:
the mean absolute error, the divergence of the latents from N(0, I), and, from --adversarial-start on, a
critic of patches. `experiments.encode` then writes a data set's latents, and `experiments.gat --file`
trains on them.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import evaluation, keys, tasks
from jaxgan.data import Source, pixels, scale
from jaxgan.evaluation import Comparison, Metric, Number, Samples
from jaxgan.gan import GAN, GANState, sample
from jaxgan.models import Autoencoder, PatchCritic
from jaxgan.models.autoencoder import factor
from jaxgan.nn.norms import IMAGE_NORMS
from jaxgan.pictures import grid
from jaxgan.tasks import Task
from jaxgan.terms import Term, View
from jaxgan.training import Picture
from jaxgan.types import Array, Batch, PyTree

from . import flags, image_sets, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .image_sets import Images
from .measuring import Reference
from .settings import replace

_COLUMNS, _ROWS = 12, 4  # of the picture: images, each above its reconstruction
_LEAST = 1e-10  # mean squared error: a PSNR is 100 dB at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int | str = "16,32"
    """Channels of each level, a list; height and width are halved between two of them: latents of 8x8
    images and two levels are 4x4."""
    layers: int = 1
    """Residual blocks of a level."""
    latent_channels: int = 2
    """Channels of the latents."""
    groups: int = 8
    """Groups of the normalisation; they must divide the widths."""
    critic_width: int = 16
    """Channels of the critic's first layer; they double with each halving."""
    critic_norm: Literal[*IMAGE_NORMS] = "instance"
    """The critic's normalisation; a penalty excludes batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The reconstruction and the latents."""

    reconstruction_weight: float = 1.0
    """The weight of the reconstruction, the mean of the errors."""
    order: int = 1
    """1 for absolute errors, 2 for their squares."""
    kl_weight: float = 1e-3
    """The weight of the latents' divergence from N(0, I), divided by the numbers in an image."""
    adversarial_start: int = 400
    """The iteration from which on the critic is trained and counts; 0 with a --weighting that isn't
    fixed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Digits, in two minutes on two cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="hinge", penalty="none", adversarial_weight=0.02)
    reconstruction: Reconstruction = Reconstruction()
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.5, beta2=0.9, decay_steps=1200,
                                     ema_decay=0.99)
    schedule: Schedule = Schedule(n_critic=1, batch_size=32, steps=1200)
    data: Images = Images(dataset="digits", image_size=64)
    run: Run = Run(log_every=50, sample_every=400, checkpoint_every=400)
    evaluation: Evaluation = Evaluation(eval_every=400)


PRESETS = {
    "digits": Config(),
    **{name: replace(Config(), dataset=name) for name in ("mnist", "fashion_mnist")},
    **{name: replace(Config(), dataset=name, width="32,64,64", latent_channels=4, steps=20_000,
                     decay_steps=20_000, adversarial_start=5000) for name in ("cifar10", "folder")},
}


def make_source(config: Config) -> Source:
    """Opens the data; an image is its own condition, as which the autoencoder sees it."""
    source = image_sets.make_source(config)

    def draw(*where: PyTree) -> Batch:
        samples = source.draw(*where).samples
        return Batch(samples, samples)

    return source._replace(draw=draw, num_classes=0, class_names=())


def make_reference(config: Config) -> Reference:
    """What reconstructions are measured against: the images, held-out ones."""
    opened = cache(partial(image_sets.open_data, config.data))

    @cache
    def requests(split: str) -> Samples:
        images = evaluation.of_dataset(opened(split), split)

        def condition(rows: np.ndarray) -> np.ndarray:
            return np.asarray(scale(jnp.asarray(images.take(rows % len(opened(split)))), (-1.0, 1.0)))

        return images._replace(condition=condition,
                               targets=lambda rows: {"image": images.take(rows)})

    def mean_image() -> Samples:
        images = requests("train")
        mean = np.rint(images.take(np.arange(images.count)).mean(0)).astype(np.uint8)
        return requests("test")._replace(name="mean image", digest="", take=lambda rows: np.broadcast_to(
            mean, (len(rows), *mean.shape)))

    is_set = not config.data.folder
    return measuring.of_images(
        opened, "classifier" if is_set else lambda: measuring.untrained_features(
            opened("train").images.shape[1:]),
        "reconstruction", "reconstruction,fd,kid,swd")._replace(
            requests=requests, own=(RECONSTRUCTION,), baselines={"mean image": mean_image})


def _errors(seen: Comparison) -> dict[str, float]:
    """How far images are from their reconstructions; values count as from 0 to 1."""
    wanted, found = seen.fake.targets["image"] / 255, seen.fake.samples / 255
    squares = np.square(wanted - found).reshape(len(found), -1).mean(1)
    return {"reconstruction_mse": float(squares.mean()),
            "reconstruction_psnr": float(-10 * np.log10(np.maximum(squares, _LEAST)).mean())}


RECONSTRUCTION = Metric("reconstruction", _errors, (
    Number("reconstruction_mse", "mean squared error of reconstructions", False),
    Number("reconstruction_psnr", "PSNR of reconstructions (dB)", True)),
    samples=True, targets=("image",))


def divergence(weight: float) -> Task:
    """The latents' divergence from N(0, I), divided by the numbers in an image, as the errors are."""
    def kl(view: View, state: PyTree) -> Array:
        mean, log_variance = (view.generator_heads[name] for name in ("mean", "log_variance"))
        total = (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum() / 2
        return total / math.prod(view.fake.samples.shape)

    return Task(None, Term("kl", kl, weight))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN, whose generator is the autoencoder.

    Raises:
        ValueError: settings that don't go together, or images that can't be halved so often.
    """
    networks, terms = config.networks, config.reconstruction
    start = terms.adversarial_start
    if start and config.loss.weighting != "fixed":
        raise ValueError(f"with the weighting {config.loss.weighting} the critic counts from the start: "
                         "give --adversarial-start 0")
    height, width, channels = sample_shape
    model = make_model(networks, channels)
    side = factor(model.widths)
    if height % side or width % side:
        raise ValueError(f"the width {networks.width} halves images {len(model.widths) - 1} times, and "
                         f"{height}x{width} can't be: name fewer, or give another --image-size")
    gan = flags.make_gan(
        config, model, PatchCritic(networks.critic_width, norm=networks.critic_norm), None,
        prior=partial(keys.normal, shape=(height // side, width // side, networks.latent_channels)),
        tasks=(tasks.reconstruction(order=terms.order, weight=terms.reconstruction_weight),
               divergence(terms.kl_weight)))
    if not start:
        return gan
    return dataclasses.replace(gan, adversarial_weight=_from(start, config.loss.adversarial_weight))


def _from(start: int, weight: float):
    """The schedule that is 0 up to an iteration, and then a weight."""
    return lambda step: jnp.where(step < start, 0.0, weight)


def make_model(networks: Networks, channels: int) -> Autoencoder:
    """The autoencoder of images of so many channels."""
    return Autoencoder(channels, flags.as_numbers("width", networks.width), networks.layers,
                       networks.latent_channels, networks.groups)


def make_picture(config: Config, gan: GAN, source: Source, reference: Reference) -> Picture:
    """Returns the picture of held-out images, each above its reconstruction."""
    requests = reference.requests("test")
    columns = min(_COLUMNS, requests.count)
    rows = np.arange(columns * min(_ROWS, requests.count // columns))
    images, condition = requests.take(rows), requests.condition(rows)
    key = keys.stream(jax.random.key(config.schedule.seed), "sample")
    draw = jax.jit(lambda state: sample(gan, state, key, len(rows), condition))

    def picture(state: GANState) -> np.ndarray:
        return grid(_in_turn([images, pixels(draw(state))], columns), columns)

    return picture


def _in_turn(kinds: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images of several kinds, a row of each in turn."""
    shown = np.stack(kinds)
    return shown.reshape(len(kinds), -1, columns, *shown.shape[2:]).swapaxes(0, 1).reshape(
        -1, *shown.shape[2:])


experiment = Experiment(Config, make_source, make_gan, make_reference, picture=make_picture,
                        presets=PRESETS, preset_by="dataset")


if __name__ == "__main__":
    launch.main(experiment)
