"""Samples measured by a protocol: what decides a number is stored with it."""

from jaxgan.evaluation.critic import critic_diagnostics
from jaxgan.evaluation.evaluator import (
    Evaluator,
    chosen,
    is_better_higher,
    needs_features,
    prepare,
    title,
)
from jaxgan.evaluation.protocol import (
    PRESETS,
    Protocol,
    differences,
    nearest,
    preset,
    protocol_from_json,
)
from jaxgan.evaluation.samples import Extractor, Samples, of_dataset, of_source, sampler

__all__ = ["PRESETS", "Evaluator", "Extractor", "Protocol", "Samples", "chosen", "critic_diagnostics",
           "differences", "is_better_higher", "nearest", "needs_features", "of_dataset", "of_source",
           "prepare", "preset", "protocol_from_json", "sampler", "title"]
