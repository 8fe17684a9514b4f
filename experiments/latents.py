"""Which images, or which latents of images: the flags of experiments that train on either, and decoders.

With --file, what is trained on is latents; what is shown and measured is images, which the decoder of
--autoencoder makes of samples.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import files
from jaxgan.data import DataNotFoundError, Dataset, Source, pixels
from jaxgan.data.latents import Latents as File
from jaxgan.data.latents import drawn, means, open_latents, scaled
from jaxgan.digests import json_digest, params_digest
from jaxgan.evaluation import Samples
from jaxgan.features import load_about, load_weights
from jaxgan.gan import GAN, sampled_variables
from jaxgan.models import Autoencoder
from jaxgan.models.autoencoder import factor, split_moments
from jaxgan.models.published import autoencoder as read_published
from jaxgan.parallel import map_batches
from jaxgan.types import Array, PyTree

from . import flags, image_sets, measuring, opening, settings
from .commands import called
from .image_sets import ClassImages
from .measuring import Decoding, Reference
from .settings import may_differ, since

_AT_ONCE = 32  # images, or latents, that a device computes
_SCALES = {(4, (128, 256, 512, 512)): 0.18215}  # published, by latents' channels and widths
_FAR = 3.0  # how many times larger or smaller latents may be than a published scale says
_SMALL = 2**26  # numbers in decoded training images that a classifier may be trained on
_OF_IMAGES = ("folder", "fit", "colour", "transparency", "data_range", "on_demand", "flip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents(ClassImages):
    """The data: images, or with --file latents of images."""

    file: str = may_differ("")
    """A file of latents, or of moments that they are drawn from: .npy, .npz or HDF5 (.h5), in place of
    --dataset and --image-size. A run goes on wherever the same data are."""
    autoencoder: str = may_differ("")
    """With --file: what decodes them: the folder of an autoencoder's run, or a .safetensors file in the
    layout of diffusers' AutoencoderKL."""
    latent_scale: float | None = since(None, before=None)
    """With --file: what latents are multiplied by for the networks, and divided by for the decoder;
    None: 1 over their standard deviation."""
    autoencoder_sha256: str | None = since(None, before=None)
    """With --file: the digest of the autoencoder's numbers, which have to be these; None: whatever they
    are, and the run keeps it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """An autoencoder with its numbers.

    Attributes:
        name: where it was read.
        model: the network.
        variables: its numbers.
        published_scale: what its makers multiply latents by; None if that isn't known.
    """

    name: str
    model: Autoencoder
    variables: PyTree
    published_scale: float | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its numbers."""
        return params_digest(self.variables)

    def moments(self, images: np.ndarray) -> np.ndarray:
        """Returns means and, behind them, standard deviations of images' latents, float32.

        Args:
            images: in [-1, 1], [count, height, width, channels].
        """
        return self._encode(images)

    def images(self, latents: np.ndarray) -> np.ndarray:
        """Returns what latents, [count, height, width, channels], are of: images, about in [-1, 1]."""
        return self._decode(latents)

    def image_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape of the image of a latent of this shape."""
        times = factor(self.model.widths)
        return latent_shape[0] * times, latent_shape[1] * times, self.model.channels

    @cached_property
    def _encode(self) -> Callable[[np.ndarray], np.ndarray]:
        def moments(variables: PyTree, images: Array) -> Array:
            mean, log_variance = split_moments(self.model.apply(variables, images, method="encode"))
            return jnp.concatenate([mean, jnp.exp(log_variance / 2)], -1)

        return _in_batches(moments, self.variables)

    @cached_property
    def _decode(self) -> Callable[[np.ndarray], np.ndarray]:
        return _in_batches(partial(self.model.apply, method="decode"), self.variables)


def _in_batches(function: Callable[[PyTree, Array], Array], variables: PyTree
                ) -> Callable[[np.ndarray], np.ndarray]:
    """The function on all of this process's devices, in batches of one size: compiled once."""
    mapped, size = map_batches(function), at_once()
    variables = jax.device_put(variables)

    def call(rows: np.ndarray) -> np.ndarray:
        found = []
        for first in range(0, len(rows), size):
            part = np.asarray(rows[first:first + size], np.float32)
            filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            found.append(mapped(variables, filled)[:len(part)])
        return np.concatenate(found)

    return call


def at_once() -> int:
    """How many images all of this process's devices compute in a batch."""
    return _AT_ONCE * jax.local_device_count()


