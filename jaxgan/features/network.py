"""Feature networks: what the metrics look at samples with."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgan.digests import json_digest
from jaxgan.types import Array, PyTree


class Features(NamedTuple):
    """What a feature network sees in a batch of samples.

    Attributes:
        pooled: [batch, dimensions], float32.
        logits: [batch, classes], float32; None if the network doesn't classify.
    """

    pooled: Array
    logits: Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A fixed map from samples to features.

    Attributes:
        name: what numbers made with it are called after: "inception", "classifier", "raw" or
            "random_projection".
        digest: a SHA-256; two numbers are comparable only if their networks' digests are equal.
        apply: (variables, samples [batch, ...]) -> Features, a pure function that can be jitted.
            Images are uint8, [batch, height, width, channels].
        variables: what to pass to `apply` first.
        resize: what it does to the size of images.
        see: None, or `apply` to float32 images in [0, 1], for what is to be differentiated.
    """

    name: str
    digest: str
    apply: Callable[[PyTree, Array], Features]
    variables: PyTree
    resize: str = "none"
    see: Callable[[PyTree, Array], Features] | None = None


def raw() -> FeatureNetwork:
    """The samples themselves, flattened: pixels x / 255, and floating-point values as they are."""
    return FeatureNetwork("raw", json_digest({"name": "raw"}),
                          lambda variables, samples: Features(_flat(samples)), {})


def random_projection(sample_shape: tuple[int, ...], dimensions: int = 256,
                      seed: int = 0) -> FeatureNetwork:
    """The samples, flattened as by `raw`, times a fixed matrix of N(0, 1 / inputs) numbers.

    Args:
        sample_shape: of one sample.
        dimensions: how many features there are.
        seed: of the matrix.

    Raises:
        ValueError: a size isn't positive; or, in `apply`, the samples have another shape.
    """
    sample_shape = tuple(sample_shape)
    if min(*sample_shape, dimensions, 1) < 1:
        raise ValueError("sample_shape and dimensions must be positive; got "
                         f"{sample_shape} and {dimensions}")
    inputs = math.prod(sample_shape)
    matrix = jax.random.normal(jax.random.key(seed), (inputs, dimensions)) / math.sqrt(inputs)

    def apply(variables: PyTree, samples: Array) -> Features:
        if samples.shape[1:] != sample_shape:
            raise ValueError(f"samples must be [batch, {', '.join(map(str, sample_shape))}]; "
                             f"got {samples.shape}")
        # A GPU's default precision would keep ten bits or so.
        return Features(jnp.matmul(_flat(samples), variables["matrix"], precision="highest"))

    digest = json_digest({"name": "random_projection", "sample_shape": sample_shape,
                          "dimensions": dimensions, "seed": seed})
    return FeatureNetwork("random_projection", digest, apply, {"matrix": matrix})


def _flat(samples: Array) -> Array:
    """Returns samples as float32 [batch, inputs]; integers are pixels."""
    scale = 255.0 if jnp.issubdtype(samples.dtype, jnp.integer) else 1.0
    return samples.reshape(len(samples), -1).astype(jnp.float32) / scale
