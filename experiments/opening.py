"""Runs, opened from their folders: the experiment, the configuration, and a checkpoint's state.

A run's folder isn't trusted. Its `config.json` can name an experiment of this package, and is checked
against the files there before anything is imported; a user's own experiment is imported from the file
that the user names, never from what the folder says.
"""

import importlib
import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from jaxgan import files
from jaxgan.checkpoints import Checkpoints
from jaxgan.data.scaling import from_json
from jaxgan.evaluation import nearest
from jaxgan.features import load_about, load_weights
from jaxgan.gan import GAN
from jaxgan.loops import Game
from jaxgan.parallel import check_devices
from jaxgan.runs import read_config
from jaxgan.steps import game as game_of
from jaxgan.transfer import warm_start
from jaxgan.types import Batch

from . import settings as setting
from .commands import called, experiments
from .experiment import Experiment
from .flags import Config, check_sizes
from .measuring import Reference, is_better_higher

_DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
           "bfloat16", "float16", "float32", "float64")  # of conditions
_ABOUT = "jaxgan"  # the text in an exported file


class OpenRun(NamedTuple):
    """A run, opened.

    Attributes:
        experiment: what was run.
        config: its configuration.
        settings: all that `config.json` says of it: the configuration, flat, and what the data are.
        game: what was trained: a GAN, or a game of one's own.
        reference: what its samples are measured against, opened when it is needed.
        state: the checkpoint's; None if none was asked for.
    """

    experiment: Experiment
    config: Config
    settings: dict[str, Any]
    game: GAN | Game
    reference: Reference
    state: Any


def open_run(path: str | Path, checkpoint: str | int | None = "latest", *, experiment: str | Path = "",
             data_dir: str = "", autoencoder: str = "") -> OpenRun:
    """Opens a run.

    Args:
        path: its folder, or a .safetensors file that `experiments.export` has written: then the state
            holds the networks of that file, and of its average's where there is one, and nothing that
            only training needs.
        checkpoint: "latest", "best" or a step; None for no state. A file has one alone, "latest".
        experiment: the file of the user's own experiment that was run, which is then imported.
        data_dir: where the data are, if not where they were: the folder of data sets, or of a run on a
            folder of images, a file of arrays or a text file, that.
        autoencoder: of a run on latents, where what decodes them is, if not where it was.

    Raises:
        ValueError: it is of an unknown experiment, a setting is amiss, or there is no such checkpoint.
        RunError: it isn't a run's folder, or of a later version.
        CheckpointError: the checkpoint is damaged.
    """
    made, config, settings = read_run(path, experiment)
    values = setting.flat(config)
    if data_dir:
        named = next((name for name in ("folder", "file", "text_file") if values.get(name)), "data_dir")
        config = setting.replace(config, **{named: data_dir})
    if autoencoder:
        if not values.get("autoencoder"):
            raise ValueError(f"autoencoder is for runs on latents, and {path} is none: leave it out")
        config = setting.replace(config, autoencoder=autoencoder)
    game = made.make_game(config, tuple(trained_shape(settings)))
    reference = made.make_reference(config)
    state = (None if checkpoint is None else
             _from_file(path, game, settings, checkpoint) if is_exported(path) else
             restore(path, config, game, settings, reference, checkpoint))
    return OpenRun(made, config, settings, game, reference, state)


