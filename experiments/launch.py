"""From the command line to a configuration, from that to a finished run; and what errors become."""

import argparse
import dataclasses
import errno
import importlib
import io
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Union

import jax
import tyro
from flax.traverse_util import unflatten_dict

from jaxgan import console, training
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import Source, flipped
from jaxgan.evaluation import Evaluator
from jaxgan.extras import MissingExtra
from jaxgan.features import load_weights
from jaxgan.files import reason
from jaxgan.gan import GAN
from jaxgan.lanes import Lane, train_lanes
from jaxgan.loggers import csv_logger, wandb_logger
from jaxgan.loops import Game
from jaxgan.parallel import check_devices
from jaxgan.runs import Run, RunError, check_data, processor, read_config, write_evaluation, write_report
from jaxgan.steps import game as game_of
from jaxgan.transfer import warm_start

from . import (
    changing,
    commands,
    comparing,
    flags,
    image_sets,
    measuring,
    opening,
    page,
    settings,
    several,
    showing,
    summary,
    supervision,
)
from .experiment import Experiment
from .flags import Config
from .measuring import Reference

OUT_OF_TIME = 75  # the status that asks for another try (EX_TEMPFAIL of sysexits.h)
_DETERMINISTIC = ("--xla_gpu_exclude_nondeterministic_ops=true", "--xla_gpu_autotune_level=0")
_COLUMNS = 40, 1000  # of help: narrower ones take a minute to lay out
_PROGRAMS = re.compile(r"Error (reading|writing) persistent compilation cache entry for '(\w+)': (.*)",
                       re.DOTALL)  # as jax says it


def main(experiment: Experiment) -> None:
    """Trains by the command line, and exits with the status that says how it went.

    Raises:
        ValueError: the file is being imported, not run.
    """
    if sys._getframe(1).f_globals.get("__name__") != "__main__":  # whoever runs it, a profiler too
        raise ValueError(f"{experiment.file} trains when it is imported: put launch.main(experiment) "
                         'below a line if __name__ == "__main__":')
    sys.exit(guarded(start, experiment))


def tool(run: Callable[..., int | None], options: type, *, takes_rest: bool = False) -> None:
    """Runs a command that trains nothing, by its options on the command line, and exits.

    Args:
        run: what is called with the options.
        options: their class.
        takes_rest: whether `run` is given the words that are none of these options as well.
    """
    script = sys._getframe(1).f_globals
    parsed = _from_words(options, prog=commands.called(Path(script["__file__"]).stem),
                         description=script["__doc__"], return_unknown_args=takes_rest)
    sys.exit(guarded(run, *(parsed if takes_rest else (parsed,))))


def file_to_write(path: str) -> Path:
    """The file that a command writes at its end.

    Raises:
        ValueError: its folder isn't there.
    """
    if not Path(path).parent.is_dir():
        raise ValueError(f"there is no folder {Path(path).parent} to write {Path(path).name} to: make "
                         "it, or name another file")
    return Path(path)


def start(experiment: Experiment, arguments: Sequence[str] | None = None) -> int:
    """Trains by the command line, or by other arguments; returns the exit status."""
    config, runs = parse_command(experiment, arguments)
    prepare(config)
    if config.cluster.distributed or config.cluster.coordinator:
        if not supervision.is_supervised():
            return supervision.supervise()
        supervision.join(config.cluster)
    if runs.are_asked:
        run_several(experiment, config, runs)
    else:
        run(experiment, config)
    return 0


def parse(experiment: Experiment, arguments: Sequence[str] | None = None) -> Config:
    """Parses flags; what they don't say is taken from --config or --preset, or is the default.

    Raises:
        ValueError: the file of --config can't be read, or is of another experiment.
        SystemExit: a flag is unknown or its value is, or help was asked for and given.
    """
    return parse_command(experiment, arguments)[0]


def parse_command(experiment: Experiment, arguments: Sequence[str] | None = None
                  ) -> tuple[Config, several.Runs]:
    """Parses flags as `parse` does; returns what they say of several runs, too."""
    asked = _asked(arguments)
    if asked.config and asked.preset:
        raise ValueError("give --config or --preset, not both")
    if asked.config:
        return _parsed(experiment, arguments, from_file(experiment, asked.config))
    config, runs = _of_preset(experiment, arguments, asked)
    begun = _begun(experiment, config, runs)
    return _fitted(_planned(config, begun, asked), begun, asked), runs


