"""What one fold trains on, is scored on and predicts: read from the snapshot, the fold table and the soft labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_store.folds_table import read_folds
from shared_store.snapshot import OpenSnapshot, open_snapshot
from workers.images import ImageSet, one_hot
from workers.label import training_targets
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
    training = ImageSet(
        snapshot,
        learn,
        training_targets(task, work.store, table, learn),
        image_size=recipe.image_size,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        threads=threads,
    )
    labels = one_hot(table.labels(scored), task.classes).argmax(axis=1)
    return FoldData(snapshot, training, held_out, scored, labels, table.ids("selection"))
