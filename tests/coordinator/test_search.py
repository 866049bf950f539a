"""A real search: Ray and Tune, with every core of the machine taken by somebody else."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
from ray.util import placement_group

from coordinator.config import EnsembleSection
from coordinator.ensemble import subsets
from coordinator.search import Keep, load_pool, run_search, tune_blocks
from coordinator.shortlist import look_ahead
from shared_store.commits import put_result
from shared_store.errors import UserError
from shared_store.records import Result
from shared_store.store import Store
from shared_store.tables import Predictions, put_predictions
from workers.metrics import all_metrics
from workers.tasks import SearchTask

CLASSES = ("cat", "dog", "owl")
NAMES = ("teacher-fold0", "teacher-fold1", "student-fold0", "student-fold1")


@pytest.fixture(scope="module")
def busy_ray() -> Iterator[None]:
    """One session whose only CPU is held by somebody else."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    held = placement_group([{"CPU": 1}])
    assert held.wait(60)
    assert ray.available_resources().get("CPU", 0) == 0
    yield
    ray.shutdown()


def fold_table(images: int, labels: np.ndarray) -> bytes:
    lines = ["image_id,path,label,group,part,fold"]
    lines += [f"image{i},photos/{i}.jpg,{CLASSES[labels[i]]},image{i},selection," for i in range(images)]
    lines += ["other,photos/other.jpg,cat,other,train,0", "blank,photos/blank.jpg,,blank,test,"]
    return ("\n".join(lines) + "\n").encode()


def a_search(store: Store, images: int = 60, seed: int = 3, **section: Any) -> SearchTask:
    """A SearchTask whose four members have results in the store. Their tables hold the images in shuffled order."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    members = []
    for place, name in enumerate(NAMES):
        logits = (2 * np.eye(3)[labels] + random.normal(0, 1.5, (images, 3))).astype(np.float32)
        order = random.permutation(images)
        table = Predictions(tuple(f"image{i}" for i in order), CLASSES, logits[order])
        member = f"{name}-{place:016x}"
        numbers = {"multiply_adds": 1e8, "ms_per_image": 8.0 + place, "memory_mb": 100.0}
        put_result(store, Result(member, "0" * 64, 1, "n", {"selection": put_predictions(store, table)}, numbers))
        members.append(member)
    folds = store.put_blob(fold_table(images, labels))
    ensemble = EnsembleSection(bootstrap=200, **section).model_dump(mode="json")
    return SearchTask("search/ensemble", folds, CLASSES, tuple(members), ensemble)


def test_a_search_from_any_thread_names_the_best_of_all_ensembles_and_shows_its_work(
    busy_ray: None, store: Store
) -> None:
    task = a_search(store, max_members=4)
    result = run_search(task, store)
    again: list[Result] = []
    thread = threading.Thread(target=lambda: again.append(run_search(task, store)))
    thread.start()
    thread.join()
    assert again == [result], "equal inputs, other bytes"

    report = json.loads(store.get_blob(result.blobs["search"]))
    assert result.numbers["subsets"] == 4 + 6 + 4 + 1 == len(report["ensembles"])
    assert [0, 1, 2, 3] in report["ensembles"], "grown greedily beyond three"
    assert result.numbers["selection_images"] == 60
    pool = load_pool(task, store)
    for ensemble, score in zip(report["ensembles"], report["scores"], strict=True):
        mean = pool.logits[ensemble].astype(np.float64).mean(axis=0)
        assert score == pytest.approx(all_metrics(mean, pool.labels)["mean_ap"], abs=1e-11)
    assert report["scores"] == sorted(report["scores"], reverse=True)
    assert json.loads(result.texts["winner"]) == [task.members[place] for place in report["ensembles"][0]]
    assert result.numbers["score_low"] <= result.numbers["score"] <= result.numbers["score_high"]
    assert "60 selection photos" in result.texts["verdict"]

    rows = list(csv.DictReader(io.StringIO(store.get_blob(result.blobs["leaderboard"]).decode())))
    assert list(rows[0]) == ["members", "size", "score", "score_low", "score_high", "ms_per_image", "memory_mb"]
    assert rows[0]["members"] == "+".join(NAMES[place].replace("-", "/") for place in report["ensembles"][0])
    everything = next(row for row in rows if row["size"] == "4")
    assert everything["members"] == "teacher/fold0+teacher/fold1+student/fold0+student/fold1"
    assert (float(everything["ms_per_image"]), float(everything["memory_mb"])) == (38.0, 400.0)


def test_a_failed_trial_is_raised_and_not_swallowed(busy_ray: None, store: Store) -> None:
    pool = load_pool(a_search(store), store)
    with pytest.raises(RuntimeError, match="1 of 2 search trials failed"):
        tune_blocks(pool, [np.array([[0]], dtype=np.int32), np.array([[99]], dtype=np.int32)], "mean_ap", at_once=1)


def test_blocks_that_keep_only_the_best_keep_what_an_exhaustive_search_ranks_first_and_say_nothing(
    busy_ray: None, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = load_pool(a_search(store), store)
    parts = [subsets(4, size) for size in (1, 2, 3)]
    outlook = look_ahead(pool.logits, pool.labels, parts, 2)
    ensembles, values = tune_blocks(pool, parts, "mean_ap", at_once=2, keep=Keep(2, outlook))
    assert capfd.readouterr() == ("", "")
    every = {
        tuple(row): all_metrics(pool.logits[row].astype(np.float64).mean(axis=0), pool.labels)["mean_ap"]
        for part in parts
        for row in part.tolist()
    }
    assert set(sorted(every, key=lambda row: -every[row])[:2]) <= set(ensembles)
    assert values.tolist() == pytest.approx([every[row] for row in ensembles], abs=1e-12)


def test_no_selection_photos_is_something_to_mend(store: Store) -> None:
    task = a_search(store)
    folds = store.put_blob(b"image_id,path,label,group,part,fold\na,a.jpg,cat,a,train,0\n")
    with pytest.raises(UserError, match="no selection photos"):
        run_search(SearchTask(task.name, folds, task.classes, task.members, task.ensemble), store)


def test_selection_photos_of_an_unknown_class_are_something_to_mend(store: Store) -> None:
    task = a_search(store)
    folds = store.put_blob(b"image_id,path,label,group,part,fold\na,a.jpg,bat,a,selection,\n")
    with pytest.raises(UserError, match="bat"):
        run_search(SearchTask(task.name, folds, task.classes, task.members, task.ensemble), store)


def test_a_budget_that_nothing_fits_stops_before_the_search(store: Store) -> None:
    with pytest.raises(UserError, match=r"8\.0 ms per image"):
        run_search(a_search(store, max_ms_per_image=5.0), store)
