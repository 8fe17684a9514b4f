"""Which images: the flags of experiments that train on any set of them, or on a folder of one's own."""

import dataclasses
from typing import Literal

from experiments import cli, digits
from jaxgan.data import Dataset, Source, load, open_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(digits.Config):
    """The flags, beside the settings of `experiments.digits`."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "folder"] = "digits"
    """Which images; a folder of one's own is given by --folder."""
    folder: str = ""
    """The folder with PNG or JPEG files, in class folders or not."""
    image_size: int = 64
    """The images of a folder are resized and cropped to this height and width."""
    on_demand: bool = False
    """With --stream: read a folder's images whenever they are needed."""
    eval_metrics: str = ""


def make_source(config: Images, **options: object) -> Source:
    """Opens the training images; options as for `jaxgan.data.resident`.

    Raises:
        ValueError: flags that don't go together.
    """
    if config.on_demand and not (config.stream and config.dataset == "folder"):
        raise ValueError("on_demand is for a folder's images that are streamed: give --stream and "
                         "--dataset folder as well")
    examples = (open_folder(config.folder, image_size=config.image_size) if config.on_demand
                else open_data(config))
    return cli.image_source(config, examples, **options)


def open_data(config: Images, split: str = "train") -> Dataset:
    """Opens a split.

    Raises:
        ValueError: a folder that is not asked for, or none though one is.
    """
    if (config.dataset == "folder") != bool(config.folder):
        raise ValueError("--dataset folder and --folder PATH go together; got the data set "
                         f"{config.dataset} and the folder {config.folder!r}")
    if config.folder:
        return load(f"folder:{config.folder}", split, image_size=config.image_size)
    return load(config.dataset, split, data_dir=config.data_dir or None)
