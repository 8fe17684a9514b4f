"""One GAN that draws, localises and classifies: digits on canvases, for a requested class and box.

The generator draws a canvas for a class and a box. The critic scores it, says which class its object
is of, and where it is; it learns this from reals whose classes and boxes are known (with `--labelled`,
from a few), and the generator wants its canvases read as requested. `detection/...` is how well the
critic reads held-out reals; `agreement/...` how well canvases agree with what was requested, read by a
detector that was trained on reals alone. With `--adversarial-weight 0` the critic is the same network
trained for detection alone.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from operator import itemgetter
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, evaluation, features, keys, tasks
from jaxgan.data import Dataset, Source, canvases, load, pixels, scale
from jaxgan.evaluation import Comparison, Metric, Number, Samples
from jaxgan.features import FeatureNetwork, TrainedDetector
from jaxgan.gan import GAN, GANState, draw_latents, generate, judge
from jaxgan.metrics import detection_scores
from jaxgan.models import ContextGenerator, DCGANCritic
from jaxgan.models.planes import box_planes, class_planes
from jaxgan.pictures import grid, outlined
from jaxgan.tasks import Task
from jaxgan.training import Picture
from jaxgan.types import Array

from . import flags, launch, measuring
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .measuring import Judge, Reference

CLASSES = 10  # of every set here
_SIZES = {"digits": 16, "mnist": 48}  # of canvases, where no other is asked for
_JUDGED = 1000  # held-out canvases that the critic's heads are measured on
_WANTED, _READ = (80, 220, 80), (230, 120, 40)  # colours of boxes


# Other experiments have these groups too, and give defaults of their own: hence there are few here.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int
    """Channels of the first layers; they double with each halving of the canvas."""
    latent_size: int
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    dataset: Literal[*_SIZES]
    """Which set the objects are from."""
    canvas_size: int = 0
    """Height and width of a canvas; 0: 16 for digits, 48 for MNIST."""
    labelled: int = 0
    """How many canvases have classes and boxes that the critic learns from; 0: all, without end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tasks:
    """The tasks."""

    critic_class_weight: float
    """The weight of the critic's classification of reals."""
    generator_class_weight: float
    """The weight of that of fakes, which the generator sees."""
    critic_box_weight: float
    """The weight of the critic's localisation in reals."""
    generator_box_weight: float
    """The weight of that in fakes, which the generator sees."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Digits of 6 to 12 pixels on canvases of 16, in three minutes on two cores."""

    networks: Networks = Networks(width=24, latent_size=32)
    tasks: Tasks = Tasks(critic_class_weight=4.0, generator_class_weight=1.0, critic_box_weight=4.0,
                         generator_box_weight=1.0)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.0, decay_steps=2000, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=3, steps=2000)
    data: Data = Data(dataset="digits")
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=2000)
    evaluation: Evaluation = Evaluation(eval_every=1000)


def make_source(config: Config) -> Source:
    """Opens the data."""
    return open_canvases(config.data, labelled=config.data.labelled)


def open_canvases(data: Data, split: str = "train", **options: Any) -> Source:
    """Opens the canvases of a split; options as for `jaxgan.data.canvases`."""
    return canvases(open_data(data, split), data.canvas_size or _SIZES[data.dataset], **options)


def open_data(data: Data, split: str = "train") -> Dataset:
    """Opens the objects of a split."""
    return load(data.dataset, split, data_dir=data.data_dir or None)


def make_reference(config: Config) -> Reference:
    """What samples are measured against; they are drawn for the classes and boxes of the reals."""
    @cache
    def reals(split: str) -> Samples:
        return evaluation.of_source(open_canvases(config.data, split),
                                    f"{config.data.dataset} canvases {split}",
                                    keys.stream(jax.random.key(0), f"reals {split}"),
                                    targets=lambda batch: batch.condition)

    return Reference(reals, "random_projection", "agreement,fd", "agreement,fd,kid,pr,dc,swd",
                     own=(make_agreement(config.data),), num_fake=2000, requests=reals,
                     judge=make_judge(reals))


def make_agreement(data: Data) -> Metric:
    """The metric that compares what a detector reads in samples with the classes and boxes asked for."""
    @cache
    def network() -> FeatureNetwork:
        return obtain_detector(data).network

    def measure(seen: Comparison) -> dict[str, float]:
        return _scores("agreement", features.detect(network(), seen.fake.samples), seen.fake.targets)

    return Metric("agreement", measure, _numbers("agreement", "agreement with what was asked for"),
                  samples=True, targets=("label", "box"), ready=network)


def obtain_detector(data: Data) -> TrainedDetector:
    """Returns the detector that is kept for such canvases; trains and keeps one if there is none."""
    training = open_canvases(data)
    digest = open_data(data).digest[:16]
    return measuring.obtain(
        measuring.kept_path("detectors", f"{digest}_{training.sample_shape[0]}"), features.load_detector,
        lambda: train_detector(training, open_canvases(data, "test")), features.save_detector,
        lambda about: "the detector: on held-out canvases IoU {iou:.3f}, AP {ap:.3f}, accuracy "
                      "{accuracy:.3f}".format(**about))


