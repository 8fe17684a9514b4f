"""Samples measured by a protocol: what decides a number is stored with it."""

from jaxgan.evaluation.critic import critic_diagnostics
from jaxgan.evaluation.evaluator import (
    Evaluator,
    Own,
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

__all__ = ["PRESETS", "Evaluator", "Extractor", "Observed", "Own", "Present", "Protocol", "Samples",
           "chosen", "critic_diagnostics", "differences", "is_better_higher", "nearest",
           "needs_features", "of_classes", "of_dataset", "of_source", "prepare", "presented", "preset",
           "protocol_from_json", "sampler", "title", "tokens"]
