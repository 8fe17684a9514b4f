"""The groups of settings that all experiments share, and the parts of a GAN that they choose."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgan import losses, penalties, weighting
from jaxgan.augment import Augmentation, ada, adaptive, chain, diffaugment, instance_noise, packed
from jaxgan.critics import critic_game
from jaxgan.cycles import cycle_game
from jaxgan.data import Examples, Source, resident, streaming
from jaxgan.drifting import TEMPERATURES, drifting
from jaxgan.gan import GAN
from jaxgan.loops import Game
from jaxgan.networks import half_life
from jaxgan.nn import orthonormal_kernels
from jaxgan.nn.norms import NORMS
from jaxgan.tasks import Task
from jaxgan.terms import Term, lazy, lazy_adam
from jaxgan.transfer import freeze

from . import measuring, settings
from .settings import may_differ, reports, since

LOSSES = {
    "wasserstein": lambda smoothing: losses.wasserstein(),
    "minimax": losses.minimax,
    "non_saturating": losses.non_saturating,
    "least_squares": lambda smoothing: losses.least_squares(),
    "hinge": lambda smoothing: losses.hinge(),
    "relativistic": lambda smoothing: losses.relativistic(),
    "relativistic_average": lambda smoothing: losses.relativistic_average(),
}
_MOST = 1e30  # of weights and sizes of noise: float32 holds them with room to multiply
_SMOOTHED = ("minimax", "non_saturating")


def _r1_r2(weight: penalties.Weight, **how: Any) -> Term:
    """R1 and R2 as one penalty, which has one schedule if there is any."""
    if not callable(weight):
        return penalties.combine(penalties.r1(weight, **how), penalties.r2(weight, **how))
    return penalties.combine(penalties.r1(1.0, **how), penalties.r2(1.0, **how))._replace(weight=weight)


_SIGNED = ("minimax", "non_saturating", "hinge")  # whose critics score above 0 what they take for real
PENALTIES: dict[str, Callable[..., Term | None]] = {
    "none": lambda weight: None,
    "gradient_penalty": penalties.gradient_penalty,
    "one_sided": partial(penalties.gradient_penalty, one_sided=True),
    "zero_centered": penalties.zero_centered,
    "r1": penalties.r1,
    "r2": penalties.r2,
    "r1_r2": _r1_r2,
    "dragan": penalties.dragan,
}
WEIGHTINGS = {"fixed": weighting.fixed, "uncertainty": weighting.uncertainty,
              "gradnorm": weighting.gradnorm, "ratio": weighting.ratio}
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": lambda rate, beta1, beta2, eps: optax.adam(rate, b1=beta1, b2=beta2),
    "rmsprop": lambda rate, beta1, beta2, eps: optax.rmsprop(
        rate, decay=beta2, eps=1e-8, eps_in_sqrt=eps == "inside"),
}
AUGMENTATIONS = {"diffaugment": diffaugment, "ada": ada}
_LONGEST_SIDE = 2**14  # of an image
PRECISIONS = ("float32", "bfloat16")
# What numbers of parameters and pixels are made of, where an experiment has it: far more than is of use,
# and little enough to be multiplied. 0 is a default there.
_SIZES = {"width": (1, 2**14), "units": (1, 2**14), "latent_size": (1, 2**20), "blocks": (1, 2**10),
          "length": (1, 2**14), "max_vocabulary": (1, 2**20), "num_classes": (0, 2**20),
          "condition_classes": (0, 2**20), "condition_numbers": (0, 2**20), "order": (1, 64),
          "expansion": (1, 2**6),
          "canvas_size": (0, 2**12), "labelled": (0, 2**31 - 1),
          "kernel_size": (2, 63), "depth": (1, 2**8), "funnel_seed": (0, 2**31 - 1),
          "classes": (0, 2**20), "stages": (1, 14), "base": (1, 2**20), "w_size": (1, 2**14),
          "mapping_layers": (1, 64), "group_size": (1, 2**14), "stacks": (1, 2**31 - 1),
          "history_size": (0, 2**16), "heads": (1, 2**10), "patch": (1, 2**14), "outputs": (1, 2**8),
          "class_width": (1, 2**14), "layers": (1, 64), "latent_channels": (1, 2**10),
          "groups": (1, 2**14), "critic_width": (1, 2**14), "adversarial_start": (0, 2**31 - 1)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks."""

    critic_norm: Literal[*NORMS] = "none"
    """The critic's normalisation; batch doesn't go with a penalty."""
    precision: Literal[*PRECISIONS] = "float32"
    """What the networks' layers compute in; parameters, losses and penalties stay in float32."""
    remat: bool = False
    """Recompute what is in a block of layers for the gradient, to save an accelerator's memory."""
    attention: str | None = None
    """Heights of activations at which both networks have self-attention, a list like 16,32; for the
    ResNet."""
    init_from: str | None = None
    """Start from the weights of another run, given by its folder or an exported file: those that fit are
    taken, the others are named."""
    init_networks: str | None = None
    """With --init-from: networks whose weights are taken, a list like generator,critic; None: all."""
    freeze: str | None = None
    """Parameters that are left as they are: patterns of paths like critic/Conv_*,generator/Dense_0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """What the networks minimise."""

    loss: Literal[*LOSSES] = "wasserstein"
    """What critic and generator minimise."""
    label_smoothing: float = 0.0
    """One-sided label smoothing, for minimax and non_saturating only."""
    penalty: Literal[*PENALTIES] = "gradient_penalty"
    """The penalty on the critic's input gradient."""
    penalty_weight: float = 10.0
    """The penalty's weight (lambda, or gamma of R1 and R2)."""
    final_penalty_weight: float | None = since(None, before=None)
    """What the penalty's weight becomes over --decay-steps, as --decay says; None: it stays."""
    finite_difference: float | None = since(None, before=None)
    """For r1, r2 and r1_r2: measure the gradient by a difference of scores over steps of this size, like
    0.01, in a random direction, so that nothing is differentiated twice; None: the gradient itself."""
    penalty_every: int = since(1, before=1)
    """Apply the penalty in only one of so many critic updates, with so many times the weight; Adam's
    steps and decays are shortened to fit. 1: in every update."""
    top_k: float | None = since(None, before=None)
    """The generator learns only from the fakes with the highest scores, a share of the batch that falls
    from 1 to this one; None: from all fakes."""
    top_k_decay: float = since(0.99, before=0.99)
    """The factor by which that share is multiplied after every --top-k-steps."""
    top_k_steps: int = since(500, before=500)
    """Iterations between these multiplications; in the article they come after each epoch."""
    clip: float = 0.0
    """Clip the critic's weights to [-clip, clip] after each update (original WGAN: 0.01); 0: don't."""
    input_noise: float = 0.0
    """Standard deviation of Gaussian noise on the critic's input; 0: none."""
    input_noise_steps: int = 0
    """Iterations over which the input noise falls to zero; 0: it stays."""
    augment: Literal["none", *AUGMENTATIONS] = since("none", before="none")
    """How images are changed before the critic sees them, reals and fakes alike (docs/shown.md)."""
    augment_p: float | None = since(None, before=None)
    """The probability of each such change in each image; None: 1 with diffaugment; with ada
    it follows how far the critic overfits."""
    final_augment_p: float | None = since(None, before=None)
    """What that probability changes to over --decay-steps; None: it stays."""
    augment_operations: str | None = since(None, before=None)
    """Which changes to make, and the factors of their probabilities: a list like xflip,cutout=0.5; None:
    all of diffaugment's, and of ada's those of pixels and colours."""
    augment_images: float = since(500_000.0, before=500_000.0)
    """The fewest images in which ada's probability, where none is given, can go from 0 to 1."""
    pack: int = since(1, before=1)
    """Samples that the critic scores together, as if they were the channels of one (PacGAN)."""
    adversarial_weight: float = 1.0
    """The weight of the adversarial losses and the penalty beside the tasks; 0: the tasks alone."""
    weighting: Literal[*WEIGHTINGS] = "fixed"
    """How the weights of tasks change in training: not at all, by learned uncertainty, by GradNorm, or
    by the ratio of the adversarial gradient to theirs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimisers, and the average of the generator."""

    optimizer: Literal[*OPTIMIZERS] = "adam"
    """The optimiser of both networks."""
    learning_rate: float = 1e-4
    """The learning rate of both networks."""
    beta1: float = 0.5
    """Adam's first decay."""
    beta2: float = 0.9
    """Adam's second decay; RMSProp's decay."""
    rmsprop_eps: Literal["outside", "inside"] | None = since(None, before="inside")
    """Where RMSProp adds its 1e-8: outside of the root of the mean square, as in PyTorch, or inside it;
    None: outside, except in runs that were begun before there was a choice."""
    generator_learning_rate: float | None = None
    """The generator's own learning rate; None: --learning-rate."""
    generator_beta1: float | None = None
    """The generator's own beta1; None: --beta1."""
    generator_beta2: float | None = None
    """The generator's own beta2; None: --beta2."""
    critic_learning_rate: float | None = None
    """The critic's own learning rate; None: --learning-rate."""
    critic_beta1: float | None = None
    """The critic's own beta1; None: --beta1."""
    critic_beta2: float | None = None
    """The critic's own beta2; None: --beta2."""
    decay_steps: int = 0
    """Iterations over which the learning rate falls to its final value, and whatever else has a final
    value changes to that; 0: nothing changes. If not given, a run of more steps uses all of them."""
    schedule_images: int = since(0, before=0)
    """--decay-steps counted in images, --batch-size of them in an iteration, whatever n_critic is; 0:
    use --decay-steps."""
    decay: Literal["linear", "cosine", "late"] = since("linear", before="linear")
    """How these values change: evenly, by half a cosine, or not for the first half and then evenly."""
    final_learning_rate: float = since(0.0, before=0.0)
    """What the learning rates of both networks fall to."""
    warmup_steps: int = since(0, before=0)
    """Iterations over which the learning rates rise evenly from 0; 0: they start as they are."""
    final_beta1: float | None = since(None, before=None)
    """What Adam's first decay changes to; None: it stays."""
    final_beta2: float | None = since(None, before=None)
    """What Adam's second decay changes to; None: it stays."""
    max_gradient_norm: float = since(0.0, before=0.0)
    """Scale a network's gradient down to this norm where it is larger; 0: leave it."""
    weight_decay: float = since(0.0, before=0.0)
    """AdamW's: what share of itself, times the learning rate, each parameter loses in an update."""
    ema_decay: float = 0.0
    """Decay of the averaged generator that samples are drawn from; 0: the generator as trained."""
    ema_half_life: float = since(0.0, before=0.0)
    """Images in which the averaged generator forgets half of what it holds, in place of --ema-decay; 0:
    use --ema-decay."""
    final_ema_half_life: float | None = since(None, before=None)
    """What the half-life changes to, which may start from 0; None: it stays."""
    ema_ramp: float = since(0.0, before=0.0)
    """The half-life is at most this share of the images seen so far; 0: no such limit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and in which batches."""

    n_critic: int = 5
    """Critic updates in an iteration."""
    fakes_at_once: bool = False
    """Draw the fakes of all n_critic updates in one call: larger computations, more memory."""
    batch_size: int = 64
    """Samples in a critic update, over all devices."""
    accumulate: int = since(1, before=1)
    """Parts of each update's batch that are computed one after the other, in the memory of one; their
    gradients are averaged."""
    steps: int = may_differ(100_000)
    """Iterations in all: n_critic critic updates and one generator update each."""
    seed: int = 0
    """The seed of everything random."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """When training diverges: stop, or go on from the newest checkpoint with other random numbers, three
    times at most."""
    deterministic: bool = False
    """Have a GPU use only operations that give the same bits each time (a CPU does so anyway)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The data."""

    data_dir: str = reports("")
    """Where data sets are; by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    stream: bool = reports(False)
    """Keep the images on the host and send each step's to the device, for sets larger than its memory;
    the result is the same."""
    flip: bool = since(False, before=False)
    """Mirror each image with probability 1/2 whenever it is used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The run's folder, what is written there and how often, and the devices."""

    run_dir: str = reports("")
    """The run's folder; by default runs/EXPERIMENT."""
    resume: str = reports("")
    """Go on from a checkpoint: latest, a step, or auto (the latest if there is one, else start)."""
    change: str | None = reports(None)
    """With --resume: settings to go on with in place of the run's, a list like
    learning_rate=1e-4,penalty_weight=5. The run keeps a history of them."""
    max_hours: float = reports(0.0)
    """Stop after so many hours, with a checkpoint and status 75; 0: no limit."""
    profile: int = reports(0)
    """Trace so many iterations into RUN_DIR/profile, for TensorBoard and Perfetto, beginning after the
    first one, which compiles; 0: none."""
    log_every: int = reports(100)
    """Iterations between two log points."""
    log_to: str = reports("")
    """Where else metrics go, besides metrics.jsonl and TensorBoard's file: csv (RUN_DIR/metrics.csv),
    wandb (Weights & Biases), or both, separated by a comma."""
    sample_every: int = reports(1000)
    """Iterations between two drawings of samples; 0: at the end only."""
    checkpoint_every: int = reports(1000)
    """Iterations between two checkpoints; 0: at the end only."""
    keep: int = reports(3)
    """How many of the latest checkpoints to keep."""
    best_metric: str = reports("")
    """A logged metric: the checkpoint where it was best is kept as well."""
    devices: int = reports(0)
    """How many devices to use; 0: all."""
    shard: Literal["state"] | None = reports(None)
    """state: spread parameters, optimisers' moments and averages over the devices, for networks that are
    too large for one (docs/scaling.md); None: each device holds all. The result is the same."""
    keep_programs: bool = reports(True)
    """Keep compiled programs in ~/.cache/jaxgan, so that the same experiment starts quickly again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(measuring.Flags):
    """What is measured in training, and how."""

    eval_every: int = reports(0)
    """Iterations between two evaluations, the last one at the end; 0: none."""
    eval_metrics: str = reports("")
    """What to measure then, a list like fd,kid; by default what is quick. See docs/evaluation.md."""
    patience: int = reports(0)
    """Stop when --best-metric has not improved for so many evaluations; 0: train to the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """One of several processes."""

    distributed: bool = reports(False)
    """This is one of several processes, which find each other by the cluster's environment (SLURM,
    Open MPI, Kubernetes, TPU pods)."""
    coordinator: str = reports("")
    """This is one of several processes, started by hand: host:port of the first one."""
    num_processes: int = reports(0)
    """With --coordinator: how many there are."""
    process_id: int = reports(-1)
    """With --coordinator: which one this is, from 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of every experiment, in groups.

    An experiment's own class gives the groups that differ other defaults, or fields of its own; a
    setting's flag has its name, whichever group it is in.
    """

    networks: Networks = Networks()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    data: Data = Data()
    run: Run = Run()
    evaluation: Evaluation = Evaluation()
    cluster: Cluster = Cluster()


