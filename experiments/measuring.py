"""What experiments, `evaluate` and `compare` measure with: reals, feature networks, tables."""

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, evaluation, features, files, keys
from jaxgan.data import DataNotFoundError, Dataset, Source, load, pixels, scale
from jaxgan.data.dataset import Size
from jaxgan.data.scaling import BYTES, Scaling
from jaxgan.evaluation import (
    METRICS,
    Evaluator,
    Extractor,
    Metric,
    Number,
    Present,
    Protocol,
    Samples,
)
from jaxgan.gan import GAN
from jaxgan.loops import Game
from jaxgan.runs import check_data
from jaxgan.types import Array, Batch

from .settings import reports

FEATURES = ("classifier", "inception", "raw", "random_projection")
_MOST_RAW = 512  # numbers in a sample that are their own features; of more, a projection is
_CLASSIFYING = ("classifier", "inception")
_DIAGNOSED = 256  # samples that the critic is diagnosed on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """How to measure, in training and afterwards."""

    protocol: Literal[*evaluation.PRESETS] = reports("default")
    """By which protocol."""
    features: Literal["", *FEATURES] = reports("")
    """The feature network; by default the protocol's, or the experiment's."""
    inception: str = reports("")
    """The file with Inception's weights; by default $JAXGAN_INCEPTION."""


class Judge(NamedTuple):
    """What is measured of a state besides its samples.

    Attributes:
        make: game, or GAN -> (state -> numbers by their full names).
        numbers: what these are.
        table: None, or the values of these by name -> the lines that show them.
    """

    make: Callable[[Any], Callable[[Any], dict[str, float]]]
    numbers: tuple[Number, ...]
    table: Callable[[Mapping[str, float]], list[str]] | None = None


class Decoding(NamedTuple):
    """How samples that are latents become images, which are shown and measured.

    Attributes:
        decode: samples, [count, ...] -> images in [-1, 1], float32, on the host.
        shape: the shape of a sample -> that of its image.
        trained: the samples of a split as the networks are trained on them.
    """

    decode: Callable[[Any], np.ndarray]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    trained: Callable[[str], Samples]


class Reference(NamedTuple):
    """What an experiment's samples are measured against.

    Attributes:
        reals: the real samples of a split, "train" or "test"; DataNotFoundError if there are none.
        features: the feature network, if none is asked for; or what says so when it is needed.
        quick: the metrics for evaluations in training, if none are asked for.
        metrics: those for afterwards; "" where there are no samples, and the judge says all.
        labelled: None, or the labelled images of a split that the classifier learns from.
        own: metrics that the experiment brings, besides the library's.
        num_fake: how many samples, where the protocol leaves it open; 0 for as many as there are
            held-out reals, or 10,000 if these have no end.
        requests: None, or what samples are drawn for, by split; "test" for evaluations.
        judge: None, or what else is measured of a state.
        baselines: what other samples the numbers are to be seen beside, by name.
        present: None for what `evaluation.presented` gives, or how a run's samples are measured, of data
            that `metrics` alone are for.
        about: what a run's settings hold of the data; samples are only measured against the same.
        decoding: None, or how samples become what the reals are, where they are latents of images.
    """

    reals: Callable[[str], Samples]
    features: str | Callable[[], str]
    quick: str
    metrics: str
    labelled: Callable[[str], Dataset] | None = None
    own: tuple[Metric, ...] = ()
    num_fake: int = 0
    requests: Callable[[str], Samples] | None = None
    judge: Judge | None = None
    baselines: Mapping[str, Callable[[], Samples]] = MappingProxyType({})
    present: Present | None = None
    about: Callable[[], Mapping[str, Any]] = dict
    decoding: Decoding | None = None


def untrained_features(sample_shape: Sequence[int]) -> str:
    """The features of samples that no network was trained on: themselves, or their projection."""
    return "raw" if math.prod(sample_shape) <= _MOST_RAW else "random_projection"


def of_images(open_data: Callable[[str], Dataset],
              features: str | Callable[[], str] = "classifier", quick: str = "fd",
              metrics: str = "fd,kid,is,pr,dc,copying,swd") -> Reference:
    """Images of a data set, opened when they are needed."""
    labelled = cache(open_data)
    return Reference(lambda split: evaluation.of_dataset(labelled(split), split), features, quick,
                     metrics, labelled)


