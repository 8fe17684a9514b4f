"""Auxiliary tasks: terms that are added to the losses of critic and generator.

A critic that has tasks returns `(scores, heads)`, the heads being a dict of predictions by name. A task
is a pair of terms, one for either network, or one alone. Both see what the critic was shown and what it
predicted for it; the condition of the i-th fake is that of the i-th real, unless the GAN has a
`generator_condition`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxgan.labels import check_range, in_range
from jaxgan.terms import Seen, Term, View, check_weight
from jaxgan.types import Array, PyTree

Weight = float | optax.Schedule


class Task(NamedTuple):
    """A term of the critic's loss, or of the generator's, or one of each.

    Attributes:
        critic: what the critic minimises besides; None for nothing.
        generator: what the generator minimises besides; None for nothing.
    """

    critic: Term | None = None
    generator: Term | None = None


def _whole(condition: PyTree) -> PyTree:
    return condition


def classification(*, head: str = "class", label: Callable[[PyTree], Array] = _whole,
                   critic_weight: Weight = 1.0, generator_weight: Weight = 0.1,
                   fake_weight: float = 0.0,
                   sample_weight: Callable[[PyTree], Array] | None = None) -> Task:
    """AC-GAN: the critic classifies reals, and the generator wants its fakes classified as asked for.

    Cross-entropy of the head's logits, [batch, classes]. Odena et al. 2017 (arXiv 1610.09585), section
    3; there the critic learns from fakes too, with a `fake_weight` of 1. By default it doesn't, and the
    weights are apart, as in the public code of Gulrajani et al. 2017 (arXiv 1704.00028).

    Args:
        head: its name, and that of the terms.
        label: condition -> classes, int [batch].
        critic_weight: of the critic's term, a number or a schedule.
        generator_weight: of the generator's.
        fake_weight: of fakes in the critic's term, beside the reals' 1.
        sample_weight: None, or condition -> how much each real counts in the critic's term, [batch]: 0
            where its label isn't known, whatever that is then. The mean is over the whole batch.
    """
    def loss(seen: Seen, weight: Callable[[PyTree], Array] | None = None) -> Array:
        return cross_entropy(seen.heads[head], label(seen.condition),
                             weight and weight(seen.condition))

    return _read(head, loss, critic_weight, generator_weight, fake_weight, sample_weight)


def localisation(*, head: str = "box", box: Callable[[PyTree], Array] = _whole,
                 critic_weight: Weight = 1.0, generator_weight: Weight = 0.1,
                 fake_weight: float = 0.0,
                 sample_weight: Callable[[PyTree], Array] | None = None) -> Task:
    """The critic locates the object of reals, and the generator wants it found where it was asked for.

    Smooth L1 of the corners plus 1 - GIoU. Girshick 2015 (arXiv 1504.08083), equation 3;
    Rezatofighi et al. 2019 (arXiv 1902.09630), algorithm 1.

    Args:
        head: its name; it predicts boxes, [batch, 4]: the corners (top, left, bottom, right).
        box: condition -> boxes, [batch, 4], in the same units.
        critic_weight: of the critic's term.
        generator_weight: of the generator's.
        fake_weight: of fakes in the critic's term, as for `classification`.
        sample_weight: of reals there, as for `classification`.
    """
    def loss(seen: Seen, weight: Callable[[PyTree], Array] | None = None) -> Array:
        predicted, wanted = seen.heads[head], box(seen.condition)
        losses = _smooth_l1(predicted, wanted, 1.0) + 1 - generalised_iou(predicted, wanted)
        return _mean(losses, weight and weight(seen.condition))

    return _read(head, loss, critic_weight, generator_weight, fake_weight, sample_weight)


def _read(head: str, loss: Callable[..., Array], critic_weight: Weight, generator_weight: Weight,
          fake_weight: float, sample_weight: Callable[[PyTree], Array] | None) -> Task:
    """The critic learns to read something, and the generator wants it read in its fakes."""
    check_weight(head, fake_weight)

    def critic(view: View, state: PyTree) -> Array:
        known = loss(view.real, sample_weight)
        return known + fake_weight * loss(view.fake) if fake_weight else known

    return _task(head, critic, lambda view, state: loss(view.fake), critic_weight, generator_weight)


def reconstruction(*, order: int = 1, mask: Callable[[PyTree], Array] | None = None,
                   weight: Weight = 1.0) -> Task:
    """The i-th fake is to be the i-th real: the mean of |real - fake|, or of its square.

    Pathak et al. 2016 (arXiv 1604.07379), equation 1, for masked images.

    Args:
        order: 1 or 2.
        mask: None, or condition -> weights of the pixels, broadcastable to the samples, of which the
            weighted mean over the batch is taken: 1 where the loss is to look.
        weight: of the generator's term.

    Raises:
        ValueError: another order.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2; got {order}")

    def loss(view: View, state: PyTree) -> Array:
        errors = jnp.abs(view.real.samples - view.fake.samples) ** order
        if mask is None:
            return errors.mean()
        weights = mask(view.real.condition)
        if weights.ndim != errors.ndim or any(size not in (1, full) for size, full in zip(
                weights.shape, errors.shape, strict=True)):
            raise ValueError(f"the mask of reconstruction must have the samples' shape {errors.shape}, "
                             f"or 1 in place of some sizes; got {weights.shape}")
        weights = jnp.broadcast_to(weights, errors.shape)
        total = view.mean(weights.sum())  # of all devices: the quotient of means is no mean of quotients
        return (weights * errors).sum() / jnp.where(total > 0, total, 1.0)

    return _task("reconstruction", None, loss, 0.0, weight)


