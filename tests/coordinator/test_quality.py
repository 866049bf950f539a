"""Confusion, precision by recall, calibration and worst mistakes, against what they are defined by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.page import escaped
from coordinator.quality import calibration, confusion, precision_by_recall, worst_mistakes
from coordinator.quality_charts import calibration_chart, confusion_chart
from workers.metrics import average_precision


def _drawn(seed: int, photos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.ones(classes), photos).round(2)  # rounded: ties are likely
    return chances, random.integers(0, classes, photos)


def test_confusion_has_a_row_for_what_photos_are() -> None:
    chances = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    assert confusion(chances, np.array([0, 0, 1])).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 4))
def test_the_area_under_a_curve_is_the_average_precision(seed: int, photos: int, classes: int) -> None:
    chances, labels = _drawn(seed, photos, classes)
    for column in range(classes):
        recall, precision = precision_by_recall(chances, labels, column)
        if not (labels == column).any():
            assert len(recall) == len(precision) == 0
            continue
        area = float(np.sum(np.diff(recall, prepend=0) * precision))
        assert area == pytest.approx(average_precision(chances[:, column], labels == column), abs=1e-12)
        assert (np.diff(precision) <= 0).all()


def test_a_model_that_is_right_as_often_as_it_is_sure_has_no_calibration_error() -> None:
    chances = np.tile([0.75, 0.25], (8, 1))
    bins, error = calibration(chances, np.array([0, 0, 0, 1] * 2))
    assert error == pytest.approx(0)
    assert [(found.count, found.accuracy) for found in bins] == [(8, 0.75)]
    assert 0.4 < bins[0].low < 0.75 < bins[0].high < 0.95
    _, off = calibration(chances, np.zeros(8, dtype=np.int64))
    assert off == pytest.approx(0.25)


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_every_photo_is_in_one_bin(seed: int, photos: int) -> None:
    chances, labels = _drawn(seed, photos, 3)
    bins, error = calibration(chances, labels)
    assert sum(found.count for found in bins) == photos
    assert all(0 <= found.low <= found.accuracy + 1e-9 and found.accuracy <= found.high + 1e-9 <= 1.1 for found in bins)
    assert 0 <= error <= 1


def test_the_surest_mistakes_come_first_and_equal_ones_by_name() -> None:
    chances = np.array([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([1, 1, 0, 1, 1])
    assert worst_mistakes(chances, labels, ["d", "c", "b", "a", "e"], 10) == [1, 3, 0]
    assert worst_mistakes(chances, labels, ["d", "c", "b", "a", "e"], 1) == [1]


def test_many_classes_are_drawn_without_numbers_and_empty_cells() -> None:
    few = confusion_chart(["a", "<b>"], [[3, 1], [0, 4]])
    assert few.count('class="cell ') == 4 and escaped("<b>") in few and "<b>" not in few
    many = confusion_chart([f"class {number}" for number in range(60)], np.diag(np.full(60, 3)).tolist())
    assert many.count('class="cell ') == 60 and "cell-count" not in many


def test_a_calibration_chart_has_a_point_for_each_bin() -> None:
    bins, _ = calibration(*_drawn(1, 50, 3))
    assert calibration_chart(bins).count("<circle") == len(bins)
