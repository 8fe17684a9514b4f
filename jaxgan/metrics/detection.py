"""How well objects are found, where there is one in each image."""

import numpy as np
from jax.typing import ArrayLike

from jaxgan.metrics import checks


def mean_iou(predicted: ArrayLike, boxes: ArrayLike) -> float:
    """Returns the mean area of the boxes' intersection over that of their union, in [0, 1].

    Args:
        predicted: corners (top, left, bottom, right), [count, 4]; with bottom < top a box is empty.
        boxes: the true ones, in the same units.

    Raises:
        TypeError, ValueError: they aren't finite numbers of these shapes.
    """
    return float(_ious(predicted, boxes).mean())


def average_precision(scores: ArrayLike, hits: ArrayLike, num_positives: int) -> float:
    """Returns the area under the interpolated curve of precision over recall, in [0, 1].

    The precision at a recall is the best at that recall or a higher one, and every recall counts, as
    in the Pascal VOC challenge from 2010 on (Everingham et al. 2015, "The Pascal Visual Object Classes
    Challenge: A Retrospective", section 3.2.1). Detections of equal scores are taken together, so that
    their order doesn't matter.

    Args:
        scores: how sure each detection is, [count].
        hits: whether it is right, bool [count].
        num_positives: how many objects there are to be found, each by one detection at most.

    Raises:
        TypeError, ValueError: other shapes or types, scores that aren't finite, or more hits than
            objects.
    """
    scores, hits = np.asarray(scores), np.asarray(hits)
    if scores.ndim != 1 or hits.shape != scores.shape:
        raise ValueError(f"scores and hits must be [count]; got {scores.shape} and {hits.shape}")
    if hits.dtype != np.bool_:
        raise TypeError(f"hits must be booleans; got {hits.dtype}")
    checks.positive(num_positives=num_positives)
    if not len(scores):
        return 0.0
    checks.features("scores", scores[:, None])
    if hits.sum() > num_positives:
        raise ValueError(f"there are {hits.sum()} hits of {num_positives} objects: count each object "
                         "once")
    values, rank = np.unique(-scores, return_inverse=True)
    found = np.bincount(rank, weights=hits, minlength=len(values)).cumsum()  # at each score or above
    precision = found / np.bincount(rank).cumsum()
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(found, prepend=0.0) * best).sum() / num_positives)


def mean_average_precision(class_scores: ArrayLike, predicted: ArrayLike, labels: ArrayLike,
                           boxes: ArrayLike, *, threshold: float = 0.5) -> float:
    """Returns the mean of `average_precision` over the classes that occur.

    Each image has one object, and for each class there is one detection in it: it has the class's
    score and the predicted box, and is right if the object is of that class and the boxes' IoU is at
    least the threshold.

    Args:
        class_scores: comparable between images, such as probabilities, [count, classes].
        predicted: a box for each image, as for `mean_iou`.
        labels: the objects' classes, integers [count].
        boxes: theirs.
        threshold: in (0, 1].

    Raises:
        TypeError, ValueError: other shapes or types, numbers that aren't finite, labels or a threshold
            out of range.
    """
    class_scores = checks.features("class_scores", class_scores)
    labels = _labels(labels, class_scores)
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must be in (0, 1]; got {threshold}")
    ious = _ious(predicted, boxes)
    if len(ious) != len(labels):
        raise ValueError(f"there must be a box for each label; got {len(ious)} and {len(labels)}")
    return float(np.mean([
        average_precision(class_scores[:, label], (labels == label) & (ious >= threshold),
                          (labels == label).sum()) for label in np.unique(labels)]))


def detection_scores(logits: ArrayLike, predicted: ArrayLike, labels: ArrayLike,
                     boxes: ArrayLike) -> dict[str, float]:
    """Returns how well a network's classes and boxes are those of the one object in each image.

    Args:
        logits: of the classes, [count, classes].
        predicted: boxes, as for `mean_iou`.
        labels: the objects' classes, integers [count].
        boxes: theirs.

    Returns:
        `iou`: `mean_iou`; `ap`: `mean_average_precision` of the classes' probabilities, at an IoU of
        0.5; `accuracy`: the fraction of images in which the object's class has the largest logit.

    Raises:
        TypeError, ValueError: as for `mean_average_precision`.
    """
    from scipy.special import softmax

    logits = checks.features("logits", logits)
    return {
        "iou": mean_iou(predicted, boxes),
        "ap": mean_average_precision(softmax(logits.astype(np.float64), axis=1), predicted, labels,
                                     boxes),
        "accuracy": float((logits.argmax(axis=1) == _labels(labels, logits)).mean()),
    }


def _labels(labels: ArrayLike, scores: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels must be integers; got {labels.dtype}")
    count, classes = scores.shape
    if labels.shape != (count,):
        raise ValueError(f"labels must be [{count}], as the scores; got {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be in [0, {classes}); they reach from {labels.min()} to "
                         f"{labels.max()}")
    return labels


def _ious(predicted: ArrayLike, boxes: ArrayLike) -> np.ndarray:
    """The IoU of each pair, float64 [count]; 0 where both are empty."""
    predicted, boxes = (checks.features(name, values).astype(np.float64)
                        for name, values in (("predicted", predicted), ("boxes", boxes)))
    if predicted.shape != boxes.shape or boxes.shape[1] != 4:
        raise ValueError("predicted and boxes must be (top, left, bottom, right), [count, 4]; got "
                         f"{predicted.shape} and {boxes.shape}")

    def areas(corners: np.ndarray) -> np.ndarray:
        return np.maximum(corners[:, 2:] - corners[:, :2], 0.0).prod(axis=1)

    shared = areas(np.concatenate([np.maximum(predicted, boxes)[:, :2],
                                   np.minimum(predicted, boxes)[:, 2:]], axis=1))
    union = areas(predicted) + areas(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