def _of_preset(experiment: Experiment, arguments: Sequence[str] | None, asked: argparse.Namespace
               ) -> tuple[Config, several.Runs]:
    default, by = experiment.presets.get(asked.preset, experiment.Config()), experiment.preset_by
    config, runs = _parsed(experiment, arguments, default)
    if not by or asked.preset:
        return config, runs
    values = settings.flat(config)
    if by in settings.moved(config) and (begun := _begun(experiment, config, runs)):
        values = settings.before(config) | begun  # older versions had another default
    named = experiment.presets.get(values[by])
    return _parsed(experiment, arguments, named) if named else (config, runs)


def _begun(experiment: Experiment, config: Config, runs: several.Runs) -> dict[str, Any] | None:
    """The settings of the run that goes on, of several the first; None if it begins."""
    config = _placed(experiment, config)
    return changing.recorded(several.each(config, runs)[0].config if runs.are_asked else config)


def _placed(experiment: Experiment, config: Config) -> Config:
    """The configuration with the run's folder."""
    return settings.replace(config, run_dir=config.run.run_dir or f"runs/{experiment.name}")


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the other flags' defaults depend on; a mistake here is left to the parser of all flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--preset"):
        parser.add_argument(flag, nargs="?", default="")
    parser.add_argument("--steps", nargs="?", default=None)
    parser.add_argument("--decay-steps", "--decay_steps", nargs="?", default=None)
    return parser.parse_known_args(arguments)[0]


def _parsed(experiment: Experiment, arguments: Sequence[str] | None, default: Config
            ) -> tuple[Config, several.Runs]:
    parsed = _from_words(command(experiment, default), args=arguments, prog=experiment.command,
                         description=experiment.about, config=(tyro.conf.OmitArgPrefixes,))
    return parsed.settings, parsed.runs


def command(experiment: Experiment, default: Config) -> type:
    """The class of an experiment's command line, with these settings where no flag says otherwise."""
    fields = [("config", Annotated[str, tyro.conf.arg(metavar="FILE", help=(
        "A run's config.json: train what it says, but for what other flags change; where to run and how "
        "to report is not taken from it."))], "")]
    if experiment.presets:
        names = tuple(experiment.presets)
        by = f"; by default those that --{experiment.preset_by} names" if experiment.preset_by else ""
        fields.append(("preset", Annotated[Literal[*names], tyro.conf.arg(help=(
            f"Settings to start from, which other flags change{by}."))], names[0]))
    return dataclasses.make_dataclass("Command", [
        *fields, ("settings", Annotated[type(default), tyro.conf.arg(name="")], default),
        ("runs", Annotated[several.Runs, tyro.conf.arg(name="")], several.Runs())], frozen=True)


def complete(shell: str) -> None:
    """Prints what completes the commands, their options and files in a shell, as tyro writes it."""
    shells = Annotated[Literal[*commands.SHELLS], tyro.conf.Positional]
    options = {"completion": dataclasses.make_dataclass("Completion", [("shell", shells)])}
    for name in commands.tools():
        options[name] = importlib.import_module(f"{__package__}.{name}").Options
    for made in map(opening.load, commands.experiments()):
        options[made.name] = command(made, made.Config())
    kinds = [Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)]
             for name, kind in options.items()]
    with redirect_stdout(io.StringIO()) as written, suppress(SystemExit):
        tyro.cli(Union[*kinds], prog="jaxgan", args=["--tyro-print-completion", shell],
                 config=(tyro.conf.OmitArgPrefixes,))
    lines = written.getvalue().replace("complete -F", "complete -o default -F").splitlines()
    # A description of several lines would be as many suggestions.
    console.OUT.write("".join((line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line)
                              + "\n" for line in lines))


def _from_words(options: type, *, description: str, **how: Any) -> Any:
    """Parses words into options, with help as wide as the terminal, within reason."""
    narrow, wide = _COLUMNS
    os.environ["COLUMNS"] = str(min(max(shutil.get_terminal_size().columns, narrow), wide))
    with commands.until_nobody_reads():
        return tyro.cli(options, description=commands.spoken(description), **how)


