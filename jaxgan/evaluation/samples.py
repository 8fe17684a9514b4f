"""Samples by their numbers, wherever they come from, and their features, batch by batch."""

import dataclasses
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxgan.data import Dataset, Source, pixels, quantize
from jaxgan.data.scaling import BYTES
from jaxgan.digests import json_digest, params_digest
from jaxgan.features import FeatureNetwork, Features, load_weights, save_weights
from jaxgan.gan import GAN, draw_latents, samples_and_heads
from jaxgan.loops import Game
from jaxgan.parallel import agreed, map_batches
from jaxgan.types import Array, Batch, Device, Key, PyTree

_BLOCK = 1000  # samples whose features are cached in one file

Progress = Callable[[int], None]  # told of each number of samples that is done
Present = Callable[[Array], Array]  # a generator's samples -> what is measured of them, and shown


class Samples(NamedTuple):
    """Samples that are looked up by their numbers.

    Attributes:
        name: what they are.
        count: how many there are; None if they never end.
        take: numbers [batch] -> images, uint8 [batch, height, width, channels]; text, int32 [batch,
            length]; or other samples, float32 [batch, ...].
        digest: what their features are cached under; "" if they are not to be.
        condition: None, or numbers [batch] -> what conditional GANs are given: of reals theirs, of
            fakes what they were drawn for.
        targets: None, or numbers [batch] -> what metrics compare the samples with, by name: "label",
            int [batch]; "box", float [batch, 4]; "image", as the samples; "mask", [batch, height,
            width, 1].
    """

    name: str
    count: int | None
    take: Callable[[np.ndarray], np.ndarray]
    digest: str = ""
    condition: Callable[[np.ndarray], PyTree] | None = None
    targets: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None


def of_dataset(dataset: Dataset, split: str) -> Samples:
    """Returns a data set's images in its order, as pixels; their labels are condition and target."""
    scaling, digest = dataset.scaling, dataset.digest

    def take(rows: np.ndarray) -> np.ndarray:
        images = dataset.images[rows]
        return images if scaling == BYTES else pixels(jnp.asarray(scaling.to_float(images)))

    if scaling != BYTES:  # which pixels they are depends on it
        digest = json_digest({"images": digest, "scaling": scaling.as_json()})
    return Samples(f"{dataset.name} {split}", len(dataset), take, digest,
                   lambda rows: dataset.labels[rows],
                   lambda rows: {"label": dataset.labels[rows]})


def of_source(source: Source, name: str, key: Key, *, present: Present | None = None,
              targets: Callable[[Batch], dict[str, Array]] | None = None) -> Samples:
    """Returns a source's samples, those of its first epoch, in the order in which it draws them.

    Args:
        source: where from.
        name: what they are.
        key: one typed key.
        present: as for `sampler`; images are turned into pixels by default.
        targets: a batch -> what metrics compare its samples with.
    """
    present = present or presented(source.sample_shape, source.value_range)

    @jax.jit
    def draw(arrays: PyTree, offsets: Array) -> Batch:
        return source.draw(arrays, key, jnp.zeros_like(offsets), offsets)

    def take(rows: np.ndarray) -> Batch:
        return draw(source.arrays, rows.astype(np.uint32))

    def on_host(tree: PyTree) -> PyTree:
        return jax.tree.map(np.asarray, tree)

    return Samples(name, source.size, lambda rows: np.asarray(present(take(rows).samples)),
                   condition=lambda rows: on_host(take(rows).condition),
                   targets=targets and (lambda rows: on_host(targets(take(rows)))))


def presented(sample_shape: tuple[int, ...], value_range: tuple[float, float]) -> Present:
    """Returns how samples are measured and shown: images as pixels, others as they are."""
    return partial(quantize, value_range=value_range) if len(sample_shape) == 3 else lambda x: x


def tokens(samples: Array) -> Array:
    """Returns text, one-hot or as probabilities [..., vocabulary], as its likeliest tokens, int32."""
    return samples.argmax(-1).astype(jnp.int32)