def train_detector(training: Source, test: Source) -> TrainedDetector:
    """Trains a detector, with a progress bar."""
    with console.Bar(desc="detector", unit="update", **console.ASIDE) as bar:
        def progress(done: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(done - bar.n)

        return features.train_detector(training, test, progress=progress)


def make_judge(reals: Callable[[str], Samples]) -> Judge:
    """What measures the critic's heads on held-out reals."""
    def make(gan: GAN) -> Callable[[GANState], dict[str, float]]:
        held_out, rows = reals("test"), np.arange(_JUDGED)
        samples, wanted = scale(jnp.asarray(held_out.take(rows)), (0, 1)), held_out.targets(rows)
        read = jax.jit(partial(critic_reads, gan))
        return lambda state: _scores("detection", read(state, samples), wanted)

    return Judge(make, _numbers("detection", "critic on held-out reals"))


def critic_reads(gan: GAN, state: GANState, samples: Array) -> tuple[Array, Array]:
    """Returns what the critic sees: logits of the classes, [batch, classes], and boxes, [batch, 4]."""
    heads = judge(gan, state, samples).heads
    return heads["class"], heads["box"]


def _scores(name: str, read: tuple[Array, Array], wanted: dict[str, np.ndarray]) -> dict[str, float]:
    scores = detection_scores(*read, wanted["label"], wanted["box"])
    return {f"{name}/{key}": value for key, value in scores.items()}


def _numbers(name: str, title: str) -> tuple[Number, ...]:
    """What the numbers of `_scores` are."""
    return tuple(Number(f"{name}/{key}", f"{title}: {kind}", True) for key, kind in (
        ("iou", "IoU"), ("ap", "AP"), ("accuracy", "accuracy")))


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    generator = ContextGenerator(tuple(sample_shape), partial(
        request_planes, size=tuple(sample_shape[:2])), width=config.networks.width)
    return flags.make_gan(config, generator, make_critic(config.networks), config.networks.latent_size,
                          tasks=make_tasks(config.tasks))


def make_critic(networks: Networks) -> DCGANCritic:
    """A critic that reads class and box."""
    return DCGANCritic(networks.width, norm=networks.critic_norm, conditioning="classes",
                       num_classes=CLASSES, heads=(("box", 4),))


def make_tasks(weights: Tasks) -> tuple[Task, Task]:
    """Classification and localisation."""
    weight = itemgetter("weight")
    return (
        tasks.classification(label=itemgetter("label"), critic_weight=weights.critic_class_weight,
                             generator_weight=weights.generator_class_weight, sample_weight=weight),
        tasks.localisation(box=itemgetter("box"), critic_weight=weights.critic_box_weight,
                           generator_weight=weights.generator_box_weight, sample_weight=weight))


def request_planes(condition: dict[str, Array], size: tuple[int, int]) -> Array:
    """Returns what the generator sees of a request: the box, in the plane of its class."""
    return box_planes(condition["box"], size) * class_planes(condition["label"], CLASSES)


def make_picture(config: flags.Config, gan: GAN, source: Source, reference: Reference,
                 columns: int = 10, pairs: int = 4) -> Picture:
    """Returns a picture of reals and, in the row below each, canvases for the same classes and boxes.

    The boxes are green; orange is where the critic sees the object of a generated canvas.
    """
    del source
    requests, rows = reference.requests("test"), np.arange(pairs * columns)
    real, wanted = requests.take(rows), requests.condition(rows)
    latents = draw_latents(gan, keys.stream(jax.random.key(config.schedule.seed), "sample"), len(rows))

    @jax.jit
    def draw(state: GANState) -> tuple[Array, Array]:
        fake = generate(gan, state, latents, wanted)
        return fake, critic_reads(gan, state, fake)[1]

    def outline(images: np.ndarray) -> np.ndarray:
        times = -(-64 // images.shape[1])
        return outlined(images.repeat(times, axis=1).repeat(times, axis=2), wanted["box"], _WANTED)

    def picture(state: GANState) -> np.ndarray:
        fake, read = draw(state)
        fake = outlined(outline(pixels(fake, (0, 1))), np.asarray(read), _READ)
        both = np.stack([outline(real).reshape(pairs, columns, *fake.shape[1:]),
                         fake.reshape(pairs, columns, *fake.shape[1:])], axis=1)
        return grid(both.reshape(-1, *fake.shape[1:]), columns, enlarge=1)

    return picture


experiment = Experiment(Config, make_source, make_gan, make_reference, picture=make_picture)


if __name__ == "__main__":
    launch.main(experiment)
