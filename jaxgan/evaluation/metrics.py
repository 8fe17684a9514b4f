"""Metrics as records: what each needs, how it is measured, and what its numbers are called."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np

from jaxgan import metrics
from jaxgan.evaluation.protocol import Protocol, nearest
from jaxgan.evaluation.samples import Observed


@dataclasses.dataclass(frozen=True, eq=False)
class SampleSet:
    """So many observed samples; their moments are computed once.

    Attributes:
        count: how many.
        observed: what was asked for of them.
    """

    count: int
    observed: Observed

    @property
    def pooled(self) -> np.ndarray:
        """Their features, float32 [count, dimensions]."""
        return cast("Any", self.observed.features).pooled

    @property
    def logits(self) -> np.ndarray:
        """The feature network's logits, float32 [count, classes]."""
        return cast("Any", self.observed.features).logits

    @property
    def samples(self) -> np.ndarray:
        """The samples themselves, [count, ...]: images, text or points, as `Samples.take` gives them."""
        return cast("np.ndarray", self.observed.samples)

    @property
    def targets(self) -> Mapping[str, np.ndarray]:
        """What they are compared with, by name, each [count, ...]; {} for nothing."""
        return self.observed.targets or {}

    @cached_property
    def moments(self) -> metrics.Moments:
        """Mean and covariance of their features."""
        return metrics.moments(self.pooled)


class Comparison(NamedTuple):
    """What a metric is measured on.

    Attributes:
        protocol: the settings.
        real: the reals that samples are compared with.
        fake: the samples; for the floor, `other`.
        other: reals of the other split; None if there are none.
    """

    protocol: Protocol
    real: SampleSet
    fake: SampleSet
    other: SampleSet | None


class Number(NamedTuple):
    """A number that a metric gives.

    Attributes:
        name: what the metric calls it; a * stands for what there are several of: sizes or classes.
        title: what it is called in a table, after the name of the features if it is of features; a *
            stands for the same as in the name.
        higher_is_better: whether the highest is the best, and not the lowest; None if neither is.
        inception_title: what it is called instead if the features are Inception's.
        deviation_of: the name of the number whose standard deviation it is, and beside which it is
            shown; "" for a number of its own.
        has_floor: whether samples whose number is as low as that of as many held-out reals can't be
            told from reals by it.
    """

    name: str
    title: str
    higher_is_better: bool | None
    inception_title: str = ""
    deviation_of: str = ""
    has_floor: bool = False

    def resolve(self, name: str, features: str = "") -> "Number | None":
        """Returns it with its full name and title; None if `name` isn't its name.

        Args:
            name: a number's full name, "classifier/fd" or "swd_16".
            features: the feature network that it is named after; "" for none.
        """
        prefix = f"{features}/" if features else ""
        match = re.fullmatch(re.escape(prefix + self.name).replace(r"\*", "(.+)"), name)
        if not match:
            return None
        title = f"{features.replace('_', ' ')} {self.title}".strip()
        if features == "inception" and self.inception_title:
            title = self.inception_title
        return self._replace(name=name, title=title.replace("*", "".join(match.groups())),
                             deviation_of=self.deviation_of and prefix + self.deviation_of)


class Fewest(NamedTuple):
    """How many reals and samples a metric needs at least, and why: "its k is 3"."""

    real: int
    fake: int
    why: str = ""


class Metric(NamedTuple):
    """A metric as evaluations use it: one of `METRICS`, or one that an experiment brings.

    Attributes:
        name: what it is chosen by.
        measure: a comparison -> its numbers, by the names in `numbers`.
        numbers: what these are. Evaluations name them "network/name" if it needs features.
        features: whether it needs features, as `SampleSet.pooled`.
        logits: whether it needs the feature network's logits as well.
        samples: whether it needs the samples themselves.
        targets: what it compares samples with, the names in `SampleSet.targets`. Reals that lack one
            have no floor.
        held_out: whether it needs `Comparison.other`. Then there is no floor.
        ready: None, or what is called before anything is measured, for what takes long, such as the
            training of a network that `measure` needs.
        fewest: None, or by a protocol how many reals and samples it needs: of fewer it is left out.
    """

    name: str
    measure: Callable[[Comparison], Mapping[str, float]]
    numbers: tuple[Number, ...]
    features: bool = False
    logits: bool = False
    samples: bool = False
    targets: tuple[str, ...] = ()
    held_out: bool = False
    ready: Callable[[], object] | None = None
    fewest: Callable[[Protocol], Fewest] | None = None

    def lacks(self, protocol: Protocol, real: int, fake: int) -> str:
        """Says what it needs, where so many reals or samples are too few for it; else ""."""
        needed = self.fewest(protocol) if self.fewest else Fewest(0, 0)
        if real >= needed.real and fake >= needed.fake:
            return ""
        titles = ", ".join(number.title for number in self.numbers if not number.deviation_of)
        counts = (f"{needed.real} of each" if needed.real == needed.fake else
                  f"{needed.real} reals and {needed.fake} samples")
        return f"{self.name} ({titles}) needs {counts}" + f", since {needed.why}" * bool(needed.why)


