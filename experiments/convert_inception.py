"""Converts the Inception network's weights from PyTorch's file into one that opens faster."""

import dataclasses
from typing import Annotated

import tyro
from flax.traverse_util import flatten_dict

from jaxgan import console
from jaxgan.digests import params_digest
from jaxgan.features import load_inception, save_weights

from . import launch


@dataclasses.dataclass(frozen=True)
class Options:
    """What to convert."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The file pt_inception-2015-12-05-6726825d.pth of the project pytorch-fid."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The file to write: .npz or .safetensors."""


def main(options: Options) -> None:
    """Converts the weights."""
    out = launch.file_to_write(options.out)
    variables = load_inception(options.source)
    save_weights(out, flatten_dict(variables, sep="/"))
    console.say(f"{options.out}: digest {params_digest(variables)}")


if __name__ == "__main__":
    launch.tool(main, Options)