def as_size(size: int | str) -> tuple[int, int]:
    """Height and width by --image-size: of 64 a square's, of 48x64 48 and 64.

    Raises:
        ValueError: it is neither, or out of its range.
    """
    found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", str(size))
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= min(sides) <= max(sides) <= _LONGEST_SIDE:
        raise ValueError("image_size must be a number like 64, or height and width like 48x64, from "
                         f"1 to {_LONGEST_SIDE}; got {size}")
    return sides


def as_numbers(name: str, text: int | str) -> tuple[int, ...]:
    """The whole numbers of a list.

    Raises:
        ValueError: it is none; `name` is that of the setting.
    """
    try:
        return tuple(int(number) for number in str(text).split(","))
    except ValueError:
        raise ValueError(f"{name} must be whole numbers with commas between, like 64,32; got {text!r}"
                         ) from None


def as_range(text: str | None) -> tuple[float, float] | None:
    """The two numbers of --data-range, LOW,HIGH; None if it isn't given.

    Raises:
        ValueError: it is something else.
    """
    if not text:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ValueError("data_range must be two numbers with a comma between, like 0,4095; got "
                         f"{text!r}") from None
    return low, high


def check_sizes(config: Config) -> None:
    """Checks what arrays are made of, before there are any.

    Raises:
        ValueError: a setting is out of its range.
    """
    for name, value in settings.flat(config).items():
        if name == "image_size" and value is not None:
            as_size(value)
        elif type(value) is int:
            least, most = _SIZES.get(name, (-2**63, 2**63 - 1))
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}; got {value}")