def of_classes(num_classes: int) -> Samples:
    """Returns requests for so many classes in turn."""
    return Samples("classes", None, np.asarray, "", lambda rows: (rows % num_classes).astype(np.int32),
                   lambda rows: {"label": rows % num_classes})


def sampler(game: GAN | Game, key: Key, present: Present, *, averaged: bool = True,
            requests: Samples | None = None,
            devices: list[Device] | None = None) -> Callable[[Any], Samples]:
    """Returns what gives a state's samples; sample i depends on the state, the key and i alone.

    Args:
        game: a GAN's specification, or a game that has `sample`.
        key: one typed key; the samples are those of `jaxgan.gan.sample`, or `Game.sample`, for it.
        present: how the generator's samples are to be measured, see `presented`.
        averaged: whether to use a GAN's averaged generator, if there is one.
        requests: None, or samples whose conditions the generator is given: sample i is drawn for the
            condition, and is to meet the targets, of the i-th of them.
        devices: which devices generate; all local ones by default.

    Raises:
        ValueError: a game without samples.
    """
    draw = _drawing(game)

    def generate(shared: PyTree, asked: tuple[Array, PyTree]) -> Array:
        rows, condition = asked
        example_keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
        return present(draw(shared, example_keys, len(rows), condition))

    mapped, requests = map_batches(generate, devices=devices), requests or Samples("", None, np.asarray)

    def of_state(state: Any) -> Samples:
        if isinstance(game, Game):
            shared = state
        else:
            shared = state.ema if averaged and state.ema is not None else state.generator.variables
        asked = requests.condition or (lambda rows: None)
        return Samples(f"step {int(state.step)}", requests.count,
                       lambda rows: mapped(shared, (rows, asked(rows))), "", requests.condition,
                       requests.targets)

    return of_state


def _drawing(game: GAN | Game) -> Callable[[PyTree, Key, int, PyTree], PyTree]:
    """Returns (a GAN's variables or a game's state, keys, count, condition) -> samples."""
    if isinstance(game, Game):
        if game.sample is None:
            raise ValueError("this game has no `sample`: give it one")
        return game.sample

    def draw(variables: PyTree, example_keys: Key, count: int, condition: PyTree) -> PyTree:
        latents = draw_latents(game, example_keys, count)
        samples, _ = samples_and_heads(game.generator.apply(variables, latents, condition, train=False))
        return game.lower(samples) if game.lower else samples

    return draw