def chosen(names: str, own: Iterable[Metric] = ()) -> tuple[Metric, ...]:
    """Returns the metrics in a list like "fd,kid".

    Args:
        names: their names, with commas between them.
        own: metrics that there are besides `METRICS`.

    Raises:
        ValueError: there is none of such a name.
    """
    known = {**METRICS, **{metric.name: metric for metric in own}}
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        raise ValueError(f"no metric is chosen: choose from {', '.join(known)}")
    for name in found:
        if name not in known:
            raise ValueError(f"unknown metric {name!r} for such samples: {nearest(name, known)}")
    return tuple(known[name] for name in found)


def find(name: str, known: Iterable[Metric], others: Iterable[Number] = ()) -> Number | None:
    """Returns what a number is, with its full name and title; None if nothing describes it.

    Args:
        name: its full name, "classifier/fd" or "swd_16".
        known: the metrics that may have given it.
        others: numbers of no metric that may be it.
    """
    known, features = tuple(known), name.rpartition("/")[0]
    full = [number for metric in known if not metric.features for number in metric.numbers]
    after_network = [number for metric in known if metric.features for number in metric.numbers]
    # In this order: "detection/accuracy" is not the accuracy that a network called detection sees.
    found = (*(number.resolve(name) for number in (*others, *full)),
             *(number.resolve(name, features) for number in after_network if features))
    return next(filter(None, found), None)


def _frechet(seen: Comparison) -> dict[str, float]:
    return {"fd": metrics.frechet_distance(seen.real.moments, seen.fake.moments,
                                           ddof=seen.protocol.ddof)}


def _kernel(seen: Comparison) -> dict[str, float]:
    protocol, real, fake = seen.protocol, seen.real.pooled, seen.fake.pooled
    distance = metrics.kernel_distance(
        real, fake, subsets=protocol.subsets, seed=protocol.seed,
        subset_size=min(protocol.subset_size, len(real), len(fake)))
    return {"kd": distance.mean, "kd_std": distance.std}


def _score(seen: Comparison) -> dict[str, float]:
    mean, std = metrics.inception_score(seen.fake.logits, splits=seen.protocol.splits,
                                        seed=seen.protocol.shuffle)
    return {"score": mean, "score_std": std}


def _precision_recall(seen: Comparison) -> dict[str, float]:
    return metrics.precision_recall(*_manifolds(seen), k=seen.protocol.manifold_neighbours)._asdict()


def _density_coverage(seen: Comparison) -> dict[str, float]:
    return metrics.density_coverage(*_manifolds(seen), k=seen.protocol.density_neighbours)._asdict()


def _manifolds(seen: Comparison) -> list[np.ndarray]:
    """The features of reals and samples that the metrics with neighbours see, [count, dimensions]."""
    return [of.pooled[:seen.protocol.manifold_samples] for of in (seen.real, seen.fake)]


def _mean_discrepancy(seen: Comparison) -> dict[str, float]:
    return {"mmd": metrics.maximum_mean_discrepancy(seen.real.pooled, seen.fake.pooled)}


def _sliced(seen: Comparison) -> dict[str, float]:
    protocol = seen.protocol
    options = {"projections": protocol.projections, "seed": protocol.seed}
    if seen.fake.samples.dtype != np.uint8:  # no images
        real, fake = (of.samples.reshape(of.count, -1) for of in (seen.real, seen.fake))
        return {"swd": metrics.sliced_wasserstein(real, fake, **options)}
    levels = metrics.sliced_wasserstein_images(
        *(of.samples[:protocol.sliced_images] for of in (seen.real, seen.fake)), **options)
    mean = levels.pop("mean")
    of_sizes = {f"swd_{level}": value for level, value in levels.items()} if len(levels) > 1 else {}
    return of_sizes | {"swd": mean}