def image_source(config: Config, examples: Examples, **options: Any) -> Source:
    """The examples as a source, on the device or streamed to it; options as for `resident`."""
    return (streaming if config.data.stream else resident)(examples, **options)


def make_gan(config: Config, generator: nn.Module, critic: nn.Module, latent_size: int | None, *,
             generator_batches: int = 1, tasks: tuple[Task, ...] = (), **options: Any) -> GAN:
    """Puts networks and settings together; options are fields of `GAN`.

    Raises:
        ValueError: a setting out of its range, or settings that don't go together.
    """
    _check(config, bool(tasks))
    every = max((term.every for term in options.get("generator_terms", ())), default=1)
    bound = [each.name for task in tasks for each in task if each and each.name != "class"]
    if config.loss.augment != "none" and bound:
        raise ValueError(f"augment would move images away from what {bound[0]} compares them with: "
                         "leave it out")
    loss, fields = config.loss, _module_fields(config, critic)
    return GAN(
        generator=generator.clone(**fields),
        critic=critic.clone(**fields),
        latent_size=latent_size,
        loss=_adversarial(loss),
        penalty=_penalty(config),
        augment=_augmentation(config, generator),
        generator_optimizer=_frozen(config, "generator", make_optimizer(config, "generator", every)),
        critic_optimizer=_critic_optimizer(config),
        ema_decay=_average(config),
        generator_batches=generator_batches,
        accumulate=config.schedule.accumulate,
        tasks=tasks,
        adversarial_weight=loss.adversarial_weight,
        weighting=WEIGHTINGS[loss.weighting](),
        **options,
    )


