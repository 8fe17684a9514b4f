"""Samples measured by a protocol: what decides a number is stored with it."""

from jaxgan.evaluation.critic import critic_diagnostics
from jaxgan.evaluation.evaluator import Evaluator, prepare
from jaxgan.evaluation.metrics import (
    METRICS,
    Comparison,
    Fewest,
    Metric,
    Number,
    SampleSet,
    chosen,
    find,
)
from jaxgan.evaluation.protocol import (
    PRESETS,
    Protocol,
    differences,
    nearest,
    preset,
    protocol_from_json,
)
from jaxgan.evaluation.samples import (
    Extractor,
    Observed,
    Present,
    Samples,
    of_classes,
    of_dataset,
    of_source,
    presented,
    sampler,
    tokens,
)

__all__ = ["METRICS", "PRESETS", "Comparison", "Evaluator", "Extractor", "Fewest", "Metric", "Number",
           "Observed", "Present", "Protocol", "SampleSet", "Samples", "chosen", "critic_diagnostics",
           "differences", "find", "nearest", "of_classes", "of_dataset", "of_source", "prepare",
           "presented", "preset", "protocol_from_json", "sampler", "tokens"]
