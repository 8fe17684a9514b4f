"""Data sets by name, and batches as a function of the seed and the step."""

from jaxgan.data.catalogue import NAMES, load, open_folder
from jaxgan.data.dataset import DataNotFoundError, Dataset
from jaxgan.data.order import epoch_and_offset, shuffled_index
from jaxgan.data.prefetch import windows
from jaxgan.data.sources import (
    Examples,
    Part,
    Source,
    draw_step,
    pixels,
    quantize,
    resident,
    scale,
    streaming,
)
from jaxgan.data.stacked import stacked
from jaxgan.data.toy import MIXTURES, Mixture, mixture

__all__ = ["MIXTURES", "NAMES", "DataNotFoundError", "Dataset", "Examples", "Mixture", "Part", "Source",
           "draw_step", "epoch_and_offset", "load", "mixture", "open_folder", "pixels",
           "quantize", "resident", "scale", "shuffled_index", "stacked", "streaming", "windows"]