def make_critic_game(config: Config, critic: nn.Module) -> Game:
    """Puts a critic that is trained alone and settings together.

    Raises:
        ValueError: as for `make_gan`.
    """
    _check(config, has_tasks=False)
    loss = config.loss
    for name in ("learning_rate", "beta1", "beta2"):
        if getattr(config.optimiser, f"generator_{name}") is not None:
            raise ValueError(f"generator_{name} is for GANs, and a critic alone has no generator: leave "
                             "it out")
    if loss.pack > 1:
        raise ValueError(f"pack is for GANs; got {loss.pack}: leave it out for a critic alone")
    if loss.top_k is not None:
        raise ValueError("top_k is for GANs, and a critic alone has no generator: leave it out")
    return critic_game(
        critic.clone(**_module_fields(config, critic)), _critic_optimizer(config),
        loss=LOSSES[loss.loss](loss.label_smoothing),
        penalty=_penalty(config),
        augment=_augmentation(config), ema_decay=_average(config),
        accumulate=config.schedule.accumulate)


def make_cycle_game(config: Config, generator: nn.Module, critic: nn.Module, **options: Any) -> Game:
    """Puts a CycleGAN and settings together; options as for `jaxgan.cycles.cycle_game`.

    Raises:
        ValueError: as for `make_gan`, or a setting that a CycleGAN has no use for.
    """
    _check(config, has_tasks=True)
    loss, dtype = config.loss, jnp.dtype(config.networks.precision)
    values = settings.flat(config)
    for name, idle in (("penalty", "none"), ("augment", "none"), ("input_noise", 0.0), ("pack", 1),
                       ("weighting", "fixed"), ("top_k", None), ("attention", None),
                       ("fakes_at_once", False)):
        if values[name] != idle:
            raise ValueError(f"{name} is not for a CycleGAN; got {values[name]}: leave it out")
    return cycle_game(
        generator.clone(dtype=dtype, remat=config.networks.remat),
        critic.clone(dtype=dtype, remat=config.networks.remat),
        _frozen(config, "generator", make_optimizer(config, "generator")), _critic_optimizer(config),
        loss=LOSSES[loss.loss](loss.label_smoothing), adversarial_weight=loss.adversarial_weight,
        ema_decay=_average(config), accumulate=config.schedule.accumulate, **options)