def feature_matching(*, head: str = "features", weight: Weight = 1.0) -> Task:
    """The generator matches the mean of the critic's features: |E f(real) - E f(fake)|^2.

    Salimans et al. 2016 (arXiv 1606.03498), section 3.1.

    Args:
        head: the features, [batch, ...].
        weight: of the generator's term.
    """
    def loss(view: View, state: PyTree) -> Array:
        difference = view.real.heads[head].mean(axis=0) - view.fake.heads[head].mean(axis=0)
        return jnp.square(view.mean(difference)).sum()

    return _task("feature_matching", None, loss, 0.0, weight)


def mutual_information(*, head: str = "code", code: Callable[[PyTree], Array] = _whole,
                       weight: Weight = 1.0) -> Task:
    """InfoGAN: both networks make the code that a fake was drawn for legible to the critic.

    -E log Q(code | fake), up to a constant: the cross-entropy of logits for an integer code, [batch];
    half the squared error, the Gaussian's of variance 1, for codes of real numbers, [batch, codes].
    Chen et al. 2016 (arXiv 1606.03657), equation 5.

    Args:
        head: logits [batch, classes], or means [batch, codes].
        code: condition -> the code.
        weight: of both terms.
    """
    def loss(view: View, state: PyTree) -> Array:
        wanted, predicted = code(view.fake.condition), view.fake.heads[head]
        if jnp.issubdtype(wanted.dtype, jnp.integer):
            return cross_entropy(predicted, wanted)
        _check_same_shape(head, predicted, wanted)
        return jnp.square(predicted - wanted).sum(axis=-1).mean() / 2

    return _task(head, loss, loss, weight, weight)


def cross_entropy(logits: Array, labels: Array, sample_weight: Array | None = None) -> Array:
    """Returns the mean of -log softmax(logits)[label].

    Args:
        logits: [batch, classes].
        labels: integers [batch]; one out of range makes the loss NaN, where labels aren't known yet.
        sample_weight: None, or [batch], what the terms are multiplied by before the mean over all.

    Raises:
        ValueError: other shapes, or labels out of range.
        TypeError: labels that aren't integers.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers; got {labels.dtype}")
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be [batch, classes] and labels [batch]; got {logits.shape} and "
                         f"{labels.shape}")
    known = labels if sample_weight is None else jnp.where(sample_weight == 0, 0, labels)
    check_range("cross_entropy", known, logits.shape[1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return _mean(jnp.where(in_range(labels, logits.shape[1]), losses, jnp.nan), sample_weight)


def smooth_l1(predicted: Array, wanted: Array, beta: float = 1.0) -> Array:
    """Returns the mean of e^2 / (2 beta) where e = |predicted - wanted| < beta, else e - beta / 2.

    Raises:
        ValueError: the shapes differ.
    """
    return _smooth_l1(predicted, wanted, beta).mean()


def _smooth_l1(predicted: Array, wanted: Array, beta: float) -> Array:
    """The mean of each box's corners, [batch]."""
    _check_same_shape("boxes", predicted, wanted)
    errors = jnp.abs(predicted - wanted)
    return jnp.where(errors < beta, jnp.square(errors) / (2 * beta), errors - beta / 2).mean(axis=-1)


def iou(a: Array, b: Array) -> Array:
    """Returns the area of the intersection of boxes over that of their union, [batch], in [0, 1].

    Args:
        a: corners (top, left, bottom, right), [batch, 4]; with bottom < top the box is empty.
        b: likewise.
    """
    intersection, union, _ = _areas(a, b)
    return intersection / jnp.maximum(union, jnp.finfo(union.dtype).tiny)


def generalised_iou(a: Array, b: Array) -> Array:
    """Returns IoU - (hull - union) / hull, [batch], in [-1, 1], the hull being the box around both.

    Rezatofighi et al. 2019 (arXiv 1902.09630), algorithm 1. Arguments as for `iou`.
    """
    intersection, union, hull = _areas(a, b)
    tiny = jnp.finfo(union.dtype).tiny
    return intersection / jnp.maximum(union, tiny) - (hull - union) / jnp.maximum(hull, tiny)


def _areas(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The areas of the intersection, the union and the hull."""
    _check_same_shape("boxes", a, b)

    def area(top_left: Array, bottom_right: Array) -> Array:
        return jnp.maximum(bottom_right - top_left, 0.0).prod(axis=-1)

    (a_first, a_last), (b_first, b_last) = ((box[..., :2], box[..., 2:]) for box in (a, b))
    intersection = area(jnp.maximum(a_first, b_first), jnp.minimum(a_last, b_last))
    hull = area(jnp.minimum(a_first, b_first), jnp.maximum(a_last, b_last))
    return intersection, area(a_first, a_last) + area(b_first, b_last) - intersection, hull


def _mean(losses: Array, sample_weight: Array | None) -> Array:
    """The mean of [batch], of which each is first multiplied by its weight."""
    if sample_weight is None:
        return losses.mean()
    if sample_weight.shape != losses.shape:
        raise ValueError(f"sample_weight must have shape {losses.shape}; got {sample_weight.shape}")
    return jnp.where(sample_weight == 0, 0.0, losses * sample_weight).mean()  # of NaN too


def _check_same_shape(name: str, predicted: Array, wanted: Array) -> None:
    if predicted.shape != wanted.shape:
        raise ValueError(f"{name}: what is predicted has shape {predicted.shape}, what is wanted "
                         f"{wanted.shape}: give them the same")


def _task(name: str, critic: Callable[[View, PyTree], Array] | None,
          generator: Callable[[View, PyTree], Array], critic_weight: Weight, generator_weight: Weight
          ) -> Task:
    for weight in (critic_weight, generator_weight):
        if not callable(weight):
            check_weight(name, weight)
    return Task(critic and Term(name, critic, critic_weight),
                Term(name, generator, generator_weight))
