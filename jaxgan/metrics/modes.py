"""How well samples cover modes that are known: the components of a mixture, or classes."""

import math

import numpy as np
from jax.typing import ArrayLike


def mode_coverage(samples: ArrayLike, centres: ArrayLike, sigma: float) -> dict[str, float]:
    """Counts the components that samples reach.

    Srivastava et al. 2017 (arXiv 1705.07761), section 4.1; Lin et al. 2018 (arXiv 1712.04086), section
    4, who take 2,500 samples.

    Args:
        samples: [count, dimensions].
        centres: the components' centres, [components, dimensions].
        sigma: their standard deviation along each axis.

    Returns:
        `high_quality`: the fraction of samples within 3 sigma of the nearest centre; `modes`: the
        components that at least one of these samples is nearest to; `modes_kl`: the Kullback-Leibler
        divergence, in nats, of their distribution over the components from the uniform one. It is at
        most log(components), which it is, too, if there is no such sample.

    Raises:
        ValueError: the shapes don't fit, or samples aren't finite.
    """
    samples, centres = np.asarray(samples, np.float64), np.asarray(centres, np.float64)
    if ((samples.ndim, centres.ndim) != (2, 2) or samples.shape[1] != centres.shape[1]
            or not len(samples)):
        raise ValueError("samples and centres must have shapes [count, dimensions] and [components, "
                         f"dimensions]; got {samples.shape} and {centres.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("samples must be finite; some are NaN or infinite")
    distances = np.linalg.norm(samples[:, None] - centres[None], axis=-1)  # [count, components]
    is_near = distances.min(axis=1) <= 3 * sigma
    counts = np.bincount(distances[is_near].argmin(axis=1), minlength=len(centres))
    return {
        "modes": float((counts > 0).sum()),
        "high_quality": float(is_near.mean()),
        "modes_kl": (_divergence_from_uniform(counts / counts.sum()) if is_near.any()
                     else math.log(len(centres))),
    }


def class_coverage(predictions: ArrayLike, classes: int) -> dict[str, float]:
    """Counts the classes that a classifier sees in samples: of Stacked MNIST's 1000, say.

    Metz et al. 2017 (arXiv 1611.02163), appendix; Lin et al. 2018 (arXiv 1712.04086).

    Args:
        predictions: the class of each sample, integers [count] in [0, classes).
        classes: how many there are.

    Returns:
        `modes`: the classes that are predicted at all; `modes_kl`: the Kullback-Leibler divergence,
        in nats, of the predictions' distribution from the uniform one.

    Raises:
        TypeError: the predictions aren't integers.
        ValueError: they have another shape, or are out of range.
    """
    predictions = np.asarray(predictions)
    if not np.issubdtype(predictions.dtype, np.integer):
        raise TypeError(f"predictions must be integers; got {predictions.dtype}: take the argmax")
    if predictions.ndim != 1 or not predictions.size:
        raise ValueError(f"predictions must be [count]; got {predictions.shape}")
    if predictions.min() < 0 or predictions.max() >= classes:
        raise ValueError(f"predictions must be in [0, {classes}); they reach from {predictions.min()} "
                         f"to {predictions.max()}")
    share = np.bincount(predictions, minlength=classes) / len(predictions)
    return {"modes": float((share > 0).sum()), "modes_kl": _divergence_from_uniform(share)}


def _divergence_from_uniform(share: np.ndarray) -> float:
    reached = share[share > 0]
    return float((reached * np.log(reached * len(share))).sum())
