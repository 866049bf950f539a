"""Scores, ties, budgets and greedy growth of ensembles, held against the reference metrics and brute force."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.ensemble import TIE, Budget, Pool, candidates, greedy, ranked, scores, subsets
from shared_store.errors import UserError
from workers.metrics import all_metrics

METRICS = ("mean_ap", "top_class_ap", "accuracy", "log_loss")


def a_pool(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], **costs: list[float]) -> Pool:
    members = len(logits)
    columns = {name: np.array(costs.get(name, [1.0] * members)) for name in COSTS}
    names = tuple(f"teacher/fold{m}" for m in range(members))
    return Pool(names, logits.astype(np.float32), labels.astype(np.int64), **columns)


COSTS = ("multiply_adds", "ms_per_image", "memory_mb")


def random_pool(members: int, images: int, classes: int, seed: int, **costs: list[float]) -> Pool:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    return a_pool(2 * np.eye(classes)[labels] + random.normal(0, 2, (members, images, classes)), labels, **costs)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Small pools whose logits are small whole numbers: full of ties, and of classes without an image."""
    members, images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(2, 9))
    whole = st.integers(-3, 3)
    values = draw(st.lists(whole, min_size=members * images * classes, max_size=members * images * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    return a_pool(np.reshape(values, (members, images, classes)), np.array(labels))


@pytest.mark.parametrize("metric", METRICS)
@given(pool=pools())
@settings(max_examples=60, deadline=None)
def test_every_score_is_the_reference_metric_of_the_mean_logits(metric: str, pool: Pool) -> None:
    for size in range(1, min(3, len(pool.names)) + 1):
        ensembles = subsets(len(pool.names), size)
        expected = [all_metrics(pool.logits[list(e)].astype(np.float64).mean(axis=0), pool.labels) for e in ensembles]
        np.testing.assert_allclose(
            scores(pool.logits, pool.labels, ensembles, metric), [found[metric] for found in expected], atol=1e-12
        )


def test_subsets_are_all_of_them_in_order() -> None:
    assert subsets(5, 3).tolist() == [list(row) for row in combinations(range(5), 3)]
    assert [len(part) for part in candidates(random_pool(10, 6, 2, 0), 3, Budget())] == [10, 45, 120]
    assert [len(part) for part in candidates(random_pool(2, 6, 2, 0), 5, Budget())] == [2, 1]


def test_ties_go_to_fewer_members_then_fewer_multiply_adds_then_member_order_and_never_to_time() -> None:
    pool = random_pool(4, 8, 2, 0, multiply_adds=[2, 2, 1, 3], ms_per_image=[9, 1, 9, 1])
    ensembles = [(0, 1), (3,), (1,), (0,), (2,), (0, 2)]
    noise = TIE / 3
    values = np.array([0.9 + noise, 0.9 - noise, 0.9, 0.9 - noise, 0.9, 0.95])
    assert ranked(pool, ensembles, values, "accuracy") == [5, 4, 3, 2, 1, 0]
    assert ranked(pool, ensembles, values, "log_loss") == [4, 3, 2, 1, 0, 5]


def test_a_lead_beyond_the_noise_is_no_tie() -> None:
    pool = random_pool(3, 8, 2, 0)
    assert ranked(pool, [(0,), (0, 1)], np.array([0.9, 0.9 + 10 * TIE]), "mean_ap") == [1, 0]


@given(
    ms=st.lists(st.floats(1, 50), min_size=6, max_size=6),
    memory=st.lists(st.floats(100, 2000), min_size=6, max_size=6),
    max_ms=st.floats(50, 120),
    max_memory=st.floats(2, 5),
)
@settings(max_examples=50, deadline=None)
def test_budgets_keep_exactly_the_ensembles_that_fit(
    ms: list[float], memory: list[float], max_ms: float, max_memory: float
) -> None:
    pool = random_pool(6, 4, 2, 0, ms_per_image=ms, memory_mb=memory)
    kept = [tuple(row) for part in candidates(pool, 3, Budget(max_ms, max_memory)) for row in part.tolist()]
    costs = np.array([ms, memory]).T
    expected = [
        rows
        for size in (1, 2, 3)
        for rows in combinations(range(6), size)
        if costs[list(rows), 0].sum() <= max_ms and costs[list(rows), 1].sum() <= max_memory * 1000
    ]
    assert kept == expected


def test_a_budget_that_no_model_fits_says_what_the_cheapest_takes() -> None:
    pool = random_pool(2, 4, 2, 0, ms_per_image=[12.5, 20], memory_mb=[2000, 500])
    with pytest.raises(UserError, match=r"12\.5 ms per image, the smallest 0\.50 GB"):
        candidates(pool, 3, Budget(max_ms_per_image=10))


def test_greedy_growth_adds_the_best_member_each_time_and_keeps_to_the_budget() -> None:
    pool = random_pool(7, 40, 3, 1, ms_per_image=[1, 1, 1, 1, 1, 1, 9])
    path = greedy(pool, (0, 3), 5, "mean_ap", Budget(max_ms_per_image=5))
    assert [len(ensemble) for ensemble, _ in path] == [3, 4, 5]
    before: tuple[int, ...] = (0, 3)
    for ensemble, score in path:
        options = [tuple(sorted((*before, m))) for m in range(6) if m not in before]
        values = [
            all_metrics(pool.logits[list(o)].astype(np.float64).mean(axis=0), pool.labels)["mean_ap"] for o in options
        ]
        assert ensemble == options[int(np.argmax(values))]
        assert score == pytest.approx(max(values), abs=1e-12)
        before = ensemble
    assert len(greedy(pool, (0, 3), 7, "mean_ap", Budget(max_ms_per_image=4))) == 2
