"""The chosen metrics of samples by a protocol, beside those of reals that were held out."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxgan import metrics
from jaxgan.evaluation.protocol import Protocol, nearest
from jaxgan.evaluation.samples import Extractor, Observed, Progress, Samples

_ENDLESS_COUNT = 10_000  # reals, or samples, where a set has no end and the protocol leaves it open

Own = Callable[[Observed], dict[str, float]]  # a metric that an experiment brings


class Metric(NamedTuple):
    """A metric as evaluations use it.

    Attributes:
        measure: (protocol, real, fake, other) -> numbers by name; `other` are the held-out reals.
        features: whether it sees features; its numbers are named after their network then.
        samples: whether it sees the samples themselves.
        targets: what samples are compared with, by name; reals that lack it have no floor.
    """

    measure: Callable[[Protocol, "_Set", "_Set", "_Set | None"], dict[str, float]]
    features: bool = True
    samples: bool = False
    targets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Set:
    """So many observed samples, whose moments are computed once."""

    count: int
    observed: Observed

    @property
    def pooled(self) -> np.ndarray:
        return self.observed.features.pooled

    @property
    def samples(self) -> np.ndarray:
        return self.observed.samples

    @property
    def logits(self) -> np.ndarray:
        if self.observed.features.logits is None:
            raise ValueError("the metrics 'is' and 'accuracy' need a feature network that classifies: "
                             "choose the features classifier or inception")
        return self.observed.features.logits

    @cached_property
    def moments(self) -> metrics.Moments:
        return metrics.moments(self.pooled)


def _frechet(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    return {"fd": metrics.frechet_distance(real.moments, fake.moments, ddof=protocol.ddof)}


def _kernel(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    size = min(protocol.subset_size, len(real.pooled), len(fake.pooled))
    distance = metrics.kernel_distance(real.pooled, fake.pooled, subsets=protocol.subsets,
                                       subset_size=size, seed=protocol.seed)
    return {"kd": distance.mean, "kd_std": distance.std}


def _score(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    mean, std = metrics.inception_score(fake.logits, splits=protocol.splits, seed=protocol.shuffle)
    return {"score": mean, "score_std": std}


def _precision_recall(protocol: Protocol, real: _Set, fake: _Set,
                      other: _Set | None) -> dict[str, float]:
    return dict(zip(("precision", "recall"), metrics.precision_recall(
        real.pooled[:protocol.manifold_samples], fake.pooled[:protocol.manifold_samples],
        k=protocol.manifold_neighbours), strict=True))


def _density_coverage(protocol: Protocol, real: _Set, fake: _Set,
                      other: _Set | None) -> dict[str, float]:
    return dict(zip(("density", "coverage"), metrics.density_coverage(
        real.pooled[:protocol.manifold_samples], fake.pooled[:protocol.manifold_samples],
        k=protocol.density_neighbours), strict=True))


def _mean_discrepancy(protocol: Protocol, real: _Set, fake: _Set,
                      other: _Set | None) -> dict[str, float]:
    return {"mmd": metrics.maximum_mean_discrepancy(real.pooled, fake.pooled)}


def _sliced(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    options = {"projections": protocol.projections, "seed": protocol.seed}
    if fake.samples.ndim == 2:
        return {"swd": metrics.sliced_wasserstein(real.samples, fake.samples, **options)}
    levels = metrics.sliced_wasserstein_images(
        *(of.samples[:protocol.sliced_images] for of in (real, fake)), **options)
    return {"swd" if level == "mean" else f"swd_{level}": value for level, value in levels.items()}


def _ngrams(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    if real.samples.ndim != 2 or not np.issubdtype(real.samples.dtype, np.integer):
        raise ValueError("the metric 'ngrams' is for text: leave it out")
    return {f"jsd_{n}": metrics.ngram_divergence(real.samples, fake.samples, n)
            for n in range(1, min(4, real.samples.shape[1]) + 1)}


def _copying(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    if other is None or fake is other:
        return {}
    training, held_out = (real, other) if protocol.split == "train" else (other, real)
    found = metrics.memorisation(fake.pooled, held_out.pooled, training.pooled)
    return {"copying": found.probability, "copying_z": found.z_score, "nearest_ratio": found.ratio}


def _accuracy(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    labels, = _targets("accuracy", fake, "label")
    right = fake.logits.argmax(axis=1) == labels
    return {"accuracy": right.mean()} | {f"accuracy_{label}": right[labels == label].mean()
                                         for label in np.unique(labels)}


def _inpainting(protocol: Protocol, real: _Set, fake: _Set, other: _Set | None) -> dict[str, float]:
    image, mask = _targets("inpainting", fake, "image", "mask")
    return {f"hole_{name}": value
            for name, value in metrics.hole_errors(image, fake.samples, mask)._asdict().items()}


def _targets(metric: str, fake: _Set, *names: str) -> list[np.ndarray]:
    """What the samples are to be, by these names."""
    targets = fake.observed.targets or {}
    if missing := [name for name in names if name not in targets]:
        raise ValueError(f"the metric {metric!r} is for samples that were drawn for a {missing[0]}: "
                         "leave it out")
    return [targets[name] for name in names]


METRICS: dict[str, Metric] = {
    "fd": Metric(_frechet),
    "kid": Metric(_kernel),
    "is": Metric(_score),
    "pr": Metric(_precision_recall),
    "dc": Metric(_density_coverage),
    "mmd": Metric(_mean_discrepancy),
    "copying": Metric(_copying),
    "accuracy": Metric(_accuracy, targets=("label",)),
    "swd": Metric(_sliced, features=False, samples=True),
    "ngrams": Metric(_ngrams, features=False, samples=True),
    "inpainting": Metric(_inpainting, features=False, samples=True, targets=("image", "mask")),
}
# Metrics that an experiment brings, and what they are for.
OWN = {"modes": "sets of known modes (Gaussian mixtures, stacked MNIST)",
       "agreement": "samples that were drawn for labels and boxes"}
_HIGHER_IS_BETTER = frozenset({"score", "precision", "recall", "density", "coverage", "modes",
                              "high_quality", "iou", "ap", "hole_psnr", "hole_ssim"})


def chosen(names: str) -> tuple[str, ...]:
    """Returns the metrics in a list like "fd,kid".

    Raises:
        ValueError: there is none of such a name.
    """
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    if not found:
        raise ValueError(f"no metric is chosen: choose from {', '.join((*METRICS, *OWN))}")
    for name in found:
        if name not in (*METRICS, *OWN):
            raise ValueError(f"unknown metric {name!r}: {nearest(name, (*METRICS, *OWN))}")
    return found


def needs_features(names: tuple[str, ...]) -> bool:
    """Whether any of these metrics sees features."""
    return any(name in METRICS and METRICS[name].features for name in names)


def is_better_higher(name: str) -> bool:
    """Whether a number, named as an evaluation names it, is better when it is higher."""
    metric = name.rpartition("/")[2]
    return metric in _HIGHER_IS_BETTER or metric.startswith("accuracy")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Measures samples against reals that were observed once; made by `prepare`.

    Attributes:
        protocol: resolved.
        names: the metrics, of `METRICS` and `own`.
        extractor: what computes features.
        real: the reals that samples are compared with.
        other: other reals, whose numbers are the floor; None if there are none.
        own: the metrics of `OWN` that there are, by name.
        floor: the metrics of the other reals in the samples' place, without those whose targets they
            lack; {} if there are none.
    """

    protocol: Protocol
    names: tuple[str, ...]
    extractor: Extractor
    real: _Set
    other: _Set | None
    own: Mapping[str, Own]

    def __call__(self, fakes: Samples, progress: Progress = lambda done: None) -> dict[str, float]:
        """Returns the metrics of samples by name: "classifier/fd", say, or "modes"."""
        return self._measure(self.names, _observe(self.extractor, self.names, fakes,
                                                  self.protocol.num_fake, progress))

    @cached_property
    def floor(self) -> dict[str, float]:
        """See the class."""
        if self.other is None:
            return {}
        targets = {*(self.other.observed.targets or {})}
        return self._measure([name for name in self.names
                              if name in OWN or targets.issuperset(METRICS[name].targets)], self.other)

    def _measure(self, names: Iterable[str], fake: _Set) -> dict[str, float]:
        found = {}
        for name in names:
            if name in OWN:
                values, prefix = self.own[name](fake.observed), ""
            else:
                metric = METRICS[name]
                values = metric.measure(self.protocol, self.real, fake, self.other)
                prefix = f"{self.protocol.features}/" if metric.features else ""
            found |= {f"{prefix}{key}": float(value) for key, value in values.items()}
        return found