def _planned(config: Config, begun: Mapping[str, Any] | None, asked: argparse.Namespace) -> Config:
    """Has a run that goes on end where it was to end, if no flag says otherwise."""
    steps = begun and begun.get("steps")
    if asked.steps is not None or type(steps) is not int or steps == config.schedule.steps:
        return config
    console.warn(f"the run goes on to step {steps}, as it was to: give --steps for another end")
    return settings.replace(config, steps=steps)


def _fitted(config: Config, begun: Mapping[str, Any] | None, asked: argparse.Namespace) -> Config:
    """Has the learning rate fall until the end of a longer run, if no flag says otherwise.

    A run that goes on keeps what it has.
    """
    steps, decay = config.schedule.steps, config.optimiser.decay_steps
    if asked.decay_steps is not None or not 0 < decay < steps:
        return config
    if begun is not None:
        there = begun.get("decay_steps")
        return settings.replace(config, decay_steps=there if type(there) is int else decay)
    warnings.warn(f"decay_steps is {steps}, as steps is: by default it is {decay}, after which the "
                  f"learning rate would be {config.optimiser.final_learning_rate:g}", UserWarning,
                  stacklevel=2)
    return settings.replace(config, decay_steps=steps)


def _warn_of_ends(config: Config) -> None:
    """Says of a flag that its effect ends before the run does."""
    steps, decay = config.schedule.steps, flags.decay_steps(config)
    if 0 < decay < steps and not config.optimiser.final_learning_rate:
        warnings.warn(f"the learning rate is 0 from step {decay} on, and the run goes on to step "
                      f"{steps}: give {_longer(config)}, or 0 for a rate that stays", UserWarning,
                      stacklevel=3)
    if 0 < config.loss.input_noise_steps < steps:
        warnings.warn(f"the input noise is 0 from step {config.loss.input_noise_steps} on, and the run "
                      f"goes on to step {steps}", UserWarning, stacklevel=3)


def from_file(experiment: Experiment, path: str) -> Config:
    """The configuration that trains what a run's `config.json` says, reported as by default.

    Raises:
        ValueError: it is of another experiment, or a setting is amiss.
    """
    if not Path(path).exists():
        raise ValueError(f"there is no file {path}: give a run's config.json with --config")
    values = read_config(path)["settings"]
    if values.get("experiment") != experiment.name:
        raise ValueError(f"{path} is of the experiment {values.get('experiment')!r}, not of "
                         f"{experiment.name!r}: give a configuration of this one")
    default = experiment.Config()
    return settings.read(default, {name: values[name] for name in settings.trained(default)
                                   if name in values}, path)


def prepare(config: Config) -> None:
    """Sets what jax has to know before it looks at the devices."""
    if config.run.keep_programs:
        keep_programs()
    if config.schedule.deterministic:
        os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_DETERMINISTIC)).strip()


