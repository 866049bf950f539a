"""What the chosen ensemble says of labelled photos: of the selection part, and of test photos that have a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.ensemble import probabilities
from coordinator.quality import worst_mistakes
from shared_store.folds_table import FoldTable
from shared_store.records import Result
from shared_store.store import Store
from shared_store.tables import get_predictions

SHOWN_MISTAKES = 12


@dataclass(frozen=True)
class Judged:
    """Photos of one part with what they are and what the ensemble makes of them, in the fold table's order."""

    part: str  # selection / test
    image_ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]  # class numbers
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]  # [photos, classes]

    @property
    def worst(self) -> list[int]:
        """Places of the photos to show: the surest mistakes first."""
        return worst_mistakes(self.probabilities, self.labels, self.paths, SHOWN_MISTAKES)


def judge(store: Store, table: FoldTable, members: Sequence[Result], predicted: Result | None) -> tuple[Judged, ...]:
    """The parts that have a labelled photo. `members`: results of the chosen; `predicted`: of the PredictTask."""
    found = []
    if members:
        tables = [get_predictions(store, member.blobs["selection"]) for member in members]
        ids = table.ids("selection")
        logits = np.stack([predictions.rows(ids) for predictions in tables])
        found.append(_judged("selection", table, ids, tables[0].classes, logits))
    if predicted is not None:
        test = get_predictions(store, predicted.blobs["predictions"])
        column = {name: place for place, name in enumerate(test.classes)}
        ids = tuple(row.image_id for row in table if row.part == "test" and row.label in column)
        found.append(_judged("test", table, ids, test.classes, test.rows(ids)[np.newaxis]))
    return tuple(judged for judged in found if judged.image_ids)


def _judged(
    part: str, table: FoldTable, ids: tuple[str, ...], classes: tuple[str, ...], logits: NDArray[np.float32]
) -> Judged:
    column = {name: place for place, name in enumerate(classes)}
    labels = np.array([column[label] for label in table.labels(ids)], dtype=np.int64)
    paths = tuple(table.by_id[image_id].path for image_id in ids)
    together = np.arange(len(logits), dtype=np.int32)[np.newaxis]
    return Judged(part, ids, paths, labels, classes, probabilities(logits, together)[0])
