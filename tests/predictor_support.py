"""A tiny run by hand, for tests of what comes after training: members, a search, a bundle, a test part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from support import RecordingReporter, digit_rows

from shared_store.cache import Cache
from shared_store.commits import put_result, read_result
from shared_store.records import Result, canonical_json
from shared_store.snapshot import ImageRow, write_snapshot
from shared_store.store import Store, open_store
from workers.bundle import export_bundle
from workers.model import initial_model
from workers.recipe import Recipe
from workers.tasks import BundleTask, PredictTask, Task, TrainTask, spec_hash, task_id, to_json
from workers.work import Work

CLASSES = ("digit_0", "digit_1", "digit_2", "digit_3")
LONGEST_SIDE = 96
TEST_LABELS = ("digit_0", "digit_1", "", "digit_3")


def digits_snapshot(store: Store) -> tuple[str, str]:
    """A snapshot of 24 train and 4 test digits (one of them unlabelled), and its fold table's digest."""
    rows, kept = digit_rows(per_class=7)
    by_label = {name: [row for row in rows if row.label == name] for name in CLASSES}
    train = [row for name in CLASSES for row in by_label[name][:6]]
    test = [
        ImageRow(row.image_id, row.path, label, row.group, "test", "photo", (), row.width, row.height)
        for name, label in zip(CLASSES, TEST_LABELS, strict=True)
        for row in [by_label[name][6]]
    ]
    snapshot = write_snapshot(store, [*train, *test], kept.__getitem__)
    lines = ["image_id,path,label,group,part,fold"]
    lines += [f"{row.image_id},{row.path},{row.label},{row.group},test," for row in test]
    lines += [f"{row.image_id},{row.path},{row.label},{row.group},train,{i % 2}" for i, row in enumerate(train)]
    return snapshot.snapshot_id, store.put_blob(("\n".join(lines) + "\n").encode())


def trained_member(
    store: Store, name: str, held_out: tuple[int, ...], image_size: int, network: str = "test_efficientnet"
) -> TrainTask:
    """A train task with a result whose weights are drawn, not trained; its snapshot is `digits_snapshot`'s."""
    snapshot, folds = digits_snapshot(store)
    recipe = Recipe(model=network, weights="none", image_size=image_size, batch_size=2)
    labels = ("label-fold1-0123456789abcdef",) if name.startswith("student") else ()
    task = TrainTask(name, snapshot, folds, CLASSES, held_out, recipe.model_dump(mode="json"), labels=labels)
    model = initial_model(recipe, len(CLASSES), seed=hash_of(name))
    with torch.no_grad():
        for tensor in model.get_classifier().parameters():  # type: ignore[operator]
            tensor.mul_(30)  # logits of a trained model's size
    weights = safetensors.torch.save({key: value.contiguous() for key, value in model.state_dict().items()})
    put_result(store, Result(task_id(task), spec_hash(task), 1, "nonce", blobs={"model": store.put_blob(weights)}))
    return task


def hash_of(name: str) -> int:
    return sum(name.encode())


def search_result(store: Store, winners: list[TrainTask]) -> str:
    """The id of a search that chose `winners`."""
    search = "search-ensemble-0123456789abcdef"
    texts = {
        "winner": canonical_json([task_id(task) for task in winners]).decode(),
        "verdict": "the verdict of the search",
    }
    put_result(store, Result(search, "spec", 1, "nonce", texts=texts))
    return search


def bundle_task(search: str, members: list[TrainTask]) -> BundleTask:
    described: list[dict[str, Any]] = [{**to_json(task), "id": task_id(task)} for task in members]
    return BundleTask("bundle/winner", search, tuple(described), CLASSES, LONGEST_SIDE)


def work_for(task: Task, store: Store, cache: Cache) -> Work:
    return Work(task_id(task), spec_hash(task), 1, "nonce", store, cache, RecordingReporter())


def run_bundle(task: BundleTask, work: Work) -> Result:
    """Export, and keep the result as the one door does."""
    return put_result(work.store, export_bundle(task, work))


def exported_bundle(store: Store, cache: Cache, sizes: tuple[int, ...]) -> BundleTask:
    """A bundle of `sizes` members (two teachers of different recipes, a student) whose result stands in `store`."""
    names = ("teacher/fold0", "teacher/fold1", "student/fold0")
    folds = ((0,), (1,), (0,))
    networks = ("test_efficientnet", "test_convnext", "test_efficientnet")
    parts = list(zip(names, folds, sizes, networks, strict=False))
    members = [trained_member(store, *part) for part in parts]
    task = bundle_task(search_result(store, members), members)
    run_bundle(task, work_for(task, store, cache))
    return task


def exported_folder(root: Path, sizes: tuple[int, ...]) -> Path:
    """The same, its files written to a folder."""
    store = open_store(str(root / "store"))
    task = exported_bundle(store, Cache(root / "cache", limit_gb=1.0), sizes)
    return written_bundle(task, store, root / "bundle")


def written_bundle(task: BundleTask, store: Store, folder: Path) -> Path:
    """The files of a bundle whose result stands in `store`, in a new folder."""
    result = read_result(store, task_id(task))
    assert result is not None
    folder.mkdir()
    for name, digest in result.blobs.items():
        (folder / name.removeprefix("file:")).write_bytes(store.get_blob(digest))
    return folder


def predict_task(bundle: BundleTask, store: Store) -> PredictTask:
    snapshot, folds = digits_snapshot(store)
    return PredictTask("predict/test", task_id(bundle), snapshot, folds, CLASSES)