def of_source(open_source: Callable[[], Source], name: str, features: str, quick: str, metrics: str,
              **options: Any) -> Reference:
    """Samples that a source draws without end; those of the two splits are different ones."""
    return Reference(cache(lambda split: evaluation.of_source(
        open_source(), f"{name} {split}", keys.stream(jax.random.key(0), f"reals {split}"))),
        features, quick, metrics, **options)


def of_folder(folder: str, sample_shape: tuple[int, ...], scaling: Scaling | None = None,
              colour: str | None = None) -> Samples:
    """The images of a folder or an archive, all of them, brought to this shape.

    Args:
        folder: where they are.
        sample_shape: of the samples that they are to be compared with.
        scaling: what the values of those stand for; None for bytes.
        colour: "pages" if their channels are pages.

    Raises:
        ValueError: they are in colour, but the shape is of grey ones; or of another kind.
    """
    if len(sample_shape) != 3:
        raise ValueError(f"images can't be compared with samples of shape {sample_shape}")
    how = {"image_size": sample_shape[:2]}
    if scaling not in (None, BYTES) or sample_shape[2] not in (1, 3, 4) or colour == "pages":
        found = load(f"folder:{folder}", "all", **how,
                     colour="grey" if sample_shape[2] == 1 and colour != "pages" else "pages")
        scaling = scaling or BYTES
        if (found.scaling.dtype, found.images.shape[1:]) != (scaling.dtype, tuple(sample_shape)):
            raise ValueError(f"the images in {folder} are {found.scaling.dtype} of shape "
                             f"{found.images.shape[1:]}, but they are to be compared with "
                             f"{scaling.dtype} of {tuple(sample_shape)}")
        images = pixels(scaling.to_float(found.images))
        return Samples(folder, len(images), lambda rows: images[rows])
    images = load(f"folder:{folder}", "all", **how,
                  colour="rgba" if sample_shape[2] == 4 else "rgb").images
    if sample_shape[2] == 1:
        if (images != images[..., :1]).any():
            raise ValueError(f"the images in {folder} are in colour, but they are to be compared with "
                             "grey ones")
        images = images[..., :1]
    return Samples(folder, len(images), lambda rows: images[rows])


def cache_folder() -> Path | None:
    """Where programs, features of reals, and classifiers are kept between commands; None for nowhere.

    A home that isn't there, or that nothing can be written to, is warned of once.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxgan"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter: nobody knows where home is
        return _without_cache(files.reason(error))
    return folder


@cache
def _without_cache(why: str) -> None:
    warnings.warn(f"nothing is kept between commands ({why}): give a folder with XDG_CACHE_HOME",
                  UserWarning, stacklevel=3)


def open_splits(dataset: str, data_dir: str = "", image_size: Size | None = None
                ) -> tuple[Dataset, Dataset]:
    """Opens a data set's training and test images."""
    return tuple(load(dataset, split, data_dir=data_dir or None, image_size=image_size)
                 for split in ("train", "test"))


def kept_path(kind: str, name: str) -> Path | None:
    """Where a trained network is kept; None for nowhere."""
    folder = cache_folder()
    return folder and folder / kind / f"{name}.npz"


def classifier_path(training: Dataset) -> Path | None:
    """Where the classifier of a data set is kept; None for nowhere."""
    return kept_path("classifiers", training.digest[:16])


