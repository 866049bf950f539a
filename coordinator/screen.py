"""Proven upper bounds of an ensemble's mean AP at a fraction of the price of the score itself. Pure.

**The bound.** AP depends only on how many negatives stand at or above each positive, and falls with each of them. So a
list in which positives stand at least as high and negatives at most as high as in the true one has at least its AP. The
screen makes such lists with

- the odds against a class c: the sum over the other classes k of exp(mean logit k - mean logit c), which falls as the
  probability of c rises. The exponential of a mean is the product of its members' factors: no exponential an ensemble;
- float32, with the positives' odds lowered by twice what all rounding can amount to;
- bins: the highest bits of the odds' float32 pattern, in which positives stand above negatives;
- in a rough pass, only the pairs of class and photo that matter: positives left out stand at the top of the list,
  negatives at the bottom.

The envelope (VOC's interpolation) over bins keeps the bound above lists with ties too, wherever a bin's edge cuts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.ensemble import Floats, Members

Integers = NDArray[np.int64]
Factors = NDArray[np.float32] | NDArray[np.float64]

FINE_BINS, ROUGH_BINS = 1024, 256
_LARGEST_GAP = {np.float32: 80.0, np.float64: 700.0}  # of logits, so that no product of factors overflows
_BEST_ODDS = 2.0**-24  # below, float64 probabilities stand too close to 1 to tell an order: all in one bin
_FINEST_SHIFT = 18  # 32 bins in every doubling of the odds
_BATCH = 16  # ensembles whose bins are summed up together


@dataclass(frozen=True)
class Pairs:
    """The pairs of class and photo that a pass looks at, and the bins of their odds."""

    classes: Integers  # [pairs]
    images: Integers  # [pairs]
    shift: int  # bits dropped of the odds' float32 pattern
    low: int  # the first bin's pattern; better odds share it
    bins: int  # worse odds share the last


class Screen:
    """Upper bounds of mean AP for ensembles of one size out of members with `logits` [members, images, classes]."""

    def __init__(self, logits: NDArray[np.float32], labels: Integers, size: int, pairs: Pairs) -> None:
        classes = logits.shape[2]
        positive = labels[pairs.images] == pairs.classes
        self.pairs, self.classes = pairs, classes
        self.positives = np.bincount(labels, minlength=classes)
        self.lifted = self.positives - np.bincount(pairs.classes[positive], minlength=classes)
        self.base = ((2 * pairs.classes + positive) * pairs.bins - pairs.low).astype(np.int32)
        widest = float((logits.max(axis=2) - logits.min(axis=2)).max())
        self.possible = widest < max(_LARGEST_GAP.values())
        if self.possible:
            kind = next(kind for kind, gap in _LARGEST_GAP.items() if widest < gap)
            self.factors = _factors(logits, size, pairs, kind)
            # 2 x (3 + classes) roundings of 2^-24 may stand between a positive and a negative: twice that.
            self.factors[:, :, positive] *= 1 - 4 * (3 + classes) * 2.0**-24

    def bounds(self, ensembles: Members) -> Floats:
        """One upper bound an ensemble: [ensembles]; infinite where logits lie too far apart for products.

        Rows that share all but their last member are cheapest side by side.
        """
        found = np.full(len(ensembles), np.inf)
        if not self.possible or not len(ensembles):
            return found
        heads = ensembles[:, :-1]
        starts = np.flatnonzero(np.append(True, (heads[1:] != heads[:-1]).any(axis=1)))
        for start, end in zip(starts, np.append(starts[1:], len(ensembles)), strict=True):
            head = np.multiply.reduce(self.factors[heads[start]], axis=0)
            for first in range(start, end, _BATCH):
                last = min(first + _BATCH, end)
                counts = np.stack([self._counts(head, self.factors[member]) for member in ensembles[first:last, -1]])
                found[first:last] = self._mean_ap(counts[:, :, 0], counts[:, :, 1])
        return found

    def _counts(self, head: Factors, last: Factors) -> Integers:
        """Negatives and positives in each bin, best odds first: [classes, 2, bins]."""
        odds = head[0] * last[0]
        term = np.empty_like(odds)
        for others, factor in zip(head[1:], last[1:], strict=True):
            odds += np.multiply(others, factor, out=term)
        with np.errstate(over="ignore"):  # infinite odds belong into the last bin, where their pattern puts them
            keys = odds.astype(np.float32, copy=False).view(np.int32)
        keys >>= self.pairs.shift
        keys.clip(self.pairs.low, self.pairs.low + self.pairs.bins - 1, out=keys)
        keys += self.base
        counts = np.bincount(keys, minlength=2 * self.classes * self.pairs.bins)
        return counts.reshape(self.classes, 2, self.pairs.bins)

    def _mean_ap(self, negatives: Integers, positives: Integers) -> Floats:
        """Of counts per bin [ensembles, classes, bins], best bin first and positives first within a bin."""
        hits = self.lifted[:, np.newaxis] + positives.cumsum(axis=2)
        misses = negatives.cumsum(axis=2) - negatives
        precision = hits / np.maximum(hits + misses, 1)
        envelope = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
        area = self.lifted + (positives * envelope).sum(axis=2)
        present = self.positives > 0
        bound: Floats = (area[:, present] / self.positives[present]).mean(axis=1)
        return bound


def pairs_of(wanted: NDArray[np.bool_], chances: Sequence[Floats], labels: Integers, bins: int) -> Pairs:
    """The wanted pairs [classes, images], binned where the positives and negatives of `chances` overlap.

    Beyond the overlap one bin is enough: the best bins then hold positives only, the worst negatives only.
    """
    classes, images = np.nonzero(wanted)
    positive = labels[images] == classes
    against = np.stack([1 / np.maximum(row[images, classes], 1e-30) - 1 for row in chances])
    best = against[:, ~positive].min(initial=np.inf)
    worst = max(float(against[:, positive].max(initial=_BEST_ODDS)), 2 * _BEST_ODDS)
    ends = np.array([min(max(float(best), _BEST_ODDS), worst / 2), worst], dtype=np.float32).view(np.int32)
    shift = next(shift for shift in range(_FINEST_SHIFT, 31) if (ends[1] >> shift) - (ends[0] >> shift) < bins)
    low, high = (int(end) >> shift for end in ends)
    return Pairs(classes, images, shift, low, high - low + 1)


def harms(chances: Floats, labels: Integers) -> Floats:
    """What a bound gains when it leaves a pair out: [classes, images], in mean AP, to first order.

    A positive at the top counts 1 and not its precision; a negative gone raises the precision of all positives below.
    """
    images, classes = chances.shape
    harm = np.zeros((classes, images))
    present = np.unique(labels)
    for c in present:
        order = np.argsort(-chances[:, c], kind="stable")
        hit = labels[order] == c
        hits, listed = np.cumsum(hit), np.arange(1, images + 1)
        envelope = np.maximum.accumulate((hits / listed)[::-1])[::-1]
        below = np.cumsum(np.where(hit, hits / listed**2, 0)[::-1])[::-1]
        harm[c, order] = np.where(hit, 1 - envelope, below) / (hit.sum() * len(present))
    return harm


def _factors(logits: NDArray[np.float32], size: int, pairs: Pairs, kind: type) -> Factors:
    """exp((logit k - logit c) / size) for the classes k other than a pair's own c: [members, others, pairs]."""
    members, _, classes = logits.shape
    factors = np.empty((members, classes - 1, len(pairs.images)), dtype=kind)
    for member, table in enumerate(logits):
        own = table[pairs.images, pairs.classes].astype(np.float64)
        for step in range(1, classes):
            other = table[pairs.images, (pairs.classes + step) % classes]
            factors[member, step - 1] = np.exp((other - own) / size)
    return factors
