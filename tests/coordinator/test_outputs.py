"""What a run leaves for people: every promised file, from whatever is known, the same each time."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_run import ODD_NAME, TWO_RECIPES, FinishedRun, finished_run

from coordinator.outputs import publish_ensemble, publish_known
from shared_store.cache import Cache
from shared_store.store import Store, open_store
from workers.bundle import load_bundle
from workers.tasks import BundleTask, LabelTask, SearchTask, TrainTask


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A finished run with its outputs."""
    root = tmp_path_factory.mktemp("run")
    made = finished_run(open_store(str(root / "store")), Cache(root / "cache", limit_gb=1.0))
    publish_known(made.store, made.known(), made.cache)
    return made


def _file(run: FinishedRun, name: str) -> bytes:
    data = run.store.read(f"runs/demo/{name}")
    assert data is not None, name
    return data


def _files(store: Store) -> dict[str, bytes]:
    keys = [entry.key for entry in store.list("runs/demo/")]
    return {key.removeprefix("runs/demo/"): store.read(key) or b"" for key in keys}


def _rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_a_finished_run_leaves_every_file(run: FinishedRun) -> None:
    folds = [f"folds/{name}-fold{fold}/{file}" for name in ("teacher", "student") for fold in (0, 1)
             for file in ("metrics.csv", "train.log")]  # fmt: skip
    plain = ["folds.csv", "labels.parquet", "leaderboard.csv", "predictions.csv", "predictions.json", "result.json"]
    plain += ["report.html", "rejected.csv", "duplicates.csv", "leaks.csv", "suspects.csv", "suspects.png"]
    assert set(_files(run.store)) >= {*folds, *plain, "bundle/bundle.json", "bundle/README.md", "bundle/model.onnx"}


def test_again_gives_the_same_bytes(run: FinishedRun) -> None:
    before = _files(run.store)
    publish_known(run.store, run.known(), run.cache)
    assert _files(run.store) == before


def test_labels_name_each_images_teacher(run: FinishedRun) -> None:
    frame = pd.read_parquet(io.BytesIO(_file(run, "labels.parquet")))
    assert list(frame.columns) == ["image_id", *(f"p_digit_{i}" for i in range(4)), "teacher"]
    folds = {row.image_id: row.fold for row in run.data.table if row.part == "train"}
    assert sorted(frame.image_id) == sorted(folds)
    for image_id, teacher in zip(frame.image_id, frame.teacher, strict=True):
        assert teacher.startswith(f"teacher-fold{folds[image_id]}-")
    np.testing.assert_allclose(frame.filter(like="p_").sum(axis=1), 1, atol=1e-5)


def test_every_test_photo_has_a_prediction_copies_too(run: FinishedRun) -> None:
    rows = _rows(_file(run, "predictions.csv"))
    paths = sorted([row.path for row in run.data.table if row.part == "test"] + ["a copy.jpg"])
    assert [row["image"] for row in rows] == paths
    first = next(row.path for row in run.data.table if row.part == "test")
    by_image = {row["image"]: row for row in rows}
    assert {**by_image["a copy.jpg"], "image": ""} == {**by_image[first], "image": ""}
    in_json = json.loads(_file(run, "predictions.json"))
    assert [row["image_name"] for row in in_json] == paths
    assert [set(row) for row in in_json] == [{"image_name", "category", "score"}] * len(paths)


def test_the_result_says_what_was_chosen_and_how_good_it_is(run: FinishedRun) -> None:
    result = json.loads(_file(run, "result.json"))
    best = _rows(_file(run, "leaderboard.csv"))[0]
    assert result["finished"]
    assert "+".join(member["name"] for member in result["winner"]) == best["members"]
    assert result["selection"]["score"] == pytest.approx(float(best["score"]), abs=1e-6)
    assert result["selection"]["baselines"]
    assert result["data"]["images"] == {"train": 16, "selection": 8, "test": 4}
    assert result["test"]["labelled"] == 3
    assert 0 <= result["test"]["test_mean_ap"] <= 1
    assert set(result["held_out"]) == {"teacher/fold0", "teacher/fold1", "student/fold0", "student/fold1"}
    assert set(result["tasks"].values()) == set(run.known().tasks)


