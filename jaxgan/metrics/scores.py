"""Scores of what a classifier says about samples."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks


class InceptionScore(NamedTuple):
    """The mean of the score over the splits, and its standard deviation (ddof 0) over them."""

    mean: float
    std: float


def inception_score(logits: ArrayLike, *, splits: int = 10, seed: int | None = None) -> InceptionScore:
    """Returns exp(E[KL(p(y|x) || p(y))]) over splits of the samples.

    Salimans et al. 2016 (arXiv 1606.03498), section 4; with the logits of Inception.

    Args:
        logits: [samples, classes].
        splits: into how many consecutive parts; part k is of the rows from k * samples // splits to
            (k + 1) * samples // splits, as in the reference implementations.
        seed: of `np.random.RandomState`, which shuffles the samples first; None for no shuffle.

    Returns:
        Each split's score is in [1, classes].

    Raises:
        TypeError, ValueError: the logits aren't finite numbers of that shape, or there are fewer
            samples than splits.
    """
    checks.positive(splits=splits)
    logits = checks.features("logits", logits, at_least=splits)
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(len(logits))]
    ends = [k * len(logits) // splits for k in range(splits + 1)]
    values = [_score(logits[start:end]) for start, end in pairwise(ends)]
    return InceptionScore(float(np.mean(values)), float(np.std(values)))


def _score(logits: np.ndarray) -> float:
    from scipy.special import log_softmax, logsumexp

    log_p = log_softmax(logits.astype(np.float64), axis=1)
    log_marginal = logsumexp(log_p, axis=0) - np.log(len(log_p))
    return np.exp((np.exp(log_p) * (log_p - log_marginal)).sum(axis=1).mean())
