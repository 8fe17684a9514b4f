"""The chosen metrics of samples by a protocol, beside those of reals that were held out."""

import dataclasses
import warnings
from collections.abc import Iterable
from functools import cached_property

from jaxgan.evaluation.metrics import Comparison, Metric, SampleSet
from jaxgan.evaluation.protocol import Protocol
from jaxgan.evaluation.samples import Extractor, Progress, Samples

_REHEARSED = 128  # samples
_ENDLESS_COUNT = 10_000  # reals, or samples, where a set has no end and the protocol leaves it open


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Measures samples against reals that were observed once; made by `prepare`.

    Attributes:
        protocol: resolved.
        metrics: what is measured.
        extractor: what computes features.
        real: the reals that samples are compared with.
        other: other reals, whose numbers are the floor; None if there are none.
        floor: the numbers of the other reals in the samples' place, without those of metrics whose
            targets they lack, for which they are too few or that need held-out reals; {} if there are
            none.
    """

    protocol: Protocol
    metrics: tuple[Metric, ...]
    extractor: Extractor
    real: SampleSet
    other: SampleSet | None

    def __call__(self, fakes: Samples, progress: Progress = lambda done: None) -> dict[str, float]:
        """Returns the numbers of samples by name: "classifier/fd", say, or "swd".

        Raises:
            ValueError: there are too few samples, they lack what a metric compares them with, or a
                metric gives a number that its record doesn't list.
        """
        fake = _observe(self.extractor, self.metrics, fakes, self.protocol.num_fake, progress)
        self._check_targets(fake, fakes.name)
        return self._measure(self.metrics, fake)

    def rehearse(self, fakes: Samples) -> set[str]:
        """Measures reals, and a few samples where that says nothing of a metric; returns the names.

        What can't be measured is found out by this before there are samples worth measuring.

        Raises:
            ValueError: as above; or the samples are not like the reals.
        """
        count = min(self.protocol.num_fake, _REHEARSED)
        few = _observe(self.extractor, self.metrics, fakes, count, lambda done: None)
        self._check_targets(few, fakes.name)
        for name in ("samples", "pooled") if few.observed.features else ("samples",):
            real, fake = getattr(self.real, name), getattr(few, name)
            if fake is not None and (fake.shape[1:], fake.dtype) != (real.shape[1:], real.dtype):
                raise ValueError(f"samples, {fake.dtype}{list(fake.shape[1:])}, are not like the reals, "
                                 f"{real.dtype}{list(real.shape[1:])}: they can't be compared")
        return {*self.floor, *self._measure(
            [metric for metric in self.metrics if not self._has_floor(metric)], few)}

    @cached_property
    def floor(self) -> dict[str, float]:
        """See the class."""
        if self.other is None:
            return {}
        return self._measure(filter(self._has_floor, self.metrics), self.other)

    def _has_floor(self, metric: Metric) -> bool:
        return (self.other is not None and not metric.held_out
                and self.other.targets.keys() >= {*metric.targets}
                and not metric.lacks(self.protocol, self.real.count, self.other.count))

    def _check_targets(self, fake: SampleSet, name: str) -> None:
        for metric in self.metrics:
            if missing := [target for target in metric.targets if target not in fake.targets]:
                raise ValueError(f"the metric {metric.name!r} compares samples with their {missing[0]}, "
                                 f"which isn't known of {name}: leave it out")

    def _measure(self, metrics: Iterable[Metric], fake: SampleSet) -> dict[str, float]:
        seen, found = Comparison(self.protocol, self.real, fake, self.other), {}
        for metric in metrics:
            prefix = f"{self.protocol.features}/" if metric.features else ""
            for name, value in metric.measure(seen).items():
                if not any(number.resolve(name) for number in metric.numbers):
                    raise ValueError(f"the metric {metric.name!r} gives {name!r}, which its record "
                                     "doesn't list: add a Number of that name")
                found[prefix + name] = float(value)
        return found


def prepare(protocol: Protocol, metrics: tuple[Metric, ...], extractor: Extractor, real: Samples,
            held_out: Samples | None = None, *, progress: Progress = lambda done: None) -> Evaluator:
    """Observes the reals, and fills in what the protocol leaves to them and to the feature network.

    Metrics for which there are too few reals or samples are left out, with one warning.

    Args:
        protocol: by which to measure.
        metrics: what to measure, see `chosen`.
        extractor: what computes features.
        real: the reals that samples are compared with.
        held_out: other reals; None if there are none.
        progress: told of each number of reals that is done.

    Raises:
        ValueError: a metric needs what isn't there, the reals are fewer than the protocol's, or reals or
            samples are too few for any metric.
    """
    protocol = dataclasses.replace(
        protocol, num_real=protocol.num_real or real.count or _ENDLESS_COUNT,
        num_fake=protocol.num_fake or (held_out.count if held_out else None) or _ENDLESS_COUNT)
    metrics = _measurable(metrics, protocol)
    for metric in metrics:
        if metric.held_out and held_out is None:
            raise ValueError(f"the metric {metric.name!r} needs a held-out split, which {real.name} "
                             "doesn't have: leave it out")
        if metric.logits and not extractor.classifies(real):
            raise ValueError(f"the metric {metric.name!r} needs a feature network that classifies, and "
                             f"{extractor.network.name} does not: leave it out, or choose the features "
                             "classifier or inception")
        if metric.ready:
            metric.ready()
    protocol = dataclasses.replace(
        protocol, features=extractor.network.name, features_digest=extractor.network.digest,
        resize=extractor.network.resize, dataset_digest=real.digest)
    other = held_out and _observe(extractor, metrics, held_out,
                                  min(protocol.num_fake, held_out.count or protocol.num_fake), progress)
    return Evaluator(protocol, metrics, extractor,
                     _observe(extractor, metrics, real, protocol.num_real, progress), other)


def _measurable(metrics: tuple[Metric, ...], protocol: Protocol) -> tuple[Metric, ...]:
    """The metrics for which there are enough reals and samples.

    Raises:
        ValueError: there is none.
    """
    lacks = [metric.lacks(protocol, protocol.num_real, protocol.num_fake) for metric in metrics]
    if not any(lacks):
        return metrics
    counts = f"reals: {protocol.num_real}, samples: {protocol.num_fake}"
    said = "; ".join(filter(None, lacks))
    if all(lacks):
        raise ValueError(f"nothing can be measured of so few ({counts}): {said}; bring more")
    warnings.warn(f"left out, for there are too few ({counts}): {said}", UserWarning, stacklevel=3)
    return tuple(metric for metric, lack in zip(metrics, lacks, strict=True) if not lack)


def _observe(extractor: Extractor, metrics: Iterable[Metric], samples: Samples, count: int,
             progress: Progress) -> SampleSet:
    return SampleSet(count, extractor.observe(
        samples, count, features=any(metric.features for metric in metrics),
        keep=any(metric.samples for metric in metrics), progress=progress))