def test_the_bundle_loads_from_where_it_was_left(run: FinishedRun, tmp_path: Path) -> None:
    for name, data in _files(run.store).items():
        if name.startswith("bundle/"):
            (tmp_path / name.removeprefix("bundle/")).write_bytes(data)
    assert load_bundle(tmp_path).classes == run.data.table.classes


def test_the_folds_name_every_photo(run: FinishedRun) -> None:
    rows = _rows(_file(run, "folds.csv"))
    assert len(rows) == len(run.data.table)
    assert ODD_NAME in {row["path"] for row in rows}
    assert _rows(_file(run, "rejected.csv"))[0]["reason"] == "the file is empty"


@pytest.mark.parametrize(
    ("kinds", "there", "not_there"),
    [
        ((), {"folds.csv", "report.html", "result.json"}, {"labels.parquet", "leaderboard.csv", "folds/x"}),
        ((TrainTask,), {"folds/teacher-fold0/metrics.csv"}, {"labels.parquet", "suspects.csv"}),
        ((TrainTask, LabelTask), {"labels.parquet", "suspects.png"}, {"leaderboard.csv"}),
        ((TrainTask, LabelTask, SearchTask), {"leaderboard.csv"}, {"bundle/bundle.json", "predictions.csv"}),
    ],
)
def test_an_unfinished_run_leaves_what_is_known(
    store: Store, cache: Cache, kinds: tuple[type, ...], there: set[str], not_there: set[str]
) -> None:
    made = finished_run(store, cache, kinds)
    publish_known(store, made.known(), cache)
    files = set(_files(store))
    assert there <= files
    assert not not_there & files
    assert json.loads(_file(made, "result.json"))["finished"] is False


def test_several_recipes_are_told_apart_everywhere(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, config=TWO_RECIPES)
    publish_known(store, made.known(), cache)
    files = _files(store)
    folders = {f"folds/student-{group}-fold1/metrics.csv" for group in ("net", "next", "net-repeat1", "next-repeat1")}
    assert folders < set(files)
    result = json.loads(files["result.json"])
    assert result["finished"]
    assert result["recipes"]["next/repeat1"] == {
        "model": "test_convnext",
        "image_size": 64,
        "epochs": 4,
        "seed": 43,
    }
    members = {row["members"] for row in _rows(files["leaderboard.csv"])}
    assert "+".join(f"student/{group}/fold{fold}" for group in ("net", "net/repeat1") for fold in (0, 1)) in members
    assert "The plain mean of all 4 students of next is" in result["verdict"]
    page = files["report.html"].decode()
    for words in ("<h3>Recipes</h3>", "<h3>next/repeat1</h3>", "test_convnext", "student/next/repeat1/fold1"):
        assert words in page, words
    labels = pd.read_parquet(io.BytesIO(files["labels.parquet"]))
    assert set(labels.groupby("image_id").size()) == {4}, "a label of every recipe and repeat"


def test_another_winners_weights_do_not_stay(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, (TrainTask, LabelTask, SearchTask, BundleTask))
    store.publish(
        "runs/demo/bundle/bundle.json", json.dumps({"files": {"old.safetensors": "0", "README.md": "0"}}).encode()
    )
    store.publish("runs/demo/bundle/old.safetensors", b"the weights of before")
    store.publish("runs/demo/bundle/mine.txt", b"a person's own file")
    publish_ensemble(store, made.known())
    files = {name for name in _files(store) if name.startswith("bundle/")}
    assert "bundle/old.safetensors" not in files
    assert {"bundle/README.md", "bundle/mine.txt"} <= files


def test_a_bundle_with_a_file_gone_is_made_whole_again(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, (TrainTask, LabelTask, SearchTask, BundleTask))
    publish_ensemble(store, made.known())
    before = _files(store)
    store.backend.delete("runs/demo/bundle/README.md")
    publish_ensemble(store, made.known())
    assert _files(store) == before