def _ngrams(seen: Comparison) -> dict[str, float]:
    real, fake = seen.real.samples, seen.fake.samples
    if real.ndim != 2 or not np.issubdtype(real.dtype, np.integer):
        raise ValueError("the metric 'ngrams' is for text: leave it out")
    return {f"jsd_{n}": metrics.ngram_divergence(real, fake, n)
            for n in range(1, min(4, real.shape[1]) + 1)}


def _copying(seen: Comparison) -> dict[str, float]:
    other = cast("SampleSet", seen.other)
    training, held_out = (seen.real, other) if seen.protocol.split == "train" else (other, seen.real)
    found = metrics.memorisation(seen.fake.pooled, held_out.pooled, training.pooled)
    return {"copying": found.probability, "copying_z": found.z_score, "nearest_ratio": found.ratio}


def _accuracy(seen: Comparison) -> dict[str, float]:
    labels = seen.fake.targets["label"]
    right = seen.fake.logits.argmax(axis=1) == labels
    return {"accuracy": right.mean()} | {f"accuracy_{label}": right[labels == label].mean()
                                         for label in np.unique(labels)}


def _inpainting(seen: Comparison) -> dict[str, float]:
    image, mask = (seen.fake.targets[name] for name in ("image", "mask"))
    return {f"hole_{name}": value
            for name, value in metrics.hole_errors(image, seen.fake.samples, mask)._asdict().items()}


def _translation(seen: Comparison) -> dict[str, float]:
    return metrics.image_errors(seen.fake.targets["image"], seen.fake.samples)._asdict()


def _at_least_two(protocol: Protocol) -> Fewest:
    return Fewest(2, 2)


METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in (
    Metric("fd", _frechet, (
        Number("fd", "Frechet distance", False, inception_title="FID", has_floor=True),
    ), features=True, fewest=lambda protocol: Fewest(protocol.ddof + 1, protocol.ddof + 1)),
    Metric("kid", _kernel, (
        Number("kd", "kernel distance", False, inception_title="KID"),
        Number("kd_std", "kernel distance, std", False, inception_title="KID, std", deviation_of="kd"),
    ), features=True, fewest=_at_least_two),
    Metric("is", _score, (
        Number("score", "score", True, inception_title="Inception score"),
        Number("score_std", "score, std", False, inception_title="Inception score, std",
               deviation_of="score"),
    ), features=True, logits=True, fewest=lambda protocol: Fewest(
        1, protocol.splits, f"it is a mean over {protocol.splits} parts")),
    Metric("pr", _precision_recall, (
        Number("precision", "precision", True),
        Number("recall", "recall", True),
    ), features=True, fewest=lambda protocol: Fewest(
        protocol.manifold_neighbours + 1, protocol.manifold_neighbours + 1,
        f"its k is {protocol.manifold_neighbours}")),
    Metric("dc", _density_coverage, (
        Number("density", "density", True),
        Number("coverage", "coverage", True),
    ), features=True, fewest=lambda protocol: Fewest(
        protocol.density_neighbours + 1, 1, f"its k is {protocol.density_neighbours}")),
    Metric("mmd", _mean_discrepancy, (
        Number("mmd", "maximum mean discrepancy", False),
    ), features=True, fewest=_at_least_two),
    Metric("copying", _copying, (
        Number("copying", "P(nearer to training set than held-out)", None),
        Number("copying_z", "copying, z-score", None),
        Number("nearest_ratio", "distance to training set, ratio to held-out", None),
    ), features=True, held_out=True),
    Metric("accuracy", _accuracy, (
        Number("accuracy", "accuracy", True),
        Number("accuracy_*", "accuracy, class *", True),
    ), features=True, logits=True, targets=("label",)),
    Metric("swd", _sliced, (
        Number("swd", "sliced Wasserstein distance", False),
        Number("swd_*", "sliced Wasserstein distance, size *", False),
    ), samples=True),
    Metric("ngrams", _ngrams, tuple(
        Number(f"jsd_{n}", f"JSD of {n}-grams (bits)", False) for n in range(1, 5)), samples=True),
    Metric("inpainting", _inpainting, (
        Number("hole_l1", "L1 in the hole", False),
        Number("hole_psnr", "PSNR in the hole", True),
        Number("hole_ssim", "SSIM in the hole", True),
    ), samples=True, targets=("image", "mask")),
    Metric("translation", _translation, (
        Number("l1", "L1 to the partner", False),
        Number("psnr", "PSNR to the partner", True),
        Number("ssim", "SSIM to the partner", True),
    ), samples=True, targets=("image",)),
)})
