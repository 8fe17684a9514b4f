"""Which images: the flags of experiments that train on any set of them, or on a folder of one's own."""

import dataclasses
from typing import Any, Literal

from experiments import flags
from experiments.settings import may_differ, reports
from jaxgan.data import NAMES, Dataset, Source, load, open_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(flags.Data):
    """The data."""

    dataset: Literal[*NAMES, "folder"]
    """Which images; a folder of one's own is given by --folder."""
    folder: str = may_differ("")
    """The folder with images, in class folders or not; a run goes on wherever the same images are."""
    image_size: int
    """The images of a folder are resized and cropped to this height and width."""
    on_demand: bool = reports(False)
    """With --stream: read a folder's images whenever they are needed."""


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
    examples = (open_folder(data.folder, image_size=data.image_size) if data.on_demand
                else open_data(data))
    return flags.image_source(config, examples, **options)


def open_data(data: Images, split: str = "train") -> Dataset:
    """Opens a split.

    Raises:
        ValueError: a folder that is not asked for, or none though one is.
    """
    if (data.dataset == "folder") != bool(data.folder):
        raise ValueError("--dataset folder and --folder PATH go together; got the data set "
                         f"{data.dataset} and the folder {data.folder!r}")
    if data.folder:
        return load(f"folder:{data.folder}", split, image_size=data.image_size)
    return load(data.dataset, split, data_dir=data.data_dir or None)
