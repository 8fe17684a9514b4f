"""Data sets by name, and batches as a function of the seed and the step."""

from jaxgan.data.catalogue import NAMES, load
from jaxgan.data.dataset import DataNotFoundError, Dataset
from jaxgan.data.order import epoch_and_offset, shuffled_index
from jaxgan.data.sources import Examples, Source, draw_step, pixels, resident, streaming
from jaxgan.data.toy import MIXTURES, Mixture, mixture
from jaxgan.data.windows import windows

__all__ = ["MIXTURES", "NAMES", "DataNotFoundError", "Dataset", "Examples", "Mixture", "Source",
           "draw_step", "epoch_and_offset", "load", "mixture", "pixels", "resident",
           "shuffled_index", "streaming", "windows"]
