"""A whole run by hand, without training: two folds of teachers and students, labels, a search, a bundle, predictions.

Weights and logits are drawn; everything after them is what the project's own code makes of them.
"""

from __future__ import annotations

import functools
import itertools
import json
import zlib
from dataclasses import dataclass

import numpy as np
import safetensors.torch
from support import RecordingReporter, digit_rows

from coordinator import leaderboard
from coordinator.config import Experiment, parse
from coordinator.data import RunData
from coordinator.ensemble import Budget, Pool, as_tuples, candidates, scores
from coordinator.known import Known, gather
from coordinator.variants import member_names
from shared_store import layout
from shared_store.cache import Cache
from shared_store.commits import put_result
from shared_store.folds_table import FoldRow, FoldTable
from shared_store.records import Result, canonical_json
from shared_store.snapshot import ImageRow, write_snapshot
from shared_store.store import Store
from shared_store.tables import Predictions, get_predictions, put_predictions
from workers.bundle import export_bundle
from workers.composites import Composed
from workers.label import make_labels
from workers.model import initial_model
from workers.predict import predict_test
from workers.prepare import Prepared
from workers.recipe import Recipe
from workers.story import Story
from workers.tasks import BundleTask, LabelTask, PredictTask, SearchTask, Task, TrainTask, spec_hash, task_id
from workers.work import Work

ODD_NAME = 'digit_0/<b>"one" & ünder</b>.jpg'
CONFIG = """
folds: {count: 2}
recipe: {model: test_efficientnet, weights: none, image_size: 32, batch_size: 2, epochs: 3}
ensemble: {max_members: 2, bootstrap: 100}
"""
TWO_RECIPES = """
folds: {count: 2, repeats: 2}
recipe: {model: test_efficientnet, weights: none, image_size: 32, batch_size: 2, epochs: 3}
recipes: {net: {}, next: {model: test_convnext, image_size: 64, epochs: 4}}
ensemble: {max_members: 2, bootstrap: 100}
"""
_PARTS = ("train",) * 4 + ("selection",) * 2 + ("test",)


@dataclass(frozen=True)
class FinishedRun:
    """The store of a run and what it takes to gather it; `upto` limits which kinds of tasks have results."""

    store: Store
    cache: Cache
    experiment: Experiment
    data: RunData

    def known(self) -> Known:
        return gather(self.store, "demo", self.experiment, self.data)


def finished_run(
    store: Store,
    cache: Cache,
    kinds: tuple[type[Task], ...] | None = None,
    config: str = CONFIG,
    per_class: int = len(_PARTS),
) -> FinishedRun:
    """A run whose tasks of `kinds` (all by default) have results."""
    experiment = parse(config, "test")
    data = _data(store, experiment.folds.count, per_class)
    for name, task in data.graph(experiment).tasks.items():
        if kinds is None or isinstance(task, kinds):
            work = Work(name, spec_hash(task), 1, "nonce", store, cache, RecordingReporter())
            put_result(store, _result(task, work, data))
    return FinishedRun(store, cache, experiment, data)


def _data(store: Store, fold_count: int, per_class: int) -> RunData:
    rows, kept = digit_rows(per_class)
    images: list[ImageRow] = []
    folds: list[FoldRow] = []
    dealt = itertools.count()
    for place, row in enumerate(rows):
        part = _PARTS[place % len(_PARTS)]
        path = ODD_NAME if place == 0 else row.path
        label = "" if place == len(rows) - 1 else row.label
        fold = next(dealt) % fold_count if part == "train" else None
        images.append(ImageRow(row.image_id, path, label, row.group, part, "photo", (), row.width, row.height))
        folds.append(FoldRow(row.image_id, path, label, row.group, part, fold))
    table = FoldTable(folds)
    learned, tested = ([row for row in images if (row.part == "test") is test] for test in (False, True))
    snapshot, test_snapshot = (write_snapshot(store, some, kept.__getitem__).snapshot_id for some in (learned, tested))
    learned_table, test_table = (FoldTable(r for r in table if (r.part == "test") is test) for test in (False, True))
    first_test = next(row for row in table if row.part == "test")
    prepared = Prepared(
        snapshot_id=snapshot,
        test_snapshot_id=test_snapshot,
        images={},
        rejected=[{"part": "train", "path": "digit_1/<broken>.jpg", "reason": "the file is empty"}],
        duplicates=[],
        leaks=[],
        ignored=["notes.txt"],
        test_copies={"a copy.jpg": first_test.image_id},
    )
    composed = Composed(snapshot, store.put_blob(learned_table.to_csv()), 0)
    return RunData(prepared, composed, store.put_blob(test_table.to_csv()), table, {})


