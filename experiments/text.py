"""WGAN-GP that writes text character by character, on one's own text or English that comes with Python.

Gulrajani et al. 2017 (arXiv 1704.00028), the language model of section 5: the generator gives a
distribution over the characters at each of 32 places, all at once, and the critic sees these beside
one-hot text. The settings of its public code, for an accelerator, are `--preset paper`; the defaults
train on two cores in minutes. With `--latent` the GAN makes codes of an autoencoder, which is trained
beside it and writes them out (ARAE, Zhao et al. 2018, arXiv 1706.04223). `jsd_4` is the Jensen-Shannon
divergence of the 4-grams in 640 samples, as there, and in 20,000 sequences of the training text;
`in_training_text` is the share of samples that stand in that text as they are.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import keys
from jaxgan.codes import code_game
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
from jaxgan.evaluation import Comparison, Metric, Number, Samples, tokens
from jaxgan.gan import GAN, GANState, sampled_variables
from jaxgan.loops import Game
from jaxgan.models import CodeGenerator, MLPCritic, TextAutoencoder, TextCritic, TextGenerator

from . import flags, launch
from .experiment import Experiment
from .flags import Evaluation, Optimiser, Run, Schedule
from .measuring import Judge, Reference
from .settings import flat, may_differ, names, replace, since

_REALS = 20_000  # sequences that samples are measured against
_READ = 320  # held-out sequences that the autoencoder is measured on
_DENSE = 4  # times the width: units in each hidden layer of the networks of codes
_LARGEST_CODE = 2**14


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
class Codes:
    """Text by way of codes."""

    latent: bool = since(False, before=False)
    """Train an autoencoder of text and a GAN that makes its codes (ARAE), in place of a GAN that makes
    text; all networks are then updated on each of the --n-critic batches of an iteration."""
    code_size: int | None = since(None, before=None)
    """With --latent: numbers of a code; None: 32."""
    code_noise: float | None = since(None, before=None)
    """With --latent: standard deviation of the noise on the codes that are decoded in training, whose
    numbers have a mean square of 1; None: 1."""
    encoder_weight: float | None = since(None, before=None)
    """With --latent: the weight of what the encoder learns from the critic, beside the reconstruction;
    None: 0.01."""
    temperature: float | None = since(None, before=None)
    """With --latent: characters are drawn by their probabilities to the power of 1 / temperature; 0: the
    likeliest is taken; None: 1."""

    def settled(self) -> "Codes":
        """The same with numbers for what is left open."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return Codes(**{"code_size": 32, "code_noise": 1.0, "encoder_weight": 0.01, "temperature": 1.0}
                     | given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(flags.Config):
    """What trains in four minutes on two cores."""

    networks: Networks = Networks()
    codes: Codes = Codes()
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


def make_game(config: Config, sample_shape: tuple[int, ...]) -> GAN | Game:
    """Specifies the GAN, or with --latent the autoencoder and the GAN on its codes.

    Raises:
        ValueError: a setting of codes is out of its range, or without --latent.
    """
    _check_codes(config.codes)
    return (make_latent if config.codes.latent else make_gan)(config, sample_shape)


def make_gan(config: Config, sample_shape: tuple[int, ...]) -> GAN:
    """Specifies the GAN that makes text."""
    networks = config.networks
    return flags.make_gan(config, TextGenerator(*sample_shape, networks.width, networks.blocks),
                          TextCritic(networks.width, networks.blocks, norm=networks.critic_norm),
                          networks.latent_size)


