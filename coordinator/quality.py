"""Where a classifier is right and wrong: confusion, precision by recall, calibration, its worst mistakes. Pure.

Everything takes probabilities [images, classes] (rows sum to 1) and class numbers [images], as `workers.metrics` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_curve

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Photos whose top probability lies in one tenth: how sure the model was on average, how often it was right."""

    count: int
    confidence: float
    accuracy: float
    low: float  # 95 % interval of the accuracy
    high: float


def confusion(probabilities: Floats, labels: Integers) -> Integers:
    """How many photos of each class (rows) were called each class (columns)."""
    classes = np.arange(probabilities.shape[1])
    found: Integers = confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes)
    return found


def precision_by_recall(probabilities: Floats, labels: Integers, column: int) -> tuple[Floats, Floats]:
    """(recall, precision) of one class in rising recall, the precision that `average_precision` sums under.

    That is the best precision at that or a higher recall. Both empty where the class has no photo.
    """
    positive = labels == column
    if not positive.any():
        return np.empty(0), np.empty(0)
    precision, recall, _ = precision_recall_curve(positive, probabilities[:, column])
    precision, recall = precision[:-1], recall[:-1]  # the last is a convention, not a threshold
    recall, precision = recall[::-1], np.maximum.accumulate(precision)[::-1]
    end = int(np.argmax(recall == 1.0)) + 1  # what is listed after the last photo of the class has no share in it
    return recall[:end], precision[:end]


def calibration(probabilities: Floats, labels: Integers) -> tuple[list[Bin], float]:
    """The bins that hold a photo, least sure first, and the expected calibration error.

    The error is the mean of |confidence - accuracy| over the bins, weighted by their photos (Guo et al. 2017).
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for place in range(BINS):
        inside = places == place
        if inside.any():
            count, hits = int(inside.sum()), int(right[inside].sum())
            interval = binomtest(hits, count).proportion_ci(method="wilson")  # honest for few, and within 0 to 1
            bins.append(Bin(count, float(confidence[inside].mean()), hits / count, interval.low, interval.high))
    gaps = [found.count * abs(found.confidence - found.accuracy) for found in bins]
    return bins, sum(gaps) / len(labels)


def worst_mistakes(probabilities: Floats, labels: Integers, names: Sequence[str], most: int) -> list[int]:
    """Places of at most `most` photos that were called another class, the surest mistakes first (then by name)."""
    called = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    strength = probabilities[rows, called] - probabilities[rows, labels]
    wrong = [int(place) for place in np.flatnonzero(called != labels)]
    return sorted(wrong, key=lambda place: (-strength[place], names[place]))[:most]
