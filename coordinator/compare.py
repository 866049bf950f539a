"""How sure a score is: bootstrap intervals, and paired comparisons of the chosen ensemble with simpler choices. Pure.

One resample draws as many photos as there are, with replacement, and every row of a comparison is scored on the same
resamples: differences are paired. A resample is a weight per photo, so each ensemble's photos are ranked once, and a
thousand resamples cost a few sparse products. A class that a resample misses is left out of its mean, as in the
metrics.
Intervals are percentiles, 2.5 to 97.5 (Efron 1979, "Bootstrap methods: another look at the jackknife").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from coordinator.ensemble import Floats

Integers = NDArray[np.int64]
Weights = NDArray[np.float32]  # [images, resamples]: how often each photo was drawn
Statistic = Callable[[Weights], Floats]  # -> [resamples]

_CHUNK_VALUES = 2**21  # weights held at once


def resampled_scores(chances: Sequence[Floats], labels: Integers, metric: str, resamples: int, seed: int) -> Floats:
    """The metric of each row's probabilities [images, classes] on each resample: [rows, resamples]."""
    statistics = [_STATISTICS[metric](row, labels) for row in chances]
    random = np.random.default_rng(seed)
    images = len(labels)
    step = max(1, _CHUNK_VALUES // images)
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = random.integers(0, images, (count, images)) + images * np.arange(count)[:, np.newaxis]
        flat = np.bincount(drawn.ravel(), minlength=count * images)
        weights = np.ascontiguousarray(flat.reshape(count, images).T, dtype=np.float32)
        parts.append(np.stack([statistic(weights) for statistic in statistics]))
    return np.concatenate(parts, axis=1)


def interval(values: Floats) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _mean_ap(chances: Floats, labels: Integers) -> Statistic:
    everything = np.arange(len(labels))
    return _mean_over_classes([_Ranking(chances[:, c], labels == c, everything) for c in np.unique(labels)])


def _top_class_ap(chances: Floats, labels: Integers) -> Statistic:
    top = chances.argmax(axis=1)
    return _mean_over_classes(
        [_Ranking(chances[:, c], labels == c, np.flatnonzero(top == c)) for c in np.unique(labels)]
    )


def _mean_over_classes(rankings: Sequence[_Ranking]) -> Statistic:
    def mean(weights: Weights) -> Floats:
        result: Floats = np.nanmean([ranking.average_precisions(weights) for ranking in rankings], axis=0)
        return result

    return mean


def _mean_of_images(values: Floats) -> Statistic:
    return lambda weights: np.asarray(values @ weights / len(values), dtype=np.float64)


def _accuracy(chances: Floats, labels: Integers) -> Statistic:
    return _mean_of_images((chances.argmax(axis=1) == labels).astype(np.float64))


def _log_loss(chances: Floats, labels: Integers) -> Statistic:
    epsilon = np.finfo(np.float64).eps
    return _mean_of_images(-np.log(np.clip(chances[np.arange(len(labels)), labels], epsilon, 1 - epsilon)))


_STATISTICS: dict[str, Callable[[Floats, Integers], Statistic]] = {
    "mean_ap": _mean_ap,
    "top_class_ap": _top_class_ap,
    "accuracy": _accuracy,
    "log_loss": _log_loss,
}


class _Ranking:
    """One class's photos in falling order of score, ready to be weighted again and again.

    Photos of one score enter the list together. A threshold is kept only where positives have entered and negatives
    follow: within a run of positives precision rises whatever the weights, so the envelope is that of the run's end.
    """

    def __init__(self, scores: Floats, positive: NDArray[np.bool_], listed: Integers) -> None:
        order = listed[np.argsort(-scores[listed], kind="stable")]
        hit = positive[order]
        ends = np.flatnonzero(np.diff(scores[order], append=np.inf))
        hits = np.cumsum(hit, dtype=np.int64)[ends]
        gains = np.diff(hits, prepend=0) > 0
        ends, hits = ends[gains] + 1, hits[gains]
        runs = np.diff(ends - hits, append=len(scores)) > 0
        self.all_positives = np.flatnonzero(positive)
        self.entering = _groups(order, ends[runs], len(scores))
        self.entering_hits = _groups(order[hit], hits[runs], len(scores))

    def average_precisions(self, weights: Weights) -> Floats:
        """VOC all-points AP on each resample: [resamples]; NaN where it holds no positive."""
        gained = self.entering_hits @ weights
        hits = _accumulated(np.add, gained)
        listed = _accumulated(np.add, self.entering @ weights)
        precision = np.divide(hits, listed, out=np.zeros_like(hits), where=listed > 0)
        envelope = _accumulated(np.maximum, precision[::-1])[::-1]
        total = weights[self.all_positives].sum(axis=0)
        area: Floats = (gained * envelope).sum(axis=0, dtype=np.float64)
        area[total == 0] = np.nan
        area /= np.maximum(total, 1)
        return area


def _groups(images: Integers, ends: Integers, width: int) -> csr_matrix:
    """[groups, width] of ones: group g holds images[ends[g - 1] : ends[g]]."""
    held = int(ends[-1]) if len(ends) else 0
    pointers = np.concatenate([[0], ends])
    return csr_matrix((np.ones(held, dtype=np.float32), images[:held], pointers), shape=(len(ends), width))


def _accumulated(operation: np.ufunc, rows: Weights) -> Weights:
    """`operation.accumulate(rows, axis=0)`, seven times as fast: numpy walks down the columns, this along the rows."""
    result = rows.copy()
    for above, row in pairwise(result):
        operation(above, row, out=row)
    return result
