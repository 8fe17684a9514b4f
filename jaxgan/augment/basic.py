"""What an augmentation is; noise, packs, and one after the other."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxgan import keys
from jaxgan.penalties import add_noise
from jaxgan.terms import Term
from jaxgan.types import Array, Key, PyTree, batch_size


def _same(x: PyTree) -> PyTree:
    return x


class Augmentation(NamedTuple):
    """What the critic is shown.

    Attributes:
        draw: (keys [batch], iteration, state) -> whatever is random, a pytree. The keys belong to the
            examples; drawing from them alone makes the result independent of the number of devices.
        show: (draws, samples) -> what the critic is shown, differentiable in the samples. Its examples
            may be fewer than the samples: as many scores are expected.
        term: None, or a term of the critic whose state `draw` is given (else it is given ()): it
            observes what the augmentation is to follow, with the weight 0.
        condition: what the critic is shown of the condition.
        quiet: samples -> what the critic is shown in evaluation, where nothing is drawn.
    """

    draw: Callable[[Key, Array, PyTree], PyTree]
    show: Callable[[PyTree, PyTree], PyTree]
    term: Term | None = None
    condition: Callable[[PyTree], PyTree] = _same
    quiet: Callable[[PyTree], PyTree] = _same


def instance_noise(scale: float | optax.Schedule) -> Augmentation:
    """Gaussian noise on all that the critic sees, the article's remedy for high dimensions.

    Sonderby et al. 2017 (arXiv 1610.04490), section 2.4; Arjovsky & Bottou 2017 (arXiv 1701.04862),
    section 3.

    Args:
        scale: the noise's standard deviation, in units of the samples; or a schedule, iteration -> that,
            `optax.linear_schedule(0.1, 0.0, 10_000)` for example.
    """
    def draw(drawn: Key, step: Array, state: PyTree) -> tuple[Key, ArrayLike]:
        return drawn, scale(step) if callable(scale) else scale

    def show(draws: tuple[Key, ArrayLike], samples: PyTree) -> PyTree:
        drawn, scale = draws
        size = len(drawn) // batch_size(samples)  # of packs, which take the key of their first sample
        return add_noise(samples, drawn if size == 1 else drawn[::size], scale)

    return Augmentation(draw, show)


def noise_levels(count: int = 4) -> Augmentation:
    """Each of a sample's outputs with a noise of its own level, the first one's the strongest.

    Of samples [batch, count, ...], as `jaxgan.models.GATGenerator` makes them, output k is shown as
    (1 - t_k) x_k + t_k n_k with t_k = 1.01 - 0.125^(1 - k / (count - 1)): .885, .76, .51 and .01 for
    four. The noises are one chain: where the outputs are alike, each is shown as a noisier version of
    the next. GAT, 2025 (arXiv 2509.24935). In evaluation output k is shown as (1 - t_k) x_k.

    Args:
        count: how many outputs there are.

    Raises:
        ValueError: `count` is below 1; where it is shown: there are others than so many outputs.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    place = np.linspace(0.0, 1.0, count) if count > 1 else np.ones(1)
    levels = 1.01 - 0.125 ** (1.0 - place)
    # t_k n_k is a sum of fresh noises, that of level j weighted by what it adds and what of it is kept.
    kept = 1.0 - levels
    adds = np.sqrt(levels**2 - (kept * np.append(levels[1:] / kept[1:], 0.0))**2)
    mixture = np.triu(kept[:, None] / kept * adds)

    def faded(x: Array) -> Array:
        if x.ndim < 2 or x.shape[1] != count:
            raise ValueError(f"noise_levels takes samples of {count} outputs, [batch, {count}, ...]; "
                             f"got {x.shape}")
        return x * jnp.asarray(kept.reshape(1, -1, *(1,) * (x.ndim - 2)), x.dtype)

    def show(drawn: Key, samples: Array) -> Array:
        fresh = keys.normal(drawn, samples.shape[1:]).astype(samples.dtype)
        return faded(samples) + jnp.einsum("kj,bj...->bk...", jnp.asarray(mixture, samples.dtype), fresh)

    return Augmentation(lambda drawn, step, state: drawn, show, quiet=faded)


def alike(augmentation: Augmentation) -> Augmentation:
    """Changes all outputs of a sample, [batch, outputs, ...], in the same way, with the same draws.

    Args:
        augmentation: of samples [batch, ...].
    """
    def show(draws: PyTree, samples: Array) -> Array:
        return jax.vmap(augmentation.show, (None, 1), 1)(draws, samples)

    return augmentation._replace(show=show, quiet=jax.vmap(augmentation.quiet, 1, 1))


def packed(size: int) -> Augmentation:
    """Packs of samples that the critic scores together, one behind the other in the last axis.

    [batch, ..., channels] is shown as [batch / size, ..., size * channels]; conditions, [batch, ...], as
    [batch / size, size, ...]. Penalties interpolate, and take norms, of whole packs. Lin et al. 2018
    (arXiv 1712.04086), PacGAN.

    Args:
        size: samples in a pack, which has to divide each device's batch.

    Raises:
        ValueError: `size` is below 1, or does not divide the batch.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1; got {size}")

    def packs(x: Array) -> Array:
        if x.shape[0] % size:
            raise ValueError(f"packs of {size} need a multiple of {size} samples; got {x.shape[0]}: "
                             "choose another batch size")
        return x.reshape(-1, size, *x.shape[1:])

    def show(samples: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.concatenate(
            [packs(x)[:, i] for i in range(size)], axis=-1), samples)

    return Augmentation(lambda keys, step, state: (), lambda draws, samples: show(samples),
                        condition=lambda condition: jax.tree.map(packs, condition), quiet=show)


def chain(augmentations: Sequence[Augmentation]) -> Augmentation:
    """One augmentation after the other; at most one of them may have a term.

    Raises:
        ValueError: there are none, or several have terms.
    """
    if not augmentations:
        raise ValueError("chain needs at least one augmentation; leave the GAN's None instead")
    stateful = [augmentation for augmentation in augmentations if augmentation.term]
    if len(stateful) > 1:
        raise ValueError(f"at most one augmentation of a chain may have a term; got {len(stateful)}")

    def draw(keys: Key, step: Array, state: PyTree) -> list[PyTree]:
        return [each.draw(jax.vmap(jax.random.fold_in, (0, None))(keys, i), step,
                          state if each.term else ()) for i, each in enumerate(augmentations)]

    def show(draws: list[PyTree], samples: PyTree) -> PyTree:
        for each, drawn in zip(augmentations, draws, strict=True):
            samples = each.show(drawn, samples)
        return samples

    def each_in_turn(name: str) -> Callable[[PyTree], PyTree]:
        return lambda x: reduce(lambda x, each: getattr(each, name)(x), augmentations, x)

    return Augmentation(draw, show, stateful[0].term if stateful else None,
                        each_in_turn("condition"), each_in_turn("quiet"))
