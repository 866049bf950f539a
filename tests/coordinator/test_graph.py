"""The graph: who waits for whom, and what an id stands for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_fleet import small_graph

from coordinator.config import Experiment
from coordinator.graph import Graph, Photos, build
from shared_store.errors import UserError
from shared_store.records import canonical_json
from workers.tasks import BundleTask, SearchTask, Task, TrainTask, from_json, task_id, to_json

PHOTOS, TEST = Photos("snapshot", "0" * 64), Photos("test", "1" * 64)


PINNED = """
teacher-fold0-1-6011ae5598007a00 teacher-fold0-2-fe185166c98e5871 teacher-fold1-2-a81d869c7c0f47c9
label-fold0-1-0c1a0a127f0d60bf label-fold0-2-4fe28e6eb312a27f label-fold1-2-454b3968ad482ff8
student-fold0-d63e7d4e546ae652 student-fold1-e013b7232d83471c student-fold2-58214040f99fd361
search-ensemble-b90ed45ede44f783 bundle-winner-cc8b75cd8dcab1a2 predict-test-8839b29a430feca5
"""
TWO = {"b4": {"image_size": 380}, "next": {"model": "convnext_tiny", "epochs": 10, "image_size": 190}}


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


def test_the_ids_of_one_recipe_never_change() -> None:
    """Work that was done is found again by them: a change here makes every store's work undone."""
    experiment = Experiment.model_validate({"folds": {"count": 3}, "distill": {"labels": "nested"}})
    graph = build(experiment, PHOTOS, ("cat", "dog"), TEST, {"timm": "f" * 64})
    assert list(graph.tasks) == PINNED.split()


def test_recipes_and_repeats_have_teachers_labels_and_students_of_their_own() -> None:
    graph = graph_of(folds={"count": 2, "repeats": 2}, recipes=TWO)
    assert [graph.tasks[name].name for name in graph.named("student/")] == [
        f"student/{group}/fold{fold}" for group in ("b4", "next", "b4/repeat1", "next/repeat1") for fold in (0, 1)
    ]
    assert needed_names(graph, "student/next/repeat1/fold0") == {
        "teacher/next/repeat1/fold1",
        "label/next/repeat1/fold1",
    }
    search = task_of(graph, "search/ensemble")
    assert isinstance(search, SearchTask)
    assert search.members == graph.named("teacher/") + graph.named("student/")


def test_each_model_is_trained_by_its_recipe_with_its_repeats_seed() -> None:
    graph = graph_of(folds={"count": 2, "repeats": 2}, recipes=TWO)
    by_name = {task.name: task.recipe for task in graph.tasks.values() if isinstance(task, TrainTask)}
    recipe = by_name["student/next/repeat1/fold0"]
    assert (recipe["model"], recipe["image_size"], recipe["seed"]) == ("convnext_tiny", 190, 43)
    assert {recipe["seed"] for name, recipe in by_name.items() if "repeat" not in name} == {42}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"folds": {"repeats": 3}}),
        ({"recipes": {"b4": {"epochs": 9}}}, {"recipes": {"b4": {"epochs": 9}, "next": {"epochs": 8}}}),
    ],
)
def test_what_joins_a_run_leaves_what_is_trained_as_it_is(before: dict[str, Any], after: dict[str, Any]) -> None:
    for kind in ("teacher/", "label/", "student/"):
        assert set(graph_of(**before).named(kind)) < set(graph_of(**after).named(kind))


def test_a_chain_weighs_its_epochs_by_their_pixels() -> None:
    graph = graph_of(folds={"count": 2}, recipes=TWO)
    weight = {task.name: graph.weights[name] for name, task in graph.tasks.items()}
    assert weight["student/b4/fold0"] - weight["search/ensemble"] == pytest.approx(35)
    assert weight["student/next/fold0"] - weight["search/ensemble"] == pytest.approx(10 / 4)


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


def test_another_longest_side_is_another_bundle() -> None:
    before, after = graph_of().tasks, graph_of(data={"longest_side": 300}).tasks
    names = {before[name].name for name in before.keys() - after.keys()}
    assert names == {"bundle/winner", "predict/test"}
    assert [task.longest_side for task in after.values() if isinstance(task, BundleTask)] == [300]


def test_weights_are_what_is_in_the_file_wherever_it_lies() -> None:
    def teachers(path: str, sha256: str) -> set[str]:
        experiment = Experiment.model_validate({"recipe": {"weights": path}})
        return set(build(experiment, PHOTOS, ("cat", "dog"), None, {path: sha256} if sha256 else {}).named("teacher/"))

    assert teachers("a/file.pth", "1" * 64) == teachers("b/file.pth", "1" * 64)
    assert not teachers("a/file.pth", "1" * 64) & teachers("a/file.pth", "2" * 64)
    assert not teachers("a/file.pth", "") & teachers("b/file.pth", "")


def test_each_recipe_has_the_hash_of_its_own_weights() -> None:
    recipes = {"one": {"weights": "one.pth"}, "other": {"weights": "other.pth"}}
    experiment = Experiment.model_validate({"recipes": recipes, "distill": {"rounds": 1}})
    weights = {"one.pth": "1" * 64, "other.pth": "2" * 64}
    tasks = build(experiment, PHOTOS, ("cat", "dog"), None, weights).tasks.values()
    found = {(task.recipe["weights"], task.weights_sha256) for task in tasks if isinstance(task, TrainTask)}
    assert found == set(weights.items())
