"""Finds the styles of given images, by a trained run whose generator has styles, like StyleGAN2's."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxgan import console, keys, styles
from jaxgan.data import pixels, scale
from jaxgan.data.scaling import from_json
from jaxgan.features import FeatureNetwork, Features
from jaxgan.gan import GAN, sampled_variables
from jaxgan.pictures import grid, save_png
from jaxgan.types import Array, PyTree

from . import launch, measuring
from .commands import called
from .opening import OpenRun, open_run
from .sample import label_number
from .showing import is_of_classes

_COLUMNS = 8  # images in a row of the picture
_LEAST = 1e-8  # what is divided by is above 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which images, and how."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run's folder."""
    images: str = ""
    """An image, a folder of images or an archive of one; by default the first held-out ones."""
    num: int = 8
    """How many images at most, the first ones."""
    label: str = ""
    """Of a run for classes: the one that all images are of, by its name, or else its number; by default
    that of each held-out image."""
    features: Literal["classifier", "inception", "none"] | None = None
    """Whose features images are compared in, besides their pixels: those of a classifier of the run's
    data, of Inception, or none; None: the run's, as it is measured."""
    inception: str = ""
    """The weights of Inception; by default $JAXGAN_INCEPTION."""
    steps: int = 1000
    """Steps for each image."""
    learning_rate: float = 0.1
    """The largest one."""
    by_layer: bool = False
    """A style for each layer, which comes nearer, and may be none that the generator would use."""
    seed: int = 0
    """Of the average style and of the noise."""
    checkpoint: str = "latest"
    """The checkpoint: latest, best or a step."""
    experiment: str = ""
    """Of a run of your own experiment: the Python file that holds it."""
    data_dir: str = ""
    """Where the run's data are, if not where they were."""
    out: str = ""
    """A folder for picture.png, in which each image is above its projection, and styles.npy; by default
    a new one in the run's folder `projected`."""


def main(options: Options) -> None:
    """Projects the images."""
    for name in ("num", "steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(options, name)}")
    if not options.learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0; got {options.learning_rate}")
    run = open_run(options.run_dir, options.checkpoint, experiment=options.experiment,
                   data_dir=options.data_dir)
    if not (isinstance(run.game, GAN) and styles.has_styles(run.game.generator)):
        raise ValueError(f"{options.run_dir} has a generator without styles: project by a run of "
                         f"{called('stylegan2')}")
    if run.reference.decoding:
        raise ValueError(f"{options.run_dir} makes latents, and images are projected on runs that make "
                         "images: choose another run")
    if options.out:
        _check_out(Path(options.out))
    targets = _targets(options, run)
    condition = _labels(options, run, len(targets))
    low, high = run.settings["value_range"]
    project = jax.jit(partial(
        styles.project, run.game, distance=partial(distance, _network(options, run), (low, high)),
        steps=options.steps, learning_rate=options.learning_rate, by_layer=options.by_layer))
    reals, key, found = scale(jnp.asarray(targets), (low, high)), keys.of_seed(options.seed), []
    with console.Bar(len(targets), desc="projected", unit="image") as bar:
        for index in range(len(targets)):
            one = slice(index, index + 1)
            found.append(project(run.state, reals[one], key=jax.random.fold_in(key, index),
                                 condition=None if condition is None else condition[one]))
            bar.update()
    made = np.concatenate([pixels(_rendered(run, one), (low, high)) for one in found])
    folder = _folder(options)
    np.save(folder / "styles.npy", np.concatenate([one.ws for one in found]))
    columns = min(len(targets), _COLUMNS)
    blank = np.zeros((-len(targets) % columns, *targets.shape[1:]), np.uint8)
    rows = [np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])
            for images in (targets, made)]
    save_png(folder / "picture.png", grid(np.stack(rows, 1).reshape(-1, *targets.shape[1:]), columns))
    psnr = -10 * np.log10(np.square((targets - made.astype(np.float64)) / 255).mean() + _LEAST)
    console.say(f"{folder / 'picture.png'}: {console.counted(len(targets), 'image')}, each above its "
                f"projection; PSNR {psnr:.4g} dB",
                f"{folder / 'styles.npy'}: the styles, {list(found[0].ws.shape[1:])} for each image")


