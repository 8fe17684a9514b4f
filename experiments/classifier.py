"""Trains the classifier whose features evaluations of a data set use."""

import dataclasses
from typing import Annotated

import tyro

from jaxgan import console
from jaxgan.features import save_classifier

from . import launch, measuring
from .flags import as_size


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train on."""

    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "mnist"
    """The data set: digits, mnist, fashion_mnist, cifar10, another of TFDS, or folder:PATH."""
    data_dir: str = ""
    """Where data sets are; by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    image_size: int | str = 0
    """The size that images are cropped and resized to, 64 or 48x64; 0: their own, if they are of one
    size."""
    epochs: int = 0
    """How often to go through the set; 0: about 3000 batches of 128 images, and 40 times at most."""
    seed: int = 0
    """Of everything random."""
    out: str = ""
    """The file; by default the one where evaluations look for it, below ~/.cache/jaxgan/classifiers."""


def main(options: Options) -> None:
    """Trains, prints the accuracy and saves."""
    if options.out and not options.out.endswith(".npz"):
        raise ValueError(f"out must end in .npz; got {options.out!r}")
    out = launch.file_to_write(options.out) if options.out else None
    launch.keep_programs()
    size = as_size(options.image_size) if options.image_size else None
    training, test = measuring.open_splits(options.dataset, options.data_dir, size)
    path = out or measuring.classifier_path(training)
    if path is None:
        raise ValueError("there is no folder to keep the classifier in: give a file with --out")
    trained = measuring.train_classifier(training, test, seed=options.seed,
                                         epochs=options.epochs or None)
    save_classifier(path, trained)
    console.say(f"{path}: test accuracy {100 * trained.about['test_accuracy']:.2f} % on "
                f"{options.dataset} ({len(test)} images), {trained.about['epochs']} epochs")


if __name__ == "__main__":
    launch.tool(main, Options)
