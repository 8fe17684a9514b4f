"""Data sets by name, and batches as a function of the seed and the step."""

from jaxgan.data.arrays import Arrays, Split, open_arrays
from jaxgan.data.canvases import canvases
from jaxgan.data.catalogue import NAMES, load, open_folder
from jaxgan.data.dataset import DataNotFoundError, Dataset
from jaxgan.data.domains import open_domains, outlines, translating
from jaxgan.data.masked import MASKS, masked
from jaxgan.data.order import epoch_and_offset, position_keys, shuffled_index, weighted_index
from jaxgan.data.prefetch import windows
from jaxgan.data.scaling import Scaling
from jaxgan.data.sources import (
    Examples,
    Part,
    Source,
    class_weights,
    draw_step,
    flipped,
    in_memory,
    jittered,
    pixels,
    quantize,
    resident,
    scale,
    streaming,
)
from jaxgan.data.stacked import stacked
from jaxgan.data.text import Corpus, decode, embedded_text, encode, markov, read_text, sequences
from jaxgan.data.toy import MIXTURES, Mixture, mixture

__all__ = ["MASKS", "MIXTURES", "NAMES", "Arrays", "Corpus", "DataNotFoundError", "Dataset",
           "Examples", "Mixture", "Part", "Scaling", "Source", "Split", "canvases", "class_weights",
           "decode", "draw_step", "embedded_text", "encode", "epoch_and_offset", "flipped",
           "in_memory", "jittered", "load", "markov", "masked", "mixture", "open_arrays", "open_domains",
           "open_folder", "outlines", "pixels", "position_keys", "quantize", "read_text", "resident",
           "scale", "sequences", "shuffled_index", "stacked", "streaming", "translating",
           "weighted_index", "windows"]