def keep_programs() -> None:
    """Has jax keep what it compiles for this type of machine, unless it is told where to already."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = measuring.cache_folder()
        if cache is None:
            return
        jax.config.update("jax_compilation_cache_dir", str(cache / processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache entry")


def guarded(task: Callable[..., int | None], *arguments: Any) -> int:
    """Calls `task` and returns its exit status; errors become one line, unless JAXGAN_DEBUG is set."""
    console.hold()
    warnings.showwarning = _shower()
    for name in ("absl", "asyncio"):  # what orbax logs of a failed save is raised here as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with supervision.terminable():
            return task(*arguments) or 0
    except training.Interrupted as stop:
        again = supervision.command(stop.resume if task in (start, run) else "")
        console.warn(f"{stop}; go on with: {again}")
        return 128 + stop.signal if stop.signal else OUT_OF_TIME
    except supervision.Terminated as stop:
        again = supervision.command("auto" if task in (start, run) else "")
        console.warn(f"stopped; go on with: {again}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        console.warn("interrupted")
        return 130
    except (ValueError, TypeError, OSError, MemoryError, OverflowError, MissingExtra,
            jax.errors.JaxRuntimeError) as error:
        is_short = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        if os.environ.get("JAXGAN_DEBUG") or (
                isinstance(error, jax.errors.JaxRuntimeError) and not is_short):
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = ": free some space and go on with --resume auto" if full else ""
        said = str(error)
        if isinstance(error, OSError) and str(error.filename).endswith(".partial") and not full:
            said = f"{str(error.filename).removesuffix('.partial')} can't be written ({reason(error)})"
            remedy = ": name another place with --out" if task not in (start, run) else ""
        if is_short:
            said = f"not enough memory ({reason(error)}): lower the batch size or the width"
        elif isinstance(error, OverflowError):
            said = f"a number is too large ({reason(error)}): lower it"
        console.warn(f"error: {said}{remedy}")
        return 2
    finally:
        console.release()


def _shower() -> Callable[..., None]:
    """Returns what shows a warning: in a line, and what becomes of the kept programs only once."""
    said = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if kept := _PROGRAMS.fullmatch(text):
            verb, program, why = kept.groups()
            if verb == "reading":  # jax leaves a damaged file where it is, and writes none beside it
                _forget(program)
            if verb in said:
                return
            said.add(verb)
            where = jax.config.jax_compilation_cache_dir
            text = (f"a compiled program in {where} was damaged; it is compiled and kept anew"
                    if verb == "reading" else f"compiled programs can't be kept in {where} ({why})")
        console.warn(f"warning: {text}")

    return show


def _forget(program: str) -> None:
    """Removes what is kept of a program, by the name that its files begin with."""
    for path in Path(jax.config.jax_compilation_cache_dir).glob(f"{program}-*-cache"):
        with suppress(OSError):  # another process did, or nobody can
            path.unlink()


def run(experiment: Experiment, config: Config, changes: Mapping[str, Any] = MappingProxyType({})
        ) -> None:
    """Trains into the run's folder, says what came out and reports it there; arguments as of `train`."""
    begun, result = train(experiment, config, changes)
    if jax.process_index() == 0:
        console.say(*summary.lines(begun.folder.folder, result, report(begun, result), begun.reference))


def run_several(experiment: Experiment, config: Config, runs: several.Runs) -> None:
    """Trains several runs into folders in the run's, and says what came out of all of them.

    Raises:
        ValueError: settings that don't go together; else as `train`.
        NotFiniteError: runs have diverged; the others are trained, and summed up.
    """
    config = _placed(experiment, config)
    each = several.each(config, runs)
    groups = []
    for group in several.grouped(each):  # what is amiss with the last is said before one is trained
        begun: list[Begun] = []
        for one in group:
            alike = [of for of, other in zip(begun, group, strict=False) if other.numbers == one.numbers]
            begun.append(begin(experiment, one.config, like=next(iter(alike or begun), None),
                               is_alike=bool(alike)))
        groups.append((group, begun))
    ended, diverged = set(), []
    for group, begun in groups:
        try:
            _train_group(experiment, group, begun, runs, ended)
        except training.NotFiniteError as error:
            diverged.append(str(error))
    if ended:
        console.say(*comparing.compare([one.config.run.run_dir for one in each if one.name in ended],
                                       Path(config.run.run_dir) / "compare.png", logged=True))
    if diverged:
        raise training.NotFiniteError("; ".join(diverged))


def _train_group(experiment: Experiment, group: Sequence[several.One], begun: "Sequence[Begun]",
                 runs: several.Runs, ended: set[str]) -> None:
    """Trains runs that may be one program's; `ended` is given the names of those that are trained."""
    source = begun[0].source

    def remake(numbers: Mapping[str, Any]) -> Game:
        config = settings.replace(group[0].config, **numbers)
        return game_of(experiment.make_game(config, source.sample_shape),
                       fakes_at_once=config.schedule.fakes_at_once)

    def end(name: str, result: Mapping[str, Any]) -> None:
        report(next(of for one, of in zip(group, begun, strict=True) if one.name == name), result)
        ended.add(name)

    lanes = [Lane(one.name, of.game, of.folder, of.plan, of.arguments, one.numbers)
             for one, of in zip(group, begun, strict=True)]
    train_lanes(source, lanes, remake=remake, ended=end,
                together=False if runs.sequential else runs.together or None)


