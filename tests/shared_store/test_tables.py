"""Tables come back as they went, and what is damaged or not finite is refused."""

from __future__ import annotations

import numpy as np
import pytest

from shared_store.store import Store
from shared_store.tables import (
    Predictions,
    SoftLabels,
    get_predictions,
    get_soft_labels,
    put_predictions,
    put_soft_labels,
)

LOGITS = np.array([[1.5, -2.0], [0.25, 3.0], [0.0, -0.5]], dtype=np.float32)


def test_predictions_come_back_in_order_and_by_image(store: Store) -> None:
    kept = Predictions(("c", "a", "b"), ("ok", "p_odd name"), LOGITS)
    loaded = get_predictions(store, put_predictions(store, kept))
    assert (loaded.image_ids, loaded.classes) == (kept.image_ids, kept.classes)
    np.testing.assert_array_equal(loaded.rows(["b", "c"]), LOGITS[[2, 0]])
    with pytest.raises(KeyError):
        loaded.rows(["nobody"])


def test_equal_predictions_are_equal_bytes(store: Store) -> None:
    first = put_predictions(store, Predictions(("a",), ("x", "y"), LOGITS[:1]))
    assert put_predictions(store, Predictions(("a",), ("x", "y"), LOGITS[:1].copy())) == first


@pytest.mark.parametrize(
    ("image_ids", "logits", "says"),
    [
        (("a", "b"), LOGITS, "shape"),
        (("a", "a", "b"), LOGITS, "twice"),
        (("a", "b", "c"), np.where(LOGITS == 3, np.nan, LOGITS), "not finite.*b"),
    ],
)
def test_what_cannot_be_right_is_refused(image_ids: tuple[str, ...], logits: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Predictions(image_ids, ("x", "y"), logits)


def test_soft_labels_keep_their_teacher_and_sum_to_one(store: Store) -> None:
    labels = SoftLabels(("a", "b"), ("x", "y"), np.array([[0.25, 0.75], [1, 0]], dtype=np.float32), ("t0", "t1"))
    loaded = get_soft_labels(store, put_soft_labels(store, labels))
    assert loaded.teachers == ("t0", "t1")
    np.testing.assert_array_equal(loaded.probabilities, labels.probabilities)
    with pytest.raises(ValueError, match="sum to 1"):
        SoftLabels(("a",), ("x", "y"), np.array([[0.5, 0.6]], dtype=np.float32), ("t0",))
