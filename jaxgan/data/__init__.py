"""Data sets by name, and batches as a function of the seed and the step."""

from jaxgan.data.catalogue import NAMES, load
from jaxgan.data.dataset import DataNotFoundError, Dataset
from jaxgan.data.order import epoch_and_offset, shuffled_index
from jaxgan.data.sources import Source, draw_step, pixels, resident
from jaxgan.data.toy import MIXTURES, Mixture, mixture

__all__ = ["MIXTURES", "NAMES", "DataNotFoundError", "Dataset", "Mixture", "Source",
           "draw_step", "epoch_and_offset", "load", "mixture", "pixels", "resident",
           "shuffled_index"]
