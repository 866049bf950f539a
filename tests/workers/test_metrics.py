"""The metrics against hand-worked examples, scikit-learn and an independent reference."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.metrics import log_loss as sklearn_log_loss

from workers import metrics


def test_average_precision_of_a_hand_worked_list() -> None:
    # In falling order: hit, miss, hit, hit, miss. Precisions at the hits 1, 2/3, 3/4; the envelope lifts 2/3 to 3/4.
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    positive = [True, False, True, True, False]
    assert metrics.average_precision(scores, positive) == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)


def test_equal_scores_enter_together() -> None:
    # Two of three tied images are hits: one threshold, precision 2/3, whatever their order.
    for positive in ([True, True, False], [False, True, True], [True, False, True]):
        assert metrics.average_precision([0.5, 0.5, 0.5], positive) == pytest.approx(2 / 3)


def test_unlisted_positives_lower_recall() -> None:
    assert metrics.average_precision([0.9, 0.8], [True, True], positives=4) == pytest.approx(0.5)
    assert metrics.average_precision([], [], positives=4) == 0.0


def test_a_class_without_positives_is_left_out_of_the_mean() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.6, 0.3, 0.1]])
    per_class = metrics.average_precisions(scores, [0, 1, 1])
    assert math.isnan(per_class[2])
    assert metrics.mean_average_precision(scores, [0, 1, 1]) == pytest.approx((per_class[0] + per_class[1]) / 2)


def test_top_class_ap_of_a_hand_worked_table() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = [0, 1, 1, 1]
    # Class 0 lists images 0 (hit) and 2 (miss): AP 1. Class 1 lists 1 and 3, both hits, of 3 true ones: AP 2/3.
    assert metrics.top_class_ap(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.accuracy(scores, labels) == 0.75


def test_perfect_and_worst_lists() -> None:
    assert metrics.average_precision([3, 2, 1, 0], [True, True, False, False]) == 1.0
    assert metrics.average_precision([3, 2, 1, 0], [False, False, False, True]) == 0.25


def _reference(scores: np.ndarray, positive: np.ndarray) -> float:
    """VOC all points on scikit-learn's own curve (thresholds rise, so recall falls along it)."""
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=False)
    envelope = np.maximum.accumulate(precision[:-1])  # best precision at this or a higher recall
    return float(-np.sum(np.diff(recall) * envelope))


ranked_lists = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40).filter(
    lambda rows: any(hit for _, hit in rows)
)


@given(ranked_lists)
def test_agrees_with_the_curve_of_scikit_learn_ties_included(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([float(s) for s, _ in rows]), np.array([hit for _, hit in rows])
    voc = metrics.average_precision(scores, positive)
    assert voc == pytest.approx(_reference(scores, positive), abs=1e-12)
    # The envelope only ever lifts the step sum that scikit-learn calls average precision.
    assert voc >= average_precision_score(positive, scores) - 1e-12


@given(ranked_lists, st.randoms(use_true_random=False))
def test_the_order_of_images_never_matters(rows: list[tuple[int, bool]], random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    first, second = np.array(rows, dtype=float), np.array(shuffled, dtype=float)
    assert metrics.average_precision(first[:, 0], first[:, 1]) == metrics.average_precision(second[:, 0], second[:, 1])


def test_equals_scikit_learn_where_the_envelope_lifts_nothing() -> None:
    # Precision never rises along this list, so the two definitions meet.
    scores, positive = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    step = average_precision_score(positive, scores)
    assert metrics.average_precision(scores, positive) == pytest.approx(step)


def test_log_loss_matches_scikit_learn() -> None:
    random = np.random.default_rng(3)
    probabilities = metrics.softmax(random.normal(size=(50, 4)) * 3)
    labels = random.integers(0, 4, 50)
    assert metrics.log_loss(probabilities, labels) == pytest.approx(
        sklearn_log_loss(labels, probabilities, labels=range(4)), rel=1e-12
    )


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert metrics.log_loss([[1.0, 0.0]], [1]) == pytest.approx(sklearn_log_loss([1], [[1.0, 0.0]], labels=[0, 1]))


def test_softmax_survives_large_logits() -> None:
    assert metrics.softmax([[1000.0, 999.0]]) == pytest.approx(np.array([[1 / (1 + math.exp(-1)), 1 / (1 + math.e)]]))


def test_all_metrics_takes_logits() -> None:
    logits, labels = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], dtype=np.float32), [0, 1, 1]
    probabilities = metrics.softmax(logits)
    assert metrics.all_metrics(logits, labels) == {
        "mean_ap": metrics.mean_average_precision(probabilities, labels),
        "top_class_ap": metrics.top_class_ap(probabilities, labels),
        "accuracy": pytest.approx(2 / 3),
        "log_loss": metrics.log_loss(probabilities, labels),
    }


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[float("nan"), 0.0]], [0], "not finite, first in row 0"),
        ([[0.5, 0.5]], [2], "2 classes"),
        ([[0.5, 0.5]], [0, 1], "shape"),
        (np.zeros((0, 2)), [], "shape"),
    ],
)
def test_bad_input_is_refused(scores: ArrayLike, labels: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.all_metrics(scores, labels)
