"""The experiment as a graph of tasks: ids, inputs, order, the longest chain behind each.

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
from typing import Any

from coordinator.config import Experiment
from coordinator.leaks import check_leaks
from coordinator.variants import Variant
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


@dataclass(frozen=True)
class Graph:
    """Tasks by id, inputs before those who use them.

    `weights[id]` is the cost of the longest chain from the task, itself included, to the end, in epochs (at the
    largest image size).
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
        weights, costs = dict[str, float](), _costs(by_id)
        for name in reversed(by_id):
            behind = max((weights[follower] for follower in followers[name]), default=0.0)
            weights[name] = costs[name] + behind
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
    experiment: Experiment,
    photos: Photos,
    classes: tuple[str, ...],
    test: Photos | None,
    weights: Mapping[str, str] | None = None,
) -> Graph:
    """The graph of `wire`'s tasks, with the leak rule asserted. UserError when the sections contradict each other."""
    tasks = wire(experiment, photos, classes, test, weights or {})
    check_leaks(tasks, experiment.folds.count, _is_nested(experiment))
    return Graph.of(tasks)


def wire(
    experiment: Experiment, photos: Photos, classes: tuple[str, ...], test: Photos | None, weights: Mapping[str, str]
) -> list[Task]:
    """All tasks, inputs first: teachers, labels, students, search, bundle and, with test images, predictions.

    Every recipe in every repeat has teachers, labels and students of its own; the search is over all of them.
    `photos` names the train and selection photos, `test` those to predict: they are apart, so that other test photos
    make no other training. `classes` are sorted. `weights`: sha256 of the files with pretrained weights, by what
    `recipe.weights` says. Nothing is checked for leaks: that is `build`'s.
    """
    count = experiment.folds.count
    if _is_nested(experiment) and count < 3:
        raise UserError(
            f"nested labels need at least 3 folds, not {count}: a teacher holds out two of them",
            where="folds.count, distill.labels",
            mend="raise folds.count, or set distill.labels to oof",
        )
    data = _Data(photos.snapshot, photos.folds, classes)
    groups = [
        _group(experiment, data, variant, weights.get(variant.recipe.weights, "")) for variant in experiment.variants()
    ]
    teachers = [teacher for group in groups for teacher in group.teachers]
    labels = [label for group in groups for label in group.labels]
    students = [student for group in groups for student in group.students]
    return [*teachers, *labels, *students, *_end(experiment, data, [*teachers, *students], test)]


@dataclass(frozen=True)
class _Data:
    """What every task on the same data names."""

    snapshot: str
    folds: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """The training of one variant."""

    teachers: list[TrainTask]
    labels: list[LabelTask]
    students: list[TrainTask]


def _is_nested(experiment: Experiment) -> bool:
    return experiment.distill.rounds == 2 and experiment.distill.labels == "nested"


def _group(experiment: Experiment, data: _Data, variant: Variant, weights_sha256: str) -> _Group:
    """With `oof`, student j waits only for the labels it learns from, not for teacher j."""
    folds, nested = range(experiment.folds.count), _is_nested(experiment)

    def train(kind: str, held_out: tuple[int, ...], labels: tuple[str, ...] = ()) -> TrainTask:
        return TrainTask(
            name=variant.task_name(kind, _folds_name(held_out)),
            snapshot=data.snapshot,
            folds=data.folds,
            classes=data.classes,
            held_out=held_out,
            recipe=variant.recipe.model_dump(mode="json"),
            composites=any(experiment.data.composites.values()) and kind in experiment.data.composite_rounds,
            labels=labels,
            label_weight=experiment.distill.weight if labels else 0.0,
            weights_sha256=weights_sha256,
        )

    teachers = [train("teacher", held_out) for held_out in combinations(folds, 2 if nested else 1)]
    if experiment.distill.rounds == 1:
        return _Group(teachers, [], [])
    labels = {task_id(label): label for label in (_label(data, variant, teacher) for teacher in teachers)}
    students = [
        train("student", (fold,), tuple(name for name, label in labels.items() if (fold in label.held_out) == nested))
        for fold in folds
    ]
    return _Group(teachers, list(labels.values()), students)


def _label(data: _Data, variant: Variant, teacher: TrainTask) -> LabelTask:
    return LabelTask(
        name=variant.task_name("label", _folds_name(teacher.held_out)),
        snapshot=data.snapshot,
        folds=data.folds,
        classes=data.classes,
        teacher=task_id(teacher),
        held_out=teacher.held_out,
    )


def _end(experiment: Experiment, data: _Data, members: Sequence[TrainTask], test: Photos | None) -> list[Task]:
    """What follows the training: the search over all members, the exported winner, its predictions."""
    by_id = {task_id(member): member for member in members}
    search = SearchTask(
        name="search/ensemble",
        folds=data.folds,
        classes=data.classes,
        members=tuple(by_id),
        ensemble=experiment.ensemble.model_dump(mode="json"),
    )
    described = tuple(_described(name, member) for name, member in by_id.items())
    bundle = BundleTask(
        name="bundle/winner",
        search=task_id(search),
        members=described,
        classes=data.classes,
        longest_side=experiment.data.longest_side,
    )
    if test is None:
        return [search, bundle]
    predict = PredictTask(
        name="predict/test", bundle=task_id(bundle), snapshot=test.snapshot, folds=test.folds, classes=data.classes
    )
    return [search, bundle, predict]


def _described(name: str, member: TrainTask) -> dict[str, Any]:
    """A member as the bundle's payload names it, without what does not change its weights."""
    recipe = {name: value for name, value in member.recipe.items() if name not in UNCOUNTED}
    return {**to_json(member), "recipe": recipe, "id": name}


def _folds_name(held_out: tuple[int, ...]) -> str:
    return "fold" + "-".join(str(fold) for fold in held_out)


def _costs(tasks: Mapping[str, Task]) -> dict[str, float]:
    """What each task is worth before anything is measured; all but training is short.

    Training grows with its epochs and its pixels. In epochs at the largest image size of the graph: with one recipe
    that is its epochs. What networks cost against one another is not known before they are measured.
    """
    trained = {name: task.recipe for name, task in tasks.items() if isinstance(task, TrainTask)}
    largest = max((recipe["image_size"] for recipe in trained.values()), default=1)
    costs = {name: recipe["epochs"] * (recipe["image_size"] / largest) ** 2 for name, recipe in trained.items()}
    return {name: costs.get(name, 0.1) for name in tasks}
