"""The bootstrap: held against the reference metric on drawn photos, and against a known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.compare import interval, resampled_scores
from workers import metrics

REFERENCE = {
    "mean_ap": metrics.mean_average_precision,
    "top_class_ap": metrics.top_class_ap,
    "accuracy": metrics.accuracy,
    "log_loss": metrics.log_loss,
}


def some_chances(images: int, classes: int, seed: int, whole: bool = False) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = 1.5 * np.eye(classes)[labels] + random.normal(0, 1, (images, classes))
    return metrics.softmax(np.round(logits) if whole else logits), labels


@pytest.mark.parametrize("metric", REFERENCE)
@given(images=st.integers(1, 25), classes=st.integers(2, 4), seed=st.integers(0, 999), whole=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_resample_scores_what_the_reference_scores_on_the_photos_drawn(
    metric: str, images: int, classes: int, seed: int, whole: bool
) -> None:
    chances, labels = some_chances(images, classes, seed, whole)
    found = resampled_scores([chances], labels, metric, resamples=20, seed=seed)[0]
    drawn = np.random.default_rng(seed).integers(0, images, (20, images))
    expected = [REFERENCE[metric](chances[rows], labels[rows]) for rows in drawn]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_same_seed_draws_the_same_photos_for_every_row() -> None:
    chances, labels = some_chances(80, 3, 1)
    other, _ = some_chances(80, 3, 2)
    both = resampled_scores([chances, other], labels, "mean_ap", 200, seed=5)
    np.testing.assert_array_equal(both[1], resampled_scores([other], labels, "mean_ap", 200, seed=5)[0])
    assert not np.array_equal(both[1], resampled_scores([other], labels, "mean_ap", 200, seed=6)[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth, covered = 0.7, 0
    for seed in range(200):
        right = np.random.default_rng(seed).random(150) < truth
        chances = np.eye(2)[right.astype(int)] * 0.8 + 0.1
        low, high = interval(resampled_scores([chances], np.ones(150, dtype=np.int64), "accuracy", 300, seed)[0])
        covered += low <= truth <= high
    assert 180 <= covered <= 198
