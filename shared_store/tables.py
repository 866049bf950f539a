"""Prediction and soft-label tables by image id, kept as parquet blobs; shape and NaN are checked.

Prediction table: image_id (str), logit_<class> (float32), one row an image, in the given order.
Label table: image_id (str), p_<class> (float32, rows sum to 1), teacher (task id).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared_store.store import Store


@dataclass(frozen=True)
class Predictions:
    """Logits of one model: `logits[i]` (float32, classes in order) belongs to `image_ids[i]`."""

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check(self.image_ids, self.classes, self.logits, "logits")

    def rows(self, image_ids: Sequence[str]) -> NDArray[np.float32]:
        """The logits of `image_ids`, in that order; KeyError names an image that is not here."""
        place = {image_id: i for i, image_id in enumerate(self.image_ids)}
        return self.logits[[place[image_id] for image_id in image_ids]]


@dataclass(frozen=True)
class SoftLabels:
    """Probabilities by image, and the teacher that gave each row."""

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    teachers: tuple[str, ...]

    def __post_init__(self) -> None:
        _check(self.image_ids, self.classes, self.probabilities, "probabilities")
        if len(self.teachers) != len(self.image_ids):
            raise ValueError(f"{len(self.teachers)} teachers for {len(self.image_ids)} labels")
        if len(self.image_ids) and np.abs(self.probabilities.sum(axis=1) - 1).max() > 1e-4:
            raise ValueError("soft labels whose rows do not sum to 1")


def put_predictions(store: Store, predictions: Predictions) -> str:
    """Keep a prediction table and return its blob's digest."""
    frame = pd.DataFrame({"image_id": list(predictions.image_ids)})
    return _put(store, frame, "logit_", predictions.classes, predictions.logits)


def get_predictions(store: Store, digest: str) -> Predictions:
    """Load and check a prediction table. ValueError for NaN, doubled images or wrong shapes."""
    frame, classes, values = _get(store, digest, "logit_")
    return Predictions(tuple(frame["image_id"]), classes, values)


def put_soft_labels(store: Store, labels: SoftLabels) -> str:
    """Keep a soft-label table and return its blob's digest."""
    frame = pd.DataFrame({"image_id": list(labels.image_ids), "teacher": list(labels.teachers)})
    return _put(store, frame, "p_", labels.classes, labels.probabilities)


def get_soft_labels(store: Store, digest: str) -> SoftLabels:
    """Load and check a soft-label table. ValueError for NaN, doubled images, wrong shapes or sums."""
    frame, classes, values = _get(store, digest, "p_")
    return SoftLabels(tuple(frame["image_id"]), classes, values, tuple(frame["teacher"]))


def _put(store: Store, frame: pd.DataFrame, prefix: str, classes: Sequence[str], values: NDArray[np.float32]) -> str:
    columns = pd.DataFrame({f"{prefix}{name}": values[:, i] for i, name in enumerate(classes)})
    buffer = io.BytesIO()
    pd.concat([frame, columns], axis=1).to_parquet(buffer, index=False)
    return store.put_blob(buffer.getvalue())


def _get(store: Store, digest: str, prefix: str) -> tuple[pd.DataFrame, tuple[str, ...], NDArray[np.float32]]:
    frame = pd.read_parquet(io.BytesIO(store.get_blob(digest)))
    columns = [column for column in frame.columns if column.startswith(prefix)]
    values = frame[columns].to_numpy(dtype=np.float32)
    return frame, tuple(column.removeprefix(prefix) for column in columns), values


def _check(image_ids: Sequence[str], classes: Sequence[str], values: NDArray[np.float32], what: str) -> None:
    if values.shape != (len(image_ids), len(classes)):
        raise ValueError(f"{what} of shape {values.shape} for {len(image_ids)} images and {len(classes)} classes")
    if len(set(image_ids)) != len(image_ids):
        raise ValueError(f"{what} with an image twice")
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ValueError(f"{what} that are not finite, first for image {image_ids[bad[0]]}")