def read_run(path: str | Path, experiment: str | Path = "") -> tuple[Experiment, Config, dict[str, Any]]:
    """A run's experiment, its configuration, and all its settings; arguments as of `open_run`."""
    settings = (_about(path) if is_exported(path) else read_config(path))["settings"]
    made = _own(path, settings, experiment) if experiment else _ours(path, settings)
    for name, is_valid, wanted in (
            ("sample_shape", _is_shape_or_several, "a list of sizes, or of such lists"),
            ("value_range", _is_range, "the lowest and the highest value"),
            ("num_classes", lambda count: count in (None, 0) or _is_size(count), "a number of classes"),
            ("condition", _is_condition, "shapes and dtypes by name"),
            ("trained_shape", lambda shape: shape is None or _is_shape(shape), "a list of sizes"),
            ("scaling", _is_scaling, "low, high and dtype"), ("numbers", _is_scaling, "the same")):
        if not is_valid(settings.get(name)) or (
                name not in settings and name not in ("trained_shape", "scaling", "numbers")):
            raise ValueError(f"{name} in {path}/config.json must be {wanted}; got "
                             f"{settings.get(name)!r:.200}")
    default = made.Config()
    if settings.get("made_by") == "train":  # by jaxgan.training.train, which knows no other settings
        settings = setting.flat(default) | settings
    config = setting.read(default, settings, f"{path}/config.json")
    check_sizes(config)
    return made, config, settings


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**20


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_size, value)) and math.prod(value) < 2**31


def _is_shape_or_several(value: Any) -> bool:
    return _is_shape(value) or (isinstance(value, list) and bool(value) and all(map(_is_shape, value)))


def _is_range(value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 2
            and all(type(end) in (int, float) and abs(end) < 2**63 for end in value)
            and value[0] < value[1])


def _is_scaling(value: Any) -> bool:
    try:
        from_json(value)
    except ValueError:
        return False
    return True


def _is_condition(value: Any) -> bool:
    """Whether it is None, the shape and dtype of an example's, or these by name."""
    if isinstance(value, dict):
        return all(map(_is_condition, value.values()))
    return value is None or (isinstance(value, list) and len(value) == 2 and _is_shape(value[0])
                             and value[1] in _DTYPES)


def trained_shape(settings: Mapping[str, Any]) -> list[Any]:
    """The shape of what a run's networks make: of latents theirs, not that of their images."""
    return settings.get("trained_shape") or settings["sample_shape"]


def load(name: str) -> Experiment:
    """Returns an experiment of this package.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in experiments():
        raise ValueError(f"there is no experiment {name!r}: {nearest(str(name), experiments())}")
    return importlib.import_module(f"{__package__}.{name}").experiment


def load_file(path: str | Path) -> Experiment:
    """Imports a user's own experiment.

    Raises:
        ValueError: there is no such file, or it holds no experiment.
    """
    path = Path(path).resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"there is no Python file {path}: name the file of the experiment")
    name = f"own experiment {path}"  # no other module's
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as for a script, whose neighbours can be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} can't be imported ({type(error).__name__}: {error})") from error
    made = getattr(module, "experiment", None)
    if type(made).__name__ == "Experiment" and not isinstance(made, Experiment):
        there = type(made).__module__.partition(".")[0]
        raise ValueError(f"{path} imports {there}, which is another copy of {__package__}: import "
                         f"{__package__} there")
    if not isinstance(made, Experiment):
        raise ValueError(f"{path} holds no experiment: it has to say experiment = Experiment(...)")
    return made


def is_edited(experiment: Experiment, settings: Mapping[str, Any]) -> bool:
    """Whether the file of a user's own experiment is another than what a run was trained with."""
    there, here = settings.get("experiment_sha256"), experiment.recorded().get("experiment_sha256")
    return there != here


def _ours(path: str | Path, settings: Mapping[str, Any]) -> Experiment:
    name = settings.get("experiment")
    if "experiment_file" in settings:
        raise ValueError(f"{path} is of a user's own experiment, {name!r}: give its file with "
                         f"--experiment (it was {settings['experiment_file']!r})")
    if settings.get("made_by") == "train":
        raise ValueError(f"{path} was trained from Python: give the file that holds its experiment with "
                         "--experiment")
    if name not in experiments():
        raise ValueError(f"{path} is of the experiment {name!r}, which isn't one of "
                         f"{', '.join(experiments())}")
    return load(name)


