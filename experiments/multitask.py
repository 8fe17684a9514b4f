"""Several tasks in one GAN: the missing part of a canvas is drawn, its digit classified and located.

The generator completes canvases, by reconstruction and so that the critic finds them real and reads the
right class and box in them; the critic learns to read these from reals. `--tasks` chooses which of the
tasks are learned beside the adversarial game, by the same networks, and `--weighting` how they are
mixed, so that one can see whether mixing helps each of them: `detection/...` is how well the critic
reads held-out reals, `hole_...` how well canvases are completed, `agreement/...` whether a detector that
was trained on reals alone reads the right class and box in the completed ones.
"""

import dataclasses
from functools import cache
from typing import Literal

import jax

from jaxgan import evaluation, keys
from jaxgan.data import MASKS, Source, masked
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN
from jaxgan.models import ContextGenerator
from jaxgan.models.planes import masked_planes, paste
from jaxgan.tasks import Task
from jaxgan.types import Array, Batch

from . import detection, flags, inpainting, launch
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .measuring import Reference

TASKS = ("classification", "localisation", "inpainting")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(detection.Data):
    """The data."""

    mask: Literal[*MASKS] = "boxes"
    """What is left out: the middle, one to three boxes, or one of four halves."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tasks(detection.Tasks):
    """The tasks."""

    tasks: str = ",".join(TASKS)
    """Which tasks are learned."""
    reconstruction_weight: float = 10.0
    """The weight of the reconstruction in the hole."""
    order: int = 1
    """1 for the reconstruction's absolute errors, 2 for their squares."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Canvases as in `experiments.detection`, in a minute or two on two cores."""

    networks: detection.Networks = detection.Networks(width=24, latent_size=32)
    tasks: Tasks = Tasks(critic_class_weight=4.0, generator_class_weight=0.1, critic_box_weight=4.0,
                         generator_box_weight=0.1)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, beta1=0.0, decay_steps=1200, ema_decay=0.999)
    schedule: Schedule = Schedule(n_critic=3, steps=1200)
    data: Data = Data(dataset="digits")
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=2000)
    evaluation: Evaluation = Evaluation(eval_every=600)


def make_source(config: Config) -> Source:
    """Opens the data."""
    return masked(detection.make_source(config), config.data.mask)


def make_reference(config: Config) -> Reference:
    """What completed canvases are measured against: what they were, and what a detector reads there."""
    @cache
    def reals(split: str) -> Samples:
        source = masked(detection.open_canvases(config.data, split), config.data.mask)
        return evaluation.of_source(source, f"{config.data.dataset} canvases {split}",
                                    keys.stream(jax.random.key(0), f"reals {split}"), targets=targets)

    return detection.make_reference(config)._replace(
        reals=reals, quick="inpainting,agreement", metrics="inpainting,agreement,fd,kid,pr,swd",
        requests=reals, judge=detection.make_judge(reals),
        baselines={"mean fill": lambda: inpainting.mean_filled(reals("test"))})


def targets(batch: Batch) -> dict[str, Array]:
    """What a completed canvas is compared with."""
    return inpainting.targets(batch, (0, 1)) | {name: batch.condition[name] for name in ("label", "box")}


def make_tasks(chosen: Tasks) -> tuple[Task, ...]:
    """The tasks that are asked for.

    Raises:
        ValueError: there is none of such a name.
    """
    reconstruction = inpainting.make_task(chosen.order, chosen.reconstruction_weight)
    made = dict(zip(TASKS, (*detection.make_tasks(chosen), reconstruction), strict=True))
    names = [name.strip() for name in chosen.tasks.split(",") if name.strip()]
    for name in names or [chosen.tasks]:
        if name not in TASKS:
            raise ValueError(f"unknown task {name!r}: {evaluation.nearest(name, TASKS)}")
    return tuple(made[name] for name in names)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN; the critic has all heads, whichever are trained."""
    return flags.make_gan(
        config,
        ContextGenerator(tuple(sample_shape), masked_planes, paste, config.networks.width, norm="batch"),
        detection.make_critic(config.networks), config.networks.latent_size,
        tasks=make_tasks(config.tasks))


experiment = Experiment(Config, make_source, make_gan, make_reference,
                        picture=inpainting.make_picture)


if __name__ == "__main__":
    launch.main(experiment)
