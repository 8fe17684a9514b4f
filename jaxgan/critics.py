"""A critic trained alone, between two distributions that are given: what a GAN's critic is worth.

With the Wasserstein loss its value is an estimate of the distance between the two, and its gradient of
the direction in which one is to be moved to become the other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgan import losses
from jaxgan.augment import Augmentation
from jaxgan.gan import GAN, GANState, scores_and_heads
from jaxgan.loops import Game
from jaxgan.losses import AdversarialLoss
from jaxgan.networks import NetworkState, moving_average
from jaxgan.steps import critic_step, init_state
from jaxgan.terms import Term
from jaxgan.types import Array, Batch, Key, Metrics, PyTree, batch_size
from jaxgan.views import Fakes


class CriticState(NamedTuple):
    """All that changes in the training of a critic alone.

    Attributes:
        step: the number of finished steps, int32.
        critic: its numbers.
        average: None, or the moving average of its variables.
    """

    step: Array
    critic: NetworkState
    average: PyTree

    @property
    def variables(self) -> PyTree:
        """What linen's `apply` takes: the averaged ones, if there are such."""
        return self.critic.variables if self.average is None else self.average


def critic_game(
    critic: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    loss: AdversarialLoss | None = None,
    penalty: Term | None = None,
    augment: Augmentation | None = None,
    terms: Sequence[Term] = (),
    ema_decay: float | optax.Schedule | None = None,
    accumulate: int = 1,
) -> Game:
    """Returns the game in which a critic tells two distributions apart that don't change.

    The data's samples are pairs (real, fake), each [batch, ...], of one structure; both parts should be
    drawn independently. Each step is `jaxgan.critic_step` on every one of its batches.

    Args:
        critic: samples [batch, ...] -> scores [batch], as of a GAN.
        optimizer: any optax transformation.
        loss: what it minimises; by default the Wasserstein loss.
        penalty: None, or a penalty on its input gradient, from `jaxgan.penalties`.
        augment: None, or what it is shown in place of samples.
        terms: further terms that it minimises or observes.
        ema_decay: None, or the decay of the average of its variables; a number or a schedule.
        accumulate: into how many parts a batch is cut, see `GAN.accumulate`.
    """
    parts = None if accumulate == 1 else accumulate  # None is as if it weren't there, as in older runs

    def as_gan(real: PyTree) -> GAN:
        return GAN(generator=_Given(), critic=critic, latent_size=None,
                   prior=lambda keys: jax.tree.map(
                       lambda x: jnp.zeros((len(keys), *x.shape[1:]), x.dtype), real),
                   loss=loss or losses.wasserstein(), penalty=penalty, augment=augment,
                   critic_terms=tuple(terms), ema_decay=ema_decay,
                   accumulate=1 if parts is None else parts, generator_optimizer=optax.identity(),
                   critic_optimizer=optimizer)

    def init(key: Key, example: Batch) -> CriticState:
        real, _ = _pair(example)
        state = init_state(as_gan(real), key, example._replace(samples=real))
        return CriticState(state.step, state.critic, None if ema_decay is None else
                           jax.tree.map(jnp.copy, state.critic.variables))

    def step(state: CriticState, batches: Batch, key: Key, *, axis_name: str | None = None
             ) -> tuple[CriticState, Metrics]:
        def once(critic: NetworkState, inputs: tuple[Batch, Key]) -> tuple[NetworkState, Metrics]:
            batch, key = inputs
            real, fake = _pair(batch)
            updated, metrics = critic_step(
                as_gan(real), GANState(state.step, _NOTHING, critic, None),
                batch._replace(samples=real), key, fakes=Fakes(fake, {}, fake), axis_name=axis_name)
            return updated.critic, metrics

        update_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size(batches)))
        critic, metrics = lax.scan(once, state.critic, (batches, update_keys))
        count = state.step + 1
        average = None if ema_decay is None else moving_average(state.average, critic, ema_decay, count)
        return CriticState(count, critic, average), jax.tree.map(lambda x: x[-1], metrics)

    return Game(init, step, lambda state: {"critic": state.critic.params})


def score_function(critic: nn.Module, state: CriticState) -> Callable[[PyTree], Array]:
    """Returns what maps samples, [batch, ...], to the trained critic's scores, [batch].

    In evaluation mode, by the averaged critic if there is one.
    """
    return lambda samples: scores_and_heads(
        critic.apply(state.variables, samples, None, train=False), samples).scores


class _Given(nn.Module):
    """The generator of a GAN that has none: its latents are the samples."""

    @nn.compact
    def __call__(self, latents: PyTree, condition: PyTree | None = None, *, train: bool) -> PyTree:
        del condition, train
        return latents


_NOTHING = NetworkState({}, {}, ())


def _pair(batch: Batch) -> tuple[PyTree, PyTree]:
    """The two samples of a batch.

    Raises:
        ValueError: it has no two.
    """
    if not isinstance(batch.samples, tuple) or len(batch.samples) != 2:
        raise ValueError("the samples of a critic alone must be a pair (real, fake); got "
                         f"{jax.tree.map(jnp.shape, batch.samples)}")
    return batch.samples