class Observed(NamedTuple):
    """What metrics see of a set of samples.

    Attributes:
        features: of all samples, on the host; None if no metric asked for them.
        samples: the samples themselves; None if no metric asked for them.
        targets: what they are compared with, by name, each [count, ...]; None for nothing.
    """

    features: Features | None
    samples: np.ndarray | None
    targets: dict[str, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
    """Computes features batch by batch, on all devices of all processes.

    The last batch is filled up, so that one compiled program serves, and what filled it is dropped.

    Attributes:
        network: the feature network.
        batch_size: samples at a time, rounded up to a multiple of the devices.
        devices: which of this process's devices; all by default.
        cache: the folder where features of samples that have a digest are kept, in blocks, so that
            an interrupted evaluation goes on where it was; None for none. A block that is damaged, or
            of something else, is computed and saved again.
    """

    network: FeatureNetwork
    batch_size: int = 100
    devices: list[Device] | None = None
    cache: Path | None = None

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")

    @cached_property
    def _apply(self) -> Callable[[PyTree, np.ndarray], Features]:
        return map_batches(self.network.apply, devices=self.devices)

    @property
    def _batch(self) -> int:
        devices = len(self.devices or jax.local_devices())
        return -(-self.batch_size // devices) * devices

    def classifies(self, samples: Samples) -> bool:
        """Whether the network gives logits of such samples; nothing is computed."""
        return self._described(samples).logits is not None

    def observe(self, samples: Samples, count: int, *, features: bool = True, keep: bool = False,
                progress: Progress = lambda done: None) -> Observed:
        """Returns the first `count` samples' features, and the samples too if they are to be kept.

        Raises:
            ValueError: there are fewer samples.
        """
        if samples.count is not None and count > samples.count:
            raise ValueError(f"{count} samples are asked for, but {samples.name} has {samples.count}: "
                             "bring more, or ask for fewer")
        targets = samples.targets(np.arange(count)) if samples.targets else None
        if self.cache is None or not (samples.digest and features):
            return self._observe(samples, 0, count, features, keep, progress)._replace(targets=targets)
        one = self._described(samples)
        found = jax.tree.map(lambda *blocks: np.concatenate(blocks), *(
            self._cached(self.cache, samples, first, min(first + _BLOCK, count), one, progress)
            for first in range(0, count, _BLOCK)))
        return Observed(found, samples.take(np.arange(count)) if keep else None, targets)

    def _cached(self, cache: Path, samples: Samples, first: int, last: int, one: Features,
                progress: Progress) -> Features:
        about: dict[str, Any] = {"samples": samples.digest, "features": self.network.digest}
        path = cache / json_digest(about)[:32] / f"{first:08d}_{last:08d}.npz"
        about["rows"] = [first, last]
        found = _load(path, about, one)
        is_missing, = agreed(found is None)  # to one of several processes: then all compute it together
        if found is not None and not is_missing:
            progress(last - first)
            return found
        found = cast("Features", self._observe(samples, first, last, True, False, progress).features)
        if jax.process_index() == 0:
            _save(path, about, found)
        return found

    def _described(self, samples: Samples) -> Features:
        """The shapes and dtypes of one sample's features; nothing is computed."""
        return jax.eval_shape(self.network.apply, self.network.variables, samples.take(np.zeros(1, int)))

    def _observe(self, samples: Samples, first: int, last: int, features: bool, keep: bool,
                 progress: Progress) -> Observed:
        processes, batches = jax.process_count(), []
        for start in range(first, last, self._batch * processes):  # each process has a batch of these
            rows = start + self._batch * jax.process_index() + np.arange(self._batch)
            taken = samples.take(np.minimum(rows, last - 1))
            seen = Observed(self._apply(self.network.variables, taken) if features else None,
                            taken if keep else None)
            if processes > 1:
                seen = multihost_utils.process_allgather(seen, tiled=True)
            batches.append(seen)
            progress(min(self._batch * processes, last - start))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:last - first], *batches)


def _load(path: Path, about: dict[str, Any], one: Features) -> Features | None:
    """Returns a block of features, each like `one`; None if it isn't there, or isn't what was saved."""
    try:
        arrays = load_weights(path)
    except OSError:
        return None
    except ValueError as error:
        return _again(path, str(error))
    if "digest" not in arrays:  # the first release's
        return None
    digest = arrays.pop("digest")
    found = Features(*(cast("Array", arrays.pop(name, None)) for name in Features._fields))
    first, last = about["rows"]
    if arrays or jax.tree.map(lambda x: (x.shape, x.dtype), found) != jax.tree.map(
            lambda x: ((last - first, *x.shape[1:]), x.dtype), one):
        return _again(path, "it holds other arrays")
    if str(digest) != _digest(about, found):
        return _again(path, "it isn't what was saved")
    return found


def _again(path: Path, reason: str) -> None:
    warnings.warn(f"features in {path} are computed again ({reason})", UserWarning, stacklevel=2)


def _digest(about: dict[str, Any], found: Features) -> str:
    return json_digest({**about, "values": params_digest(found._asdict())})


def _save(path: Path, about: dict[str, Any], found: Features) -> None:
    """Saves a block of features whole or not at all; if it can't, evaluations only take longer."""
    arrays = {name: value for name, value in found._asdict().items() if value is not None}
    try:
        save_weights(path, {**arrays, "digest": np.array(_digest(about, found))})
    except OSError as error:
        warnings.warn(f"features can't be kept in {path.parent} ({error.strerror}); they are computed "
                      "again next time", UserWarning, stacklevel=2)
