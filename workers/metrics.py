"""The metrics, and the reference definition of each. Pure numpy.

Average precision is PASCAL VOC's "all points" (VOC 2010 devkit, VOCap.m): images in falling order of score, the
precision at each recall replaced by the best precision at that or a higher recall, then the area under it:

    AP = sum over thresholds t of (hits(t) - hits(t before)) / positives * max over t' <= t of hits(t') / listed(t')

- **Ties.** A threshold is a distinct score: images of equal score enter the list together, so hits and listed are read
  only after the whole group. The order of the images therefore never matters. Equal means equal as float64.
- **Classes without a positive** have no AP (NaN) and are left out of the mean; that no class has one is refused.
- **Scores** are the probabilities of `softmax` (float64, of the logits as given). Labels are class numbers, int.
- **Top class** is the first of the highest scores in class order.

NaN and infinite scores are refused with a ValueError, so a broken model never gets a number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def softmax(logits: ArrayLike) -> Floats:
    """Probabilities [..., classes] in float64 of logits [..., classes]; the row's largest is subtracted first."""
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def average_precision(scores: ArrayLike, positive: ArrayLike, positives: int | None = None) -> float:
    """VOC all-points AP of one ranked list: scores [n], positive [n] (bool).

    `positives` is the denominator of recall where positives exist that the list does not hold. NaN without any.
    """
    values, hit = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    total = int(hit.sum()) if positives is None else positives
    if total == 0:
        return float("nan")
    if not len(values):
        return 0.0
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(hit[order])[ends]
    precision = hits / (ends + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits, prepend=0) * envelope) / total)


def average_precisions(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """AP of each class over all images: scores [n, classes], labels [n] -> [classes], NaN where none is positive."""
    values, truth = _checked(scores, labels)
    return np.array([average_precision(values[:, c], truth == c) for c in range(values.shape[1])])


def mean_average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Macro mean of `average_precisions` over the classes that have a positive."""
    return float(np.nanmean(average_precisions(scores, labels)))


def top_class_ap(scores: ArrayLike, labels: ArrayLike) -> float:
    """The competition's mAP: each image is listed under its top class only, with that class's score.

    Recall still counts all true images of the class, so an image listed elsewhere lowers its own class's AP.
    """
    values, truth = _checked(scores, labels)
    top = values.argmax(axis=1)
    per_class = []
    for c in range(values.shape[1]):
        listed = top == c
        per_class.append(average_precision(values[listed, c], truth[listed] == c, int((truth == c).sum())))
    return float(np.nanmean(per_class))


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose top class is theirs."""
    values, truth = _checked(scores, labels)
    return float((values.argmax(axis=1) == truth).mean())


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log of the true class's probability, clipped to float64's epsilon as scikit-learn does."""
    values, truth = _checked(probabilities, labels)
    epsilon = np.finfo(np.float64).eps
    own = np.clip(values[np.arange(len(truth)), truth], epsilon, 1 - epsilon)
    return float(-np.log(own).mean())


def all_metrics(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """`mean_ap`, `top_class_ap`, `accuracy` and `log_loss` of logits [n, classes] against labels [n]."""
    values, labels = _checked(logits, labels)
    probabilities = softmax(values)
    return {
        "mean_ap": mean_average_precision(probabilities, labels),
        "top_class_ap": top_class_ap(probabilities, labels),
        "accuracy": accuracy(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
    }


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    """Scores and labels as arrays; ValueError for wrong shapes, unknown classes, no images, or scores not finite."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1] or not len(truth):
        raise ValueError(f"scores of shape {values.shape} and labels of shape {truth.shape}")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(f"scores that are not finite, first in row {np.flatnonzero(~finite)[0]}")
    if truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ValueError(f"labels from {truth.min()} to {truth.max()} for {values.shape[1]} classes")
    return values, truth
