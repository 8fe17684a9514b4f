"""What every experiment shares: its flags, and the way from a configuration to a finished run."""

import ctypes
import dataclasses
import difflib
import errno
import importlib
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import measuring
from experiments.measuring import Reference
from jaxgan import keys, losses, penalties, training, weighting
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import Examples, Source, draw_step, pixels, resident, streaming, windows
from jaxgan.evaluation import Samples
from jaxgan.gan import GAN, GANState, generate, init_state
from jaxgan.pictures import grid
from jaxgan.runs import Run, processor, read_config, write_evaluation
from jaxgan.tasks import Task
from jaxgan.types import Batch, PyTree

EXPERIMENTS = ("cifar10", "conditional", "detection", "digits", "gaussians", "images", "inpainting",
               "mnist", "multitask", "stacked_mnist", "text")

LOSSES = {
    "wasserstein": lambda config: losses.wasserstein(),
    "minimax": lambda config: losses.minimax(config.label_smoothing),
    "non_saturating": lambda config: losses.non_saturating(config.label_smoothing),
    "least_squares": lambda config: losses.least_squares(),
    "hinge": lambda config: losses.hinge(),
    "relativistic": lambda config: losses.relativistic(),
    "relativistic_average": lambda config: losses.relativistic_average(),
}
PENALTIES = {
    "none": lambda weight: None,
    "gradient_penalty": penalties.gradient_penalty,
    "one_sided": partial(penalties.gradient_penalty, one_sided=True),
    "zero_centered": penalties.zero_centered,
    "r1": penalties.r1,
    "r2": penalties.r2,
    "r1_r2": lambda weight: penalties.combine(penalties.r1(weight), penalties.r2(weight)),
    "dragan": penalties.dragan,
}

WEIGHTINGS = {"fixed": weighting.fixed, "uncertainty": weighting.uncertainty,
              "gradnorm": weighting.gradnorm, "ratio": weighting.ratio}

