"""The screen never rules out what it must not: bounds against exact scores, the shortlist against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.ensemble import TIE, scores, subsets
from coordinator.screen import FINE_BINS, ROUGH_BINS, Screen, pairs_of
from coordinator.shortlist import Outlook, best_of, look_ahead


def logits_and_labels(
    members: int, images: int, classes: int, seed: int, *, scale: float = 1, copies: float = 0, whole: bool = False
) -> tuple[Any, Any]:
    """Random members. `copies` near 1 makes them near-copies of each other; `whole` rounds logits: ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    shared = random.normal(0, 1, (images, classes)) + 2 * np.eye(classes)[labels]
    own = random.normal(0, 1, (members, images, classes)) * random.uniform(0.2, 1.5, (members, 1, 1))
    logits = scale * (shared + (1 - copies) * own)
    return (np.round(logits) if whole else logits).astype(np.float32), labels


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "near copies": {"copies": 1 - 1e-4},
    "near copies within float32's noise": {"copies": 1 - 1e-7},
    "copies": {"copies": 1.0},
    "ties": {"whole": True},
    "sure of themselves": {"scale": 12.0},
    "as sure as float64 can be": {"scale": 60.0, "whole": True},
    "beyond every product": {"scale": 400.0},
    "undecided": {"scale": 1e-3},
}


@pytest.mark.parametrize("case", CASES)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), images=st.integers(5, 60), rough=st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_bound_is_never_below_the_score(case: str, seed: int, classes: int, images: int, rough: bool) -> None:
    logits, labels = logits_and_labels(6, images, classes, seed, **CASES[case])
    wanted = np.ones((classes, images), dtype=bool)
    if rough:
        wanted = np.random.default_rng(seed).random((classes, images)) < 0.5
        wanted[0, 0] = True
    ensembles = subsets(6, 3)
    typical = list(np.random.default_rng(seed).dirichlet(np.ones(classes), (2, images)))
    pairs = pairs_of(wanted, typical, labels, ROUGH_BINS if rough else FINE_BINS)
    exact = scores(logits, labels, ensembles, "mean_ap")
    assert (Screen(logits, labels, 3, pairs).bounds(ensembles) >= exact - TIE / 10).all()


@pytest.mark.parametrize("case", CASES)
@given(seed=st.integers(0, 10**6), places=st.sampled_from([1, 5]))
@settings(max_examples=3, deadline=None)
def test_the_shortlist_holds_the_best_of_an_exhaustive_search(case: str, seed: int, places: int) -> None:
    logits, labels = logits_and_labels(9, 60, 3, seed, **CASES[case])
    parts = [subsets(9, size) for size in (1, 2, 3)]
    outlook = look_ahead(logits, labels, parts, places)
    brute = {
        tuple(row): score
        for part in parts
        for row, score in zip(part.tolist(), scores(logits, labels, part, "mean_ap"), strict=True)
    }
    found: dict[tuple[int, ...], float] = {}
    for part in parts:
        for block in np.array_split(part, 2):
            rows, values = best_of(logits, labels, block, outlook, places)
            found.update(zip(map(tuple, block[rows].tolist()), values.tolist(), strict=True))
    last = sorted(brute.values())[-places]
    assert {row for row, score in brute.items() if score >= last - TIE} <= set(found)
    assert all(found[row] == pytest.approx(brute[row], abs=1e-12) for row in found)


def test_the_screen_spares_most_of_the_exact_scores() -> None:
    logits, labels = logits_and_labels(30, 400, 3, 7)
    parts = [subsets(30, size) for size in (1, 2, 3)]
    outlook = look_ahead(logits, labels, parts, 1)
    assert len(outlook.passes) > 1, "no rough pass"
    scored = sum(len(best_of(logits, labels, part, outlook, 1)[0]) for part in parts)
    assert 1 <= scored < 50


def test_nothing_to_search_is_no_error() -> None:
    logits, labels = logits_and_labels(3, 10, 2, 0)
    rows, values = best_of(logits, labels, subsets(3, 3)[:0], Outlook(0.5, ()), 1)
    assert len(rows) == len(values) == 0