def report(begun: "Begun", result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Writes a finished run's report, and its evaluation, if there is one, which it returns.

    Args:
        begun: the run.
        result: what its `result.json` holds.
    """
    folder, reference, evaluator = begun.folder.folder, begun.reference, begun.evaluator
    measured = result.get("evaluation", result["final"])  # the first release put all into one
    found = None
    if (evaluator is not None or not reference.metrics) and any(
            measuring.find(reference, name) for name in measured):
        found = measuring.entry(evaluator, reference, measured, step=result["steps"],
                                params_sha256=result["params_sha256"])
        write_evaluation(folder, found)
    write_report(folder, summary.report(folder, result, found, reference))
    page.write_beside(folder, reference)
    return found


class Begun(NamedTuple):
    """A run that is about to be trained.

    Attributes:
        game: what is trained.
        source: its data.
        folder: its folder.
        plan: how long, how often.
        arguments: the others of `jaxgan.training.train`.
        reference: what its samples are measured against.
        evaluator: what measures them in training; None if nothing does.
    """

    game: Game
    source: Source
    folder: Run
    plan: training.Plan
    arguments: dict[str, Any]
    reference: Reference
    evaluator: Evaluator | None


def train(experiment: Experiment, config: Config, changes: Mapping[str, Any] = MappingProxyType({}), *,
          again: str | Path = "") -> tuple[Begun, dict[str, Any]]:
    """Trains into the run's folder; returns the run, and what its `result.json` holds.

    Args:
        experiment: what is trained.
        config: its settings.
        changes: settings to go on with in place of the run's, as --change names them.
        again: the folder of a run whose data these have to be.

    Raises:
        RunError: the data are others than those of that run, or of the one that goes on.
        ValueError: settings that don't go together; see `jaxgan.training.train` for all else.
    """
    begun = begin(experiment, config, changes, again=again)
    _, result = training.train(begun.game, begun.source, begun.folder, begun.plan, **begun.arguments)
    return begun, result


def begin(experiment: Experiment, config: Config, changes: Mapping[str, Any] = MappingProxyType({}), *,
          again: str | Path = "", like: Begun | None = None, is_alike: bool = False) -> Begun:
    """Makes everything that a run is trained with; arguments and errors as of `train`.

    Args:
        experiment: see there.
        config: see there.
        changes: see there.
        again: see there.
        like: a run on the same data, with which it shares them and what measures the samples.
        is_alike: whether it has that one's networks and settings as well, but for the seed.
    """
    check_devices()
    if experiment.is_own and experiment.name in commands.experiments():
        raise ValueError(f"{experiment.file} has the name of this project's experiment "
                         f"{experiment.name}: rename the file")
    config, change = changing.effective(_placed(experiment, config), changes)
    config = experiment.settle(config) if experiment.settle else config
    flags.check_sizes(config)
    _check_image_size(experiment, config)
    _warn_of_ends(config)
    if like:
        source, reference = like.source, like.reference
    else:
        source, reference = experiment.make_source(config), experiment.make_reference(config)
        source = flipped(source) if config.data.flip else source
    schedule = plan(config, reference)
    game = experiment.make_game(config, source.sample_shape)
    if config.data.stream and source.window is None:
        raise ValueError(f"stream is for images; {experiment.name} draws its samples where it needs "
                         "them")
    recorded = record(experiment, config, source, reference)
    _check_parts(config, schedule, is_conditional=recorded["condition"] is not None)
    if again:
        check_data(again, read_config(again)["settings"], recorded)
    folder = open_folder(experiment, config, recorded, change)
    training.check_processes(folder, schedule, config.run.resume or None)
    if not reference.metrics and (config.evaluation.eval_metrics or config.evaluation.features):
        raise ValueError("eval_metrics and features are for samples, which a critic alone has none of: "
                         "leave them out")
    evaluator = like.evaluator if like else (
        make_evaluator(config, reference, recorded)
        if config.evaluation.eval_every and reference.metrics else None)
    if like and is_alike:
        trained, evaluate = like.game, like.arguments["evaluate"]
        evaluate = getattr(evaluate, "anew", lambda: evaluate)()
    else:
        trained = game_of(game, fakes_at_once=config.schedule.fakes_at_once)
        evaluate = _evaluate(config, game, reference, recorded, evaluator)
    arguments = training_arguments(experiment, config, game, trained, source, reference, recorded,
                                   evaluate)
    if again:  # it is as it was
        arguments["about"] = arguments["about"]._replace(warning="")
    return Begun(trained, source, folder, schedule, arguments, reference, evaluator)


def _check_image_size(experiment: Experiment, config: Config) -> None:
    """Raises ValueError for a size of a folder's images, where others are asked for."""
    data = config.data
    if not isinstance(data, image_sets.Images) or data.dataset == "folder":
        return
    known = experiment.Config(), *experiment.presets.values()
    if data.image_size not in [settings.flat(preset)["image_size"] for preset in known]:
        raise ValueError(f"image_size {data.image_size} is for a folder's images, and those of "
                         f"{data.dataset} have a size: leave it out")


def _check_parts(config: Config, schedule: training.Plan, *, is_conditional: bool) -> None:
    """Raises ValueError for batches that can't be cut into parts, or into packs of samples."""
    pack, size, parts = config.loss.pack, schedule.batch_size, config.schedule.accumulate
    if pack > 1 and is_conditional:
        raise ValueError(f"pack is {pack}, but samples are drawn for a condition here, and no critic "
                         "takes packs of conditions: leave it out")
    devices = schedule.devices or jax.device_count()
    where = f"batch_size {size} on {devices} device{'s' * (devices > 1)}"
    if size // devices % parts:
        raise ValueError(f"{where} can't be cut into {parts} equal parts, as accumulate says: choose a "
                         f"multiple of {devices * parts}")
    if size // devices // parts % pack:
        where += f" in {parts} parts" * (parts > 1)
        raise ValueError(f"{where} can't be shown in packs of {pack}: choose a multiple of "
                         f"{devices * parts * pack}")


def about(experiment: Experiment, config: Config) -> training.About:
    """What is said of a run at its start: what the data are called, which flags make it shorter, and
    whether it ends before its learning rate has fallen.
    """
    values = settings.flat(config)
    data = next((str(values[name]) for name in ("folder", "file", "text_file", "dataset")
                 if values.get(name)), experiment.name)
    shorter = ["--preset laptop"] * ("laptop" in experiment.presets) + ["fewer --steps"]
    smaller = [f"--{name}" for name in ("width", "batch_size") if name in values]
    return training.About(data, f"{', '.join(shorter)} or a smaller "
                                f"{' or '.join(smaller).replace('_', '-')}", _warning_of_rate(config))


def _warning_of_rate(config: Config) -> str:
    """What is to be said of a run that ends before its learning rate has fallen."""
    steps, decay = config.schedule.steps, flags.decay_steps(config)
    if not decay or steps >= decay:
        return ""
    return (f"the learning rate falls to {config.optimiser.final_learning_rate:g} over {decay} steps, "
            f"and the run ends at step {steps}: give {_longer(config)} as well, to have it fall in time")


def _longer(config: Config) -> str:
    """What has the learning rate fall until the run's end."""
    steps = config.schedule.steps
    if config.optimiser.schedule_images:
        return changing.given(config, "schedule_images", steps * config.schedule.batch_size)
    return changing.given(config, "decay_steps", steps)


def record(experiment: Experiment, config: Config, source: Source, reference: Reference
           ) -> dict[str, Any]:
    """The settings that a run's `config.json` holds."""
    return {**experiment.recorded(), **settings.flat(config), "sample_shape": list(source.sample_shape),
            "value_range": list(source.value_range), "num_classes": source.num_classes,
            "condition": condition_shapes(source), **_data(source), **_units(source),
            **_decoded(source, reference), **reference.about()}


def _decoded(source: Source, reference: Reference) -> dict[str, Any]:
    """Of latents: what their images are, and the shape of the latents."""
    if reference.decoding is None:
        return {}
    return {"sample_shape": list(reference.decoding.shape(source.sample_shape)),
            "value_range": [-1.0, 1.0], "trained_shape": list(source.sample_shape)}


def _data(source: Source) -> dict[str, Any]:
    """Which data these are, and what their classes are called, where that is known."""
    return ({"class_names": list(source.class_names)} if source.class_names else {}) | (
        {"data_sha256": source.digest} if source.digest else {})


def _units(source: Source) -> dict[str, Any]:
    """What the numbers of samples and conditions stand for, where they are scaled."""
    found = {"scaling": source.scaling, "numbers": source.numbers}
    return {name: scaling.as_json() for name, scaling in found.items() if scaling is not None}


def open_folder(experiment: Experiment, config: Config, recorded: Mapping[str, Any],
                change: Set[str] = frozenset()) -> Run:
    """Opens the run's folder; warns if it was begun with another version of the experiment's file."""
    of_data = recorded.keys() - settings.flat(config).keys() - {
        "experiment_file", "experiment_sha256", "class_names", "data_sha256"}
    folder = Run(config.run.run_dir, recorded, of_data | settings.identity(config),
                 change=change | of_data if "data" in change else change, before=settings.before(config))
    if not folder.config_path.exists():
        return folder
    existing = read_config(config.run.run_dir)["settings"]
    if "data_sha256" not in existing and "data" not in change:  # the first release's only say where
        _check_place(config.run.run_dir, existing, recorded)
    if opening.is_edited(experiment, existing):
        warnings.warn(f"{experiment.file} was changed since {config.run.run_dir} was begun with it",
                      UserWarning, stacklevel=2)
    return folder


def _check_place(run_dir: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises RunError if the images of two runs' settings are not in one folder, however it is spelt."""
    places = there.get("folder"), here.get("folder")
    if all(places) and places[0] != places[1] and not (
            os.path.exists(places[0]) and os.path.samefile(*places)):
        raise RunError(f"{run_dir} was trained on the images in {places[0]!r}, and doesn't say which "
                       "these were: bring them back to that place, or choose another --run-dir")


def make_evaluator(config: Config, reference: Reference, recorded: Mapping[str, Any]) -> Evaluator:
    """What measures samples in training."""
    how = config.evaluation
    return measuring.make_evaluator(
        reference, measuring.make_protocol(how.protocol, reference, features=how.features),
        how.eval_metrics or reference.quick, recorded, inception=how.inception,
        devices=local_devices(config.run.devices))


def training_arguments(experiment: Experiment, config: Config, game: GAN | Game, trained: Game,
                       source: Source, reference: Reference, recorded: Mapping[str, Any],
                       evaluate: training.Evaluate | None) -> dict[str, Any]:
    """What `training.train` is called with, besides game, source, folder and plan.

    Args:
        experiment: what is trained.
        config: its settings.
        game: what the experiment has made of them.
        trained: the same as a game.
        source: the data.
        reference: what samples are measured against.
        recorded: what the run's `config.json` holds.
        evaluate: what measures states in training, if something does.
    """
    seed, real, picture = config.schedule.seed, None, None
    shown = {"decode": reference.decoding.decode} if reference.decoding else {}
    if experiment.make_text:
        as_lines = experiment.make_text(recorded)
        picture = showing.sample_text(trained, seed, as_lines)
        real = showing.real_text(source, seed, as_lines)
    elif experiment.picture:
        picture = experiment.picture(config, game, source, reference)
    elif trained.sample is not None:
        picture = showing.sample_picture(trained, seed, recorded, source,
                                         measuring.requests(reference, recorded), **shown)
    if not experiment.make_text and trained.sample is not None:
        real = showing.real_picture(source, seed, recorded, **shown)
    return {"real": real, "picture": picture, "evaluate": evaluate, "resume": config.run.resume or None,
            "initial": initial_weights(config),
            "callbacks": [*callbacks(config, reference), *loggers(config, recorded)],
            "change": ("specification",),  # the settings say what it is
            "about": about(experiment, config)}


def _evaluate(config: Config, game: GAN | Game, reference: Reference, recorded: Mapping[str, Any],
              evaluator: Evaluator | None) -> training.Evaluate | None:
    """What measures states in training, if something does."""
    if evaluator is not None:
        return measuring.in_training(game, evaluator, reference, recorded,
                                     local_devices(config.run.devices))
    return measuring.by_judge(game, reference) if config.evaluation.eval_every else None


def initial_weights(config: Config) -> Callable[[Any], Any] | None:
    """What --init-from makes of the first state.

    Raises:
        ValueError: there is no such run, or no such network.
    """
    networks = config.networks
    if networks.init_from is None:
        if networks.init_networks is not None:
            raise ValueError("init_networks goes with --init-from: give the folder of a run")
        return None
    is_file = networks.init_from.endswith((".safetensors", ".npz"))
    known = (_networks_in_file if is_file else _networks_of_run)(networks.init_from)
    names = [name.strip() for name in (networks.init_networks or ",".join(known)).split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"{networks.init_from} has no network {name!r}: choose from "
                             f"{', '.join(known)} with --init-networks")
    return warm_start({name: known[name] for name in names}, partial=True)


def _networks_of_run(folder: str) -> dict[str, Any]:
    """The variables of each network of a run's latest checkpoint."""
    read_config(folder)  # it has to be a run's folder
    checkpoints = Checkpoints(Path(folder) / "checkpoints")
    try:
        state = checkpoints.load()
    finally:
        checkpoints.close()
    return {name: {"params": value["params"], **value.get("stats", {})}
            for name, value in sorted(state.items())
            if isinstance(value, Mapping) and "params" in value and name != "ema"}


def _networks_in_file(path: str) -> dict[str, Any]:
    """The variables of each network that `jaxgan export` has written.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: name one that {commands.called('export')} wrote")
    found = unflatten_dict(load_weights(path), sep="/")
    for name, variables in found.items():
        if not isinstance(variables, Mapping) or not isinstance(variables.get("params"), Mapping):
            raise ValueError(f"{path} has no {name}/params/...: name a file that "
                             f"{commands.called('export')} wrote")
    return dict(sorted(found.items()))


def callbacks(config: Config, reference: Reference) -> list[training.Callback]:
    """What is called after evaluations: early stopping, if it is asked for.

    Raises:
        ValueError: there is nothing to watch.
    """
    patience, best = config.evaluation.patience, config.run.best_metric
    if not patience:
        return []
    if not best or not config.evaluation.eval_every:
        raise ValueError("patience is for evaluations and their best metric: give --eval-every and "
                         "--best-metric as well")
    return [training.early_stopping(best, patience, highest=measuring.is_better_higher(reference, best))]


def loggers(config: Config, recorded: Mapping[str, Any]) -> list[training.Callback]:
    """What --log-to asks for.

    Raises:
        ValueError: there is no such logger.
        MissingExtra: it isn't installed.
    """
    known = {"csv": csv_logger, "wandb": partial(wandb_logger, settings=recorded)}
    names = [name.strip() for name in config.run.log_to.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"log_to must be {' or '.join(known)}, or both with a comma; got "
                         f"{unknown[0]!r}")
    return [known[name](config.run.run_dir) for name in names]


def plan(config: Config, reference: Reference | None = None) -> training.Plan:
    """How long to train and how often to report; the reference's metrics say what is best.

    Raises:
        ValueError: a setting is out of its range.
    """
    resume, values = config.run.resume, settings.flat(config)
    if resume and resume not in ("auto", "latest") and not resume.isdecimal():
        raise ValueError(f"resume must be auto, latest or a step; got {resume!r}")
    best = config.run.best_metric
    named = {field.name: values[field.name] for field in dataclasses.fields(training.Plan)
             if field.name in values}
    return training.Plan(**named | {"batches_per_step": config.schedule.n_critic,
                                    "best_metric": best or None, "best_is_highest": (
        bool(reference) and measuring.is_better_higher(reference, best))})


def condition_shapes(source: Source) -> Any:
    """The shape and dtype of an example's condition, by name if it has several; None without one."""
    condition = training.example_batch(source, 1).condition
    return jax.tree.map(lambda x: [list(x.shape[1:]), str(x.dtype)], condition)


def local_devices(count: int) -> list[jax.Device]:
    """The devices of this process that are used; 0 for all."""
    check_devices()
    return jax.local_devices()[:count or None]