def _result(task: Task, work: Work, data: RunData) -> Result:
    match task:
        case TrainTask():
            return _trained(task, work, data.table)
        case LabelTask():
            return make_labels(task, work)
        case SearchTask():
            return _searched(task, work, data.table)
        case BundleTask():
            return export_bundle(task, work)
        case PredictTask():
            return predict_test(task, work)


def _trained(task: TrainTask, work: Work, table: FoldTable) -> Result:
    random = np.random.default_rng(zlib.crc32(task.name.encode()))
    store, classes = work.store, len(task.classes)

    def predicted(image_ids: tuple[str, ...]) -> str:
        truth = np.eye(classes)[[task.classes.index(label) for label in table.labels(image_ids)]]
        logits = (2 * truth + random.normal(0, 1.2, truth.shape)).astype(np.float32)
        return put_predictions(store, Predictions(image_ids, task.classes, logits))

    story, epochs = Story(), int(task.recipe["epochs"])
    for epoch in range(epochs):
        left = 0.6 * float(np.exp(-4 * epoch / epochs))  # what is still to be learned, of most networks
        values = np.clip(0.9 - left + random.normal(0, 0.02, 3), 0, 1)
        metrics = dict(zip(("mean_ap", "top_class_ap", "accuracy"), values.tolist(), strict=True))
        metrics["log_loss"] = 0.4 + left + float(random.normal(0, 0.02))
        story.seconds = 2.0
        story.end_epoch(rate=1e-3, loss=0.3 + left + float(random.normal(0, 0.01)), images=8, metrics=metrics)
    store.publish(layout.log(work.task, "metrics.csv"), story.metrics_csv())
    store.publish(layout.log(work.task, "train.log"), story.log_text())
    blobs = {
        "model": store.put_blob(_weights(json.dumps(dict(task.recipe)), classes)),
        "held_out": predicted(table.ids("train", task.held_out)),
        "selection": predicted(table.ids("selection")),
        "metrics": store.put_blob(story.metrics_csv()),
    }
    last = story.history[-1]
    numbers = {name: last[name] for name in ("mean_ap", "top_class_ap", "accuracy")} | {"log_loss": last["val_loss"]}
    numbers |= {
        "epochs": epochs,
        "kept_epoch": story.best_epoch,
        "seconds": 6.0,
        "multiply_adds": 1e6,
        "parameters": 1e5,
    }
    numbers |= {"ms_per_image": 2.5, "memory_mb": 30.0}
    return Result(work.task, work.spec, 1, "nonce", blobs, numbers, {})


@functools.cache
def _weights(recipe: str, classes: int) -> bytes:
    model = initial_model(Recipe.model_validate_json(recipe), classes, seed=1)
    return safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})


def _searched(task: SearchTask, work: Work, table: FoldTable) -> Result:
    """What `run_search` leaves, without Ray."""
    ids = table.ids("selection")
    results = [Result.from_bytes(work.store.read(layout.result(member)) or b"") for member in task.members]
    logits = np.stack([get_predictions(work.store, result.blobs["selection"]).rows(ids) for result in results])
    labels = np.array([task.classes.index(label) for label in table.labels(ids)])
    costs = [np.array([result.numbers[name] for result in results]) for name in ("multiply_adds", "ms_per_image")]
    names = member_names(task.members)
    pool = Pool(names, logits, labels, costs[0], costs[1], np.full(len(names), 30.0))
    question = leaderboard.Question("mean_ap", Budget(), 100, 1)
    parts = candidates(pool, 2, Budget())
    values = np.concatenate([scores(logits, labels, part, "mean_ap") for part in parts])
    ensembles = [ensemble for part in parts for ensemble in as_tuples(part)]
    found = leaderboard.find(pool, question, ensembles, values, len(ensembles))
    report = {**leaderboard.as_json(pool, question, found), "member_ids": task.members}
    blobs = {
        "leaderboard": work.store.put_blob(leaderboard.as_csv(pool, found)),
        "search": work.store.put_blob(canonical_json(report)),
    }
    winner = json.dumps([task.members[member] for member in found.winner.ensemble])
    return Result(task_id(task), work.spec, 1, "nonce", blobs, {}, {"winner": winner, "verdict": report["verdict"]})
