"""Data sets by name, and batches as a function of the seed and the step."""

from jaxgan.data.canvases import canvases
from jaxgan.data.catalogue import NAMES, load, open_folder
from jaxgan.data.dataset import DataNotFoundError, Dataset
from jaxgan.data.masked import MASKS, masked
from jaxgan.data.order import epoch_and_offset, shuffled_index
from jaxgan.data.prefetch import windows
from jaxgan.data.sources import (
    Examples,
    Part,
    Source,
    draw_step,
    in_memory,
    pixels,
    position_keys,
    quantize,
    resident,
    scale,
    streaming,
)
from jaxgan.data.stacked import stacked
from jaxgan.data.text import Corpus, decode, embedded_text, encode, markov, read_text, sequences
from jaxgan.data.toy import MIXTURES, Mixture, mixture

__all__ = ["MASKS", "MIXTURES", "NAMES", "Corpus", "DataNotFoundError", "Dataset", "Examples", "Mixture",
           "Part", "Source", "canvases", "decode", "draw_step", "embedded_text", "encode",
           "epoch_and_offset", "load", "markov", "masked", "mixture", "open_folder", "pixels",
           "in_memory", "position_keys", "quantize", "read_text", "resident", "scale", "sequences",
           "shuffled_index", "stacked", "streaming", "windows"]
