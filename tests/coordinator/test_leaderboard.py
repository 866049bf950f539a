"""What people read after a search: rows, baselines, comparisons, and the verdict's honesty."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

import numpy as np
import pytest

from coordinator.ensemble import Budget, Pool, as_tuples, candidates, scores
from coordinator.leaderboard import COLUMNS, FEW_IMAGES, Findings, Question, as_csv, as_json, find, verdict
from shared_store.records import canonical_json
from workers.metrics import all_metrics

NAMES = ("teacher/fold0", "teacher/fold1", "teacher/fold2", "student/fold0", "student/fold1")


def a_pool(images: int, noise: list[float], seed: int = 0) -> Pool:
    """Five members, the worse the more noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    logits = np.stack([2 * np.eye(3)[labels] + level * random.normal(0, 1, (images, 3)) for level in noise])
    costs = np.arange(1.0, 6.0)
    return Pool(NAMES, logits.astype(np.float32), labels.astype(np.int64), costs, 10 * costs, 100 * costs)


def searched(pool: Pool, metric: str = "mean_ap", max_ms: float | None = None) -> tuple[Question, Findings]:
    budget = Budget(max_ms_per_image=max_ms)
    question = Question(metric, budget, resamples=300, seed=7)
    parts = candidates(pool, 3, budget)
    ensembles = [ensemble for part in parts for ensemble in as_tuples(part)]
    values = np.concatenate([scores(pool.logits, pool.labels, part, metric) for part in parts])
    return question, find(pool, question, ensembles, values, len(ensembles))


def rows_of(pool: Pool, findings: Findings) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(as_csv(pool, findings).decode())))


def test_the_leaderboard_has_every_column_filled_best_first_with_the_baselines_among_them() -> None:
    pool = a_pool(90, [2, 2, 2, 2, 2])
    _, findings = searched(pool)
    text = as_csv(pool, findings).decode()
    assert text.splitlines()[0] == COLUMNS
    rows = rows_of(pool, findings)
    assert all(row[name] for row in rows for name in COLUMNS.split(","))
    values = [float(row["score"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(float(row["score_low"]) <= float(row["score"]) <= float(row["score_high"]) for row in rows)
    shown = {row["members"]: row for row in rows}
    assert {"+".join(NAMES[:3]), "+".join(NAMES[3:]), "+".join(NAMES)} <= set(shown)
    students = shown["student/fold0+student/fold1"]
    assert (students["size"], students["ms_per_image"], students["memory_mb"]) == ("2", "90.000", "900.0")
    mean = pool.logits[3:].astype(np.float64).mean(axis=0)
    assert float(students["score"]) == pytest.approx(all_metrics(mean, pool.labels)["mean_ap"], abs=1e-6)


def test_log_loss_ranks_the_lowest_first_and_a_lead_still_favours_the_winner() -> None:
    pool = a_pool(90, [1, 1, 2, 3, 3])
    _, findings = searched(pool, "log_loss")
    values = [float(row["score"]) for row in rows_of(pool, findings)]
    assert values == sorted(values)
    single = next(found for found in findings.comparisons if found.label.startswith("best single"))
    assert single.difference == pytest.approx(single.row.score - findings.winner.score)
    assert single.difference > 0


def test_where_all_resamples_score_the_same_no_interval_is_claimed() -> None:
    pool = a_pool(FEW_IMAGES - 1, [0.01] * 5)  # nothing is wrong anywhere
    question, findings = searched(pool)
    assert findings.winner.score == findings.winner.low == findings.winner.high == 1.0
    assert "no interval, for all resamples of so few photos" in verdict(pool, question, findings)


def test_a_clear_winner_is_said_to_be_better_and_an_equal_mean_as_good() -> None:
    pool = a_pool(FEW_IMAGES, [1.5, 1.5, 1.5, 8, 8])
    question, findings = searched(pool)
    assert findings.winner.ensemble == (0, 1, 2)
    labels = {found.label: found for found in findings.comparisons}
    assert "plain mean of all 3 teachers" not in labels, "that is the winner itself"
    assert not labels["plain mean of all 2 students"].as_good
    text = verdict(pool, question, findings)
    assert "The plain mean of all 2 students is not as good as the chosen 3" in text
    assert "partly luck" not in text


def test_on_few_photos_the_verdict_says_that_the_plain_mean_is_as_good_and_warns_of_luck() -> None:
    pool = a_pool(45, [2, 2, 2, 2, 2])
    question, findings = searched(pool)
    text = verdict(pool, question, findings)
    assert "The plain mean of all 5 models is as good as the chosen" in text
    assert "With only 45 selection photos the choice among 25 is partly luck" in text


def test_a_baseline_beyond_the_budget_is_shown_and_named_so() -> None:
    pool = a_pool(45, [2, 2, 2, 2, 2])
    question, findings = searched(pool, max_ms=50)
    everything = next(found for found in findings.comparisons if "5 models" in found.label)
    assert not everything.affordable
    assert "but beyond the budget" in verdict(pool, question, findings)
    assert pool.ms_per_image[list(findings.winner.ensemble)].sum() <= 50


def test_the_report_is_json_and_the_same_for_the_same_seed() -> None:
    pool = a_pool(45, [2, 1, 2, 1, 2])
    first, second = (canonical_json(as_json(pool, *searched(pool))) for _ in range(2))
    assert first == second
    report = as_json(pool, *searched(pool))
    assert len(report["ensembles"]) == len(report["scores"]) == report["considered"] == 25
    assert [member["name"] for member in report["members"]] == list(NAMES)


def test_each_of_several_recipes_is_a_simpler_choice() -> None:
    pool = a_pool(45, [2, 2, 2, 2, 2])
    names = (
        "teacher/b4/fold0",
        "student/b4/fold0",
        "student/b4/repeat1/fold0",
        "student/next/fold0",
        "student/next/fold1",
    )
    _, findings = searched(dataclasses.replace(pool, names=names))
    labels = {found.label: found.row.ensemble for found in findings.comparisons}
    assert labels["plain mean of all 2 students of b4"] == (1, 2)
    assert labels["plain mean of all 2 students of next"] == (3, 4)
    assert not [label for label in labels if label.endswith("of ")]
