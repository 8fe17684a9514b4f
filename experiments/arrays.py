"""WGAN-GP on arrays of one's own, from a .npy, .npz or HDF5 file: vectors, series, images or volumes.

Gulrajani et al. 2017 (arXiv 1704.00028). The networks follow from the shape of a sample: dense layers
for vectors, and DCGANs with kernels of one, two or three axes. Samples are scaled to [-1, 1] and back,
so that `experiments.sample RUN_DIR --out new.npy` gives the file's units and type. With --conditions,
samples are drawn for classes or for numbers.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from experiments import flags, launch, measuring, settings
from experiments.experiment import Experiment
from experiments.flags import Evaluation, Optimiser, Run, Schedule
from experiments.measuring import Reference
from experiments.settings import may_differ
from jaxgan import features, tasks
from jaxgan.data import Arrays, Dataset, Source, Split, class_weights, open_arrays, pixels
from jaxgan.data.arrays import KINDS
from jaxgan.data.scaling import BYTES
from jaxgan.evaluation import Comparison, Metric, Number, Samples
from jaxgan.gan import GAN
from jaxgan.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator

_MOST_RAW = 512  # numbers in a sample that are their own features; of more, a projection is
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
    conditioning: Literal["projection", "concatenation", "classes"] = "projection"
    """With --conditions: how the critic meets it: its score has a part by projection, it sees the
    condition beside the sample, or it classifies (AC-GAN, for classes)."""
    num_classes: int | None = None
    """With --conditions: how many classes there are; None: as many as in the file."""
    num_numbers: int | None = None
    """With --conditions: how many numbers it has; None: as many as in the file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    file: str = may_differ("")
    """The file: .npy, .npz or HDF5 (.h5). A run goes on wherever the same data are."""
    samples: str = ""
    """Which array in the file the samples are; by default the only one, or the one of that name."""
    conditions: str = ""
    """What samples are drawn for, an array in the file or a .npy file: classes (integers, words) or
    numbers (floating point, one or more for each sample)."""
    weights: str = ""
    """How often each sample is drawn, an array named likewise."""
    balance: Literal["none", "classes"] = "none"
    """With classes: draw each of them equally often, however many samples it has."""
    kind: Literal["", *KINDS] = ""
    """What a sample is; by default what its shape suggests."""
    channels: Literal["", "first", "last", "none"] = ""
    """Where a sample's axis of channels is, or that there is none; by default what its shape
    suggests."""
    data_range: str = ""
    """The values LOW,HIGH that become -1 and 1; by default those that occur, of uint8 images 0,255."""
    scale: Literal["", "all", "channel"] = ""
    """One range for all values, or one for each channel, or variable of a vector; by default the latter
    for vectors and series."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    optimiser: Optimiser = Optimiser(learning_rate=5e-4, beta1=0.0, decay_steps=5000, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=3, steps=5000)
    data: Data = Data()
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=1000)
    evaluation: Evaluation = Evaluation(eval_every=1000)


def settle(config: Config) -> Config:
    """Fills in what the file says of its condition.

    Raises:
        ValueError: settings that say something else.
    """
    train = _open(config.data).train
    found = {"num_classes": len(train.class_names),
             "num_numbers": 0 if train.numbers is None else train.numbers.shape[1]}
    for name, value in found.items():
        asked = getattr(config.networks, name)
        if asked not in (None, value):
            raise ValueError(f"{name} is {asked}, but the condition in {config.data.file} has {value}: "
                             f"leave --{name.replace('_', '-')} out")
    return settings.replace(config, **found)


def open_data(config: Config) -> Split:
    """Opens the file."""
    return _open(config.data)


@cache
def _open(data: Data) -> Split:
    if not data.file:
        raise ValueError("file is missing: give a .npy, .npz or HDF5 file with --file")
    return open_arrays(data.file, samples=data.samples, condition=data.conditions, weights=data.weights,
                       kind=data.kind, channels=data.channels, value_range=_data_range(data.data_range),
                       by_channel={"": None, "all": False, "channel": True}[data.scale])


def _data_range(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"data_range must be two numbers like 0,4095; got {text!r}") from None
    return low, high


def make_source(config: Config) -> Source:
    """Opens the data.

    Raises:
        ValueError: flags that don't go together.
    """
    train = open_data(config).train
    if config.data.balance == "classes" and (train.weights is not None or not train.class_names):
        raise ValueError("--balance classes is for a --conditions that is classes, without --weights")
    weights = class_weights(train.labels) if config.data.balance == "classes" else train.weights
    return flags.image_source(config, train, labels=bool(train.class_names),
                              numbers=train.numbers is not None, weights=weights)


def make_reference(config: Config) -> Reference:
    """What samples are measured against: the file's held-out samples."""
    networks = config.networks

    @cache
    def reals(split: str) -> Samples:
        return as_measured(getattr(open_data(config), split))

    shape = open_data(config).train.sample_shape
    is_raw = math.prod(shape) <= _MOST_RAW
    metrics, own = "fd,kid,pr,dc,copying,swd", ()
    if networks.num_classes or networks.num_numbers:
        metrics, own = f"condition,{metrics}", (make_condition(config),)
    images = partial(_as_dataset, config)
    is_classified = networks.num_classes and images("train") is not None
    network = "classifier" if is_classified else "raw" if is_raw else "random_projection"
    return Reference(reals, network, "condition,fd" if own else "fd,swd", metrics,
                     images if is_classified else None, own, num_fake=2000,
                     requests=_endless(reals) if own else None)