def distance(network: FeatureNetwork | None, value_range: tuple[float, float], samples: Array,
             targets: Array) -> Array:
    """How far images are from others, [batch]: the squared distance of pixels, by these' variance.

    And of a network's features, if there is one, by the square of these.
    """
    low, high = value_range
    here, there = ((images - low) / (high - low) for images in (samples, targets))
    found = jnp.square(here - there).mean((1, 2, 3)) / (there.var((1, 2, 3)) + _LEAST)
    if network is not None:
        see = cast("Callable[[PyTree, Array], Features]", network.see)
        here, there = (see(network.variables, images).pooled for images in (here, there))
        found += jnp.square(here - there).sum(1) / (jnp.square(there).sum(1) + _LEAST)
    return found


def _rendered(run: OpenRun, found: styles.Projection) -> Array:
    """The sample of a projection, with its noise."""
    noise = jax.tree.map(lambda x: x[0], found.noise)
    ema = dict(sampled_variables(run.state)) | ({"noise": noise} if noise else {})
    return styles.synthesise(run.game, run.state._replace(ema=ema), found.ws)


def _targets(options: Options, run: OpenRun) -> np.ndarray:
    """The images, uint8 [num, height, width, channels]."""
    if options.images:
        found = measuring.of_folder(options.images, tuple(run.settings["sample_shape"]),
                                    from_json(run.settings.get("scaling")), run.settings.get("colour"))
    else:
        found = run.reference.reals("test")
    targets = found.take(np.arange(min(options.num, found.count or options.num)))
    if targets.shape[1:] != tuple(run.settings["sample_shape"]):
        raise ValueError(f"the run's data have images of {targets.shape[1:]}, and it makes some of "
                         f"{tuple(run.settings['sample_shape'])}: give --images")
    return targets


def _labels(options: Options, run: OpenRun, count: int) -> np.ndarray | None:
    """The classes of the images, of a run for classes.

    Raises:
        ValueError: it isn't known which ones they are, or there are none.
    """
    classes = run.settings["num_classes"] if is_of_classes(run.settings) else 0
    if not classes:
        if options.label:
            raise ValueError(f"{options.run_dir} is no run for classes: leave out --label")
        return None
    if options.label:
        label = label_number(options.label, classes, run.settings.get("class_names"))
        return np.full(count, label, np.int32)
    if options.images or run.reference.labelled is None:
        raise ValueError(f"{options.run_dir} is a run for classes: say by --label of which one the "
                         "images are")
    return run.reference.labelled("test").labels[:count]


def _network(options: Options, run: OpenRun) -> FeatureNetwork | None:
    """The features that images are compared in; None for their pixels alone.

    Raises:
        ValueError: there are none of such.
    """
    asked, shape = options.features, tuple(run.settings["sample_shape"])
    known = None  # the shape of the images that a classifier would learn from; of imported weights none
    with suppress(ValueError, OSError):
        known = run.reference.labelled and run.reference.labelled("train").images.shape[1:]
    if asked == "classifier" and known != shape:
        raise ValueError(f"there is no classifier for images of {shape}, as the run has no data of "
                         "these: choose --features none, or inception")
    if asked is None:
        own = measuring.make_protocol("default", run.reference).features
        asked = own if known == shape else "none"
    if asked not in ("classifier", "inception"):
        return None
    return measuring.make_network(asked, run.reference, options.inception, run.settings["sample_shape"])


def _check_out(folder: Path) -> None:
    """Raises ValueError unless the results can be written there, and nothing is in their place."""
    launch.file_to_write(str(folder))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder with --out")
    for name in ("picture.png", "styles.npy"):
        if (folder / name).exists():
            raise ValueError(f"there is {folder / name} already: name another folder with --out")


def _folder(options: Options) -> Path:
    """Where the picture goes, made."""
    if options.out:
        folder = Path(options.out)
    else:
        above, count = Path(options.run_dir) / "projected", 1
        while (folder := above / f"{count}").exists():
            count += 1
        above.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    launch.tool(main, Options)