ConfigT = TypeVar("ConfigT", bound="Config")
AsLines = Callable[[np.ndarray], list[str]]  # samples of text -> a line each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(measuring.Flags):
    """The settings of every experiment; the experiments add theirs and choose the defaults."""

    loss: Literal["wasserstein", "minimax", "non_saturating", "least_squares", "hinge",
                  "relativistic", "relativistic_average"] = "wasserstein"
    """What critic and generator minimise."""
    label_smoothing: float = 0.0
    """One-sided label smoothing, for minimax and non_saturating only."""
    penalty: Literal["none", "gradient_penalty", "one_sided", "zero_centered", "r1", "r2", "r1_r2",
                     "dragan"] = "gradient_penalty"
    """The penalty on the critic's input gradient."""
    penalty_weight: float = 10.0
    """The penalty's weight (lambda, or gamma of R1 and R2)."""
    clip: float = 0.0
    """Clip the critic's weights to [-clip, clip] after each update (original WGAN: 0.01); 0: don't."""
    critic_norm: Literal["none", "batch", "layer", "spectral"] = "none"
    """The critic's normalisation; a penalty excludes batch."""
    input_noise: float = 0.0
    """Standard deviation of Gaussian noise on the critic's input; 0: none."""
    input_noise_steps: int = 0
    """Iterations over which the input noise falls to zero; 0: it stays."""
    adversarial_weight: float = 1.0
    """The weight of the adversarial losses and the penalty beside the tasks; 0: the tasks alone."""
    weighting: Literal["fixed", "uncertainty", "gradnorm", "ratio"] = "fixed"
    """How the weights of tasks change in training: not, by learned uncertainty, by GradNorm, or by the
    ratio of the adversarial gradient to theirs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the networks' layers compute in; parameters, losses and penalties stay in float32."""
    remat: bool = False
    """Compute what is in a residual block again for the gradient, to save an accelerator's memory."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """The optimiser of both networks."""
    learning_rate: float = 1e-4
    """The learning rate of both networks."""
    beta1: float = 0.5
    """Adam's first decay."""
    beta2: float = 0.9
    """Adam's second decay; RMSProp's decay."""
    decay_steps: int = 0
    """Iterations over which the learning rate falls to zero; 0: it stays."""
    ema_decay: float = 0.0
    """Decay of the averaged generator that samples are drawn from; 0: the generator as trained."""
    n_critic: int = 5
    """Critic updates in an iteration."""
    fakes_at_once: bool = False
    """Draw the fakes of all n_critic updates in one call: larger computations, more memory."""
    batch_size: int = 64
    """Samples in a critic update, over all devices."""
    steps: int = 100_000
    """Iterations in all: n_critic critic updates and one generator update each."""
    seed: int = 0
    """Of everything random."""
    devices: int = 0
    """How many devices to use; 0: all."""
    run_dir: str = ""
    """The run's folder; by default runs/EXPERIMENT."""
    data_dir: str = ""
    """Where data sets are; by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    stream: bool = False
    """Keep the images on the host and send each step's to the device, for sets larger than its memory;
    the result is the same."""
    log_every: int = 100
    """Iterations between two log points."""
    sample_every: int = 1000
    """Iterations between two looks at samples; 0: at the end only."""
    eval_every: int = 0
    """Iterations between two evaluations, the last one at the end; 0: none."""
    eval_metrics: str = ""
    """What to measure then, a list like fd,kid; by default what is quick. See docs/evaluation.md."""
    checkpoint_every: int = 1000
    """Iterations between two checkpoints; 0: at the end only."""
    keep: int = 3
    """How many of the latest checkpoints to keep."""
    best_metric: str = ""
    """A logged metric: the checkpoint where it was best is kept as well."""
    resume: str = ""
    """Go on from a checkpoint: latest, a step, or auto (the latest if there is one, else start)."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """When training diverges: stop, or go on from the newest checkpoint with other random numbers, three
    times at most."""
    max_hours: float = 0.0
    """Stop after so many hours, with a checkpoint and status 75; 0: no limit."""
    deterministic: bool = False
    """Have a GPU use only operations that give the same bits each time (a CPU does so anyway)."""
    distributed: bool = False
    """One of several processes, which find each other by the cluster's environment (SLURM, Open MPI,
    Kubernetes, TPU pods)."""
    coordinator: str = ""
    """One of several processes, started by hand: host:port of the first one."""
    num_processes: int = 0
    """With --coordinator: how many there are."""
    process_id: int = -1
    """With --coordinator: which one this is, from 0."""
    keep_programs: bool = True
    """Keep compiled programs in ~/.cache/jaxgan, so that the same experiment starts quickly again."""


# These don't decide what a run computes, so a folder may be used again with others.
REPORTING = frozenset({"steps", "devices", "run_dir", "data_dir", "stream", "on_demand", "log_every",
                        "sample_every", "eval_every", "eval_metrics", "protocol", "features",
                        "inception", "checkpoint_every", "keep", "best_metric", "resume",
                        "max_hours", "distributed", "coordinator", "num_processes", "process_id",
                        "keep_programs", "text_file"})

OUT_OF_TIME = 75  # the status that asks for another try (EX_TEMPFAIL of sysexits.h)
_DETERMINISTIC = ("--xla_gpu_exclude_nondeterministic_ops=true", "--xla_gpu_autotune_level=0")
_SHOWN = 5  # samples of text that are printed at the end of a run
_HEARTBEAT_SECONDS = 8  # silent for so long, a process counts as lost


def main(config_class: type[ConfigT], run: Callable[[ConfigT], None]) -> None:
    """Parses the command line, runs, and turns what a user can mend into one sentence and status 2."""
    name = Path(sys.argv[0]).stem
    config = tyro.cli(config_class, prog=f"python -m experiments.{name}",
                      description=sys.modules["__main__"].__doc__)
    prepare(config)
    if config.distributed or config.coordinator:
        if _SUPERVISED not in os.environ:
            sys.exit(_supervise())
        sys.exit(guarded(lambda: (_join(config), run(config))[1]))
    sys.exit(guarded(run, config))


def prepare(config: Config) -> None:
    """Sets what jax has to know before it looks at the devices."""
    if config.keep_programs:
        keep_programs()
    if config.deterministic:
        os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_DETERMINISTIC)).strip()


def keep_programs() -> None:
    """Has jax keep what it compiles for this type of machine, unless it is told where to already."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "jaxgan" / processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def guarded(run: Callable[..., int | None], *arguments: Any) -> int:
    """Calls `run` and returns its exit status; errors become one line, unless JAXGAN_DEBUG is set."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    for name in ("absl", "asyncio"):  # what orbax logs of a failed save is raised here as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with _terminable():
            return run(*arguments) or 0
    except training.Interrupted as stop:
        print(f"{stop}; go on with: {_command('latest')}", file=sys.stderr)
        return 128 + stop.signal if stop.signal else OUT_OF_TIME
    except _Terminated:
        print(f"stopped; go on with: {_command('auto')}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("JAXGAN_DEBUG"):
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = ": free some space and go on with --resume auto" if full else ""
        print(f"error: {error}{remedy}", file=sys.stderr)
        return 2


def _command(resume: str) -> str:
    command = re.sub(r" --resume(=| )\S+", "", shlex.join(sys.orig_argv))
    return f"{command} --resume {resume}"


class _Terminated(BaseException):
    """SIGTERM outside of the training loop, which has a handler of its own."""


@contextmanager
def _terminable() -> Iterator[None]:
    def handle(number: int, frame) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not in the main thread: signals go elsewhere
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Several processes. When one dies, jax's runtime aborts the others from within, with a stack of C++
# frames; so each runs below a parent that has the last word.

_SUPERVISED = "JAXGAN_SUPERVISED"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies


def _supervise() -> int:
    """Runs this very command again below this process, and says how it ended."""
    child = subprocess.Popen(sys.orig_argv, env=os.environ | {_SUPERVISED: "1"})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    status = child.wait()
    if status >= 0:
        return status
    lost = status == -signal.SIGABRT
    print("error: another process was lost, and this one ended with it" if lost else
          f"error: this process was ended by {signal.Signals(-status).name}", end="", file=sys.stderr)
    print(f": start all of them again with: {_command('auto')}", file=sys.stderr)
    return 1 if lost else 128 - status


def _join(config: Config) -> None:
    """Joins the other processes."""
    if sys.platform == "linux":  # who kills the parent means this process
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    known = {}
    if config.coordinator:
        if config.num_processes < 1 or not 0 <= config.process_id < config.num_processes:
            raise ValueError("coordinator needs num_processes and a process_id from 0 up to it; got "
                             f"{config.num_processes} and {config.process_id}")
        known = {"coordinator_address": config.coordinator, "num_processes": config.num_processes,
                 "process_id": config.process_id}
    try:
        jax.distributed.initialize(**known, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the processes don't find each other ({str(error).splitlines()[0]}): give "
                         "--coordinator, --num-processes and --process-id") from error


def image_source(config: Config, examples: Examples, **options: Any) -> Source:
    """The examples as a source, on the device or streamed to it; options as for `resident`."""
    return (streaming if config.stream else resident)(examples, **options)


def make_gan(config: Config, generator: nn.Module, critic: nn.Module, latent_size: int, *,
             generator_batches: int = 1, tasks: tuple[Task, ...] = (), **options: Any) -> GAN:
    """Puts networks and settings together; options are fields of `GAN`."""
    if not tasks and (config.adversarial_weight != 1 or config.weighting != "fixed"):
        raise ValueError("adversarial_weight and weighting are for experiments with tasks: leave them "
                         "out")
    for name in ("penalty_weight", "clip", "input_noise", "input_noise_steps", "decay_steps"):
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must not be negative; got {getattr(config, name)}")
    if not config.learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0; got {config.learning_rate}")
    if config.label_smoothing and config.loss not in ("minimax", "non_saturating"):
        raise ValueError(f"label_smoothing is for the losses minimax and non_saturating; the loss is "
                         f"{config.loss}")
    if config.input_noise_steps and not config.input_noise:
        raise ValueError("input_noise_steps needs an input_noise above 0")
    critic_optimizer = _optimizer(config, config.n_critic)
    if config.clip:
        critic_optimizer = optax.chain(critic_optimizer, penalties.clip_weights(config.clip))
    fields = {"dtype": jnp.dtype(config.precision)}
    if config.remat:
        if "remat" not in type(critic).__dataclass_fields__:
            raise ValueError("remat is for residual networks: leave it out, or choose --model resnet")
        fields["remat"] = True
    return GAN(
        generator=generator.clone(**fields),
        critic=critic.clone(**fields),
        latent_size=latent_size,
        loss=LOSSES[config.loss](config),
        penalty=PENALTIES[config.penalty](config.penalty_weight),
        input_noise=(_falling(config.input_noise, config.input_noise_steps)
                     if config.input_noise else None),
        generator_optimizer=_optimizer(config, 1),
        critic_optimizer=critic_optimizer,
        ema_decay=config.ema_decay or None,
        generator_batches=generator_batches,
        tasks=tasks,
        adversarial_weight=config.adversarial_weight,
        weighting=WEIGHTINGS[config.weighting](),
        **options,
    )


def train(name: str, config: Config, gan: GAN, source: Source, reference: Reference, *,
          picture: training.Picture | None = None,
          make_text: Callable[[Mapping[str, Any]], AsLines] | None = None) -> None:
    """Trains into the run's folder and prints what came out; `make_text` is for samples of text."""
    if config.stream and source.window is None:
        raise ValueError(f"stream is for images; {name} draws its samples where it needs them")
    config = dataclasses.replace(config, run_dir=config.run_dir or f"runs/{name}")
    settings = {"experiment": name, **dataclasses.asdict(config),
                "sample_shape": list(source.sample_shape), "value_range": list(source.value_range),
                "num_classes": source.num_classes, "condition": condition_shapes(source),
                **reference.about()}
    run, real = Run(config.run_dir, settings, settings.keys() - REPORTING), None
    if make_text:
        as_lines = make_text(settings)
        picture, real = sample_text(gan, config.seed, as_lines), real_text(source, config.seed, as_lines)
    elif len(source.sample_shape) == 3:
        picture = picture or image_grid(gan, config.seed, settings,
                                        measuring.requests(reference, settings))
        real = real_grid(source, config.seed)
    evaluate, evaluator = None, None
    if config.eval_every:
        evaluator = measuring.make_evaluator(
            reference, measuring.make_protocol(config.protocol, reference, features=config.features),
            config.eval_metrics or reference.quick, settings, inception=config.inception,
            devices=local_devices(config))
        evaluate = measuring.in_training(gan, evaluator, reference, settings, local_devices(config))
    state, result = training.train(gan, source, run, plan(config, reference), real=real,
                                   picture=picture, evaluate=evaluate, resume=config.resume or None)
    if jax.process_index() > 0:
        return
    pace = result["iterations_per_second"]
    print(f"{run.folder}: {result['steps']} steps in {result['duration_seconds']:.0f} s"
          + (f" ({pace:.3g} steps/s)" if pace else ""))
    measured = result.get("evaluation", result["final"])  # the first release put all into one
    shown = {metric for metric in measured if measuring.find(reference, metric)}
    for metric, value in (result["final"] | measured).items():
        if metric not in shown:
            print(f"  {metric:32} {value:.5g}")
    print(f"  params_sha256                    {result['params_sha256']}")
    if evaluator is not None and shown:
        found = measuring.entry(evaluator, reference, measured, step=result["steps"],
                                params_sha256=result["params_sha256"])
        write_evaluation(run.folder, found)
        print(measuring.table(found, reference))
    if make_text:
        print("samples:", *picture(state).splitlines()[:_SHOWN], sep="\n  ")


