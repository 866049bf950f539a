"""The experiment as a graph of tasks: ids, inputs, order, the longest chain behind each; the leak rule.

A payload holds all that decides its result and nothing else. `fleet.*` and `store.*` are therefore never
in it: where and how often a task commits changes no byte. `fleet.threads` is left out too, although a CPU
run repeats to the bit only at an equal number of threads: more threads are the same work, only summed in
another order, and a fold begun on two threads may be finished on four.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

from coordinator.config import Experiment
from shared_store.errors import UserError
from workers.tasks import (
    UNCOUNTED,
    BundleTask,
    LabelTask,
    PredictTask,
    SearchTask,
    Task,
    TrainTask,
    task_id,
    to_json,
)

Kind = TypeVar("Kind", TrainTask, LabelTask)


@dataclass(frozen=True)
class Graph:
    """Tasks by id, inputs before those who use them.

    `weights[id]` is the cost of the longest chain from the task, itself included, to the end, in epochs.
    """

    tasks: dict[str, Task]
    followers: dict[str, tuple[str, ...]]
    weights: dict[str, float]

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Graph:
        """A graph of `tasks`, each after its inputs. AssertionError for an input that does not come before."""
        by_id: dict[str, Task] = {}
        followers: dict[str, list[str]] = defaultdict(list)
        for task in tasks:
            task_name = task_id(task)
            for name in task.inputs:
                if name not in by_id:
                    raise AssertionError(f"{task.name} needs {name}, which does not come before it")
                followers[name].append(task_name)
            by_id[task_name] = task
        weights: dict[str, float] = {}
        for name in reversed(by_id):
            behind = max((weights[follower] for follower in followers[name]), default=0.0)
            weights[name] = _cost(by_id[name]) + behind
        return cls(by_id, {name: tuple(followers[name]) for name in by_id}, weights)

    def named(self, prefix: str) -> tuple[str, ...]:
        """Ids of the tasks whose name starts with `prefix` ("teacher/", "label/", "student/", "search/")."""
        return tuple(name for name, task in self.tasks.items() if task.name.startswith(prefix))

    def part(self, targets: Iterable[str]) -> Graph:
        """The graph of `targets` and of everything they need."""
        wanted = set(targets)
        for name in reversed(self.tasks):
            if name in wanted:
                wanted.update(self.tasks[name].inputs)
        return Graph.of(task for name, task in self.tasks.items() if name in wanted)


@dataclass(frozen=True)
class Photos:
    """Frozen photos: a snapshot's id, and the blob of the fold table that says where each belongs."""

    snapshot: str
    folds: str


def build(
    experiment: Experiment, photos: Photos, classes: tuple[str, ...], test: Photos | None, weights_sha256: str = ""
) -> Graph:
    """All tasks of an experiment: teachers, labels, students, search, bundle and, with test images, predictions.

    `photos` names the train and selection photos, `test` those to predict: they are apart, so that other test photos
    make no other training. `classes` are sorted. `weights_sha256`: of the file with pretrained weights, if it is one.
    UserError when the sections contradict each other.
    """
    distill, count = experiment.distill, experiment.folds.count
    two_rounds = distill.rounds == 2
    nested = two_rounds and distill.labels == "nested"
    if nested and count < 3:
        raise UserError(
            f"nested labels need at least 3 folds, not {count}: a teacher holds out two of them",
            where="folds.count, distill.labels",
            mend="raise folds.count, or set distill.labels to oof",
        )
    data = _Data(photos.snapshot, photos.folds, classes, weights_sha256)
    held_out = list(combinations(range(count), 2)) if nested else [(fold,) for fold in range(count)]
    teachers = [_train(experiment, data, "teacher", folds) for folds in held_out]
    labels = [_label(data, teacher) for teacher in teachers] if two_rounds else []
    students = [_student(experiment, data, fold, labels, nested) for fold in range(count)] if two_rounds else []
    check_leaks([*teachers, *labels, *students], count, nested)
    end = _end(experiment, data, [*teachers, *students], test)
    return Graph.of([*teachers, *labels, *students, *end])


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


@dataclass(frozen=True)
class _Data:
    """What every task on the same data names."""

    snapshot: str
    folds: str
    classes: tuple[str, ...]
    weights_sha256: str


def _train(
    experiment: Experiment, data: _Data, round_name: str, held_out: tuple[int, ...], labels: tuple[str, ...] = ()
) -> TrainTask:
    composed = any(experiment.data.composites.values()) and round_name in experiment.data.composite_rounds
    return TrainTask(
        name=f"{round_name}/{_folds_name(held_out)}",
        snapshot=data.snapshot,
        folds=data.folds,
        classes=data.classes,
        held_out=held_out,
        recipe=experiment.recipe.model_dump(mode="json"),
        composites=composed,
        labels=labels,
        label_weight=experiment.distill.weight if labels else 0.0,
        weights_sha256=data.weights_sha256,
    )


def _label(data: _Data, teacher: TrainTask) -> LabelTask:
    return LabelTask(
        name=f"label/{_folds_name(teacher.held_out)}",
        snapshot=data.snapshot,
        folds=data.folds,
        classes=data.classes,
        teacher=task_id(teacher),
        held_out=teacher.held_out,
    )


def _student(experiment: Experiment, data: _Data, fold: int, labels: Sequence[LabelTask], nested: bool) -> TrainTask:
    """Student `fold` waits only for the labels it learns from: with `oof`, not for teacher `fold`."""
    taken = tuple(task_id(label) for label in labels if (fold in label.held_out) == nested)
    return _train(experiment, data, "student", (fold,), taken)


def _end(experiment: Experiment, data: _Data, members: Sequence[TrainTask], test: Photos | None) -> list[Task]:
    """What follows the training: the search over all members, the exported winner, its predictions."""
    search = SearchTask(
        name="search/ensemble",
        folds=data.folds,
        classes=data.classes,
        members=tuple(task_id(member) for member in members),
        ensemble=experiment.ensemble.model_dump(mode="json"),
    )
    described = tuple(_described(member) for member in members)
    bundle = BundleTask(name="bundle/winner", search=task_id(search), members=described, classes=data.classes)
    if test is None:
        return [search, bundle]
    predict = PredictTask(
        name="predict/test", bundle=task_id(bundle), snapshot=test.snapshot, folds=test.folds, classes=data.classes
    )
    return [search, bundle, predict]


def _described(member: TrainTask) -> dict[str, Any]:
    """A member as the bundle's payload names it, without what does not change its weights."""
    recipe = {name: value for name, value in member.recipe.items() if name not in UNCOUNTED}
    return {**to_json(member), "recipe": recipe, "id": task_id(member)}


def _folds_name(held_out: tuple[int, ...]) -> str:
    return "fold" + "-".join(str(fold) for fold in held_out)


def _cost(task: Task) -> float:
    """Epochs that a task is worth before anything is measured; all but training is short."""
    return float(task.recipe["epochs"]) if isinstance(task, TrainTask) else 0.1


def _expect(by_id: Mapping[str, Task], name: str, kind: type[Kind]) -> Kind:
    task = by_id.get(name)
    _require(isinstance(task, kind), f"{name} should be a {kind.__name__} of the same graph, and is {task}")
    assert isinstance(task, kind)
    return task


def _require(holds: bool, story: str) -> None:
    """An assertion that stays when Python runs with -O: a leak must never get by."""
    if not holds:
        raise AssertionError(story)
