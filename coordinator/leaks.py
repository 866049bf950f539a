"""The leak rule on the graph: no student learns from a label whose teacher trained on what it labels. Pure.

Honesty is about folds, and every recipe and repeat is dealt the same ones. So the rule asks of each label what its
teacher held out, and not whose teacher it was: a label of another recipe's teacher may stand for its fold, a dishonest
one may not, whichever recipe it is from. `workers.label` asks the same again of every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from workers.tasks import LabelTask, Task, TrainTask, task_id

Kind = TypeVar("Kind", TrainTask, LabelTask)


def check_leaks(tasks: Sequence[Task], fold_count: int, nested: bool) -> None:
    """AssertionError, by name, where a student would learn from a label that is not honest.

    Every label comes from a teacher that held out the labelled fold; every fold that a student trains on is
    labelled once and the folds it holds out never; with `nested`, the teacher held out the student's folds too.
    """
    by_id = {task_id(task): task for task in tasks}
    for label in tasks:
        if isinstance(label, LabelTask):
            teacher = _expect(by_id, label.teacher, TrainTask)
            seen = sorted(set(label.held_out) - set(teacher.held_out))
            _require(not seen, f"{label.name} labels folds {seen}, which {teacher.name} trained on")
            _require(not teacher.labels, f"{label.name} is taught by {teacher.name}, which learned from labels itself")
            same = (label.snapshot, label.folds) == (teacher.snapshot, teacher.folds)
            _require(same, f"{label.name} and {teacher.name} are not about the same data and folds")
    for student in tasks:
        if isinstance(student, TrainTask) and student.labels:
            _check_student(student, [_expect(by_id, name, LabelTask) for name in student.labels], fold_count, nested)


def _check_student(student: TrainTask, labels: Sequence[LabelTask], fold_count: int, nested: bool) -> None:
    own = set(student.held_out)
    labelled: list[int] = []
    for label in labels:
        same = (label.snapshot, label.folds) == (student.snapshot, student.folds)
        _require(same, f"{student.name} and {label.name} are not about the same data and folds")
        if nested:
            saw = sorted(own - set(label.held_out))
            _require(not saw, f"{student.name} takes {label.name}, whose teacher trained on its folds {saw}")
        useful = set(label.held_out) - own
        _require(bool(useful), f"{student.name} would wait for {label.name}, which labels only folds it never sees")
        labelled += useful
    wanted = [fold for fold in range(fold_count) if fold not in own]
    _require(sorted(labelled) == wanted, f"{student.name} trains on {wanted} and has labels for {sorted(labelled)}")


def _expect(by_id: Mapping[str, Task], name: str, kind: type[Kind]) -> Kind:
    task = by_id.get(name)
    _require(isinstance(task, kind), f"{name} should be a {kind.__name__} of the same graph, and is {task}")
    assert isinstance(task, kind)
    return task


def _require(holds: bool, story: str) -> None:
    """An assertion that stays when Python runs with -O: a leak must never get by."""
    if not holds:
        raise AssertionError(story)