def condition_shapes(source: Source) -> Any:
    """The shape and dtype of an example's condition, by name if it has several; None without one."""
    condition = training.example_batch(source, 1).condition
    return jax.tree.map(lambda x: [list(x.shape[1:]), str(x.dtype)], condition)


def is_of_classes(settings: Mapping[str, Any]) -> bool:
    """Whether the condition of a run's batches is a label."""
    return isinstance(settings["condition"], list)


def local_devices(config: Config) -> list[jax.Device]:
    """The devices of this process that a run uses."""
    return jax.local_devices()[:config.devices or None]


def plan(config: Config, reference: Reference | None = None) -> training.Plan:
    """How long to train and how often to report; the reference's metrics say what is best."""
    if config.resume and config.resume not in ("auto", "latest") and not config.resume.isdecimal():
        raise ValueError(f"resume must be auto, latest or a step; got {config.resume!r}")
    names = {field.name for field in dataclasses.fields(training.Plan)} - {"best_is_highest"}
    return training.Plan(
        **{name: getattr(config, name) for name in names} | {"best_metric": config.best_metric or None},
        best_is_highest=bool(reference) and measuring.is_better_higher(reference, config.best_metric))


def image_grid(gan: GAN, seed: int, settings: Mapping[str, Any], requests: Samples | None = None,
               count: int = 100) -> Callable[[GANState], np.ndarray]:
    """Returns a picture of samples from the same latents each time; a column is of a class."""
    condition = requests.condition(np.arange(count)) if requests else None
    columns = min(settings["num_classes"], count) if is_of_classes(settings) else None
    draw = _same_samples(gan, seed, condition, count)
    return lambda state: grid(pixels(draw(state), settings["value_range"]), columns)