def make_latent(config: Config, sample_shape: tuple[int, ...]) -> Game:
    """Specifies the autoencoder and the GAN on its codes."""
    networks, codes, count = config.networks, config.codes.settled(), config.schedule.n_critic
    hidden = (_DENSE * networks.width,) * 2

    def on_codes(config: Config) -> GAN:
        return flags.make_gan(config, CodeGenerator(codes.code_size, hidden),
                              MLPCritic(hidden, norm=networks.critic_norm), networks.latent_size)

    by_batch = {name: count * value for name, value in flat(config).items()
                if name in ("decay_steps", "schedule_images", "warmup_steps")}
    gan = dataclasses.replace(  # its generator is updated as often as its critic
        on_codes(config), generator_optimizer=on_codes(replace(config, **by_batch)).generator_optimizer)
    return code_game(
        make_autoencoder(config, sample_shape), gan, code_noise=flags.as_schedule(codes.code_noise),
        encoder_weight=flags.weight_of(codes, "encoder_weight") or 0.0, temperature=codes.temperature)


def make_autoencoder(config: Config, sample_shape: tuple[int, ...]) -> TextAutoencoder:
    """The autoencoder of sequences of this length and vocabulary."""
    length, vocabulary = sample_shape
    networks, size = config.networks, config.codes.settled().code_size
    return TextAutoencoder(length, vocabulary, size, networks.width, networks.blocks,
                           dtype=jnp.dtype(networks.precision))


def _check_codes(codes: Codes) -> None:
    for name in sorted(names(codes) - {"latent"}):
        if not codes.latent and getattr(codes, name) is not None:
            raise ValueError(f"{name} is for --latent; got {getattr(codes, name)} without it")
    size = codes.settled().code_size
    if not 1 <= size <= _LARGEST_CODE:
        raise ValueError(f"code_size must be from 1 to {_LARGEST_CODE}; got {size}")


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
        cache(reals), "raw", "ngrams,verbatim", "ngrams,verbatim", num_fake=640,
        own=(verbatim(lambda: corpus().part("train")),),
        judge=Judge(partial(make_judge, config, corpus), NUMBERS) if config.codes.latent else None,
        baselines={"4-gram sampler": chain, "uniform": uniform}, present=tokens,
        about=lambda: {"vocabulary": corpus().vocabulary, "text_sha256": corpus().digest})


NUMBERS = (
    Number("bits_per_character", "bits for a held-out character, its text's code known", False),
    Number("read_back", "share of held-out characters that are written back", True),
)


def make_judge(config: Config, corpus: Callable[[], Corpus], game: Game
               ) -> Callable[[GANState], dict[str, float]]:
    """Returns what measures an autoencoder, the averaged one if there is one, on held-out text."""
    del game
    length, vocabulary = config.data.length, len(corpus().vocabulary)
    try:
        held_out = of_corpus(corpus().part("test"), length, "text test")
    except DataNotFoundError:  # a short text may have none
        return lambda state: {}
    text = jax.nn.one_hot(held_out.take(np.arange(min(_READ, held_out.count))), vocabulary)
    module = make_autoencoder(config, (length, vocabulary))

    @jax.jit
    def measure(state: GANState) -> dict[str, jax.Array]:
        variables = {"params": sampled_variables(state)["params"]["autoencoder"]}
        codes = module.apply(variables, text, train=False, method="encode")
        logits = module.apply(variables, codes, text, train=False, method="decode")
        written = module.apply(variables, codes, jax.random.split(jax.random.key(0), len(text)), 0.0,
                               method="write")
        return {"bits_per_character": optax.softmax_cross_entropy(logits, text).mean() / jnp.log(2.0),
                "read_back": (written * text).sum(-1).mean()}

    return lambda state: {name: float(value) for name, value in measure(state).items()}


def verbatim(training: Callable[[], Corpus]) -> Metric:
    """The metric of how many samples stand in the training text as they are; held-out text has some."""
    def share(seen: Comparison) -> dict[str, float]:
        return {"in_training_text": training().holds(seen.fake.samples).mean()}

    return Metric("verbatim", share, (
        Number("in_training_text", "share that stands in the training text", None),), samples=True)


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


experiment = Experiment(Config, make_source, make_game, make_reference, make_text=make_text,
                        presets=PRESETS)


if __name__ == "__main__":
    launch.main(experiment)