def as_measured(arrays: Arrays) -> Samples:
    """Samples as they are measured: images as pixels, all else in [-1, 1]."""
    def take(rows: np.ndarray) -> np.ndarray:
        samples = arrays.scaling.to_float(arrays[rows][0])
        return pixels(samples) if arrays.kind == "images" else samples

    def condition(rows: np.ndarray) -> np.ndarray | None:
        if arrays.numbers is not None:
            return arrays.number_scaling.to_float(arrays.numbers[rows])
        return arrays.labels[rows] if arrays.class_names else None

    return Samples(arrays.name, len(arrays), take, f"{arrays.digest} {arrays.scaling}", condition,
                   lambda rows: {} if condition(rows) is None else {"condition": condition(rows)})


def _endless(reals: Callable[[str], Samples]) -> Callable[[str], Samples]:
    """The reals and their conditions, again and again."""
    def requests(split: str) -> Samples:
        found = reals(split)

        def again(of: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
            return lambda rows: of(rows % found.count)

        return found._replace(count=None, take=again(found.take), condition=again(found.condition),
                              targets=again(found.targets))

    return requests


def make_condition(config: Config) -> Metric:
    """The metric that compares what a network reads in samples with what they were drawn for."""
    @cache
    def reader() -> features.Reader:
        train = as_measured(open_data(config).train)
        rows = np.arange(min(train.count, 50_000))
        return measuring.train_reader(_as_floats(train.take(rows)), train.condition(rows),
                                      config.networks.num_classes)

    def measure(seen: Comparison) -> dict[str, float]:
        return {"condition": reader().error(_as_floats(seen.fake.samples),
                                            seen.fake.targets["condition"])}

    what = ("samples read as another class" if config.networks.num_classes else
            "error of the numbers read (of their range)")
    return Metric("condition", measure, (Number("condition", what, False, has_floor=True),),
                  samples=True, targets=("condition",), ready=reader)


def _as_floats(samples: np.ndarray) -> np.ndarray:
    return BYTES.to_float(samples) if samples.dtype == np.uint8 else samples


def _as_dataset(config: Config, split: str) -> Dataset | None:
    """The images of a split, if they are bytes in classes, from which a classifier can learn."""
    arrays = getattr(open_data(config), split)
    if arrays.kind != "images" or arrays.scaling != BYTES or len(arrays) < 128:
        return None
    images, labels = arrays[:]
    return Dataset(arrays.name, images, labels, arrays.class_names)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN, with networks for a sample's shape.

    Raises:
        ValueError: flags that don't go together.
    """
    networks, shape = config.networks, tuple(sample_shape)
    classes, numbers = networks.num_classes or 0, networks.num_numbers or 0
    if networks.conditioning == "classes" and not classes:
        raise ValueError("--conditioning classes is for a --conditions that is classes: choose "
                         "projection or concatenation")
    drawn_for = {"num_classes": classes, "num_numbers": numbers}
    judging = {"norm": networks.critic_norm, **drawn_for,
               "conditioning": networks.conditioning if classes or numbers else "none"}
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
    terms = (tasks.classification(generator_weight=0.1),) if networks.conditioning == "classes" else ()
    return flags.make_gan(config, generator, critic, networks.latent_size, tasks=terms)


experiment = Experiment(Config, make_source, make_gan, make_reference, settle=settle)


if __name__ == "__main__":
    launch.main(experiment)