def make_drifting_game(config: Config, generator: nn.Module, latent_size: int, temperatures: str | None,
                       **options: Any) -> Game:
    """Puts a generator that drifts and settings together; options as for `jaxgan.drifting.drifting`.

    Raises:
        ValueError: as for `make_gan`, or a setting of critics.
    """
    _check(config, has_tasks=True)
    values, idle = settings.flat(config), settings.flat(Config())
    names = {*settings.names(config.loss), "critic_norm", "critic_learning_rate", "critic_beta1",
             "critic_beta2", "fakes_at_once", "accumulate", "attention", "remat"}
    for name, nothing in (idle | {"penalty": "none"}).items():
        if name in names and values[name] != nothing:
            raise ValueError(f"{name} is not for drifting, which has no critic; got {values[name]}: "
                             "leave it out, and start from a preset that drifts")
    try:
        found = TEMPERATURES if temperatures is None else tuple(map(float, temperatures.split(",")))
    except ValueError:
        raise ValueError("temperatures must be numbers with commas between, like 0.05,0.2; got "
                         f"{temperatures!r}") from None
    return drifting(
        generator.clone(dtype=jnp.dtype(config.networks.precision)),
        _frozen(config, "generator", make_optimizer(config, "generator")), latent_size=latent_size,
        temperatures=found, ema_decay=_average(config), **options)


def _module_fields(config: Config, critic: nn.Module) -> dict[str, Any]:
    """What the settings say of any network."""
    fields: dict[str, Any] = {"dtype": jnp.dtype(config.networks.precision)}
    if config.networks.remat:
        if "remat" not in type(critic).__dataclass_fields__:
            raise ValueError("remat is for residual networks and those that translate images: "
                             f"{_elsewhere(config)}")
        fields["remat"] = True
    if config.networks.attention is not None:
        if "attention" not in type(critic).__dataclass_fields__:
            raise ValueError(f"attention is for the ResNet: {_elsewhere(config)}")
        fields["attention"] = as_numbers("attention", config.networks.attention)
    return fields


def _elsewhere(config: Config) -> str:
    """What to do about a setting of the ResNet."""
    has_choice = "model" in settings.flat(config)
    return f"leave it out{', or choose --model resnet' * has_choice}"


