"""Scores of ensembles on the selection part: exact, vectorised, with budgets and a stated order of ties. Pure.

An ensemble is a tuple of member numbers, in rising order. Its prediction is the softmax of its members' mean logits.
The metrics are those of `workers.metrics` (a test holds the two together); this kernel scores many ensembles at once.

**Ties.** Scores closer than `TIE` are equal: the noise of float64 sums stays below 1e-13. Among equals the order is
fewer members, then fewer multiply-adds, then the members' numbers: never a measured time, so the same run picks the
same winner.

**Budgets.** An ensemble's milliseconds per image and memory are the sums of its members' measured ones: the predictor
runs the members one after the other and holds all of them. A sum of peaks is the safe side of the true peak.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from shared_store.errors import UserError

Floats = NDArray[np.float64]
Members = NDArray[np.int32]  # [ensembles, size]: member numbers, rising in each row
Ensemble = tuple[int, ...]

TIE = 1e-10
EXACT_SIZE = 3  # every ensemble up to this size is looked at; larger ones are built greedily
LOWER_IS_BETTER = frozenset({"log_loss"})
_CHUNK_VALUES = 2**17  # probabilities held at once while scoring


@dataclass(frozen=True)
class Budget:
    """What an ensemble may cost at most; None: no limit."""

    max_ms_per_image: float | None = None
    max_memory_gb: float | None = None


@dataclass(frozen=True)
class Pool:
    """What is chosen from: each member's name, logits on the selection photos, and costs."""

    names: tuple[str, ...]
    logits: NDArray[np.float32]  # [members, images, classes]
    labels: NDArray[np.int64]  # [images]: class numbers
    multiply_adds: Floats  # [members], of one image
    ms_per_image: Floats  # [members], measured
    memory_mb: Floats  # [members], measured

    def __post_init__(self) -> None:
        members, images, classes = self.logits.shape
        assert members == len(self.names) > 0, f"{members} tables of logits for {len(self.names)} members"
        assert images == len(self.labels) > 0, f"logits of {images} images, labels of {len(self.labels)}"
        assert classes > self.labels.max() and self.labels.min() >= 0, f"labels beyond the {classes} classes"
        for costs in (self.multiply_adds, self.ms_per_image, self.memory_mb):
            assert costs.shape == (members,), f"{len(costs)} costs for {members} members"


def subsets(members: int, size: int) -> Members:
    """All ensembles of `size` out of `members`, in lexicographic order: [C(members, size), size]."""
    count = comb(members, size)
    flat = np.fromiter((member for row in combinations(range(members), size) for member in row), np.int32, count * size)
    return flat.reshape(count, size)


def within_budget(pool: Pool, ensembles: Members, budget: Budget) -> Members:
    """The ensembles that cost no more than the budget."""
    fits = np.ones(len(ensembles), dtype=bool)
    if budget.max_ms_per_image is not None:
        fits &= pool.ms_per_image[ensembles].sum(axis=1) <= budget.max_ms_per_image
    if budget.max_memory_gb is not None:
        fits &= pool.memory_mb[ensembles].sum(axis=1) <= budget.max_memory_gb * 1000
    return ensembles[fits]


def candidates(pool: Pool, max_members: int, budget: Budget) -> list[Members]:
    """Every ensemble within the budget, up to `max_members` and `EXACT_SIZE`: one array a size.

    UserError when not even one model fits the budget.
    """
    sizes = range(1, min(max_members, EXACT_SIZE, len(pool.names)) + 1)
    found = [within_budget(pool, subsets(len(pool.names), size), budget) for size in sizes]
    if not len(found[0]):
        raise UserError(
            "no model fits the ensemble's budget: the cheapest takes "
            f"{pool.ms_per_image.min():.1f} ms per image, the smallest {pool.memory_mb.min() / 1000:.2f} GB",
            where=f"ensemble.max_ms_per_image {budget.max_ms_per_image}, ensemble.max_memory_gb {budget.max_memory_gb}",
            mend="raise the budget, or train a smaller model",
        )
    return found


def probabilities(logits: NDArray[np.float32], ensembles: Members) -> Floats:
    """Softmax of the mean logits [members, images, classes] of each ensemble: [ensembles, images, classes]."""
    total = logits[ensembles[:, 0]].astype(np.float64)
    for column in range(1, ensembles.shape[1]):
        total += logits[ensembles[:, column]]
    total /= ensembles.shape[1]
    # The largest by columns: exact in any order, and ten times faster than numpy's max over a short last axis.
    total -= functools.reduce(np.maximum, np.moveaxis(total, -1, 0))[..., np.newaxis]
    np.exp(total, out=total)
    total /= total.sum(axis=-1, keepdims=True)
    return total


