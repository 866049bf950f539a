"""The curves of a run's folds as other tools take them: numbers by epoch, and the seconds trained until then. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.config import flat
from workers.tasks import Task, TrainTask

CURVES = ("loss", "val_loss", "accuracy", "mean_ap", "top_class_ap", "learning_rate", "images_per_second")


@dataclass(frozen=True)
class Point:
    """What was measured when an epoch ended, counted from 1. `seconds`: of training, without those between attempts."""

    epoch: int
    seconds: float
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class FoldCurves:
    """One fold's training: the id of its work, its name in the run, its recipe, and a point an epoch."""

    task: str
    name: str
    recipe: Mapping[str, Any]
    points: tuple[Point, ...]


def fold_curves(
    tasks: Mapping[str, Task], tables: Mapping[str, Sequence[Mapping[str, float]]]
) -> tuple[FoldCurves, ...]:
    """The folds that finished an epoch, in the graph's order. `tables`: rows of metrics.csv by task id."""
    return tuple(
        FoldCurves(name, task.name, flat(task.recipe), _points(tables[name]))
        for name, task in tasks.items()
        if isinstance(task, TrainTask) and name in tables
    )


def _points(rows: Sequence[Mapping[str, float]]) -> tuple[Point, ...]:
    points: list[Point] = []
    for row in rows:
        before = points[-1].seconds if points else 0.0
        numbers = {name: row[name] for name in CURVES if name in row}
        points.append(Point(int(row["epoch"]), before + row["seconds"], numbers))
    return tuple(points)