def make_optimizer(config: Config, network: Literal["generator", "critic"], every: int = 1
                   ) -> optax.GradientTransformation:
    """The optimiser of a network: with its own rate and decays where they are given.

    Adam's are those of `jaxgan.terms.lazy_adam` if a term is due in one of `every` updates.
    """
    optimiser = config.optimiser
    updates = config.schedule.n_critic if network == "critic" else 1  # in a step
    steps = decay_steps(config) * updates

    def own(name: str) -> float:
        value = getattr(optimiser, f"{network}_{name}")
        return getattr(optimiser, name) if value is None else value

    def adam(rate: float, beta1: float | None, beta2: float | None) -> dict[str, float]:
        settings = {"learning_rate": rate, "b1": own("beta1") if beta1 is None else beta1,
                    "b2": own("beta2") if beta2 is None else beta2}
        return (lazy_adam(**settings, every=every) if every > 1 and optimiser.optimizer == "adam" else
                settings)

    first = adam(own("learning_rate"), None, None)
    last = adam(optimiser.final_learning_rate, optimiser.final_beta1, optimiser.final_beta2)
    rate = scheduled(first["learning_rate"], last["learning_rate"], steps, optimiser.decay)
    if optimiser.warmup_steps:
        rate = _warmed(rate, optimiser.warmup_steps * updates)
    moving = {name: scheduled(first[name], last[name], steps, optimiser.decay)
              for name, final in (("b1", optimiser.final_beta1), ("b2", optimiser.final_beta2))
              if final is not None}
    betas = {name: first[name] for name in ("b1", "b2")}
    kind: Callable[..., optax.GradientTransformation] = optax.adam
    if is_traced(optimiser.weight_decay) or optimiser.weight_decay:
        kind = partial(optax.adamw, weight_decay=optimiser.weight_decay)
    if moving:
        made = optax.inject_hyperparams(kind, static_args=betas.keys() - moving.keys())(
            rate, **betas | moving)
    elif kind is not optax.adam:
        made = kind(rate, **betas)
    else:
        made = OPTIMIZERS[optimiser.optimizer](rate, first["b1"], first["b2"], optimiser.rmsprop_eps)
    most = optimiser.max_gradient_norm
    return optax.chain(optax.clip_by_global_norm(most), made) if is_traced(most) or most else made


