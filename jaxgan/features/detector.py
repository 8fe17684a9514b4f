"""A detector trained on canvases: which class their object is of, and where it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import keys, tasks
from jaxgan.data import Source, draw_step, pixels
from jaxgan.features.classifier import load_trained, logits, network_of, outputs, save_trained
from jaxgan.features.network import FeatureNetwork
from jaxgan.metrics import detection_scores
from jaxgan.models import Classifier
from jaxgan.types import Array, PyTree

_BATCH = 128
_RATE = 2e-3
_AT_ONCE = 100  # updates in a dispatch
_HELD_OUT = 2000  # canvases that it is measured on


class TrainedDetector(NamedTuple):
    """A detector and what is known of it.

    Attributes:
        network: its logits are those of the classes, and after them the box's corners.
        about: classes, shape of its canvases, seed, updates; `iou`, `ap` and `accuracy` of held-out
            canvases, see `jaxgan.metrics.detection_scores`.
    """

    network: FeatureNetwork
    about: dict[str, Any]


def train_detector(training: Source, test: Source, *, seed: int = 0, updates: int = 3000,
                   width: int = 16, progress: Callable[[int, float], None] = lambda done, loss: None
                   ) -> TrainedDetector:
    """Trains a detector by Adam, with a rate that rises and falls to zero (Smith 2018, one cycle).

    The loss is the cross-entropy of the class, and the box's smooth L1 plus 1 - GIoU, as those of
    `jaxgan.tasks`; an update is of 128 canvases.

    Args:
        training: canvases, from `jaxgan.data.canvases`.
        test: others, that it is measured on.
        seed: of weights and canvases.
        updates: how many, a multiple of 100.
        width: channels of the first layer.
        progress: told of the number of updates done, and the mean loss of the last 100.

    Raises:
        ValueError: the updates aren't such a multiple.
    """
    if updates < 1 or updates % _AT_ONCE:
        raise ValueError(f"updates must be a multiple of {_AT_ONCE}; got {updates}")
    model = Classifier(training.num_classes + 4, width)
    optimizer = optax.adam(optax.cosine_onecycle_schedule(updates, _RATE))
    key = jax.random.key(seed)
    low, high = training.value_range

    def loss_fn(params: PyTree, arrays: PyTree, step: jax.Array) -> jax.Array:
        samples, wanted = cast("tuple[Array, dict[str, Array]]", draw_step(  # canvases have a condition
            training, arrays, keys.stream(key, "data"), step, _BATCH, jnp.arange(_BATCH)))
        _, found = outputs(model, params, (samples - low) / (high - low))
        classes, boxes = found[:, :-4], found[:, -4:]
        return (tasks.cross_entropy(classes, wanted["label"]) + tasks.smooth_l1(boxes, wanted["box"])
                + (1 - tasks.generalised_iou(boxes, wanted["box"])).mean())

    @partial(jax.jit, donate_argnums=(0, 1))
    def run(params: PyTree, opt_state: PyTree, arrays: PyTree, first: int):
        def update(carry, step):
            params, opt_state = carry
            loss, gradients = jax.value_and_grad(loss_fn)(params, arrays, step)
            changes, opt_state = optimizer.update(gradients, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), loss

        carry, losses = jax.lax.scan(update, (params, opt_state), first + jnp.arange(_AT_ONCE))
        return *carry, losses.mean()

    params = jax.jit(model.init)(keys.stream(key, "init"),
                                 jnp.zeros((1, *training.sample_shape)))["params"]
    opt_state = optimizer.init(params)
    for first in range(0, updates, _AT_ONCE):
        params, opt_state, loss = run(params, opt_state, training.arrays, first)
        progress(first + _AT_ONCE, float(loss))
    network = network_of("detector", model, jax.tree.map(np.asarray, params))
    samples, wanted = jax.jit(lambda arrays: draw_step(
        test, arrays, keys.stream(key, "test"), 0, _HELD_OUT, jnp.arange(_HELD_OUT)))(test.arrays)
    found = detection_scores(*detect(network, pixels(samples, test.value_range)),
                             wanted["label"], wanted["box"])
    return TrainedDetector(network, {
        **found, "num_classes": training.num_classes, "sample_shape": list(training.sample_shape),
        "seed": seed, "updates": updates, "width": width})


def detect(network: FeatureNetwork, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a detector sees: logits of the classes, [count, classes], and boxes, [count, 4].

    Args:
        network: a detector's.
        images: canvases, uint8 [count, height, width, channels].
    """
    seen = logits(network, images)
    return seen[:, :-4], seen[:, -4:]


def save_detector(path: Path, trained: TrainedDetector) -> None:
    """Saves a detector as `save_classifier` does a classifier."""
    save_trained(path, *trained)


def load_detector(path: Path) -> TrainedDetector:
    """Loads a detector as `load_classifier` does a classifier."""
    return TrainedDetector(*load_trained(path, "detector", lambda about: (
        Classifier(about["num_classes"] + 4, about["width"]), about["sample_shape"])))
