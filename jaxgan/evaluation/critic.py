"""How a critic does on reals that it was not trained on, and how steep it is."""

import jax
import jax.numpy as jnp

from jaxgan import keys
from jaxgan.gan import GAN, GANState, as_shown, draw_latents, judge_shown, samples_and_heads
from jaxgan.penalties import gradient_norms, interpolate
from jaxgan.types import Batch, Key, Metrics, batch_size

_QUANTILES = (0.05, 0.5, 0.95)


def critic_diagnostics(gan: GAN, state: GANState, real: Batch, held_out: Batch, key: Key) -> Metrics:
    """Compares the critic's scores of training reals, held-out reals and fakes.

    A WGAN's estimate of the distance is E[D(real)] - E[D(fake)]. If it is larger on training reals than
    on held-out ones, the critic knows the training set by heart, and that much of the estimate is not
    about the distribution (Gulrajani et al. 2017, arXiv 1704.00028, section 5.5 and figure 5b).

    Args:
        gan: the specification.
        state: its state.
        real: training samples, [batch, ...]; if packs are scored, a multiple of them.
        held_out: as many other reals.
        key: of the fakes and of the interpolations.

    Returns:
        `critic/train_wasserstein` and `critic/held_out_wasserstein`: the estimate on either kind of
        reals; `critic/overfitting`: their difference; `critic/input_gradient_q05`, `_q50`, `_q95`:
        quantiles of the norm of the critic's gradient at points between training reals and fakes,
        which a penalty of target 1 wants at 1. float32 scalars. The generator is the one as trained.

    Raises:
        ValueError: the two batches are of different shapes.
    """
    shapes = [jax.tree.map(jnp.shape, batch.samples) for batch in (real, held_out)]
    if shapes[0] != shapes[1]:
        raise ValueError("real and held_out must have the same shape; got {} and {}".format(*shapes))

    lift = gan.lift or (lambda samples: samples)
    latents = draw_latents(gan, keys.stream(key, "latents"), batch_size(real.samples))
    fake, _ = samples_and_heads(gan.generator.apply(
        state.generator.variables, latents, real.condition, train=False))
    shown = [as_shown(gan, *pair) for pair in (
        (lift(real.samples), real.condition), (lift(held_out.samples), held_out.condition),
        (fake, real.condition))]
    means = [judge_shown(gan, state, *pair).scores.astype(jnp.float32).mean() for pair in shown]
    (real_shown, condition), _, (fake_shown, _) = shown
    norms = gradient_norms(lambda points: judge_shown(gan, state, points, condition).scores,
                           interpolate(real_shown, fake_shown, keys.stream(key, "interpolate")))
    return {
        "critic/train_wasserstein": means[0] - means[2],
        "critic/held_out_wasserstein": means[1] - means[2],
        "critic/overfitting": means[0] - means[1],
    } | {f"critic/input_gradient_q{round(100 * q):02d}": value for q, value in zip(
        _QUANTILES, jnp.quantile(norms, jnp.array(_QUANTILES)), strict=True)}
