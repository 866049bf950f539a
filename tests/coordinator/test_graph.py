"""The graph: who waits for whom, what an id stands for, and the rule that no label leaks."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from fake_fleet import small_graph
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import Experiment
from coordinator.graph import Graph, Photos, build, check_leaks
from shared_store.errors import UserError
from shared_store.records import canonical_json
from workers.tasks import BundleTask, LabelTask, SearchTask, Task, TrainTask, from_json, task_id, to_json

PHOTOS, TEST = Photos("snapshot", "0" * 64), Photos("test", "1" * 64)


def graph_of(**sections: Any) -> Graph:
    return build(Experiment.model_validate(sections), PHOTOS, ("cat", "dog"), TEST)


def task_of(graph: Graph, name: str) -> Task:
    (found,) = (task for task in graph.tasks.values() if task.name == name)
    return found


def needed_names(graph: Graph, name: str) -> set[str]:
    needed = graph.part([task_id(task_of(graph, name))])
    return {task.name for task in needed.tasks.values()} - {name}


def test_a_student_waits_for_the_teachers_of_the_folds_it_trains_on() -> None:
    needed = needed_names(small_graph(folds=3), "student/fold1")
    assert needed == {"teacher/fold0", "teacher/fold2", "label/fold0", "label/fold2"}


def test_nested_labels_come_from_teachers_that_saw_neither_fold() -> None:
    graph = small_graph(folds=5, labels="nested")
    assert len(graph.named("teacher/")) == len(graph.named("label/")) == 10
    needed = needed_names(graph, "student/fold1")
    pairs = {"fold0-1", "fold1-2", "fold1-3", "fold1-4"}
    assert needed == {f"{kind}/{pair}" for kind in ("teacher", "label") for pair in pairs}


@given(
    st.integers(2, 7),
    st.sampled_from([1, 2]),
    st.sampled_from(["oof", "nested"]),
    st.booleans(),
    st.sampled_from([0, 9]),
)
def test_every_experiment_gives_an_honest_graph(
    folds: int, rounds: int, labels: str, has_test: bool, composites: int
) -> None:
    if folds < 3:
        labels = "oof"
    experiment = Experiment.model_validate(
        {
            "folds": {"count": folds},
            "distill": {"rounds": rounds, "labels": labels},
            "data": {"composites": {"cat": composites}},
        }
    )
    graph = build(experiment, PHOTOS, ("cat", "dog"), TEST if has_test else None)
    saw = {task: set(range(folds)) - set(t.held_out) for task, t in graph.tasks.items() if isinstance(t, TrainTask)}
    for task in graph.tasks.values():
        if isinstance(task, LabelTask):
            assert not saw[task.teacher] & set(task.held_out)
        if isinstance(task, SearchTask):
            assert set(task.members) == set(saw)
            assert list(task.members) == [*graph.named("teacher/"), *graph.named("student/")]
        for name in task.inputs:
            assert graph.weights[name] > graph.weights[task_id(task)]
    assert bool(graph.named("predict/")) == has_test
    assert bool(graph.named("student/")) == (rounds == 2)


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


def test_nested_labels_of_two_folds_are_refused_before_any_work() -> None:
    with pytest.raises(UserError, match="at least 3 folds"):
        small_graph(folds=2, labels="nested")


@pytest.mark.parametrize(
    "sections",
    [
        {"recipe": {"checkpoint_minutes": 0.5}},
        {"fleet": {"threads": 4, "slots": 2, "attempts": 9}},
        {"store": {"url": "elsewhere"}},
        {"data": {"test": "elsewhere", "max_rejected": 0.5}},
    ],
)
def test_what_changes_no_result_changes_no_id(sections: dict[str, Any]) -> None:
    assert list(graph_of(**sections).tasks) == list(graph_of().tasks)


@pytest.mark.parametrize(
    ("sections", "same"),
    [
        ({"recipe": {"seed": 7}}, set()),
        ({"recipe": {"micro_batch": 1}}, set()),
        ({"distill": {"weight": 0.5}}, {"teacher", "label"}),
        ({"ensemble": {"max_members": 2}}, {"teacher", "label", "student"}),
        ({"data": {"composites": {"cat": 5}}}, {"teacher", "label"}),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(sections: dict[str, Any], same: set[str]) -> None:
    before, after = graph_of(), graph_of(**sections)
    for kind in ("teacher/", "label/", "student/", "search/", "bundle/", "predict/"):
        assert (before.named(kind) == after.named(kind)) == (kind.rstrip("/") in same), kind


def test_composites_are_only_in_the_rounds_that_ask_for_them() -> None:
    sections = {"data": {"composites": {"cat": 5}, "composite_rounds": ["teacher"]}}
    trained = [task for task in graph_of(**sections).tasks.values() if isinstance(task, TrainTask)]
    assert {task.name.split("/")[0]: task.composites for task in trained} == {"teacher": True, "student": False}


def test_ids_survive_the_wire() -> None:
    for name, task in small_graph().tasks.items():
        assert task_id(from_json(json.loads(canonical_json(to_json(task))))) == name


def test_the_bundle_knows_every_member_by_its_id() -> None:
    graph = small_graph()
    bundle = task_of(graph, "bundle/winner")
    assert isinstance(bundle, BundleTask)
    assert tuple(member["id"] for member in bundle.members) == graph.named("teacher/") + graph.named("student/")


def test_the_longest_chain_weighs_most() -> None:
    graph = small_graph()
    heaviest = max(graph.weights, key=graph.weights.__getitem__)
    assert heaviest in graph.named("teacher/")
    assert min(graph.weights, key=graph.weights.__getitem__) in graph.named("predict/")


def test_an_input_that_does_not_come_first_is_refused() -> None:
    tasks = list(small_graph().tasks.values())
    with pytest.raises(AssertionError, match="does not come before"):
        Graph.of(reversed(tasks))


def test_other_test_photos_are_other_predictions_and_nothing_else() -> None:
    classes, experiment = ("cat", "dog"), Experiment()
    before = build(experiment, PHOTOS, classes, TEST).tasks
    after = build(experiment, PHOTOS, classes, Photos("more", "2" * 64)).tasks
    assert [before[name].name for name in before.keys() - after.keys()] == ["predict/test"]
    assert before.keys() > build(experiment, PHOTOS, classes, None).tasks.keys()


def test_weights_are_what_is_in_the_file_wherever_it_lies() -> None:
    def teachers(path: str, sha256: str) -> set[str]:
        experiment = Experiment.model_validate({"recipe": {"weights": path}})
        return set(build(experiment, PHOTOS, ("cat", "dog"), None, sha256).named("teacher/"))

    assert teachers("a/file.pth", "1" * 64) == teachers("b/file.pth", "1" * 64)
    assert not teachers("a/file.pth", "1" * 64) & teachers("a/file.pth", "2" * 64)
    assert not teachers("a/file.pth", "") & teachers("b/file.pth", "")