def scores(logits: NDArray[np.float32], labels: NDArray[np.int64], ensembles: Members, metric: str) -> Floats:
    """The metric of every ensemble (all of one size): [ensembles]. Exact, as `workers.metrics` defines it."""
    rows = max(1, _CHUNK_VALUES // logits[0].size)
    parts = [
        _METRICS[metric](probabilities(logits, ensembles[start : start + rows]), labels)
        for start in range(0, len(ensembles), rows)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def goodness(values: Floats, metric: str) -> Floats:
    """Scores turned so that more is better."""
    return -values if metric in LOWER_IS_BETTER else values


def ranked(pool: Pool, ensembles: Sequence[Ensemble], values: Floats, metric: str) -> list[int]:
    """Places in `ensembles` from best to worst; equals (within `TIE` of the best among them) by size and cost."""
    better = goodness(values, metric)
    falling = np.argsort(-better, kind="stable")
    order: list[int] = []
    start = 0
    while start < len(falling):
        level = better[falling[start]] - TIE
        end = start + int(np.searchsorted(-better[falling[start:]], -level, side="right"))
        equals = (int(place) for place in falling[start:end])
        order += sorted(equals, key=lambda place: _simplest(pool, ensembles[place]))
        start = end
    return order


def greedy(pool: Pool, start: Ensemble, max_members: int, metric: str, budget: Budget) -> list[tuple[Ensemble, float]]:
    """Forward selection: from `start`, add the best member until `max_members`; every step with its score.

    A step is taken even where it scores lower, since the one after it may score higher; who asks picks the best step.
    Ends early where no member fits the budget any more.
    """
    chosen, path = start, []
    while len(chosen) < min(max_members, len(pool.names)):
        others = (member for member in range(len(pool.names)) if member not in chosen)
        grown = np.array([sorted((*chosen, member)) for member in others], dtype=np.int32)
        grown = within_budget(pool, grown, budget)
        if not len(grown):
            break
        values = scores(pool.logits, pool.labels, grown, metric)
        steps = as_tuples(grown)
        best = ranked(pool, steps, values, metric)[0]
        chosen = steps[best]
        path.append((chosen, float(values[best])))
    return path


def as_tuples(ensembles: Members) -> list[Ensemble]:
    return [tuple(row) for row in ensembles.tolist()]


def _simplest(pool: Pool, ensemble: Ensemble) -> tuple[int, float, Ensemble]:
    return len(ensemble), float(pool.multiply_adds[list(ensemble)].sum()), ensemble


def _mean_ap(chances: Floats, labels: NDArray[np.int64]) -> Floats:
    present = np.unique(labels)
    total = np.zeros(len(chances))
    for c in present:
        own = labels == c
        positives = np.sort(chances[:, own, c], axis=1)
        negatives = np.sort(chances[:, ~own, c], axis=1)
        total += [_average_precision(*both, positives.shape[1]) for both in zip(positives, negatives, strict=True)]
    return total / len(present)


def _top_class_ap(chances: Floats, labels: NDArray[np.int64]) -> Floats:
    present = np.unique(labels)
    tops = chances.argmax(axis=2)
    total = np.zeros(len(chances))
    for c in present:
        own = labels == c
        for place, (top, chance) in enumerate(zip(tops == c, chances[:, :, c], strict=True)):
            positives, negatives = np.sort(chance[top & own]), np.sort(chance[top & ~own])
            total[place] += _average_precision(positives, negatives, int(own.sum()))
    return total / len(present)


def _average_precision(positives: Floats, negatives: Floats, total: int) -> float:
    """VOC all-points AP from the rising scores of the listed positives and negatives, out of `total` positives.

    A threshold at a negative's score alone lowers the precision, so the thresholds at positives' scores are enough.
    """
    hits = len(positives) - np.searchsorted(positives, positives)
    misses = len(negatives) - np.searchsorted(negatives, positives)
    return float(np.maximum.accumulate(hits / (hits + misses)).sum() / total)


def _accuracy(chances: Floats, labels: NDArray[np.int64]) -> Floats:
    right: Floats = (chances.argmax(axis=2) == labels).mean(axis=1)
    return right


def _log_loss(chances: Floats, labels: NDArray[np.int64]) -> Floats:
    epsilon = np.finfo(np.float64).eps
    own = np.clip(chances[:, np.arange(len(labels)), labels], epsilon, 1 - epsilon)
    loss: Floats = -np.log(own).mean(axis=1)
    return loss


_METRICS = {"mean_ap": _mean_ap, "top_class_ap": _top_class_ap, "accuracy": _accuracy, "log_loss": _log_loss}
