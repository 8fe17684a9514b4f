"""WGAN-GP that writes text character by character, on one's own text or English that comes with Python.

Gulrajani et al. 2017 (arXiv 1704.00028), the language model of section 5: the generator gives a
distribution over the characters at each of 32 places, all at once, and the critic sees these beside
one-hot text. The settings of its public code, for an accelerator, are `--preset paper`; the defaults
train on two cores in minutes. `jsd_4` is the Jensen-Shannon divergence of the
4-grams in 640 samples, as there, and in 20,000 sequences of the training text.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import keys
from jaxgan.data import (
    Corpus,
    DataNotFoundError,
    Source,
    decode,
    embedded_text,
    encode,
    markov,
    read_text,
    sequences,
    shuffled_index,
)
from jaxgan.digests import json_digest
from jaxgan.evaluation import Samples, tokens
from jaxgan.gan import GAN
from jaxgan.models import TextCritic, TextGenerator

from . import flags, launch
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .measuring import Reference
from .settings import may_differ, replace

_REALS = 20_000  # sequences that samples are measured against


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(flags.Networks):
    """The networks."""

    width: int = 64
    """Channels."""
    blocks: int = 2
    """Residual blocks of either network."""
    latent_size: int = 128
    """Latent variables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(flags.Data):
    """The data."""

    text_file: str = may_differ("")
    """The text, in UTF-8; by default the help topics of Python."""
    length: int = 32
    """Characters in a sample."""
    max_vocabulary: int = 96
    """Characters that are told apart, the most frequent ones; one of them stands for all others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in four minutes on two cores."""

    networks: Networks = Networks()
    optimiser: Optimiser = Optimiser(learning_rate=4e-3, decay_steps=2000, ema_decay=0.99)
    schedule: Schedule = Schedule(steps=2000)
    data: Data = Data()
    run: Run = Run(sample_every=200)
    evaluation: Evaluation = Evaluation(eval_every=500)


PRESETS = {"laptop": Config(),
           "paper": replace(Config(), width=512, blocks=5, n_critic=10, learning_rate=1e-4,
                            decay_steps=0, ema_decay=0.0, steps=200_000)}


def open_corpus(config: Config) -> Corpus:
    """Opens the whole text."""
    return encode(read_text(config.data.text_file) if config.data.text_file else embedded_text(),
                  config.data.max_vocabulary)


def make_source(config: Config) -> Source:
    """Opens the data: all but the last tenth of the text."""
    return sequences(open_corpus(config).part("train"), config.data.length)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN."""
    networks = config.networks
    return flags.make_gan(config, TextGenerator(*sample_shape, networks.width, networks.blocks),
                          TextCritic(networks.width, networks.blocks, norm=networks.critic_norm),
                          networks.latent_size)


def make_text(settings: Mapping[str, Any]) -> Callable[[np.ndarray], list[str]]:
    """Returns what turns samples into a line each; what can't be printed is escaped as in Python."""
    return lambda samples: [
        "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        for text in decode(tokens(jnp.asarray(samples)), settings["vocabulary"])]


def make_reference(config: Config) -> Reference:
    """What samples are measured against, beside a Markov chain's text and characters at random."""
    corpus = cache(partial(open_corpus, config))

    def reals(split: str) -> Samples:
        return of_corpus(corpus().part(split), config.data.length, f"text {split}")

    def chain() -> Samples:
        return Samples("4-gram sampler", None, markov(corpus().part("train"), config.data.length))

    def uniform() -> Samples:
        shape, size = (config.data.length,), len(corpus().vocabulary)
        return Samples("uniform", None, lambda rows: np.stack([
            np.random.default_rng([0, row]).integers(0, size, shape, np.int32) for row in rows]))

    return Reference(
        cache(reals), "raw", "ngrams", "ngrams", num_fake=640,
        baselines={"4-gram sampler": chain, "uniform": uniform}, present=tokens,
        about=lambda: {"vocabulary": corpus().vocabulary, "text_sha256": corpus().digest})


def of_corpus(corpus: Corpus, length: int, name: str) -> Samples:
    """Returns sequences of a text, as tokens: each from another place, the same whatever the seed.

    Raises:
        DataNotFoundError: the text is shorter than one.
    """
    size = len(corpus.tokens) - length + 1
    if size < 1:
        raise DataNotFoundError(f"{name} has fewer than {length} characters: give a longer text")
    count = min(_REALS, size)
    order = jnp.arange(count, dtype=jnp.uint32)
    starts = np.asarray(shuffled_index(keys.stream(jax.random.key(0), name), jnp.zeros_like(order),
                                       order, size))

    def take(rows: np.ndarray) -> np.ndarray:
        return corpus.tokens[starts[rows][:, None] + np.arange(length)].astype(np.int32)

    return Samples(name, count, take, json_digest({"corpus": corpus.digest, "length": length}))


experiment = Experiment(Config, make_source, make_gan, make_reference, make_text=make_text,
                        presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
