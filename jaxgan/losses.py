"""Adversarial losses: pairs of pure functions of the critic's scores.

Both halves of a pair map `(real_scores [batch], fake_scores [batch])` to a scalar to be minimised,
in float32 whatever the scores' precision. Of scores of patches, [batch, down, across], the mean is over
the patches as well: each has a loss of its own (Isola et al. 2017, arXiv 1611.07004, section 3.2.2).
Scores are unbounded (logits where the loss is a cross-entropy), so no loss takes the logarithm of a
sigmoid. All are finite at any finite score, but for least squares, whose squares overflow beyond 1.8e19.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxgan.types import Array, ScoreLoss


class AdversarialLoss(NamedTuple):
    """What the critic and the generator minimise.

    Attributes:
        critic: `(real_scores [batch], fake_scores [batch]) -> scalar`.
        generator: the same for the generator; most generators' losses ignore the real scores.
        across_batch: whether a sample's loss depends on the batch's other samples. The steps then
            gather the scores of all devices before they call the loss.
        share: None, or iteration -> the share of the batch's fakes, those with the highest scores, that
            the generator's loss is of: see `top_k`.
    """

    critic: ScoreLoss
    generator: ScoreLoss
    across_batch: bool = False
    share: optax.Schedule | None = None


def wasserstein() -> AdversarialLoss:
    """The Wasserstein loss: critic `E[D(fake)] - E[D(real)]`, generator `-E[D(fake)]`.

    It is meaningful for a Lipschitz critic: add a penalty or clip the weights.
    Arjovsky et al. 2017 (arXiv 1701.07875), equations 2 and 3.
    """
    return _pair(lambda real, fake: fake.mean() - real.mean(),
                 lambda real, fake: -fake.mean())


def minimax(label_smoothing: float = 0.0) -> AdversarialLoss:
    """The original game, binary cross-entropy on logits; the generator *minimises*
    `E[log(1 - sigmoid(D(fake)))]`, which saturates when the critic is sure.

    Goodfellow et al. 2014 (arXiv 1406.2661), equation 1.

    Args:
        label_smoothing: the critic's target for reals is `1 - label_smoothing`, in [0, 1);
            fakes keep 0 ("one-sided", Salimans et al. 2016, arXiv 1606.03498, section 3.4).
    """
    return _pair(_cross_entropy_critic(label_smoothing),
                 lambda real, fake: -jax.nn.softplus(fake).mean())


def non_saturating(label_smoothing: float = 0.0) -> AdversarialLoss:
    """The cross-entropy critic of `minimax` with the generator minimising
    `-E[log sigmoid(D(fake))]`, whose gradient is strong where the fakes are bad.

    Goodfellow et al. 2014 (arXiv 1406.2661), section 3, last paragraph.

    Args:
        label_smoothing: as for `minimax`.
    """
    return _pair(_cross_entropy_critic(label_smoothing),
                 lambda real, fake: jax.nn.softplus(-fake).mean())


def least_squares(
    real_target: float = 1.0, fake_target: float = 0.0, generator_target: float = 1.0
) -> AdversarialLoss:
    """The mean squared error to fixed targets: critic `E[(D(real) - b)^2]/2 + E[(D(fake) - a)^2]/2`,
    generator `E[(D(fake) - c)^2]/2`.

    Mao et al. 2017 (arXiv 1611.04076), equation 2; `b - c = 1, b - a = 2` (targets 1, -1, 0) gives
    the Pearson chi-square divergence, the defaults are the paper's equation 9.

    Args:
        real_target: b, the critic's target for reals.
        fake_target: a, the critic's target for fakes.
        generator_target: c, what the generator wants its fakes to score.
    """
    return _pair(
        lambda real, fake: 0.5 * (jnp.square(real - real_target).mean()
                                  + jnp.square(fake - fake_target).mean()),
        lambda real, fake: 0.5 * jnp.square(fake - generator_target).mean(),
    )


def hinge(margin: float = 1.0) -> AdversarialLoss:
    """The hinge loss: critic `E[max(0, m - D(real))] + E[max(0, m + D(fake))]`, generator
    `-E[D(fake)]`.

    Lim & Ye 2017 (arXiv 1705.02894); Miyato et al. 2018 (arXiv 1802.05957), equations 16 and 17.

    Args:
        margin: m, above 0: scores beyond it no longer move the critic.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0; got {margin}")
    return _pair(
        lambda real, fake: jax.nn.relu(margin - real).mean() + jax.nn.relu(margin + fake).mean(),
        lambda real, fake: -fake.mean(),
    )


def relativistic() -> AdversarialLoss:
    """The relativistic pairing loss: critic `E[softplus(-(D(real) - D(fake)))]`, generator the same
    with the roles exchanged, over pairs of a real and a fake sample.

    Jolicoeur-Martineau 2018 (arXiv 1807.00734), equations 4 and 5; R3GAN (arXiv 2501.05441)
    combines it with R1 and R2.
    """
    return _pair(lambda real, fake: jax.nn.softplus(fake - real).mean(),
                 lambda real, fake: jax.nn.softplus(real - fake).mean())


