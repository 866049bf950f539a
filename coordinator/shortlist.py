"""The best of very many ensembles by mean AP, exactly, without scoring most of them. Pure.

Every ensemble gets upper bounds (`coordinator.screen`), a rough one first. Those whose bounds reach the best exact
scores known are scored exactly, highest bound first, until no bound reaches them any more. What was left out is
provably not among the best: the answer is that of the exhaustive search, whatever the data. How long it takes, they
decide: near-copies of one model cannot be told apart by bounds, and are then all scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.ensemble import TIE, Floats, Members, probabilities, scores
from coordinator.screen import FINE_BINS, ROUGH_BINS, Integers, Pairs, Screen, harms, pairs_of

_METRIC = "mean_ap"
_SEEDS = 24  # best single models, all of whose ensembles are looked at first
_SAMPLE = 32  # ensembles that show what is typical: which pairs matter, and how far ahead the best are
_GIVEN_AWAY = (0.5, 0.15)  # shares of that lead that the bound of each rough pass may lie above the score
_WORTHWHILE = 0.7  # a pass looks at no more than this share of the next one's pairs
_SCORED_AT_ONCE = 16


@dataclass(frozen=True)
class Outlook:
    """What a first look tells: a score that enough ensembles reach, and the passes, cheapest first."""

    floor: float
    passes: tuple[Pairs, ...]


def look_ahead(logits: NDArray[np.float32], labels: Integers, parts: Sequence[Members], places: int) -> Outlook:
    """Score the ensembles of the best single models. `parts`: one array a size, single models first."""
    alone = scores(logits, labels, parts[0], _METRIC)
    seeds = parts[0][np.argsort(-alone, kind="stable")[:_SEEDS], 0]
    largest = next(part for part in reversed(parts) if len(part))
    sample = largest[np.unique(np.linspace(0, len(largest) - 1, _SAMPLE).astype(int))]
    typical = list(probabilities(logits, sample))
    everything = np.ones((logits.shape[2], len(labels)), dtype=bool)
    fine = pairs_of(everything, typical, labels, FINE_BINS)
    reached = [alone]
    for part in parts[1:]:
        near = part[np.isin(part, seeds).all(axis=1)]
        bounds = Screen(logits, labels, part.shape[1], fine).bounds(near)
        reached.append(scores(logits, labels, near[np.argsort(-bounds, kind="stable")[: 2 * places]], _METRIC))
    known = np.concatenate(reached)
    lead = float(known.max() - np.median(scores(logits, labels, sample, _METRIC)))
    passes = [fine]
    for wanted in _rough(typical, labels, [share * lead for share in reversed(_GIVEN_AWAY)]):
        if wanted.sum() <= _WORTHWHILE * len(passes[0].images):
            passes.insert(0, pairs_of(wanted, typical, labels, ROUGH_BINS))
    return Outlook(floor_of(known, places), tuple(passes))


def best_of(
    logits: NDArray[np.float32], labels: Integers, ensembles: Members, outlook: Outlook, places: int
) -> tuple[Integers, Floats]:
    """The rows of `ensembles` (of one size) that may be among the best `places` of the whole search, and their scores.

    Each row that ties with the last of those places is among them.
    """
    rows, bounds = np.arange(len(ensembles)), np.full(len(ensembles), np.inf)
    for pairs in outlook.passes if len(ensembles) else ():
        bounds = Screen(logits, labels, ensembles.shape[1], pairs).bounds(ensembles[rows])
        rows, bounds = rows[bounds >= outlook.floor], bounds[bounds >= outlook.floor]
    order = np.argsort(-bounds, kind="stable")
    rows, bounds = rows[order], bounds[order]
    values, floor, done = np.empty(0), outlook.floor, 0
    while done < len(rows) and bounds[done] >= floor:
        values = np.append(values, scores(logits, labels, ensembles[rows[done : done + _SCORED_AT_ONCE]], _METRIC))
        done = len(values)
        floor = max(floor, floor_of(values, places))
    return rows[:done][values >= floor], values[values >= floor]


def floor_of(values: Floats, places: int) -> float:
    """The value that the best `places` of `values` reach or tie with; minus infinity where there are fewer."""
    return float(np.partition(values, -places)[-places]) - TIE if len(values) >= places else -np.inf


def _rough(typical: Sequence[Floats], labels: Integers, gains: Sequence[float]) -> list[NDArray[np.bool_]]:
    """For each gain, the pairs [classes, images] without those that together raise a typical bound by no more."""
    harm = np.mean([harms(chances, labels) for chances in typical], axis=0)
    order = np.argsort(harm, axis=None, kind="stable")
    spent = np.empty(harm.size)
    spent[order] = np.cumsum(harm.ravel()[order])
    return [(spent > gain).reshape(harm.shape) for gain in gains]
