"""What one fold trains on, is scored on and predicts: read from the snapshot, the fold table and the soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_store.commits import read_result
from shared_store.folds_table import read_folds
from shared_store.snapshot import OpenSnapshot, open_snapshot
from shared_store.store import Store
from shared_store.tables import get_soft_labels
from workers.images import ImageSet, one_hot
from workers.recipe import Recipe
from workers.tasks import TrainTask
from workers.work import Work


@dataclass(frozen=True)
class FoldData:
    """The images of one fold by their use; ids are in the fold table's order."""

    snapshot: OpenSnapshot
    training: ImageSet
    held_out: tuple[str, ...]  # every row of the folds held out, composites too: their labels are asked for later
    scored: tuple[str, ...]  # the photos among them: metrics are taken over these alone
    scored_labels: NDArray[np.int64]  # class numbers, rows as `scored`
    selection: tuple[str, ...]


def open_fold(task: TrainTask, work: Work, recipe: Recipe, threads: int) -> FoldData:
    """Open the snapshot and sort its images by what this task may do with them.

    An image of a fold held out is never in `training`; a composite only when the task asks for composites.
    """
    snapshot = open_snapshot(work.store, task.snapshot, work.cache)
    table = read_folds(work.store, task.folds)
    photos = {row.image_id for row in snapshot.rows if row.kind == "photo"}
    held_out = table.ids("train", task.held_out)
    scored = tuple(image_id for image_id in held_out if image_id in photos)
    others = table.ids("train", set(range(table.fold_count)) - set(task.held_out))
    learn = tuple(image_id for image_id in others if task.composites or image_id in photos)
    assert learn and scored, f"{task.name}: {len(learn)} images to learn from, {len(scored)} to be scored on"
    targets = _mixed(task, work.store, learn, one_hot(table.labels(learn), task.classes))
    training = ImageSet(
        snapshot,
        learn,
        targets,
        image_size=recipe.image_size,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        threads=threads,
    )
    labels = one_hot(table.labels(scored), task.classes).argmax(axis=1)
    return FoldData(snapshot, training, held_out, scored, labels, table.ids("selection"))


def _mixed(task: TrainTask, store: Store, image_ids: Sequence[str], hard: NDArray[np.float32]) -> NDArray[np.float32]:
    """The one-hot targets [n, classes], mixed with every image's soft label where the task names label tasks."""
    if not task.labels:
        return hard
    soft: dict[str, NDArray[np.float32]] = {}
    for label_task in task.labels:
        result = read_result(store, label_task)
        assert result is not None, f"{task.name} was started before its labels {label_task} stood"
        table = get_soft_labels(store, result.blobs["labels"])
        assert table.classes == task.classes, f"{label_task} has classes {table.classes}, not {task.classes}"
        soft |= dict(zip(table.image_ids, table.probabilities, strict=True))
    missing = [image_id for image_id in image_ids if image_id not in soft]
    assert not missing, f"{task.name}: {len(missing)} images have no soft label, first {missing[0]}"
    rows = np.stack([soft[image_id] for image_id in image_ids])
    return ((1 - task.label_weight) * hard + task.label_weight * rows).astype(np.float32)
