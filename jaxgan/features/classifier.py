"""A classifier trained on a labelled data set, as a feature network for it.

The Frechet distance in its features is the "classifier Frechet distance": it compares GANs on one data
set with one classifier, and is no FID.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgan import keys
from jaxgan.data import Dataset, scale
from jaxgan.digests import json_digest, params_digest
from jaxgan.features.network import FeatureNetwork, Features
from jaxgan.features.weights import load_weights, save_weights
from jaxgan.models import Classifier
from jaxgan.types import Array, Key, PyTree

_BATCH = 128
_RATE = 2e-3
_BATCHES = 3000  # of training, where `epochs` is left open
_MOST_EPOCHS = 40


class TrainedClassifier(NamedTuple):
    """A classifier and what is known of it.

    Attributes:
        network: for features.
        about: data set, its digest, classes, shape of its images, test accuracy, seed, epochs.
    """

    network: FeatureNetwork
    about: dict[str, Any]


def train_classifier(training: Dataset, test: Dataset, *, seed: int = 0, epochs: int | None = None,
                     width: int = 16, progress: Callable[[int, float], None] = lambda epoch, loss: None
                     ) -> TrainedClassifier:
    """Trains a classifier by Adam, with a rate that rises and falls to zero (Smith 2018, one cycle).

    Images of at least 28 pixels are shifted by up to a fourteenth of their size, and those in colour
    flipped from left to right, at random.

    Args:
        training: what to learn.
        test: what its accuracy is measured on.
        seed: of weights, order and shifts.
        epochs: how often to go through the set; by default about 3000 batches of 128, and 40 at most.
        width: channels of the first layer.
        progress: told of each epoch's number, from 1, and mean loss.

    Raises:
        ValueError: a set of one class, or of fewer than 128 images; epochs below 1.
    """
    classes = len(training.class_names)
    if classes < 2:
        raise ValueError(f"{training.name} has a single class: a classifier needs two")
    if len(training) < _BATCH:
        raise ValueError(f"{training.name} has {len(training)} images: a classifier needs at least "
                         f"{_BATCH}; choose the features raw or random_projection")
    batches = len(training) // _BATCH
    epochs = default_epochs(training) if epochs is None else epochs
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}")
    model = Classifier(classes, width)
    optimizer = optax.adam(optax.cosine_onecycle_schedule(epochs * batches, _RATE))
    key = jax.random.key(seed)
    images, labels = jnp.asarray(training.images), jnp.asarray(training.labels)
    params = jax.jit(model.init)(keys.stream(key, "init"), scale(images[:1], (0, 1)))["params"]

    @partial(jax.jit, donate_argnums=(0, 1))
    def run_epoch(params: PyTree, opt_state: PyTree, images: Array, labels: Array, key: Key):
        order_key, shift_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(images))[:batches * _BATCH]

        def update(carry, inputs):
            params, opt_state = carry
            rows, key = inputs

            def loss_fn(params):
                _, logits = outputs(model, params, _augmented(images[rows], key))
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

            loss, gradients = jax.value_and_grad(loss_fn)(params)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        carry, losses = jax.lax.scan(update, (params, opt_state),
                                     (order.reshape(batches, _BATCH),
                                      jax.random.split(shift_key, batches)))
        return *carry, losses.mean()

    opt_state = optimizer.init(params)
    for epoch in range(epochs):
        params, opt_state, loss = run_epoch(params, opt_state, images, labels,
                                            jax.random.fold_in(keys.stream(key, "train"), epoch))
        progress(epoch + 1, float(loss))
    network = network_of("classifier", model, jax.tree.map(np.asarray, params))
    return TrainedClassifier(network, {
        "dataset": training.name, "dataset_digest": training.digest,
        "class_names": list(training.class_names), "image_shape": list(training.images.shape[1:]),
        "test_accuracy": accuracy(network, test), "seed": seed, "epochs": epochs, "width": width})


def default_epochs(training: Dataset) -> int:
    """How often a set is gone through if nothing else is said."""
    return max(1, min(_MOST_EPOCHS, round(_BATCHES * _BATCH / len(training))))


def predict(network: FeatureNetwork, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Returns the class of the largest logit of each image, integers [count]; arguments as for `logits`.
    """
    return logits(network, images, batch_size).argmax(axis=1)