def prepare(protocol: Protocol, names: tuple[str, ...], extractor: Extractor, real: Samples,
            held_out: Samples | None = None, *, own: Mapping[str, Own] = MappingProxyType({}),
            progress: Progress = lambda done: None) -> Evaluator:
    """Observes the reals, and fills in what the protocol leaves to them and to the feature network.

    Args:
        protocol: by which to measure.
        names: the metrics, of `METRICS` and `own`.
        extractor: what computes features.
        real: the reals that samples are compared with.
        held_out: other reals; None if there are none.
        own: by name, of `OWN`: observed samples -> numbers by name.
        progress: told of each number of reals that is done.

    Raises:
        ValueError: a metric needs what isn't there, or the reals are fewer than the protocol's.
    """
    for name in names:
        if name in OWN and name not in own:
            raise ValueError(f"the metric {name!r} is for {OWN[name]}: leave it out")
    if "copying" in names and held_out is None:
        raise ValueError("the metric 'copying' needs a held-out split, which this set doesn't have: "
                         "leave it out")
    num_fake = protocol.num_fake or (held_out.count if held_out else None) or _ENDLESS_COUNT
    protocol = dataclasses.replace(
        protocol, features=extractor.network.name, features_digest=extractor.network.digest,
        resize=extractor.network.resize,
        dataset_digest=real.digest, num_real=protocol.num_real or real.count or _ENDLESS_COUNT,
        num_fake=num_fake)
    other = held_out and _observe(extractor, names, held_out,
                                  min(num_fake, held_out.count or num_fake), progress)
    return Evaluator(protocol, names, extractor,
                     _observe(extractor, names, real, protocol.num_real, progress), other, own)


def _observe(extractor: Extractor, names: tuple[str, ...], samples: Samples, count: int,
             progress: Progress) -> _Set:
    return _Set(count, extractor.observe(
        samples, count, features=needs_features(names),
        keep=any(name in OWN or METRICS[name].samples for name in names), progress=progress))


_TITLES = {"fd": "Frechet distance", "kd": "kernel distance", "kd_std": "kernel distance, std",
           "mmd": "maximum mean discrepancy", "copying": "P(nearer to training set than held-out)",
           "hole_l1": "L1 in the hole", "hole_psnr": "PSNR in the hole", "hole_ssim": "SSIM in the hole",
           **{f"jsd_{n}": f"JSD of {n}-grams (bits)" for n in range(1, 5)}}
_INCEPTION_TITLES = {"fd": "FID", "kd": "KID", "kd_std": "KID, std", "score": "Inception score",
                     "score_std": "Inception score, std"}


def title(name: str) -> str:
    """What a number is called in a table; only those of Inception's features are FID, KID and IS."""
    features, _, metric = name.rpartition("/")
    if features == "inception" and metric in _INCEPTION_TITLES:
        return _INCEPTION_TITLES[metric]
    return f"{features} {_TITLES.get(metric, metric)}".strip().replace("_", " ")