def _own(path: str | Path, settings: Mapping[str, Any], file: str | Path) -> Experiment:
    if settings.get("made_by") == "train" and "experiment_file" not in settings:
        return load_file(file)
    if "experiment_file" not in settings:
        raise ValueError(f"{path} is of this project's experiment {settings.get('experiment')!r}: leave "
                         "--experiment out")
    if Path(file).stem != settings.get("experiment"):
        raise ValueError(f"{path} is of the experiment {settings.get('experiment')!r}, and {file} is "
                         "another one's file")
    made = load_file(file)
    if is_edited(made, settings):
        warnings.warn(f"{file} was changed since {path} was trained with it", UserWarning, stacklevel=4)
    return made


def restore(path: str | Path, config: Config, game: GAN | Game, settings: Mapping[str, Any],
            reference: Reference, checkpoint: str | int) -> Any:
    """Reads a run's checkpoint: latest, best (as the reference's metrics say) or a step."""
    check_devices()
    checkpoint = str(checkpoint)
    if checkpoint not in ("latest", "best") and not checkpoint.isdecimal():
        raise ValueError(f"checkpoint must be latest, best or a step; got {checkpoint!r}")
    folder = Path(path) / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"there is no checkpoint in {path}")
    template = _template(game, settings)
    checkpoints = Checkpoints(folder, config.run.keep, config.run.best_metric or None,
                              highest=checkpoint == "best" and is_better_higher(
                                  reference, config.run.best_metric))
    try:
        step = None if checkpoint == "latest" else checkpoint
        if step == "best" and (step := checkpoints.best_step()) is None:
            raise ValueError(f"{path} has no best checkpoint: it was trained without --best-metric")
        return checkpoints.restore(template, None if step is None else int(step))
    finally:
        checkpoints.close()


def is_exported(path: str | Path) -> bool:
    """Whether a path is of a file of networks, not of a run's folder."""
    return Path(path).suffix == ".safetensors" and not Path(path).is_dir()


def folder_of(path: str | Path) -> Path:
    """A run's folder; of an exported file the one that it is in."""
    return Path(path).parent if is_exported(path) else Path(path)


def exported_about(settings: Mapping[str, Any], step: int) -> dict[str, str]:
    """What an exported file says of its networks, for `open_run`."""
    return {_ABOUT: json.dumps({"settings": dict(settings), "step": step})}


def _about(path: str | Path) -> dict[str, Any]:
    """What `exported_about` wrote.

    Raises:
        ValueError: there is no such file, or it says nothing of the kind.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: name one that {called('export')} wrote")
    try:
        about = files.parse_json(load_about(path).get(_ABOUT, "").encode())
    except ValueError:
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("settings"), dict) or (
            type(about.get("step")) is not int or not 0 <= about["step"] < 2**31):
        raise ValueError(f"{path} doesn't say which experiment its networks are of: name a file that "
                         f"{called('export')} --format safetensors wrote")
    return about


def _from_file(path: str | Path, game: GAN | Game, settings: Mapping[str, Any], checkpoint: str | int
               ) -> Any:
    """A state with the networks of an exported file; all else in it is 0.

    Raises:
        ValueError: another checkpoint is asked for, or the networks are others.
    """
    check_devices()
    if checkpoint != "latest":
        raise ValueError(f"{path} holds one state; got the checkpoint {checkpoint!r}: leave it out")
    networks = unflatten_dict(load_weights(path), sep="/")
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), _template(game, settings))
    state = warm_start(networks)(zeros)
    return state._replace(step=jnp.int32(_about(path)["step"]))


def _template(game: GAN | Game, settings: Mapping[str, Any]) -> Any:
    """The shapes of a run's state."""
    count = 2 * (settings.get("pack") or 1)  # examples, of which the critic may score packs

    def batch(shape: Sequence[int], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *shape), dtype)

    condition = jax.tree.map(lambda leaf: batch(*leaf), settings["condition"],
                             is_leaf=lambda leaf: isinstance(leaf, list))
    shapes = trained_shape(settings)
    is_several = any(isinstance(size, list) for size in shapes)
    samples = tuple(map(batch, shapes)) if is_several else batch(shapes)
    return jax.eval_shape(game_of(game).init, jax.random.key(0), Batch(samples, condition))