def load_kept(path: Path, load: Callable[[Path], Any]) -> Any:
    """Returns what is kept in a file; None if there is none, or it is damaged, of which is warned."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"{path} is damaged, so that another is trained ({error.__cause__})", UserWarning,
                      stacklevel=3)
        return None


def train_classifier(training: Dataset, test: Dataset, **options: Any) -> features.TrainedClassifier:
    """Trains a classifier, with a progress bar."""
    epochs = options.get("epochs") or features.default_epochs(training)
    with console.Bar(epochs, desc=console.printable(f"classifier of {training.name}"), unit="epoch",
                     leave=False) as bar:
        def progress(epoch: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()

        return features.train_classifier(training, test, progress=progress, **options)


def train_reader(samples: np.ndarray, wanted: np.ndarray, num_classes: int | None) -> features.Reader:
    """Trains what reads conditions in samples, with a progress bar."""
    with console.Bar(desc="reader of conditions", unit="update", **console.ASIDE) as bar:
        def progress(done: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(done - bar.n)

        return features.train_reader(samples, wanted, num_classes or 0, progress=progress)


def obtain_classifier(training: Dataset, test: Dataset) -> features.TrainedClassifier:
    """Returns the classifier that is kept for a data set; trains and keeps one if there is none."""
    return obtain(
        classifier_path(training), features.load_classifier, lambda: train_classifier(training, test),
        features.save_classifier, lambda about: f"the classifier of {training.name}: test accuracy "
                                                f"{100 * about['test_accuracy']:.2f} %",
        lambda kept: kept.about.get("dataset_digest") == training.digest)


def obtain(path: Path | None, load: Callable[[Path], Any], train: Callable[[], Any],
           save: Callable[[Path, Any], None], describe: Callable[[Any], str],
           fits: Callable[[Any], bool] = lambda kept: True) -> Any:
    """Returns a kept network, if it fits; else trains one, keeps it if it can, and says so."""
    kept = None if path is None else load_kept(path, load)
    if kept is not None and fits(kept):
        return kept
    trained = train()
    if jax.process_index() == 0:
        where = "kept nowhere"
        if path is not None:
            try:
                save(path, trained)
                where = f"kept in {path}"
            except OSError as error:
                where = f"not kept in {path} ({files.reason(error)})"
        console.warn(f"trained {describe(trained.about)}; {where}")
    return trained


def make_network(name: str, reference: Reference, inception: str,
                 sample_shape: Sequence[int]) -> features.FeatureNetwork:
    """Opens a feature network.

    Raises:
        ValueError: there is none of this name, or it isn't to be had.
    """
    if name not in FEATURES:
        raise ValueError(f"unknown features {name!r}: {evaluation.nearest(name, FEATURES)}")
    if name == "classifier":
        if reference.labelled is None:
            raise ValueError("there is no classifier for this data, which has no classes: choose the "
                             "features raw or random_projection")
        return obtain_classifier(*(_in_bytes(reference.labelled(split)) for split in ("train", "test"))
                                 ).network
    if name == "inception":
        return features.inception(inception or None)
    return features.raw() if name == "raw" else features.random_projection(tuple(sample_shape))


def classifier_sees(reference: Reference) -> Callable[[Array], Array]:
    """Returns what maps images in [0, 1] to the last features of a classifier of the data's classes.

    These are [batch, dimensions]. The classifier is trained, or read where one is kept, when they are
    first asked for.
    """
    @cache
    def network() -> features.FeatureNetwork:
        with jax.ensure_compile_time_eval():  # it may be while a step is compiled
            return make_network("classifier", reference, "", ())

    def seen(images: Array) -> Array:
        made = network()
        see = cast("Callable[[Any, Array], features.Features]", made.see)
        return see(made.variables, images).pooled

    return seen


def _in_bytes(dataset: Dataset) -> Dataset:
    """A data set's images as pixels, as which they are measured."""
    return dataset if dataset.scaling == BYTES else dataclasses.replace(
        dataset, images=pixels(dataset.scaling.to_float(dataset.images)), scaling=BYTES)


def make_protocol(name: str, reference: Reference, *, features: str = "", **changes: Any) -> Protocol:
    """Returns a preset with changes, and the feature network that fits the data if none is asked for."""
    protocol = evaluation.preset(name)
    features = features or (protocol.features if name != "default" else
                            reference.features() if callable(reference.features) else
                            reference.features)
    num_fake = protocol.num_fake or reference.num_fake
    return dataclasses.replace(protocol, **{"features": features, "num_fake": num_fake, **changes})


