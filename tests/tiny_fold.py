"""A fold that trains in a second: digit photos in a real store, a model of 100,000 parameters. No test in here."""

from __future__ import annotations

from support import digit_rows

from shared_store.folds_table import FoldRow, FoldTable
from shared_store.snapshot import write_snapshot
from shared_store.store import Store
from workers.recipe import Augmentation, Recipe
from workers.tasks import TrainTask

CLASSES = ("digit_0", "digit_1")


def tiny_recipe(epochs: int = 1, model: str = "test_efficientnet") -> Recipe:
    still = Augmentation(geometry=0, colour=0, blur=0)
    return Recipe(
        model=model, weights="none", image_size=32, batch_size=4, epochs=epochs, patience=None, keep="last",
        optimizer="adamw", learning_rate=1e-3, augmentation=still,
    )  # fmt: skip


def tiny_data(store: Store, folds: int = 2) -> tuple[str, str]:
    """Snapshot id and fold table digest of 12 photos a class: 8 to train on, 4 to select with."""
    rows, kept = digit_rows(per_class=12, classes=len(CLASSES), side=32)
    table = FoldTable(
        FoldRow(row.image_id, row.path, row.label, row.group, "selection", None)
        if place % 3 == 2
        else FoldRow(row.image_id, row.path, row.label, row.group, "train", place % folds)
        for place, row in enumerate(rows)
    )
    return write_snapshot(store, rows, kept.__getitem__).snapshot_id, store.put_blob(table.to_csv())


def tiny_task(store: Store, name: str, epochs: int = 1, model: str = "test_efficientnet") -> TrainTask:
    """A teacher that holds out fold 0 of `tiny_data`."""
    snapshot, folds = tiny_data(store)
    return TrainTask(name, snapshot, folds, CLASSES, (0,), tiny_recipe(epochs, model).model_dump(mode="json"))
