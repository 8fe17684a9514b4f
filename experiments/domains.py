"""Images of two kinds, A and B: the flags of experiments that translate one into the other."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import evaluation
from jaxgan.data import (
    Dataset,
    Source,
    jittered,
    load,
    open_domains,
    outlines,
    pixels,
    scale,
    translating,
)
from jaxgan.data.decoding import FITS
from jaxgan.evaluation import Samples
from jaxgan.pictures import grid
from jaxgan.training import Picture
from jaxgan.types import Array

from . import flags, measuring
from .measuring import Reference
from .settings import may_differ, since

_RANGE = (-1.0, 1.0)
_COLUMNS = 12

Translate = Callable[[Any, Array], Array]  # state, images -> images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domains(flags.Data):
    """The data."""

    dataset: Literal["digits", "mnist", "fashion_mnist"] | None = None
    """The images of a set are B, and their outlines A; None: those of the digits, or a folder's."""
    folder: str = may_differ("")
    """The folder that holds the folders A and B of images, or trainA and trainB; a run goes on wherever
    the same images are."""
    image_size: int | str | None = 32
    """All images are brought to this height and width: 64, or 48x64; None: their own."""
    fit: Literal[*FITS] | None = None
    """How those of a folder are: by cropping about the centre (None), padding with black, or
    stretching."""
    colour: Literal["grey", "rgb", "rgba"] | None = None
    """What those of a folder are; None: grey if all are, else RGB."""
    jitter: float | None = since(None, before=None)
    """In training, images are enlarged so many times, and parts of their own size are cut out at random
    places, of a pair's at the same one: 1.117 in the articles, from 256 to 286 pixels."""
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """What becomes of what: B is made of A, or A of B."""


def open_kinds(data: Domains, split: str, *, paired: bool) -> tuple[Dataset, Dataset]:
    """Opens the images to be translated, and those that they are to become.

    Raises:
        ValueError: a data set and a folder are both given, or what is for a folder without one.
    """
    if data.folder and data.dataset:
        raise ValueError(f"dataset is {data.dataset} and folder {data.folder!r}: give one of them")
    size = None if data.image_size is None else flags.as_size(data.image_size)
    wish = {"fit": data.fit, "colour": data.colour}
    if data.folder:
        kinds = open_domains(data.folder, split, paired=paired, image_size=size, **wish)
    else:
        for name, value in wish.items():
            if value is not None:
                raise ValueError(f"{name} is for the images of a folder; got {value}: leave it out, or "
                                 "give --folder")
        filled = load(data.dataset or "digits", split, data_dir=data.data_dir or None, image_size=size)
        kinds = (dataclasses.replace(filled, name=f"outlines of {filled.name}",
                                     images=outlines(filled.images)), filled)
    return kinds if data.direction == "a_to_b" else kinds[::-1]


def make_source(config: Any, *, paired: bool) -> Source:
    """Opens the training images of a configuration whose `data` are `Domains`, in pairs or not."""
    sources = [flags.image_source(config, kind)
               for kind in open_kinds(config.data, "train", paired=paired)]
    if (times := config.data.jitter) is not None:
        if not 1 <= times <= 2:
            raise ValueError(f"jitter must be from 1 to 2, like 1.1; got {times}")
        sources = [jittered(source, tuple(round(times * side) for side in source.sample_shape[:2]))
                   for source in sources]
    return translating(*sources, paired=paired)


def make_reference(config: Any, *, paired: bool) -> Reference:
    """What translations are measured against: their partners, where these are known, and the others."""
    data = config.data
    is_known, is_set = paired or not data.folder, not data.folder
    opened = cache(lambda split: open_kinds(data, split, paired=paired))
    images = measuring.of_images(
        lambda split: opened(split)[1],
        "classifier" if is_set else lambda: measuring.untrained_features(
            opened("train")[1].images.shape[1:]),
        "translation,fd" if is_known else "fd",
        ",".join(["translation"] * is_known + ["accuracy"] * is_set + ["fd", "kid", "pr", "swd"]))

    @cache
    def requests(split: str) -> Samples:
        source, target = opened(split)

        def condition(rows: np.ndarray) -> np.ndarray:
            return np.asarray(scale(jnp.asarray(source.images[rows % len(source)]), _RANGE))

        def targets(rows: np.ndarray) -> dict[str, np.ndarray]:
            return {"image": target.images[rows], "label": target.labels[rows]}

        return evaluation.of_dataset(target, split)._replace(
            condition=condition, targets=targets if is_known else None)

    def untranslated() -> Samples:
        source, _ = opened("test")
        return requests("test")._replace(name="untranslated", take=lambda rows: source.images[rows],
                                         digest="")

    return images._replace(requests=requests,
                           baselines={"untranslated": untranslated} if is_known else {},
                           about=lambda: {"source_sha256": opened("train")[0].digest})


def make_picture(reference: Reference, translates: Sequence[Sequence[Translate]], *, shows_target: bool
                 ) -> Picture:
    """Returns the picture of held-out images, in bands of rows.

    Args:
        reference: the experiment's.
        translates: for each kind of images to begin with, source and then target, what is made of them,
            one of the other, a row each.
        shows_target: whether the source's partners are a last row.
    """
    requests = reference.requests("test")
    columns = min(_COLUMNS, requests.count)
    bands = 1 if len(translates) > 1 else min(3, requests.count // columns)
    rows = np.arange(columns * bands)
    target = requests.take(rows)
    first = [jnp.asarray(requests.condition(rows)), scale(jnp.asarray(target), _RANGE)]
    translates = [[jax.jit(translate) for translate in each] for each in translates]

    def picture(state: Any) -> np.ndarray:
        shown = []
        for images, each in zip(first, translates, strict=False):
            shown.append(pixels(images))
            for translate in each:
                images = translate(state, images)
                shown.append(pixels(images))
        shown = np.stack([*shown, *[target] * shows_target])
        shown = shown.reshape(len(shown), bands, columns, *target.shape[1:]).swapaxes(0, 1)
        return grid(shown.reshape(-1, *target.shape[1:]), columns)

    return picture
