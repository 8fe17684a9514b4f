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

from experiments import cli, detection, inpainting
from experiments.measuring import Reference
from jaxgan import evaluation, keys
from jaxgan.data import Source, masked
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN
from jaxgan.models import ContextGenerator
from jaxgan.models.planes import masked_planes, paste
from jaxgan.tasks import Task
from jaxgan.types import Array, Batch

TASKS = ("classification", "localisation", "inpainting")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(detection.Config):
    """Those of `experiments.detection`, in a minute or two on two cores."""

    tasks: str = ",".join(TASKS)
    """Which tasks are learned."""
    mask: Literal["centre", "boxes", "half"] = "boxes"
    """What is left out: the middle, one to three boxes, or one of four halves."""
    reconstruction_weight: float = 10.0
    """The weight of the reconstruction in the hole."""
    order: int = 1
    """1 for the reconstruction's absolute errors, 2 for their squares."""
    generator_class_weight: float = 0.1
    generator_box_weight: float = 0.1
    decay_steps: int = 1200
    steps: int = 1200
    eval_every: int = 600


def make_source(config: Config) -> Source:
    """Opens the data."""
    return masked(detection.make_source(config), config.mask)


def make_reference(config: Config) -> Reference:
    """What completed canvases are measured against: what they were, and what a detector reads there."""
    @cache
    def reals(split: str) -> Samples:
        source = masked(detection.open_canvases(config, split), config.mask)
        return evaluation.of_source(source, f"{config.dataset} canvases {split}",
                                    keys.stream(jax.random.key(0), f"reals {split}"), targets=targets)

    return detection.make_reference(config)._replace(
        reals=reals, quick="inpainting,agreement", metrics="inpainting,agreement,fd,kid,pr,swd",
        requests=reals, judge=detection.make_judge(reals),
        baselines={"mean fill": lambda: inpainting.mean_filled(reals("test"))})


def targets(batch: Batch) -> dict[str, Array]:
    """What a completed canvas is compared with."""
    return inpainting.targets(batch, (0, 1)) | {name: batch.condition[name] for name in ("label", "box")}


def make_tasks(config: Config) -> tuple[Task, ...]:
    """The tasks that are asked for.

    Raises:
        ValueError: there is none of such a name.
    """
    made = dict(zip(TASKS, (*detection.make_tasks(config), inpainting.make_task(config)), strict=True))
    names = [name.strip() for name in config.tasks.split(",") if name.strip()]
    for name in names or [config.tasks]:
        if name not in TASKS:
            raise ValueError(f"unknown task {name!r}: {evaluation.nearest(name, TASKS)}")
    return tuple(made[name] for name in names)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN; the critic has all heads, whichever are trained."""
    return cli.make_gan(
        config,
        ContextGenerator(tuple(sample_shape), masked_planes, paste, config.width, norm="batch"),
        detection.make_critic(config), config.latent_size, tasks=make_tasks(config))


def main(config: Config) -> None:
    """Trains."""
    source, reference = make_source(config), make_reference(config)
    gan = make_gan(config, source.sample_shape)
    cli.train("multitask", config, gan, source, reference,
              picture=inpainting.make_picture(config, gan, reference.requests("test"), (0, 1)))


if __name__ == "__main__":
    cli.main(Config, main)
