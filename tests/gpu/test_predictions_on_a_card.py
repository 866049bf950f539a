"""Predictions are the same on a card as on a CPU, of a bundle of folds that a card trained too."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from card_support import begin, predicted, recipe_in, run_elsewhere, through_the_door
from numpy.typing import NDArray
from predictor_support import bundle_task, exported_bundle, predict_task, run_bundle, search_result, work_for
from torch import Tensor

from shared_store.cache import Cache
from shared_store.commits import read_result
from shared_store.records import Result
from shared_store.snapshot import open_snapshot
from shared_store.store import Store
from workers.bundle import open_bundle
from workers.images import evaluation_batches
from workers.predictor import BATCH_TOLERANCE, Predictor
from workers.tasks import TrainTask, task_id, to_json

log = logging.getLogger(__name__)
Logits = NDArray[np.float32]
CARD_TOLERANCE = 1e-3
SIXTEEN_BIT_TOLERANCE = 0.1


def loaded(store: Store, bundle: Result, device: str) -> Predictor:
    return open_bundle(lambda name: store.get_blob(bundle.blobs[f"file:{name}"]), "the bundle", device)


def relative(one: Logits, other: Logits) -> float:
    """Largest difference of a logit, in shares of the largest logit where that is above 1."""
    return float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))


def result_of(store: Store, task_name: str) -> Result:
    found = read_result(store, task_name)
    assert found is not None, task_name
    return found


def photos_of(
    store: Store, cache: Cache, snapshot: str, image_ids: Sequence[str], sizes: Sequence[int]
) -> dict[int, Tensor]:
    """Kept photos as one batch for each image size."""
    with contextlib.closing(open_snapshot(store, snapshot, cache)) as opened:
        return {size: next(evaluation_batches(opened, image_ids, size, len(image_ids)))[0] for size in sizes}


def random_photos(count: int, seed: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (40 + 7 * place, 64, 3), np.uint8) for place in range(count)]


@pytest.mark.parametrize("flip", [False, True])
def test_a_bundle_predicts_on_the_card_what_it_predicts_on_a_cpu(
    store: Store, cache: Cache, card: str, flip: bool
) -> None:
    bundle = result_of(store, task_id(exported_bundle(store, cache, (32, 48, 64))))
    photos = random_photos(9, seed=1)
    on_card, on_cpu = loaded(store, bundle, card), loaded(store, bundle, "cpu")
    apart = relative(on_card.logits(photos, flip), on_cpu.logits(photos, flip))
    log.info(f"logits {apart:.2e} from a CPU's")
    assert apart < CARD_TOLERANCE


def test_how_photos_are_batched_plays_no_part_on_the_card_either(store: Store, cache: Cache, card: str) -> None:
    bundle = result_of(store, task_id(exported_bundle(store, cache, (32, 48))))
    photos, predictor = random_photos(9, seed=2), loaded(store, bundle, card)
    alone = np.concatenate([predictor.logits([photo]) for photo in photos])
    apart = relative(alone, predictor.logits(photos))
    log.info(f"logits of one photo at a time {apart:.2e} from those of nine")
    assert apart < BATCH_TOLERANCE


def test_a_process_that_never_used_the_card_predicts_a_test_part_on_it(store: Store, cache: Cache, card: str) -> None:
    bundle = exported_bundle(store, cache, (32, 48))
    task = predict_task(bundle, store)
    body = (to_json(task), store.url, str(cache.folder), card)
    process = multiprocessing.get_context("spawn").Process(target=run_elsewhere, args=body)
    process.start()
    process.join(200)
    assert process.exitcode == 0
    result = result_of(store, task_id(task))
    assert result.numbers["memory_mb"] > 0
    on_cpu = loaded(store, result_of(store, task_id(bundle)), "cpu")
    table = predicted(store, result, "predictions")
    expected = on_cpu.batch_logits(photos_of(store, cache, task.snapshot, table.image_ids, on_cpu.sizes))
    assert relative(table.logits, expected) < CARD_TOLERANCE


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_folds_that_a_card_trained_are_exported_and_predict_the_same_anywhere(
    tmp_path: Path, card: str, precision: str
) -> None:
    members: list[TrainTask] = []
    for fold in (0, 1):
        recipe = recipe_in(precision, "best", seed=fold)
        site = begin(tmp_path, recipe)
        task = TrainTask(
            f"teacher/fold{fold}", site.task.snapshot, site.task.folds, site.task.classes, (fold,), site.task.recipe
        )
        outcome = through_the_door(task, site.store, site.cache, card)
        assert outcome.failure is None, outcome.traceback
        members.append(task)
    store, cache = site.store, site.cache
    bundle = bundle_task(search_result(store, members), members)
    exported = run_bundle(bundle, work_for(bundle, store, cache))
    assert exported.texts["onnx"].startswith("made")
    tables = [predicted(store, result_of(store, task_id(member))) for member in members]
    ids, said = tables[0].image_ids, np.mean([table.logits for table in tables], axis=0)
    pixels = photos_of(store, cache, members[0].snapshot, ids, (32,))
    on_cpu, on_card = [loaded(store, exported, device).batch_logits(pixels) for device in ("cpu", card)]
    log.info(
        f"{precision}: card {relative(on_card, on_cpu):.2e}, in training {relative(said, on_cpu):.2e} from a CPU's"
    )
    assert relative(on_card, on_cpu) < CARD_TOLERANCE
    assert relative(said, on_cpu) < (CARD_TOLERANCE if precision == "float32" else SIXTEEN_BIT_TOLERANCE)