def relativistic_average() -> AdversarialLoss:
    """The relativistic average loss: each score is compared with the *mean* score of the other kind.

    Critic `E[softplus(-(D(real) - E D(fake)))] + E[softplus(D(fake) - E D(real))]`, generator with
    the roles exchanged. Jolicoeur-Martineau 2018 (arXiv 1807.00734), equations 8 and 9.
    """

    def critic(real: Array, fake: Array) -> Array:
        return (jax.nn.softplus(fake.mean() - real).mean()
                + jax.nn.softplus(fake - real.mean()).mean())

    return _pair(critic, lambda real, fake: critic(fake, real), across_batch=True)


def top_k(loss: AdversarialLoss, steps: int, decay: float = 0.99, smallest: float = 0.5
          ) -> AdversarialLoss:
    """Returns the loss with a generator that learns from the k fakes with the highest scores alone.

    Its loss is the mean of theirs. They are chosen from the whole batch, over all devices, and k is the
    batch size times max(decay^epochs, smallest), rounded, at least 1. Sinha et al. 2020 (arXiv
    2002.06224). The critic and the tasks of the generator see all fakes.

    Args:
        loss: whose generator takes each fake by itself.
        steps: iterations of an epoch.
        decay: by what the share is multiplied after each, in (0, 1].
        smallest: the share at which it stays, in (0, 1].

    Raises:
        ValueError: the generator's loss compares fakes with reals or with each other, or a number is out
            of its range.
    """
    if not (0.0 < decay <= 1.0 and 0.0 < smallest <= 1.0 and steps >= 1):
        raise ValueError("decay and smallest must be in (0, 1] and steps at least 1; got "
                         f"{decay}, {smallest} and {steps}")
    low, high = (float(loss.generator(jnp.full(1, real), jnp.zeros(1))) for real in (0.0, 1.0))
    if loss.across_batch or low != high:
        raise ValueError("top_k is for losses whose generator takes each fake by itself, and this one "
                         "compares it with others, as the relativistic ones do: choose another loss")
    return loss._replace(share=lambda step: jnp.maximum(jnp.float32(decay) ** (step // steps), smallest))


def of_highest(loss: ScoreLoss, scores: Array, share: ArrayLike) -> Array:
    """Returns the mean of a generator's loss over the share of fakes that have the highest scores.

    Args:
        loss: a generator's, of fakes by themselves.
        scores: of fakes, [batch], or [batch, ...] of patches, whose mean decides.
        share: in (0, 1], of which round(share * batch) fakes are taken, one at least.
    """
    k = jnp.maximum(jnp.round(jnp.asarray(share) * len(scores)), 1.0)
    each = jax.vmap(lambda score: loss(score[None], score[None]))(scores)
    highest = jnp.argsort(-jax.lax.stop_gradient(scores.reshape(len(scores), -1).mean(1)))
    return jnp.where(jnp.arange(len(scores)) < k, each[highest], 0.0).sum() / k


def _cross_entropy_critic(label_smoothing: float) -> ScoreLoss:
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1); got {label_smoothing}")

    def critic(real: Array, fake: Array) -> Array:
        # The cross-entropy of a logit r with target 1 - s is softplus(-r) + s r.
        return (jax.nn.softplus(-real) + label_smoothing * real).mean() + jax.nn.softplus(fake).mean()

    return critic


def _pair(critic: ScoreLoss, generator: ScoreLoss, across_batch: bool = False) -> AdversarialLoss:
    return AdversarialLoss(_of_scores(critic), _of_scores(generator), across_batch)


def _of_scores(loss: ScoreLoss) -> ScoreLoss:
    """Wraps `loss` to check its scores at the door and to compute in float32 at least."""

    def checked(real_scores: Array, fake_scores: Array) -> Array:
        for name, scores in (("real_scores", real_scores), ("fake_scores", fake_scores)):
            if not jnp.issubdtype(jnp.result_type(scores), jnp.floating):
                raise TypeError(f"{name} must be floating point; got {jnp.result_type(scores)}")
            if jnp.ndim(scores) not in (1, 3):
                raise ValueError(f"{name} must be one score per sample, shape [batch]; got shape "
                                 f"{jnp.shape(scores)}: squeeze the other axes, or give those of "
                                 "patches, [batch, down, across]")
        if jnp.shape(real_scores) != jnp.shape(fake_scores):
            raise ValueError("real_scores and fake_scores must be equally many; got "
                             f"{jnp.shape(real_scores)[0]} and {jnp.shape(fake_scores)[0]}")
        return loss(*(scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
                      for scores in (real_scores, fake_scores)))

    return checked
