"""CycleGAN: images are translated both ways, without pairs: a translation has to lead back.

Zhu et al. 2017 (arXiv 1703.10593). Two generators with residual blocks, two critics of patches, least
squares, and a history of earlier translations that the critics are shown. By default, outlines of
digits become digits, and digits outlines. `--preset paper` has the article's settings for a folder of
one's own.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.cycles import translate
from jaxgan.data import Source, pixels, scale
from jaxgan.evaluation import Number
from jaxgan.loops import Game
from jaxgan.metrics import image_errors
from jaxgan.models import PatchCritic, ResNetTranslator
from jaxgan.nn.norms import IMAGE_NORMS
from jaxgan.training import Picture

from . import domains, flags, launch
from .domains import Domains, Translate
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .measuring import Judge, Reference

_JUDGED = 100  # images at a time
_NUMBERS = (Number("cycle_l1", "L1 there and back", False),
            Number("back_cycle_l1", "L1 back and there", False),
            Number("back_l1", "L1 to the partner, backwards", False),
            Number("back_psnr", "PSNR to the partner, backwards", True),
            Number("back_ssim", "SSIM to the partner, backwards", True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 16
    """Channels of all networks' first layers; they double with each halving."""
    blocks: int | None = None
    """Residual blocks of a generator; None: 9 for images from 256 pixels on, and else 6."""
    critic_norm: Literal[*IMAGE_NORMS] = "instance"
    """The critics' normalisation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cycle:
    """What leads back."""

    cycle_weight: float = 10.0
    """The weight of the mean absolute difference of an image and what two translations make of it."""
    identity_weight: float | None = None
    """The same of an image and what the generator makes of it that should leave it as it is; None: half
    of the cycle's."""
    history_size: int = 50
    """Earlier translations of which the critics are shown one half of the time; 0: the newest alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """Small networks, which train in minutes on two cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="least_squares", penalty="none", adversarial_weight=2.0)
    cycle: Cycle = Cycle()
    optimiser: Optimiser = Optimiser(learning_rate=2e-4, beta1=0.5, beta2=0.999, decay="late",
                                     decay_steps=2500)
    schedule: Schedule = Schedule(n_critic=1, batch_size=4, steps=2500)
    data: Domains = Domains(image_size=16)
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=1000)
    evaluation: Evaluation = Evaluation(eval_every=1000)


PRESETS = {
    "default": Config(),
    "paper": Config(  # 200 epochs of 1000 images
        networks=Networks(width=64),
        optimiser=Optimiser(learning_rate=2e-4, beta1=0.5, beta2=0.999, decay="late",
                            decay_steps=200_000),
        schedule=Schedule(n_critic=1, batch_size=1, steps=200_000),
        data=Domains(image_size=256, jitter=1.117, flip=True),
        run=Run(log_every=100, sample_every=2000, checkpoint_every=2000), evaluation=Evaluation()),
}


def make_source(config: Config) -> Source:
    """Opens the data."""
    return domains.make_source(config, paired=False)


def make_generator(config: Config, sample_shape: tuple[int, ...]) -> ResNetTranslator:
    """Specifies the generators."""
    return ResNetTranslator(tuple(sample_shape), config.networks.width, config.networks.blocks)


def make_game(config: Config, sample_shape: tuple[int, ...]) -> Game:
    """Specifies the game."""
    networks, cycle = config.networks, config.cycle
    return flags.make_cycle_game(
        config, make_generator(config, sample_shape),
        PatchCritic(networks.width, norm=networks.critic_norm),
        cycle_weight=cycle.cycle_weight, history_size=cycle.history_size,
        identity_weight=(cycle.cycle_weight / 2 if cycle.identity_weight is None else
                         cycle.identity_weight))


def make_backwards(config: Config, sample_shape: tuple[int, ...]) -> Translate:
    """Returns what translates images of the target back."""
    return partial(translate, make_generator(config, sample_shape), direction="backward")


def make_reference(config: Config) -> Reference:
    """What translations are measured against, and how well they lead back."""
    reference = domains.make_reference(config, paired=False)

    def make(game: Game) -> Callable[[Any], dict[str, float]]:
        requests = reference.requests("test")
        rows = np.arange(requests.count)
        source, target = pixels(requests.condition(rows)), requests.take(rows)
        forward = _in_pixels(lambda state, images: game.sample(state, None, len(images), images))
        backward = _in_pixels(make_backwards(config, target.shape[1:]))

        def judge(state: Any) -> dict[str, float]:
            there, back = forward(state, source), backward(state, target)
            found = {"cycle_l1": image_errors(source, backward(state, there)).l1,
                     "back_cycle_l1": image_errors(target, forward(state, back)).l1}
            if requests.targets is None:
                return found
            errors = image_errors(source, back)._asdict()
            return found | {f"back_{name}": value for name, value in errors.items()}

        return judge

    return reference._replace(judge=Judge(make, _NUMBERS))


def _in_pixels(translate: Translate) -> Callable[[Any, np.ndarray], np.ndarray]:
    """A translation of images as they are saved, uint8 [count, height, width, channels], in parts."""
    translate = jax.jit(translate)
    return lambda state, images: np.concatenate([
        pixels(translate(state, scale(jnp.asarray(images[first:first + _JUDGED]), (-1.0, 1.0))))
        for first in range(0, len(images), _JUDGED)])


def make_picture(config: Config, game: Game, source: Source, reference: Reference) -> Picture:
    """Returns the picture of held-out images, in rows: A, B of that, A of that again; and B, A, B."""
    forward = partial(translate, make_generator(config, source.sample_shape))
    backward = make_backwards(config, source.sample_shape)
    return domains.make_picture(reference, [[forward, backward], [backward, forward]],
                                shows_target=False)


experiment = Experiment(Config, make_source, make_game, make_reference, backwards=make_backwards,
                        picture=make_picture, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