def decay_steps(config: Config) -> int:
    """Iterations over which what has a final value changes to it; 0 if all stays."""
    optimiser = config.optimiser
    return optimiser.decay_steps or -(-optimiser.schedule_images // config.schedule.batch_size)


def _warmed(rate: optax.Schedule, steps: int) -> optax.Schedule:
    return lambda count: rate(count) * jnp.minimum((count + 1) / float(steps), 1.0)


def _average(config: Config) -> float | optax.Schedule | None:
    """The decay of the averaged generator; None without one."""
    optimiser = config.optimiser
    if not optimiser.ema_half_life and optimiser.final_ema_half_life is None:
        traced = is_traced(optimiser.ema_decay)
        return as_schedule(optimiser.ema_decay) if traced else optimiser.ema_decay or None
    last = optimiser.final_ema_half_life
    images = optimiser.ema_half_life if last is None else scheduled(
        optimiser.ema_half_life, last, decay_steps(config), optimiser.decay)
    return half_life(images, config.schedule.batch_size, ramp=optimiser.ema_ramp or None)


def _critic_optimizer(config: Config) -> optax.GradientTransformation:
    optimizer = make_optimizer(config, "critic", config.loss.penalty_every)
    if config.loss.clip:
        optimizer = optax.chain(optimizer, penalties.clip_weights(config.loss.clip))
    if config.networks.critic_norm == "orthonormal":
        optimizer = optax.chain(optimizer, orthonormal_kernels())
    return _frozen(config, "critic", optimizer)


def scheduled(first: float, last: float, steps: int,
              shape: Literal["linear", "cosine", "late"] = "linear") -> optax.Schedule:
    """Returns the schedule from one value to another over so many counts; over 0 the first one stays.

    With t = count / steps, 1 at most, `first` has the share 1 - t (linear), (1 + cos(pi t)) / 2 (cosine:
    Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5) or min(2 - 2 t, 1) (late), and `last` the
    rest.
    """
    if not steps:
        return optax.constant_schedule(first)
    if shape == "cosine":
        return lambda count: last + (first - last) * 0.5 * (
            1.0 + jnp.cos(jnp.pi * jnp.minimum(count / float(steps), 1.0)))
    if shape == "late":
        return lambda count: last + (first - last) * jnp.clip(2.0 - 2.0 * count / float(steps), 0.0, 1.0)
    if steps >= 2**31:  # more than optax can count to
        return lambda count: last + (first - last) * (1.0 - count / float(steps))
    return optax.linear_schedule(first, last, steps)


def _adversarial(loss: Loss) -> losses.AdversarialLoss:
    chosen = LOSSES[loss.loss](loss.label_smoothing)
    if loss.top_k is None:
        return chosen
    return losses.top_k(chosen, loss.top_k_steps, loss.top_k_decay, loss.top_k)


def _penalty(config: Config) -> Term | None:
    loss, weight = config.loss, as_schedule(config.loss.penalty_weight)
    if loss.final_penalty_weight is not None:
        weight = scheduled(loss.penalty_weight, loss.final_penalty_weight, decay_steps(config),
                           config.optimiser.decay)
    how = {}
    if loss.finite_difference is not None:
        if loss.penalty not in ("r1", "r2", "r1_r2"):
            raise ValueError("finite_difference is for the penalties r1, r2 and r1_r2; the penalty is "
                             f"{loss.penalty}: leave it out")
        how = {"finite_difference": loss.finite_difference}
    term = PENALTIES[loss.penalty](weight, **how)
    return lazy(term, loss.penalty_every) if term and loss.penalty_every > 1 else term


def _augmentation(config: Config, generator: nn.Module | None = None) -> Augmentation | None:
    """What the critic is shown: changed images, with noise on them, in packs."""
    loss, found = config.loss, []
    if loss.augment != "none":
        found.append(_changed(config, generator))
    if loss.input_noise:
        found.append(instance_noise(scheduled(loss.input_noise, 0.0, loss.input_noise_steps)))
    if loss.pack > 1:
        found.append(packed(loss.pack))
    return chain(found) if len(found) > 1 else next(iter(found), None)


def _changed(config: Config, generator: nn.Module | None) -> Augmentation:
    loss = config.loss
    probability = loss.augment_p
    if loss.final_augment_p is not None:
        probability = scheduled(loss.augment_p or 0.0, loss.final_augment_p, decay_steps(config),
                                config.optimiser.decay)
    options: dict[str, Any] = {} if loss.augment_operations is None else {
        "operations": as_operations(loss.augment_operations)}
    if probability is not None:
        options["probability"] = probability
    elif loss.augment == "ada":
        options["probability"] = adaptive(images=loss.augment_images, relative=loss.loss not in _SIGNED)
    is_sigmoid = getattr(generator, "output", None) == "sigmoid"
    return AUGMENTATIONS[loss.augment](value_range=(0.0 if is_sigmoid else -1.0, 1.0), **options)


def as_operations(text: str) -> dict[str, float]:
    """The operations of --augment-operations, and their multipliers.

    Raises:
        ValueError: a multiplier is no number.
    """
    found = {}
    for one in text.split(","):
        name, is_given, factor = one.strip().partition("=")
        try:
            found[name] = float(factor) if is_given else 1.0
        except ValueError:
            raise ValueError("augment_operations must be names, with multipliers where they aren't 1, "
                             f"like xflip,cutout=0.5; got {one.strip()!r}") from None
    return found


def _frozen(config: Config, network: Literal["generator", "critic"],
            optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser, but for the parameters that --freeze leaves as they are."""
    patterns = [pattern.strip() for pattern in (config.networks.freeze or "").split(",")
                if pattern.strip()]
    for pattern in patterns:
        if pattern.partition("/")[0] not in ("generator", "critic"):
            raise ValueError(f"freeze must name paths that begin with generator or critic, like "
                             f"critic/Conv_*; got {pattern!r}")
    own = [pattern for pattern in patterns if pattern.partition("/")[0] == network]
    return freeze(optimizer, own, name=network) if own else optimizer


def _check(config: Config, has_tasks: bool) -> None:
    loss, values = config.loss, settings.flat(config)
    if any(map(is_traced, values.values())):
        return  # numbers of several runs, each of which was checked by itself
    if not has_tasks and (loss.adversarial_weight != 1 or loss.weighting != "fixed"):
        raise ValueError("adversarial_weight and weighting are for experiments with tasks: leave them "
                         "out")
    if values["fakes_at_once"] and values["accumulate"] > 1:
        raise ValueError(f"fakes_at_once takes the memory that accumulate {values['accumulate']} saves: "
                         "leave one of them out")
    for name in ("penalty_weight", "final_penalty_weight", "clip", "input_noise", "input_noise_steps",
                 "decay_steps", "schedule_images", "final_learning_rate", "warmup_steps", "weight_decay",
                 "max_gradient_norm", "ema_half_life", "final_ema_half_life", "ema_ramp"):
        if values[name] is None:
            continue
        if not values[name] >= 0:
            raise ValueError(f"{name} must not be negative; got {values[name]}")
        if values[name] > _MOST:
            raise ValueError(f"{name} must be at most {_MOST:g}; got {values[name]}")
    for name in ("learning_rate", "generator_learning_rate", "critic_learning_rate"):
        if values[name] is not None and not values[name] > 0:
            raise ValueError(f"{name} must be above 0; got {values[name]}")
    networks = "", "generator_", "critic_"
    for name in ("final_beta1", "final_beta2", *(f"{network}{beta}" for network in networks
                                                 for beta in ("beta1", "beta2"))):
        if values[name] is not None and not 0 <= values[name] < 1:
            raise ValueError(f"{name} must be in [0, 1); got {values[name]}")
    for name, (least, most) in {"top_k": (0, 1), "top_k_decay": (0, 1), "top_k_steps": (0, 2**31 - 1)
                                }.items():
        value = values[name]
        if value is not None and not least < value <= most:
            raise ValueError(f"{name} must be above {least} and at most {most}; got {value}")
        if loss.top_k is None and value != getattr(Loss(), name):
            raise ValueError(f"{name} is for --top-k; got {value} without it")
    if values["accumulate"] > 1 and (loss.top_k is not None or loss.loss == "relativistic_average"):
        name = "top_k" if loss.top_k is not None else loss.loss
        raise ValueError(f"{name} compares the samples of a whole batch, of which accumulate "
                         f"{values['accumulate']} shows it parts: leave one of them out")
    if loss.label_smoothing and loss.loss not in _SMOOTHED:
        raise ValueError(f"label_smoothing is for the losses {' and '.join(_SMOOTHED)}; the loss is "
                         f"{loss.loss}")
    if loss.clip and values["critic_norm"] == "orthonormal":
        raise ValueError("clip does not go with critic_norm orthonormal: it would limit the kernels "
                         "that the weights are made of, not the weights; leave it out")
    if loss.input_noise_steps and not loss.input_noise:
        raise ValueError("input_noise_steps needs an input_noise above 0")
    if not decay_steps(config):
        idle = {"--decay linear": values["decay"] != "linear",
                "--final-learning-rate 0": values["final_learning_rate"] != 0,
                **{f"--{name.replace('_', '-')} None": values[name] is not None for name in (
                    "final_penalty_weight", "final_beta1", "final_beta2", "final_ema_half_life",
                    "final_augment_p")}}
        if remedies := [remedy for remedy, is_idle in idle.items() if is_idle]:
            raise ValueError("decay_steps is 0, so that neither the learning rate nor anything else "
                             f"changes: give --decay-steps, or {' '.join(remedies)}")
    if values["decay_steps"] and values["schedule_images"]:
        raise ValueError(f"decay_steps is {values['decay_steps']} and schedule_images "
                         f"{values['schedule_images']}, which say the same: leave one at 0")
    for name in ("final_beta1", "final_beta2", "weight_decay"):
        if values[name] != getattr(Optimiser(), name) and values["optimizer"] != "adam":
            raise ValueError(f"{name} is for adam; the optimizer is {values['optimizer']}")
    has_half_life = values["ema_half_life"] > 0 or values["final_ema_half_life"] is not None
    if has_half_life and values["ema_decay"]:
        raise ValueError("ema_decay and ema_half_life say the same: give one of them, and 0 for the "
                         "other")
    if values["ema_ramp"] and not has_half_life:
        raise ValueError("ema_ramp limits a half-life: give --ema-half-life, or --ema-ramp 0")
    _check_augment(loss)
    for name in ("pack", "penalty_every"):
        if not values[name] >= 1:
            raise ValueError(f"{name} must be at least 1; got {values[name]}")
    if loss.penalty_every > 1 and loss.penalty == "none":
        raise ValueError(f"penalty_every is {loss.penalty_every}, but there is no penalty: give "
                         "--penalty-every 1, or a --penalty")


def is_traced(value: Any) -> bool:
    """Whether it is a number of several runs in one program, each of which was checked by itself."""
    return isinstance(value, jax.core.Tracer)


def as_schedule(value: Any) -> Any:
    """A number as it is, but a traced one as the schedule that stays there: no check looks at it."""
    return optax.constant_schedule(value) if is_traced(value) else value


def weight_of(group: Any, name: str) -> float | optax.Schedule | None:
    """A term's weight among a group's settings; None if it is None or 0, without the term.

    Raises:
        ValueError: it is negative, or too large to multiply by.
    """
    weight = getattr(group, name)
    if weight is None or is_traced(weight):
        return weight if weight is None else as_schedule(weight)
    if not weight >= 0:
        raise ValueError(f"{name} must not be negative; got {weight}")
    if weight > _MOST:
        raise ValueError(f"{name} must be at most {_MOST:g}; got {weight}")
    return weight or None


def _check_augment(loss: Loss) -> None:
    idle = {"augment_p": loss.augment_p, "final_augment_p": loss.final_augment_p,
            "augment_operations": loss.augment_operations}
    for name, value in idle.items():
        if value is not None and loss.augment == "none":
            raise ValueError(f"{name} is for --augment diffaugment or ada; got {value} for none")
        if isinstance(value, float) and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1]; got {value}")
    if not loss.augment_images > 0:
        raise ValueError(f"augment_images must be above 0; got {loss.augment_images}")
    follows = loss.augment == "ada" and loss.augment_p is None and loss.final_augment_p is None
    if loss.augment_images != Loss().augment_images and not follows:
        raise ValueError("augment_images is for --augment ada whose probability follows the critic; got "
                         f"{loss.augment_images:g} for {loss.augment}"
                         f"{' with a fixed one' * (loss.augment == 'ada')}: leave it out"
                         f"{', or augment_p and final_augment_p' * (loss.augment == 'ada')}")