def make_evaluator(reference: Reference, protocol: Protocol, metrics: str,
                   settings: Mapping[str, Any], *, inception: str = "", batch_size: int = 100,
                   devices: list[jax.Device] | None = None, most: int | None = None) -> Evaluator:
    """Puts data, feature network and protocol together, and observes the reals.

    Args:
        reference: what samples are measured against.
        protocol: by which to measure.
        metrics: what to measure, a list like "fd,kid".
        settings: those of the run whose samples they are.
        inception: the file with Inception's weights.
        batch_size: how many samples are computed at a time.
        devices: which devices compute; all local ones by default.
        most: how many samples there are, where the protocol leaves open how many it takes; None if they
            never end.

    Raises:
        ValueError: something that the protocol or a metric needs isn't there.
    """
    asked = evaluation.chosen(metrics, reference.own)
    _check_fit(reference, asked, settings)
    network = (make_network(protocol.features, reference, inception, settings["sample_shape"])
               if any(metric.features for metric in asked) else features.raw())
    real, held_out = reference.reals(protocol.split), _held_out(reference, protocol.held_out)
    protocol = dataclasses.replace(protocol, dataset=real.name)
    if most and not protocol.num_fake:
        reals = held_out.count if held_out else None
        protocol = dataclasses.replace(protocol, num_fake=min(most, reals or most))
    kept = cache_folder()
    with _bar("reals") as progress:
        return evaluation.prepare(
            protocol, asked, Extractor(network, batch_size, devices, kept and kept / "features"),
            real, held_out, progress=progress)


def default_metrics(reference: Reference, protocol: Protocol, samples: Samples) -> str:
    """What is measured of samples afterwards if nothing is asked for.

    It is what the protocol's features, the reals and the samples allow.
    """
    is_held_out = _held_out(reference, protocol.held_out) is not None
    return ",".join(metric.name for metric in evaluation.chosen(reference.metrics, reference.own)
                    if (protocol.features in _CLASSIFYING or not metric.logits)
                    and (is_held_out or not metric.held_out)
                    and (samples.targets or not metric.targets))


def _check_fit(reference: Reference, asked: Sequence[Metric], settings: Mapping[str, Any]) -> None:
    """Raises ValueError for metrics that aren't for the data, and data that a run isn't of."""
    if reference.present and (other := [
            metric.name for metric in asked
            if metric not in evaluation.chosen(reference.metrics, reference.own)]):
        raise ValueError(f"the metric {other[0]!r} is not for such samples: choose from "
                         f"{reference.metrics}")
    if differing := [name for name, value in reference.about().items() if settings.get(name) != value]:
        raise ValueError("the data are not what the run was trained on (its settings have another "
                         f"{' and '.join(differing)}): bring them back, or train anew")
    if reference.labelled and "data_sha256" in settings and reference.decoding is None:
        check_data("the run", settings, {"data_sha256": reference.labelled("train").digest})


def _held_out(reference: Reference, split: str) -> Samples | None:
    try:
        found = reference.reals(split)
    except DataNotFoundError:  # a small folder may have none
        return None
    if found.count is not None and found.count < 2:
        warnings.warn(f"{found.name} has one sample alone: there will be no numbers of held-out reals",
                      stacklevel=2)
        return None
    return found


def measure(evaluator: Evaluator, fakes: Samples, tick: Callable[[], None] = lambda: None
            ) -> dict[str, float]:
    """Measures samples, with a progress bar."""
    with _bar("evaluation", evaluator.protocol.num_fake, tick) as progress:
        return evaluator(fakes, progress)


def by_judge(game: GAN | Game, reference: Reference
             ) -> Callable[[Any, Callable[[], None]], dict[str, float]] | None:
    """Returns the evaluation, for the training loop, of a state without samples, if there is one."""
    if reference.judge is None:
        return None
    judge = reference.judge.make(game)
    return lambda state, tick: judge(state)


def in_training(game: GAN | Game, evaluator: Evaluator, reference: Reference,
                settings: Mapping[str, Any], devices: list[jax.Device]
                ) -> Callable[[Any, Callable[[], None]], dict[str, float]]:
    """Returns the evaluation of a state, with the critic's diagnostics, for the training loop.

    Its attribute `anew` gives the same for another run, which has reached nothing yet.
    """
    draw = make_sampler(game, evaluator.protocol, reference, settings, devices)
    return _evaluation(evaluator, reference, draw,
                       make_judge(game, evaluator.protocol, reference, settings))


def _evaluation(evaluator: Evaluator, reference: Reference, draw: Callable[[Any], Samples],
                judge: Callable[[Any], dict[str, float]]
                ) -> Callable[[Any, Callable[[], None]], dict[str, float]]:
    said = set()

    def evaluate(state: Any, tick: Callable[[], None]) -> dict[str, float]:
        values = measure(evaluator, draw(state), tick)
        for name in sorted({*reached_floor(evaluator, values)} - said):
            said.add(name)
            console.warn(f"step {int(state.step)}: {find(reference, name).title} {values[name]:.3g} has "
                         f"reached the real-data floor ({evaluator.floor[name]:.3g})")
        return values | judge(state)

    evaluate.floor = lambda: evaluator.floor
    evaluate.rehearse = lambda state: {*evaluator.rehearse(draw(state)), *judge(state)}
    evaluate.anew = lambda: _evaluation(evaluator, reference, draw, judge)
    return evaluate


