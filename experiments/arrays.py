"""WGAN-GP on arrays of one's own, from a .npy, .npz or HDF5 file: vectors, series, images or volumes.

Gulrajani et al. 2017 (arXiv 1704.00028). The networks follow from the shape of a sample: dense layers
for vectors, and DCGANs with kernels of one, two or three axes. Samples are scaled to [-1, 1] and back,
so that `experiments.sample RUN_DIR --out new.npy` gives the file's units and type. With --conditions,
samples are drawn for classes or for numbers.
"""

import dataclasses
import math
from functools import cache
from typing import Literal

import numpy as np

from jaxgan.data import Arrays, Source, Split, class_weights, open_arrays, pixels
from jaxgan.data.arrays import KINDS
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator

from . import conditions, flags, launch, measuring, settings
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .measuring import Reference
from .settings import may_differ

_SMALLEST = 4  # what a sample's shortest side is halved down to, about


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    units: int = 256
    """For vectors: units in each of the three hidden layers."""
    width: int = 32
    """For all else: channels next to the data; they double with each halving."""
    latent_size: int = 64
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions(conditions.Conditions):
    """What samples are drawn for."""

    conditions: str | None = None
    """An array in the file or a .npy file: classes (integers, words) or numbers (floating point, one or
    more for each sample); None for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    file: str = may_differ("")
    """The file: .npy, .npz or HDF5 (.h5). A run goes on wherever the same data are."""
    samples: str = ""
    """Which array in the file the samples are; by default the only one beside conditions and weights, or
    the one of that name."""
    weights: str = ""
    """How often each sample is drawn, an array in the file or a .npy file."""
    balance: Literal["classes"] | None = None
    """Draw all classes equally often, however many samples each has."""
    kind: Literal["", *KINDS] = ""
    """What a sample is; by default what its shape suggests."""
    channels: Literal["", "first", "last", "none"] = ""
    """Where a sample's axis of channels is, or that there is none; by default what its shape
    suggests."""
    data_range: str = ""
    """The values LOW,HIGH that become -1 and 1; by default those that occur, of uint8 images 0,255."""
    scale: Literal["", "all", "channel"] = ""
    """One range for all values, or one for each channel (of vectors, each variable). By default vectors
    and series have one for each, all else one for all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    conditions: Conditions = Conditions()
    optimiser: Optimiser = Optimiser(learning_rate=5e-4, beta1=0.0, decay_steps=5000, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=3, steps=5000)
    data: Data = Data()
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=1000)
    evaluation: Evaluation = Evaluation(eval_every=1000)


def settle(config: Config) -> Config:
    """Fills in what the file says of its condition, and where its channels are."""
    train = open_data(config).train
    return conditions.settled(settings.replace(config, channels=train.channels), len(train.class_names),
                              0 if train.numbers is None else train.numbers.shape[1], config.data.file)


def open_data(config: Config) -> Split:
    """Opens the file."""
    return _open(config.data, config.conditions.conditions or "")


@cache
def _open(data: Data, condition: str) -> Split:
    if not data.file:
        raise ValueError("file is missing: give a .npy, .npz or HDF5 file with --file")
    return open_arrays(data.file, samples=data.samples, condition=condition, weights=data.weights,
                       kind=data.kind, channels=data.channels,
                       value_range=flags.as_range(data.data_range),
                       by_channel={"": None, "all": False, "channel": True}[data.scale])


def make_source(config: Config) -> Source:
    """Opens the data.

    Raises:
        ValueError: flags that don't go together.
    """
    train = open_data(config).train
    if config.data.balance == "classes" and (train.weights is not None or not train.class_names):
        raise ValueError("--balance classes is for --conditions that are classes, without --weights")
    weights = class_weights(train.labels) if config.data.balance == "classes" else train.weights
    return flags.image_source(config, train, labels=bool(train.class_names),
                              numbers=train.numbers is not None, weights=weights)


def make_reference(config: Config) -> Reference:
    """What samples are measured against: the file's held-out samples. It is opened when it is needed."""
    @cache
    def reals(split: str) -> Samples:
        return as_measured(getattr(open_data(config), split))

    own = conditions.metrics(config, reals)
    metrics = ",".join([*(metric.name for metric in own), "fd,kid,pr,dc,copying,swd"])
    return Reference(reals, lambda: measuring.untrained_features(open_data(config).train.sample_shape),
                     "condition,fd" if own else "fd,swd", metrics, own=own,
                     num_fake=2000, requests=conditions.requests(config, reals),
                     about=lambda: {"data_sha256": open_data(config).train.digest})


def as_measured(arrays: Arrays) -> Samples:
    """Samples as they are measured: images as pixels, all else in [-1, 1]."""
    def take(rows: np.ndarray) -> np.ndarray:
        samples = arrays.scaling.to_float(arrays[rows][0])
        return pixels(samples) if arrays.kind == "images" else samples

    samples = Samples(arrays.name, len(arrays), take, f"{arrays.digest} {arrays.scaling}")
    if arrays.numbers is not None:
        return conditions.with_numbers(samples, arrays.numbers, arrays.number_scaling)
    if not arrays.class_names:
        return samples
    return samples._replace(condition=lambda rows: arrays.labels[rows],
                            targets=lambda rows: {"label": arrays.labels[rows]})


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN, with networks for a sample's shape."""
    networks, shape = config.networks, tuple(sample_shape)
    drawn_for, judging, terms = conditions.of_networks(config)
    judging |= {"norm": networks.critic_norm}
    if len(shape) == 1:
        hidden = (networks.units,) * 3
        generator = MLPGenerator(shape, hidden, **drawn_for)
        critic = MLPCritic(hidden, **judging)
    else:
        size = min(shape[:-1])
        stages = max(1, min(5, int(math.log2(max(1, size / _SMALLEST)))))
        how = {"axes": len(shape) - 1, "stages": stages,
               "kernel_size": 3 if len(shape) == 4 or size < 16 else 5}
        generator = DCGANGenerator(shape, networks.width, norm="batch",
                                   output="none" if len(shape) == 2 else "tanh", **how, **drawn_for)
        critic = DCGANCritic(networks.width, **how, **judging)
    return flags.make_gan(config, generator, critic, networks.latent_size, tasks=terms)


experiment = Experiment(Config, make_source, make_gan, make_reference, settle=settle)


if __name__ == "__main__":
    launch.main(experiment)
