"""Adversarial flow: a generator that moves noise of the data's shape as little as it can to make data.

Adversarial flow, 2025 (arXiv 2511.22475). Two transformers, a relativistic loss with R1 and R2 by finite
differences, what flows from the critic into samples normalised, and a transport cost, which falls. By
default small ones train on the pixels of digits in minutes on two processor cores. The preset xl2 has
the article's networks and settings, for latents of 1000 classes, which --file gives.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

from jaxgan import keys
from jaxgan.gan import GAN
from jaxgan.models import FlowCritic, FlowGenerator
from jaxgan.models.gat import SIZES
from jaxgan.regularisers import centring, normalised, transport

from . import flags, latents, launch
from .experiment import Experiment
from .flags import Evaluation, Loss, Optimiser, Run, Schedule
from .latents import Latents
from .settings import replace, since


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 64
    """Features of a token."""
    depth: int = 3
    """Blocks of each network."""
    heads: int = 4
    """Heads of the attention; 4 times their number must divide the width."""
    patch: int = 4
    """Height and width of what is a token."""
    critic_norm: Literal["none"] = "none"
    """The networks have norms of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """What keeps samples near the noise that they are made of."""

    transport_weight: float = since(0.0, before=0.0)
    """The weight of the mean square of what the generator moves its noise by, which must have the
    samples' shape; 0: none."""
    final_transport_weight: float | None = since(None, before=None)
    """What that weight becomes over --decay-steps, as --decay says; None: it stays."""
    centring_weight: float = since(0.0, before=0.0)
    """The weight of the critic's term that keeps scores about 0; 0: none."""
    normalise: bool = since(False, before=False)
    """Divide what flows from the critic into samples by its running size, so that the weight of the
    transport means the same for every critic."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in minutes on two cores."""

    networks: Networks = Networks()
    loss: Loss = Loss(loss="relativistic", penalty="r1_r2", penalty_weight=0.2, finite_difference=0.01)
    flow: Flow = Flow(transport_weight=0.2, final_transport_weight=0.005, centring_weight=0.01,
                      normalise=True)
    optimiser: Optimiser = Optimiser(
        learning_rate=1e-3, final_learning_rate=1e-4, beta1=0.0, beta2=0.9, weight_decay=0.01,
        decay="cosine", decay_steps=3000, ema_decay=0.99)
    schedule: Schedule = Schedule(n_critic=1, batch_size=32, steps=3000)
    data: Latents = Latents(dataset="digits", image_size=32, classes=10)
    run: Run = Run(log_every=50, sample_every=500, checkpoint_every=1000)
    evaluation: Evaluation = Evaluation(eval_every=1000)


_DEPTH, _WIDTH, _HEADS = SIZES["XL"]
PRESETS = {
    "default": Config(),
    "xl2": replace(  # where the transport's weight changes, the learning rate doesn't
        Config(), depth=_DEPTH, width=_WIDTH, heads=_HEADS, patch=2, precision="bfloat16", remat=True,
        penalty_weight=0.5, classes=1000, batch_size=256, learning_rate=1e-4,
        final_learning_rate=1e-4, ema_decay=0.9999, steps=1_000_000, decay_steps=1_000_000,
        log_every=100, sample_every=1000, checkpoint_every=1000, eval_every=0),
}


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN.

    Raises:
        ValueError: networks that can't be, or settings that don't go together.
    """
    shape = tuple(sample_shape)
    how: dict[str, Any] = {name: getattr(config.networks, name)
                           for name in ("patch", "depth", "width", "heads")}
    how["num_classes"] = config.data.classes
    gan = flags.make_gan(config, FlowGenerator(shape, **how), FlowCritic(**how), None,
                         prior=partial(keys.normal, shape=shape))
    return with_flow(config, gan)


def with_flow(config: Any, gan: GAN) -> GAN:
    """Adds the terms that the settings of `Flow` ask for.

    Raises:
        ValueError: a weight is negative, or has a final value and no time to change.
    """
    flow, steps, last = config.flow, flags.decay_steps(config), config.flow.final_transport_weight
    moved, _, centred = (flags.weight_of(flow, name) for name in (
        "transport_weight", "final_transport_weight", "centring_weight"))
    if last is not None and not steps:
        raise ValueError("decay_steps is 0, so that the transport's weight doesn't change: give "
                         "--decay-steps, or --final-transport-weight None")
    terms, loss = list(gan.generator_terms), gan.loss
    if flow.normalise:
        loss, term = normalised(loss)
        terms.append(term)
    if last is not None:
        terms.append(transport(flags.scheduled(flow.transport_weight, last, steps,
                                               config.optimiser.decay)))
    elif moved is not None:
        terms.append(transport(moved))
    centrings = () if centred is None else (centring(centred),)
    return dataclasses.replace(gan, loss=loss, generator_terms=tuple(terms),
                               critic_terms=(*gan.critic_terms, *centrings))


experiment = Experiment(Config, latents.make_source, make_gan, latents.make_reference,
                        settle=latents.settle, presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