def open_codec(path: str) -> Codec:
    """Opens an autoencoder.

    Args:
        path: the folder of a run of `experiments.autoencoder`, a file that `experiments.export` wrote of
            it, or a .safetensors file in the layout of diffusers' `AutoencoderKL`.

    Raises:
        ValueError: there is none, or it is something else.
    """
    if not Path(path).exists():
        raise ValueError(f"there is no autoencoder {path}: name with --autoencoder the folder of a run "
                         f"of {called('autoencoder')}, or a .safetensors file of diffusers' "
                         "AutoencoderKL")
    if opening.is_exported(path) and "jaxgan" not in load_about(path):
        try:
            model, variables = read_published(load_weights(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return Codec(path, model, variables, _published_scale(Path(path), model))
    if not Path(path).is_dir() and not opening.is_exported(path):
        raise ValueError(f"{path} is no autoencoder: name the folder of a run of "
                         f"{called('autoencoder')}, or a .safetensors file of diffusers' AutoencoderKL")
    run = opening.open_run(path)
    if not isinstance(run.game, GAN) or not isinstance(run.game.generator, Autoencoder):
        raise ValueError(f"{path} is a run of {run.experiment.name}, which has no decoder: name one of "
                         f"{called('autoencoder')}")
    return Codec(path, run.game.generator, sampled_variables(run.state))


def _published_scale(path: Path, model: Autoencoder) -> float | None:
    """What is said beside the weights of the latents' scale, or else what is known of such ones."""
    beside = path.parent / "config.json"
    if beside.is_file():
        said = files.read_json(beside, 2**20)
        scale = said.get("scaling_factor") if isinstance(said, Mapping) else None
        if type(scale) is float and 0 < scale < math.inf:
            return scale
    return _SCALES.get((model.latent_channels, tuple(model.widths)))


def settle(config: Any) -> Any:
    """Fills in the latents' scale, and which autoencoder it is and where, whatever folder one is in.

    Raises:
        ValueError: flags that don't go together, or latents that are no such decoder's.
    """
    data = config.data
    if not data.file:
        for name in ("autoencoder", "latent_scale", "autoencoder_sha256"):
            if getattr(data, name) not in ("", None):
                raise ValueError(f"{name} is for latents, and there are none: give them with --file, "
                                 f"which {called('encode')} writes")
        return config
    check(data)
    codec, file = _opened(data)
    return settings.replace(
        config, latent_scale=data.latent_scale or float(f"{1 / file.deviation:.6g}"),
        autoencoder=str(Path(data.autoencoder).resolve()), autoencoder_sha256=codec.digest)


def check(data: Latents) -> None:
    """Raises ValueError for flags that don't go with a file of latents."""
    if not data.autoencoder:
        raise ValueError("with --file give --autoencoder as well, whose decoder makes images of latents")
    for name in _OF_IMAGES:
        if value := getattr(data, name):
            raise ValueError(f"{name} is for images, and {data.file} holds latents; got {value}: leave "
                             "it out")
    if data.latent_scale is not None and not 0 < data.latent_scale < math.inf:
        raise ValueError(f"latent_scale must be above 0; got {data.latent_scale}")


def make_source(config: Any) -> Source:
    """Opens the training data of a configuration whose `data` are `Latents`: images, or latents.

    Latents are drawn from moments afresh each time, by the example's key.

    Raises:
        ValueError: as for `image_sets.make_class_source`, or latents that are no such decoder's.
    """
    data = config.data
    if not data.file:
        return image_sets.make_class_source(config)
    codec, file = _opened(data)
    source = flags.image_source(config, scaled(file.train, data.latent_scale), labels=data.classes > 0,
                                weights=image_sets.weights_of(data, file.train))
    if data.classes:
        image_sets.check_classes(data, source, "classes")
    source = source._replace(digest=_digest(codec, file, data.latent_scale), scaling=None)
    return drawn(source) if file.is_moments else source


def make_reference(config: Any) -> Reference:
    """What samples of such a configuration are measured against.

    Of latents these are the images that the decoder makes of the file's own: of moments, of the means.
    """
    data = config.data
    if not data.file:
        return image_sets.make_class_reference(config)
    codec, opened = partial(_codec, data), partial(_opened, data)

    def digest() -> str:
        return _digest(*opened(), data.latent_scale)

    @cache
    def trained(split: str) -> Samples:
        _, file = opened()
        part = scaled(getattr(file, split), data.latent_scale)
        if not len(part):
            raise DataNotFoundError(f"{data.file} holds out no latents for tests")

        def take(rows: np.ndarray) -> np.ndarray:
            return means(part.scaling.to_float(part[rows][0]), is_moments=file.is_moments)

        def labels(rows: np.ndarray) -> np.ndarray:
            return part.labels[rows]

        return Samples(f"latents {split}", len(part), take, "", labels,
                       lambda rows: {"label": part.labels[rows]})

    def decode(samples: Any) -> np.ndarray:
        return codec().images(np.asarray(samples, np.float32) / np.float32(data.latent_scale))

    def reals(split: str) -> Samples:
        latents = trained(split)
        return latents._replace(
            name=f"decoded {Path(data.file).name} {split}",
            take=lambda rows: pixels(decode(latents.take(rows))),
            digest=json_digest({"latents": digest(), "split": split}))

    @cache
    def labelled(split: str) -> Dataset:
        samples, (_, file) = reals(split), opened()
        rows = np.arange(samples.count)
        made = Dataset(samples.name, samples.take(rows), samples.condition(rows),
                       file.train.class_names or ("images",))
        vars(made)["digest"] = samples.digest  # pixels may differ by one on another machine
        return made

    def features() -> str:
        codec, file = opened()
        shape = codec.image_shape(file.train.sample_shape)
        is_small = len(file.train) * math.prod(shape) <= _SMALL
        return ("classifier" if is_small and len(file.train.class_names) > 1
                else measuring.untrained_features(shape))

    accuracy = "accuracy," if data.classes else ""
    return Reference(
        reals, features, "fd", f"{accuracy}fd,kid,is,pr,dc,copying,swd", labelled,
        about=lambda: {"data_sha256": digest()},
        decoding=Decoding(decode, lambda shape: codec().image_shape(shape), trained))


def _codec(data: Latents) -> Codec:
    """Opens the autoencoder, once as long as it stays as it is.

    Raises:
        ValueError: it is another one than the run was begun with.
    """
    path = data.autoencoder
    there = Path(path) / "checkpoints" if Path(path).is_dir() else Path(path)
    codec = _kept_codec(path, _changed(there))
    if data.autoencoder_sha256 not in (None, codec.digest):
        raise ValueError(f"{path} is another autoencoder than the one of the digest "
                         f"{data.autoencoder_sha256:.12}, which is asked for: bring that back")
    return codec


def _opened(data: Latents) -> tuple[Codec, File]:
    """Opens the autoencoder and its latents, once as long as they stay as they are."""
    codec = _codec(data)
    return codec, _kept_file(data.file, data.table, codec, _changed(Path(data.file).expanduser()))


def _changed(path: Path) -> int:
    """When a file was changed last; 0 if it isn't there."""
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(2)
def _kept_codec(path: str, changed: int) -> Codec:
    return open_codec(path)


@lru_cache(1)
def _kept_file(path: str, table: str | None, codec: Codec, changed: int) -> File:
    return _fitting(path, table, codec)


def _fitting(path: str, table: str | None, codec: Codec) -> File:
    """Opens the latents, which have to be those of the autoencoder.

    Raises:
        ValueError: they are of another shape, scale or autoencoder.
    """
    file = open_latents(path, codec.model.latent_channels, table=table)
    if (of := file.about.get("autoencoder_sha256")) is not None:
        if of != codec.digest:
            raise ValueError(f"the latents in {path} are of another autoencoder than {codec.name}: "
                             f"give that one, or write them anew with {called('encode')}")
        return file
    if codec.published_scale is None:
        return file
    times = file.deviation * codec.published_scale  # about 1 of what the encoder makes
    if not 1 / _FAR < times < _FAR:
        raise ValueError(f"the latents in {path} have a standard deviation of "
                         f"{file.deviation:.3g}, and those that {codec.name} decodes about "
                         f"{1 / codec.published_scale:.3g}: if they were multiplied by its scaling "
                         f"factor, {codec.published_scale:g}, divide them by it")
    return file


def _digest(codec: Codec, file: File, scale: float) -> str:
    """What says which latents these are, and of which images."""
    return json_digest({"latents": file.train.digest, "test": file.test.digest if len(file.test) else "",
                        "autoencoder": codec.digest, "scale": scale})