def logits(network: FeatureNetwork, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Returns the logits of images, float32 [count, classes].

    Args:
        network: one that has logits.
        images: uint8, [count, height, width, channels].
        batch_size: how many it sees at a time.
    """
    apply = jax.jit(network.apply)
    return np.concatenate([
        np.asarray(apply(network.variables, images[first:first + batch_size]).logits)
        for first in range(0, len(images), batch_size)])


def accuracy(network: FeatureNetwork, dataset: Dataset) -> float:
    """Returns the fraction of images whose class is predicted rightly."""
    return float((predict(network, dataset.images) == dataset.labels).mean())


def save_classifier(path: Path, trained: TrainedClassifier) -> None:
    """Saves a classifier, whole or not at all, as the arrays of an .npz file.

    Raises:
        OSError: it can't be written.
        ValueError: the path doesn't end in .npz.
    """
    save_trained(path, *trained)


def load_classifier(path: Path) -> TrainedClassifier:
    """Loads a classifier.

    Raises:
        OSError: there is none, or it can't be read.
        ValueError: the file is damaged or another one.
    """
    return TrainedClassifier(*load_trained(path, "classifier", lambda about: (
        Classifier(len(about["class_names"]), about["width"]), about["image_shape"])))


def save_trained(path: Path, network: FeatureNetwork, about: dict[str, Any]) -> None:
    """Saves a network and what is known of it; see `save_classifier`."""
    record = json.dumps({**about, "digest": network.digest})
    flat = cast("dict[str, np.ndarray]", flatten_dict(network.variables, sep="/"))
    save_weights(path, {"about": np.array(record), **flat})


def load_trained(path: Path, name: str,
                 make_model: Callable[[dict[str, Any]], tuple[Classifier, Sequence[int]]]
                 ) -> tuple[FeatureNetwork, dict[str, Any]]:
    """Loads what `save_trained` saved.

    Args:
        path: the file.
        name: the network's.
        make_model: what is known of the network -> the model, and the shape of its images.

    Raises:
        OSError, ValueError: as `load_classifier`.
    """
    try:
        found = load_weights(path)
        about = json.loads(str(found.pop("about")))
        digest = about.pop("digest")
        params = unflatten_dict(found, sep="/")
        model, shape = make_model(about)
        network = network_of(name, model, params)
        if network.digest != digest:
            raise ValueError("its numbers are not those that were saved")
        expected = jax.eval_shape(model.init, jax.random.key(0),
                                  jax.ShapeDtypeStruct((1, *shape), jnp.float32))["params"]
        if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, expected):
            raise ValueError("its arrays are not those of the network that it describes")
    except OSError:
        raise
    except Exception as error:  # what a stranger says of a network meets every kind of check
        raise ValueError(f"{path} is no {name}, or damaged ({error}): delete it and train "
                         "another") from error
    return network, about


def network_of(name: str, model: Classifier, params: PyTree) -> FeatureNetwork:
    """Returns a model of this shape as a feature network."""
    def see(params: PyTree, images: Array) -> Features:
        return Features(*outputs(model, params, images))

    digest = json_digest({"name": name, "params": params_digest(params)})
    return FeatureNetwork(name, digest, lambda params, images: see(params, scale(images, (0, 1))),
                          params, see=see)


def outputs(model: Classifier, params: PyTree, images: Array) -> tuple[Array, Array]:
    """The features and logits of images in [0, 1]."""
    # Flax's type of `apply` allows for changed variables, which there are only with `mutable`.
    return cast("tuple[Array, Array]", model.apply({"params": params}, images))


def _augmented(images: Array, key: Key) -> Array:
    """The images in [0, 1], shifted and flipped at random."""
    batch, height, width, channels = images.shape
    images = scale(images, (0, 1))
    if min(height, width) < 28:
        return images
    shift = max(height, width) // 14
    shift_key, flip_key = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    starts = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1)
    images = jax.vmap(lambda image, start: jax.lax.dynamic_slice(
        image, (*start, 0), (height, width, channels)))(padded, starts)
    if channels == 1:
        return images
    flipped = jax.random.bernoulli(flip_key, shape=(batch, 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)