def real_grid(source: Source, seed: int, count: int = 100) -> np.ndarray:
    """A picture of real samples."""
    return grid(pixels(_real_samples(source, seed, count), source.value_range))


def sample_text(gan: GAN, seed: int, as_lines: AsLines, count: int = 100) -> Callable[[GANState], str]:
    """Returns the text of samples from the same latents each time, one a line."""
    draw = _same_samples(gan, seed, None, count)
    return lambda state: "\n".join(as_lines(draw(state))) + "\n"


def real_text(source: Source, seed: int, as_lines: AsLines, count: int = 100) -> str:
    """Real samples of text, one a line."""
    return "\n".join(as_lines(_real_samples(source, seed, count))) + "\n"


def _same_samples(gan: GAN, seed: int, condition: PyTree, count: int) -> Callable[[GANState], jax.Array]:
    latents = jax.random.normal(keys.stream(jax.random.key(seed), "sample"), (count, gan.latent_size))
    draw = jax.jit(partial(generate, gan))
    return lambda state: draw(state, latents, condition)


def _real_samples(source: Source, seed: int, count: int) -> jax.Array:
    count = min(count, source.size or count)
    key = keys.stream(jax.random.key(seed), "real")
    (arrays, _), = windows(source, key, count, 0, 1)
    return jax.jit(lambda arrays: draw_step(source, arrays, key, 0, count, jnp.arange(count)).samples
                   )(arrays)


