"""Which images: the flags of experiments that train on a folder of one's own, or on any set of them."""

import dataclasses
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from jaxgan.data import NAMES, Dataset, Source, class_weights, load, open_folder
from jaxgan.data.decoding import COLOURS, FITS, TRANSPARENCIES

from . import flags, measuring
from .measuring import Reference
from .settings import may_differ, reports, since


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder(flags.Data):
    """The data."""

    folder: str = may_differ("")
    """The folder with images, in class folders or not, or a zip or tar file of it; a run goes on
    wherever the same images are."""
    image_size: int | str | None
    """The images of a folder are brought to this height and width: 64, or 48x64; None: their own."""
    fit: Literal[*FITS] | None = None
    """How: by cropping about the centre (None), padding with black, or stretching."""
    colour: Literal[*COLOURS] | None = since(None, before="rgb")
    """What they are: grey, RGB, RGBA, or each image in a file (a TIFF's pages) a channel; None: grey if
    all are, else RGB."""
    transparency: Literal[*TRANSPARENCIES] | None = None
    """What becomes of it: on white (None), on black, kept as a fourth channel, or dropped."""
    data_range: str | None = None
    """The values that become -1 and 1, LOW,HIGH; None: 0 and 255, of numbers of more bits the lowest and
    the highest of all images."""
    table: str | None = may_differ(None)
    """A CSV or JSON file with the images' classes and numbers; None: dataset.json or labels.csv beside
    them, if there is one."""
    balance: Literal["classes"] | None = None
    """Draw all classes equally often, however many images each has."""
    on_demand: bool = reports(False)
    """With --stream: read a folder's images whenever they are needed, for sets larger than memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(Folder):
    """The data."""

    dataset: Literal[*NAMES, "folder"]
    """Which images; a folder of one's own is given by --folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassImages(Images):
    """The data."""

    classes: int = 0
    """How many classes the images are of, to draw them for these; 0: for none."""


def make_class_source(config: Any, **options: Any) -> Source:
    """Opens the training images of a configuration whose `data` are `ClassImages`, with labels if asked.

    Options are those of `make_source`.

    Raises:
        ValueError: there are more classes, or fewer.
    """
    source = make_source(config, labels=config.data.classes > 0, **options)
    if config.data.classes:
        check_classes(config.data, source, "classes")
    return source


def make_class_reference(config: Any) -> Reference:
    """What samples of such a configuration are measured against.

    In the features of a classifier, but for a folder's images that are in no classes.
    """
    opened = cache(partial(open_data, config.data))

    def features() -> str:
        images = opened("train")
        return ("classifier" if len(images.class_names) > 1
                else measuring.untrained_features(images.images.shape[1:]))

    accuracy = "accuracy," if config.data.classes else ""
    return measuring.of_images(opened, features if config.data.folder else "classifier",
                               quick=f"{accuracy}fd", metrics=f"{accuracy}fd,kid,is,pr,dc,copying,swd")


def make_source(config: Any, **options: Any) -> Source:
    """Opens the training images of a configuration whose `data` are `Images`.

    Args:
        config: the configuration.
        **options: as for `jaxgan.data.resident`.

    Raises:
        ValueError: flags that don't go together.
    """
    data = config.data
    if data.on_demand and not (data.stream and data.dataset == "folder"):
        raise ValueError("on_demand is for a folder's images that are streamed: give --stream and "
                         "--dataset folder as well")
    examples = open_folder(data.folder, **wish(data)) if data.on_demand else open_data(data)
    return flags.image_source(config, examples, weights=weights_of(data, examples), **options)


def check_classes(data: Any, source: Source, name: str = "num_classes") -> None:
    """Raises ValueError unless the source has as many classes as a setting says."""
    if source.num_classes != getattr(data, name):
        where = getattr(data, "file", "") or data.folder or data.dataset
        found = source.num_classes
        wanted = 0 if name == "classes" and found == 1 else found
        raise ValueError(f"{name} is {getattr(data, name)}, but {where} has {found}: give "
                         f"--{name.replace('_', '-')} {wanted}")


def weights_of(data: Folder, examples: Any) -> np.ndarray | None:
    """How often images are drawn; None for all alike.

    Raises:
        ValueError: classes are to be balanced, but there is only one.
    """
    if not data.balance:
        return None
    if len(examples.class_names) < 2:
        raise ValueError("--balance classes is for images in classes: leave it out")
    return class_weights(examples.labels)


def open_data(data: Images, split: str = "train") -> Dataset:
    """Opens a split.

    Raises:
        ValueError: a folder that is not asked for, or none though one is.
    """
    check_folder(data)
    if data.folder:
        return load(f"folder:{data.folder}", split, **wish(data))
    return load(data.dataset, split, data_dir=data.data_dir or None)


def check_folder(data: Images, *, optional: bool = False) -> None:
    """Raises ValueError for a folder that is not asked for, or for none though one has to be there."""
    if (data.dataset == "folder") != bool(data.folder) and not (optional and not data.folder):
        raise ValueError("--dataset folder and --folder PATH go together; got the data set "
                         f"{data.dataset} and the folder {data.folder!r}")


def wish(data: Folder) -> dict[str, Any]:
    """What a folder's images are to be, as `jaxgan.data.load` takes it.

    Raises:
        ValueError: the size or the range of values is none.
    """
    size = None if data.image_size is None else flags.as_size(data.image_size)
    return {"image_size": size, "fit": data.fit, "colour": data.colour,
            "transparency": data.transparency, "data_range": flags.as_range(data.data_range),
            "table": data.table}
