"""How the n-grams of generated sequences are distributed."""

import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks


def ngram_divergence(real: ArrayLike, fake: ArrayLike, n: int) -> float:
    """Returns the Jensen-Shannon divergence, in bits, of the distributions of n-grams.

    (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2. Gulrajani et al. 2017 (arXiv 1704.00028)
    score language models so, with n from 1 to 4.

    Args:
        real: tokens, integers [samples, length].
        fake: tokens of sequences of the same length; the numbers of samples may differ.
        n: the length of an n-gram, in [1, length].

    Returns:
        In [0, 1]: 0 for equal distributions, 1 if no n-gram is in both.

    Raises:
        TypeError: the tokens aren't integers.
        ValueError: the shapes don't fit, or n is out of range.
    """
    real, fake = checks.features("real", real), checks.features("fake", fake)
    if real.shape[1] != fake.shape[1]:
        raise ValueError("real and fake must be sequences of the same length; got "
                         f"{real.shape[1]} and {fake.shape[1]}")
    tokens = np.concatenate([real, fake])
    if not np.issubdtype(tokens.dtype, np.integer):
        raise TypeError(f"real and fake must be integer tokens; got {real.dtype} and {fake.dtype}")
    if not 1 <= n <= tokens.shape[1]:
        raise ValueError(f"n must be in [1, {tokens.shape[1]}], the length of a sequence; got {n}")
    grams = _number(tokens, n)
    p, q = (np.bincount(part.ravel(), minlength=grams.max() + 1) / part.size
            for part in np.split(grams, [len(real)]))
    mean = (p + q) / 2
    divergences = [(part[part > 0] * np.log2(part[part > 0] / mean[part > 0])).sum() for part in (p, q)]
    return max(float(sum(divergences)) / 2, 0.0)


def _number(tokens: np.ndarray, n: int) -> np.ndarray:
    """Returns a number for each n-gram, below how many there are, [samples, length - n + 1]."""
    tokens = grams = np.unique(tokens, return_inverse=True)[1].reshape(tokens.shape)
    for last in range(1, n):
        longer = grams[:, :-1] * (tokens.max() + 1) + tokens[:, last:]
        grams = np.unique(longer, return_inverse=True)[1].reshape(longer.shape)
    return grams