def load_run(run_dir: str) -> tuple[ModuleType, Config, dict[str, Any]]:
    """Returns a run's experiment, its configuration, and all its settings, from its folder."""
    settings = read_config(run_dir)["settings"]
    name = settings.get("experiment")
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(str(name), EXPERIMENTS, 1)
        raise ValueError(f"{run_dir} is of the experiment {name!r}, which isn't one of "
                         f"{', '.join(EXPERIMENTS)}" + (f": did you mean {near[0]}?" if near else ""))
    module = importlib.import_module(f"experiments.{name}")
    fields = {field.name: field for field in dataclasses.fields(module.Config)}
    missing = fields.keys() - settings.keys() - REPORTING
    if missing:
        raise ValueError(f"{run_dir}/config.json lacks {', '.join(sorted(missing))}")
    known = {field: settings[field] for field in fields if field in settings}
    hints = get_type_hints(module.Config)
    for field, value in known.items():
        default = fields[field].default
        if default is not None and not isinstance(value, type(default)) and not (
                isinstance(default, float) and isinstance(value, int)):
            raise ValueError(f"{field} in {run_dir}/config.json must be a {type(default).__name__}; "
                             f"got {value!r}")
        choices = get_args(hints[field]) if get_origin(hints[field]) is Literal else (value,)
        if value not in choices:
            raise ValueError(f"{field} in {run_dir}/config.json must be one of {', '.join(choices)}; "
                             f"got {value!r}")
    return module, module.Config(**known), settings


def restore(run_dir: str, config: Config, gan: GAN, settings: dict[str, Any], reference: Reference,
            checkpoint: str) -> GANState:
    """Reads a run's checkpoint: latest, best (as the reference's metrics say) or a step."""
    if checkpoint not in ("latest", "best") and not checkpoint.isdecimal():
        raise ValueError(f"checkpoint must be latest, best or a step; got {checkpoint!r}")
    folder = Path(run_dir) / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"there is no checkpoint in {run_dir}")
    condition = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf[0]), leaf[1]), settings["condition"],
                             is_leaf=lambda leaf: isinstance(leaf, list))
    template = jax.eval_shape(partial(init_state, gan), jax.random.key(0),
                              Batch(jnp.zeros((2, *settings["sample_shape"])), condition))
    checkpoints = Checkpoints(folder, config.keep, config.best_metric or None,
                              highest=measuring.is_better_higher(reference, config.best_metric))
    try:
        step = None if checkpoint == "latest" else checkpoint
        if step == "best" and (step := checkpoints.best_step()) is None:
            raise ValueError(f"{run_dir} has no best checkpoint: it was trained without --best-metric")
        return checkpoints.restore(template, None if step is None else int(step))
    finally:
        checkpoints.close()


def _optimizer(config: Config, updates_a_step: int) -> optax.GradientTransformation:
    rate = _falling(config.learning_rate, config.decay_steps * updates_a_step)
    if config.optimizer == "rmsprop":
        return optax.rmsprop(rate, decay=config.beta2)
    return optax.adam(rate, b1=config.beta1, b2=config.beta2)


def _falling(value: float, steps: int) -> optax.Schedule:
    return optax.linear_schedule(value, 0.0, steps) if steps else optax.constant_schedule(value)