def make_sampler(game: GAN | Game, protocol: Protocol, reference: Reference,
                 settings: Mapping[str, Any], devices: list[jax.Device] | None = None
                 ) -> Callable[[Any], Samples]:
    """Returns what gives the samples of a state that a protocol means."""
    decoding = reference.decoding
    present = (lambda samples: samples) if decoding else reference.present or evaluation.presented(
        tuple(settings["sample_shape"]), tuple(settings["value_range"]))
    draw = evaluation.sampler(
        game, keys.stream(keys.of_seed(protocol.seed), "evaluation"), present,
        averaged=protocol.averaged, requests=requests(reference, settings), devices=devices)
    return draw if decoding is None else lambda state: _decoded(draw(state), decoding)


def _decoded(latents: Samples, decoding: Decoding) -> Samples:
    """The images of latents, as pixels."""
    return latents._replace(take=lambda rows: pixels(decoding.decode(latents.take(rows))))


def requests(reference: Reference, settings: Mapping[str, Any]) -> Samples | None:
    """What samples of a run are drawn for: the experiment's held-out requests, or classes in turn."""
    if reference.requests:
        return reference.requests("test")
    return evaluation.of_classes(settings["num_classes"]) if settings["condition"] else None


def make_judge(game: GAN | Game, protocol: Protocol, reference: Reference, settings: Mapping[str, Any]
               ) -> Callable[[Any], dict[str, float]]:
    """Returns what is measured of a state besides its samples: of a GAN, the critic's scores."""
    judges = [] if isinstance(game, Game) else [make_diagnostics(game, protocol, reference, settings)]
    if reference.judge:
        judges.append(reference.judge.make(game))
    return lambda state: {name: value for judge in judges for name, value in judge(state).items()}


def make_diagnostics(gan: GAN, protocol: Protocol, reference: Reference, settings: Mapping[str, Any]
                     ) -> Callable[[Any], dict[str, float]]:
    """Returns what compares the critic's scores of training and of held-out reals, if there are such."""
    if reference.decoding:
        reference = reference._replace(reals=reference.decoding.trained)
    training, held_out = ((reference.requests("train"), reference.requests("test"))
                          if reference.requests else
                          (reference.reals("train"), _held_out(reference, "test")))
    if held_out is None:
        return lambda state: {}
    count = min(_DIAGNOSED, *(samples.count or _DIAGNOSED for samples in (training, held_out)))
    count -= count % settings.get("pack", 1)  # packs are scored
    if not count:
        return lambda state: {}
    rows = np.arange(count)
    batches = [Batch(_as_trained(samples.take(rows), settings),
                     jax.tree.map(jnp.asarray, samples.condition(rows)) if settings["condition"]
                     else None)
               for samples in (training, held_out)]
    key = keys.stream(keys.of_seed(protocol.seed), "diagnostics")
    diagnose = jax.jit(partial(evaluation.critic_diagnostics, gan))
    return lambda state: {name: float(value) for name, value in
                          diagnose(state, *batches, key).items()}


def _as_trained(samples: np.ndarray, settings: Mapping[str, Any]) -> jax.Array:
    samples = jnp.asarray(samples)
    if samples.dtype == jnp.int32:  # text
        return jax.nn.one_hot(samples, settings["sample_shape"][-1])
    return scale(samples, tuple(settings["value_range"])) if samples.dtype == jnp.uint8 else samples


def entry(evaluator: Evaluator | None, reference: Reference, values: Mapping[str, float], **about: Any
          ) -> dict[str, Any]:
    """What is stored of an evaluation: the numbers, beside which, and by what they were measured.

    The critic's diagnostics, which no metric describes, are for the curves alone. Without an evaluator
    there are a judge's numbers alone.
    """
    if evaluator is None:
        return {**about, "protocol": {}, "protocol_sha256": "", "floor_count": 0,
                "metrics": {name: {"value": value} for name, value in values.items()
                            if find(reference, name)}}
    beside = {"floor": evaluator.floor} | {name: measure(evaluator, samples())
                                           for name, samples in reference.baselines.items()}
    return {**about, "protocol": evaluator.protocol.as_json(),
            "protocol_sha256": evaluator.protocol.digest,
            "floor_count": evaluator.other.count if evaluator.other else 0,
            "metrics": {name: {"value": value} | {other: numbers.get(name)
                                                  for other, numbers in beside.items()}
                        for name, value in values.items() if find(reference, name)}}


