"""Folds on a card, and what they leave, for tests that compare. No test in here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from fold_support import FULL_RECIPE, small_task, small_work
from support import RecordingReporter

from shared_store.cache import Cache
from shared_store.records import Result
from shared_store.store import Store, open_store
from shared_store.tables import Predictions, get_predictions
from workers.recipe import Recipe
from workers.run import Place, run
from workers.tasks import Outcome, Reporter, Task, TrainTask, from_json, to_json
from workers.train import train_fold
from workers.work import Work

KEEPS = {
    "ema": FULL_RECIPE,
    "best": FULL_RECIPE.model_copy(update={"keep": "best", "optimizer": "adamw", "micro_batch": None}),
}
"""Lookahead over a multi-tensor optimizer with micro-batches, and one fused kernel with whole batches."""
PRECISIONS = ("float32", "float16", "bfloat16", "auto")


def recipe_in(precision: str, keep: str = "ema", **changes: Any) -> Recipe:
    return KEEPS[keep].model_copy(update={"precision": precision, **changes})


@dataclasses.dataclass(frozen=True)
class Site:
    """A store and a machine's cache below one folder, and the same fold in it."""

    store: Store
    cache: Cache
    task: TrainTask

    def work(self, device: str, attempt: int = 1, reporter: Reporter | None = None) -> Work:
        work = small_work(self.task, self.store, self.cache, attempt=attempt, reporter=reporter)
        return dataclasses.replace(work, device=device)

    def train(self, device: str, attempt: int = 1, reporter: Reporter | None = None) -> Result:
        return train_fold(self.task, self.work(device, attempt, reporter))


def begin(root: Path, recipe: Recipe) -> Site:
    store = open_store(str(root / "store"))
    return Site(store, Cache(root / "cache", 1.0), small_task(store, recipe))


def weights(store: Store, result: Result) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(store.get_blob(result.blobs["model"]))


def predicted(store: Store, result: Result, part: str = "selection") -> Predictions:
    return get_predictions(store, result.blobs[part])


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """How far two networks' weights are apart, as a share of how large they are."""
    floats = [name for name, value in one.items() if value.is_floating_point()]
    apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in floats)
    size = sum(float(one[name].double().square().sum()) for name in floats)
    return float((apart / size) ** 0.5)


def through_the_door(task: Task, store: Store, cache: Cache, device: str, attempt: int = 1) -> Outcome:
    place = Place(store.url, str(cache.folder), 1.0, device, 1)
    return run(to_json(task), attempt, place, RecordingReporter())


def run_elsewhere(task_json: dict[str, Any], store_url: str, cache_folder: str, device: str) -> None:
    """The body of a process of its own that does one task, and ends badly when the task does."""
    cache = Cache(Path(cache_folder), 1.0)
    outcome = through_the_door(from_json(task_json), open_store(store_url), cache, device, attempt=2)
    assert outcome.failure is None, outcome.what + outcome.traceback
