"""How well samples cover a mixture whose components are known."""

import numpy as np

from jaxgan.types import Array


def mode_coverage(samples: Array, centres: Array, sigma: float) -> dict[str, float]:
    """Counts the components that samples reach.

    Args:
        samples: [count, dimensions].
        centres: the components' centres, [components, dimensions].
        sigma: their standard deviation along each axis.

    Returns:
        `modes`: components that are nearest to at least 1 % of the samples; `high_quality`: the
        fraction of samples within 3 sigma of a centre (Srivastava et al. 2017, arXiv 1705.07761,
        section 4.1, counts them so); `modes_kl`: the Kullback-Leibler divergence, in nats, of the
        samples' distribution over nearest components from the uniform one.

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
    share = np.bincount(distances.argmin(axis=1), minlength=len(centres)) / len(samples)
    reached = share[share > 0]
    return {
        "modes": float((share >= 0.01).sum()),
        "high_quality": float((distances.min(axis=1) <= 3 * sigma).mean()),
        "modes_kl": float((reached * np.log(reached * len(centres))).sum()),
    }
