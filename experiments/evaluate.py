"""Measures a trained run's samples, or a folder of images, by a protocol."""

import dataclasses
import json
from typing import Annotated, Any

import tyro

from jaxgan import console, evaluation, files
from jaxgan.data import load
from jaxgan.data.dataset import Size
from jaxgan.data.scaling import BYTES, from_json
from jaxgan.digests import params_digest
from jaxgan.evaluation import Samples
from jaxgan.runs import write_evaluation
from jaxgan.steps import game as game_of

from . import launch, measuring
from .flags import as_size
from .opening import folder_of, open_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(measuring.Flags):
    """What to measure, and how."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN_DIR]")] = ""
    """The run's folder, or a .safetensors file of its networks; the numbers go to evaluation.json in
    the folder, or beside the file."""
    checkpoint: str = "latest"
    """The checkpoint: latest, best or a step."""
    experiment: str = ""
    """For a run of your own experiment: the Python file that holds it."""
    metrics: str = ""
    """What to measure, a list like fd,kid; by default what fits the data. See docs/evaluation.md."""
    num: int = 0
    """How many samples, if not the protocol's number; of --images, all if the protocol leaves it open
    and there are fewer."""
    seed: int = 0
    """The seed of the latents and of the metrics' random choices."""
    as_trained: bool = False
    """Use the generator as trained even if there is an averaged one."""
    images: str = ""
    """A folder of images to measure instead of a run's samples, such as another program's."""
    dataset: str = ""
    """The data set to measure against, by its name or folder:PATH, in place of the run's: such as the
    whole of a set of which the run saw only a few images."""
    image_size: int | str = 0
    """With --images and --dataset: the size that all images are cropped and resized to, 64 or 48x64;
    0: the data set's own; a folder has one if its images are all of one size."""
    out: str = ""
    """With --images: a JSON file for the numbers."""
    data_dir: str = ""
    """Where the data are, if they have moved: data sets, or the run's folder of images, or text."""
    autoencoder: str = ""
    """For a run on latents: where its autoencoder is, if that has moved."""
    batch_size: int = 100
    """How many samples are computed at a time."""
    devices: int = 0
    """How many devices to use; 0: all."""


def main(options: Options) -> None:
    """Measures, prints the table and writes it down."""
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {options.batch_size}")
    if not options.run_dir and not (options.images and options.dataset):
        raise ValueError("give a run's folder, or --images FOLDER and --dataset NAME")
    if options.image_size and (options.run_dir or not options.dataset):
        raise ValueError("image_size goes with --images and --dataset, since a run has its own: leave "
                         "it out")
    if options.images and options.dataset and options.run_dir:
        raise ValueError("images are measured against a run's data or against --dataset: leave one out")
    if options.out and not options.images:
        raise ValueError("out goes with --images, and a run's numbers go to its evaluation.json: leave "
                         "it out")
    out = launch.file_to_write(options.out) if options.out else None
    about, reference, settings, fakes, judge = (_images if options.images else _run)(options)
    if not reference.metrics:
        _check_judged(options)
        found = measuring.entry(None, reference, judge(), samples="", **about)
        console.say(*measuring.table(found, reference))
        write_evaluation(folder_of(options.run_dir), found)
        return
    protocol = measuring.make_protocol(
        options.protocol, reference, features=options.features, seed=options.seed,
        **({"num_fake": options.num} if options.num else {}), averaged=not options.as_trained)
    samples = fakes(protocol)
    evaluator = measuring.make_evaluator(
        reference, protocol, options.metrics or measuring.default_metrics(reference, protocol, samples),
        settings, inception=options.inception, batch_size=options.batch_size,
        devices=launch.local_devices(options.devices), most=samples.count if options.images else None)
    values = measuring.measure(evaluator, samples) | judge()
    found = measuring.entry(evaluator, reference, values, samples=samples.name, **about)
    console.say(*measuring.table(found, reference))
    if not options.images:
        write_evaluation(folder_of(options.run_dir), found)
    elif out:
        files.write(out, json.dumps(found, indent=2) + "\n")


def _check_judged(options: Options) -> None:
    """Raises ValueError for options that mean samples, of a run that has none."""
    kept = ("run_dir", "checkpoint", "experiment", "data_dir")
    for field in dataclasses.fields(options):
        if field.name not in kept and getattr(options, field.name) != field.default:
            raise ValueError(f"{field.name} is for samples, which a critic alone has none of: leave it "
                             "out")


def _run(options: Options):
    run = open_run(options.run_dir, options.checkpoint, experiment=options.experiment,
                   data_dir="" if options.dataset else options.data_dir, autoencoder=options.autoencoder)
    state, reference, settings = run.state, run.reference, run.settings
    if options.dataset:
        reference, settings = _another(options, settings)
        reference = reference._replace(decoding=run.reference.decoding)
    about = {"step": int(state.step),
             "params_sha256": params_digest(*game_of(run.game).networks(state).values())}

    def fakes(protocol: evaluation.Protocol) -> Samples:
        return measuring.make_sampler(run.game, protocol, reference, settings,
                                      launch.local_devices(options.devices))(state)

    def judge() -> dict[str, float]:
        return reference.judge.make(run.game)(state) if reference.judge else {}

    return about, reference, settings, fakes, judge


def _another(options: Options, settings: dict[str, Any]) -> tuple[measuring.Reference, dict[str, Any]]:
    """What a run's samples are measured against in place of its own data, and settings that fit it."""
    shape, scaling = settings["sample_shape"], settings.get("scaling")
    if len(shape) != 3 or (from_json(scaling) or BYTES) != BYTES:
        raise ValueError(f"dataset is for runs on images of bytes, and {options.run_dir} is none: leave "
                         "it out")
    reference = _data_set(options, (shape[0], shape[1]))
    if (found := reference.labelled("train").images.shape[1:]) != tuple(shape):
        raise ValueError(f"the run's images have the shape {tuple(shape)}, and those of "
                         f"{options.dataset} {found}: give another --dataset")
    return reference, {name: value for name, value in settings.items() if name != "data_sha256"}


def _data_set(options: Options, size: Size | None) -> measuring.Reference:
    return measuring.of_images(lambda split: load(
        options.dataset, split, data_dir=options.data_dir or None, image_size=size))


def _images(options: Options):
    if options.run_dir:
        run = open_run(options.run_dir, None, experiment=options.experiment, data_dir=options.data_dir,
                       autoencoder=options.autoencoder)
        reference, settings = run.reference, run.settings
    else:
        size = as_size(options.image_size) if options.image_size else None
        reference = _data_set(options, size)
        training = reference.labelled("train")
        settings = {"sample_shape": training.images.shape[1:],
                    "scaling": training.scaling.as_json()}
    samples = measuring.of_folder(options.images, tuple(settings["sample_shape"]),
                                  from_json(settings.get("scaling")), settings.get("colour"))
    return {"step": 0}, reference, settings, lambda protocol: samples, dict


if __name__ == "__main__":
    launch.tool(main, Options)
