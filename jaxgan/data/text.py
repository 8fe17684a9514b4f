"""Text as characters: a corpus of one's own or the embedded one, and its sequences of equal length."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO, TextIOWrapper
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxgan import files
from jaxgan.data.dataset import DataNotFoundError
from jaxgan.data.order import shuffled_index
from jaxgan.data.sources import Source
from jaxgan.keys import stream
from jaxgan.types import Array, Batch, Key, PyTree

PLACEHOLDER = "\N{REPLACEMENT CHARACTER}"  # stands for every character that isn't in a vocabulary
_MOST_BYTES = 2**30  # of a file of text
_TEST = 10  # the last of so many equal parts of a text is held out


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text, or a part of one, as the numbers of its characters.

    Attributes:
        tokens: [characters], unsigned integers, as small as the vocabulary lets them be.
        vocabulary: the characters by their numbers.
    """

    tokens: np.ndarray
    vocabulary: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the vocabulary and the tokens."""
        digest = hashlib.sha256(f"{self.vocabulary}\n{self.tokens.dtype}\n".encode())
        digest.update(self.tokens.data)
        return digest.hexdigest()

    @cached_property
    def text(self) -> str:
        """The characters themselves."""
        codes = np.frombuffer(self.vocabulary.encode("utf-32-le"), np.uint32)
        return codes[self.tokens].tobytes().decode("utf-32-le")

    def holds(self, sequences: ArrayLike) -> np.ndarray:
        """Whether each of these sequences, [count, length] tokens, stands somewhere in the text."""
        return np.array([sequence in self.text for sequence in decode(sequences, self.vocabulary)])

    def part(self, split: str) -> "Corpus":
        """Returns the last tenth of the text for "test", what is before it for "train"."""
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test'; got {split!r}")
        end = len(self.tokens) - len(self.tokens) // _TEST
        return replace(self, tokens=self.tokens[:end] if split == "train" else self.tokens[end:])


def read_text(path: str | Path) -> str:
    """Reads a text file in UTF-8; every end of a line is a "\\n".

    Raises:
        DataNotFoundError: there is no such file.
        ValueError: it can't be read, or isn't UTF-8.
    """
    try:
        return TextIOWrapper(BytesIO(files.read(path, _MOST_BYTES)), encoding="utf-8-sig").read()
    except FileNotFoundError:
        raise DataNotFoundError(f"there is no text file {path}: give the path of one in UTF-8") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): convert it, with iconv -t UTF-8 "
                         "for example") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): give the path of a text file"
                         ) from error


def embedded_text() -> str:
    """Returns English that comes with Python: the topics of its `help`, in the order of their names.

    Runs of three or more of the marks * = ~ ^ + | -, which underline titles and draw tables, are left
    out, and every run of whitespace is one space. Other versions of Python have topics that differ a
    little, and so have the digests of their corpora.
    """
    from pydoc_data.topics import topics

    text = " ".join(topics[name] for name in sorted(topics))
    return " ".join(re.sub(r"[*=~^+|-]{3,}", " ", text).split())


def encode(text: str, max_vocabulary: int) -> Corpus:
    """Numbers the characters of a text by how frequent they are, equally frequent ones by code point.

    If there are more than `max_vocabulary`, the rarest become one, `PLACEHOLDER`, which is the last.

    Raises:
        ValueError: `max_vocabulary` is below 2, the text is empty or of a single character.
    """
    if max_vocabulary < 2:
        raise ValueError(f"max_vocabulary must be at least 2; got {max_vocabulary}")
    if not text:
        raise ValueError("the text is empty: give one with some thousands of characters")
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    counts = np.bincount(codes, minlength=ord(PLACEHOLDER) + 1)
    found = np.count_nonzero(counts)
    if found < 2:
        raise ValueError(f"the text has no other character than {text[0]!r}: give one of at least two")
    kept = np.argsort(-counts, kind="stable")[:found]
    if found > max_vocabulary or counts[ord(PLACEHOLDER)]:
        kept = np.append(kept[kept != ord(PLACEHOLDER)][:max_vocabulary - 1], ord(PLACEHOLDER))
    number = np.full(len(counts), len(kept) - 1, np.min_scalar_type(len(kept) - 1))
    number[kept] = np.arange(len(kept))
    return Corpus(number[codes], "".join(map(chr, kept)))


def decode(tokens: ArrayLike, vocabulary: str) -> list[str]:
    """Returns the texts of tokens, [texts, length]."""
    return ["".join(vocabulary[token] for token in row) for row in np.asarray(tokens)]


def sequences(corpus: Corpus, length: int) -> Source:
    """Returns a source of all sequences of a length in a text, in a fresh order every epoch.

    One starts at every character. The tokens stay on the device; a sample is one-hot, [length,
    vocabulary], float32.

    Raises:
        ValueError: the length is below 1, or the text is shorter.
    """
    size = num_sequences(corpus, length)

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        starts = shuffled_index(stream(key, "order"), epochs, offsets, size)
        tokens = arrays["tokens"][starts[:, None] + jnp.arange(length)[None]]
        return Batch(jax.nn.one_hot(tokens, len(corpus.vocabulary)))

    return Source({"tokens": jnp.asarray(corpus.tokens)}, draw, size,
                  (length, len(corpus.vocabulary)), (0.0, 1.0), 0, digest=corpus.digest)


def num_sequences(corpus: Corpus, length: int) -> int:
    """Returns how many sequences of a length there are.

    Raises:
        ValueError: the length is below 1, or the text is shorter.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1; got {length}")
    if len(corpus.tokens) < length:
        raise ValueError(f"the text has {len(corpus.tokens)} characters, fewer than the {length} of a "
                         "sequence: give a longer one, or a shorter length")
    return len(corpus.tokens) - length + 1


def markov(corpus: Corpus, length: int, *, order: int = 3, seed: int = 0
           ) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a sampler of a Markov chain: each character as often as it follows the ones before it.

    A sequence starts with a random place's characters, `order` of them. What follows is what stands in
    the text after a random one of the places where the last `order` characters do; the text counts as
    a circle, so that something always does. Shannon 1948, "A Mathematical Theory of Communication",
    section 3.

    Args:
        corpus: what the chain is fitted to.
        length: of a sequence, at least `order`.
        order: how many characters the next one depends on.
        seed: of all randomness.

    Returns:
        Numbers of sequences, [batch], to their tokens, int32 [batch, length]; a sequence depends on the
        seed and its number alone.

    Raises:
        ValueError: the order is not in [1, length].
    """
    if not 1 <= order <= length:
        raise ValueError(f"order must be in [1, {length}], the length of a sequence; got {order}")
    tokens = corpus.tokens.astype(np.int32)
    context = np.zeros(len(tokens), np.int64)  # a number for the `order` characters from each place on
    for i in range(order):
        context = np.unique(context * len(corpus.vocabulary) + np.roll(tokens, -i),
                            return_inverse=True)[1]
    places = np.argsort(context, kind="stable")  # by context, those of context c from first[c] on
    counts = np.bincount(context)
    first = np.cumsum(counts) - counts

    def sample(rows: np.ndarray) -> np.ndarray:
        chance = np.stack([np.random.default_rng([seed, row]).random(length) for row in rows])
        place = (chance[:, 0] * len(tokens)).astype(int)
        columns = [tokens[(place + i) % len(tokens)] for i in range(order)]
        for i in range(order, length):
            now = context[place]
            place = places[first[now] + (chance[:, i] * counts[now]).astype(int)]
            columns.append(tokens[(place + order) % len(tokens)])
            place = (place + 1) % len(tokens)
        return np.stack(columns, axis=1)

    return sample