def find(reference: Reference, name: str) -> Number | None:
    """What a number of an experiment's evaluations is; None if nothing describes it."""
    return evaluation.find(name, (*METRICS.values(), *reference.own),
                           reference.judge.numbers if reference.judge else ())


def is_better_higher(reference: Reference, name: str) -> bool:
    """Whether a number is better when it is higher; one that nothing describes is better when lower.

    Raises:
        ValueError: it is neither.
    """
    number = find(reference, name)
    if number and number.higher_is_better is None:
        raise ValueError(f"best_metric can't be {name}, which is best at neither end: choose another "
                         "number")
    return number is not None and bool(number.higher_is_better)


def reached_floor(evaluator: Evaluator, values: Mapping[str, float]) -> list[str]:
    """The numbers with a floor that are no larger than those of as many held-out reals."""
    if not evaluator.other or evaluator.other.count < evaluator.protocol.num_fake:
        return []
    numbers = {name: evaluation.find(name, evaluator.metrics) for name in values}
    return [name for name, number in numbers.items() if number and number.has_floor
            and values[name] <= evaluator.floor[name]]


def described(found: Mapping[str, Any]) -> str:
    """By what an evaluation was measured, in a line."""
    protocol = found["protocol"]
    return (f"{protocol['num_fake']} samples (held-out reals: {found.get('floor_count', 0)}) against "
            f"{protocol['num_real']} reals of {protocol['dataset']}; protocol {protocol['name']}, "
            f"features {protocol['features']} {protocol['features_digest'][:12]}")


def held_out(found: Mapping[str, Any]) -> str:
    """What the floor of an evaluation is of; how many, where these are fewer than the samples."""
    count = found.get("floor_count", 0)
    return f"{count} held-out reals" if 0 < count < found["protocol"]["num_fake"] else "held-out reals"


def table(found: Mapping[str, Any], reference: Reference) -> list[str]:
    """An evaluation's numbers beside those of held-out reals, as lines."""
    if reference.judge and reference.judge.table:
        return reference.judge.table(
            {name: values["value"] for name, values in found["metrics"].items()})
    return [described(found), *console.aligned(rows(found, partial(find, reference)))]


def rows(found: Mapping[str, Any], number_of: Callable[[str], Any]) -> list[tuple[str, ...]]:
    """An evaluation's numbers beside those of held-out reals, as the rows of a table, its head first.

    Args:
        found: the evaluation.
        number_of: name -> what number it is, a `Number`.
    """
    metrics = found["metrics"]
    numbers = [number_of(name) for name in metrics]
    deviations = {number.deviation_of: number.name for number in numbers if number.deviation_of}
    columns = {"value": "samples", "floor": held_out(found)} | {
        name: name for values in metrics.values() for name in values if name not in ("value", "floor")}
    lines = [("", *columns.values(), "")]
    for number in numbers:
        if not number.deviation_of:
            values, spread = metrics[number.name], metrics.get(deviations.get(number.name), {})
            lines.append((number.title, *(_number(values.get(which), spread.get(which))
                                          for which in columns),
                          direction(number)))
    return lines


def direction(number: Number) -> str:
    """Which end of a number is the better one; "" if neither is."""
    if number.higher_is_better is None:
        return ""
    return f"{'higher' if number.higher_is_better else 'lower'} is better"


def _number(value: float | None, deviation: float | None) -> str:
    """A number and, where it is a mean, its standard deviation."""
    if value is None:
        return ""
    return f"{value:.5g}" + ("" if deviation is None else f" +- {deviation:.2g}")


@contextmanager
def _bar(what: str, total: int | None = None, tick: Callable[[], None] = lambda: None
         ) -> Iterator[Callable[[int], None]]:
    with console.Bar(total, desc=what, unit="sample", **console.ASIDE) as bar:
        def progress(done: int) -> None:
            bar.update(done)
            tick()

        yield progress
