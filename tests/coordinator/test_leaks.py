"""The leak rule: every label that a student learns from is of a teacher that never saw what it labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from fake_fleet import small_graph
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import Experiment
from coordinator.graph import Graph, Photos, build, wire
from coordinator.leaks import check_leaks
from workers.tasks import LabelTask, SearchTask, Task, TrainTask, task_id

PHOTOS, TEST = Photos("snapshot", "0" * 64), Photos("test", "1" * 64)
CLASSES = ("cat", "dog")


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    folds = draw(st.integers(2, 6))
    labels = draw(st.sampled_from(["oof", "nested"])) if folds > 2 else "oof"
    recipes = {f"recipe_{place}": {"epochs": 2 + place} for place in range(draw(st.integers(0, 3)))}
    return Experiment.model_validate(
        {
            "folds": {"count": folds, "repeats": draw(st.integers(1, 3))},
            "recipes": recipes,
            "distill": {"rounds": draw(st.sampled_from([1, 2])), "labels": labels},
            "data": {"composites": {"cat": draw(st.sampled_from([0, 9]))}},
        }
    )


def is_honest(tasks: list[Task], experiment: Experiment) -> bool:
    """By the row: one photo lies in each fold, and every student goes through what it is given for it.

    Written apart from the code under test, from what the workers do: a teacher trains on all folds but those it holds
    out, a label task labels every photo of its folds, a student takes what it is given for the photos it trains on.
    """
    nested = experiment.distill.labels == "nested"
    photos = set(range(experiment.folds.count))
    by_id = {task_id(task): task for task in tasks}
    for student in (task for task in tasks if isinstance(task, TrainTask) and task.labels):
        learned = photos - set(student.held_out)
        opinions: dict[int, int] = dict.fromkeys(learned, 0)
        for label in (by_id[name] for name in student.labels):
            assert isinstance(label, LabelTask)
            teacher = by_id[label.teacher]
            assert isinstance(teacher, TrainTask)
            saw = photos - set(teacher.held_out)
            if saw & set(label.held_out) or (nested and saw & set(student.held_out)):
                return False
            if nested and not set(student.held_out) <= set(label.held_out):
                return False  # honest by its teacher, but all that a worker sees is what the label says of itself
            if not learned & set(label.held_out):
                return False  # waited for, and no use
            for photo in learned & set(label.held_out):
                opinions[photo] += 1
        if set(opinions.values()) != {1}:
            return False
    return True


@given(experiments(), st.booleans())
def test_every_experiment_gives_an_honest_graph(experiment: Experiment, has_test: bool) -> None:
    graph = build(experiment, PHOTOS, CLASSES, TEST if has_test else None)
    assert is_honest(list(graph.tasks.values()), experiment)
    trained = [task for task in graph.tasks.values() if isinstance(task, TrainTask)]
    assert len({task.name for task in graph.tasks.values()}) == len(graph.tasks)
    for task in graph.tasks.values():
        if isinstance(task, SearchTask):
            assert list(task.members) == [*graph.named("teacher/"), *graph.named("student/")]
            assert len(task.members) == len(trained)
        for name in task.inputs:
            assert graph.weights[name] > graph.weights[task_id(task)]
    assert bool(graph.named("predict/")) == has_test
    assert bool(graph.named("student/")) == (experiment.distill.rounds == 2)


@given(experiments().filter(lambda experiment: experiment.distill.rounds == 2), st.data())
def test_a_wiring_is_refused_exactly_when_it_is_dishonest(experiment: Experiment, data: st.DataObject) -> None:
    """One student gets another label than its own, of whatever recipe, repeat and fold; or a label claims more."""
    tasks = wire(experiment, PHOTOS, CLASSES, None, {})
    labels = [task for task in tasks if isinstance(task, LabelTask)]
    place = data.draw(st.sampled_from([place for place, task in enumerate(tasks) if getattr(task, "labels", ())]))
    student, other = tasks[place], data.draw(st.sampled_from(labels))
    assert isinstance(student, TrainTask)
    if data.draw(st.booleans()):
        claimed = data.draw(st.sets(st.integers(0, experiment.folds.count - 1), min_size=1))
        other = dataclasses.replace(other, held_out=tuple(sorted(claimed)))
    at = data.draw(st.integers(0, len(student.labels) - 1))
    given_labels = (*student.labels[:at], task_id(other), *student.labels[at + 1 :])
    forged = [*tasks[:place], other, dataclasses.replace(student, labels=given_labels), *tasks[place + 1 :]]
    nested = experiment.distill.labels == "nested"
    if is_honest(forged, experiment):
        check_leaks(forged, experiment.folds.count, nested)
    else:
        with pytest.raises(AssertionError):
            check_leaks(forged, experiment.folds.count, nested)


def task_of(graph: Graph, name: str) -> Task:
    (found,) = (task for task in graph.tasks.values() if task.name == name)
    return found


def test_another_recipes_label_is_taken_when_it_is_honest_and_refused_when_it_is_not() -> None:
    experiment = Experiment.model_validate({"folds": {"count": 2}, "recipes": {"one": {}, "other": {"epochs": 9}}})
    graph = build(experiment, PHOTOS, CLASSES, None)
    student = task_of(graph, "student/one/fold0")
    assert isinstance(student, TrainTask)
    honest = dataclasses.replace(student, labels=graph.named("label/other/fold1"))
    check_leaks([*graph.tasks.values(), honest], 2, nested=False)
    leaking = dataclasses.replace(student, labels=graph.named("label/other/fold0"))
    with pytest.raises(AssertionError, match="would wait for label/other/fold0"):
        check_leaks([*graph.tasks.values(), leaking], 2, nested=False)


def test_a_label_for_a_fold_that_its_teacher_trained_on_is_refused() -> None:
    tasks = list(small_graph().tasks.values())
    label = task_of(small_graph(), "label/fold0")
    forged = dataclasses.replace(label, held_out=(0, 1))
    with pytest.raises(AssertionError, match=r"label/fold0 labels folds \[1\], which teacher/fold0 trained on"):
        check_leaks([*tasks, forged], 3, nested=False)


def test_a_nested_student_refuses_a_teacher_that_saw_its_fold() -> None:
    graph = small_graph(folds=4, labels="nested")
    student = task_of(graph, "student/fold1")
    assert isinstance(student, TrainTask)
    others = graph.named("label/fold2-3")
    forged = dataclasses.replace(student, labels=others)
    with pytest.raises(AssertionError, match="whose teacher trained on its folds"):
        check_leaks([*graph.tasks.values(), forged], 4, nested=True)


@pytest.mark.parametrize("change", ["missing", "twice", "own"])
def test_a_student_has_one_label_for_every_fold_it_trains_on(change: str) -> None:
    graph = small_graph(folds=4)
    student = task_of(graph, "student/fold1")
    assert isinstance(student, TrainTask)
    own = graph.named("label/fold1")
    labels = {"missing": student.labels[1:], "twice": student.labels[:1] + student.labels, "own": own + student.labels}
    forged = dataclasses.replace(student, labels=labels[change])
    with pytest.raises(AssertionError, match="student/fold1"):
        check_leaks([*graph.tasks.values(), forged], 4, nested=False)


def test_labels_and_students_of_other_data_do_not_mix() -> None:
    graph = small_graph()
    student = task_of(graph, "student/fold1")
    with pytest.raises(AssertionError, match="same data"):
        check_leaks([*graph.tasks.values(), dataclasses.replace(student, snapshot="other")], 3, nested=False)


@pytest.mark.parametrize(
    ("change", "says"), [({"snapshot": "other"}, "same data"), ({"labels": ("label-fold1-x",)}, "learned from labels")]
)
def test_a_teacher_of_other_data_or_one_that_was_taught_gives_no_labels(change: dict[str, Any], says: str) -> None:
    tasks = wire(Experiment(), PHOTOS, CLASSES, None, {})
    teacher, label = tasks[0], next(task for task in tasks if isinstance(task, LabelTask))
    assert isinstance(teacher, TrainTask)
    other = dataclasses.replace(teacher, **change)
    with pytest.raises(AssertionError, match=says):
        check_leaks([other, dataclasses.replace(label, teacher=task_id(other))], 5, nested=False)
