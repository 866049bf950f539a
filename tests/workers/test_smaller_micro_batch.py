"""An attempt with fewer images on the card at once than its recipe says, and what a slot is worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fold_support import FULL_RECIPE, StoppingReporter, small_task, small_work
from support import RecordingReporter

from shared_store.cache import Cache
from shared_store.store import Store
from workers.probe import LABELS, probe
from workers.stopped import StoppedError
from workers.train import train_fold

RECIPE = FULL_RECIPE.model_copy(update={"micro_batch": None, "epochs": 2, "keep": "best"})


def test_a_fold_goes_on_with_fewer_images_at_once_and_its_result_says_so(store: Store, tmp_path: Path) -> None:
    task, cache = small_task(store, RECIPE), Cache(tmp_path / "cache", 1.0)
    with pytest.raises(StoppedError):
        train_fold(task, small_work(task, store, cache, reporter=StoppingReporter(2)))
    reporter = RecordingReporter()
    work = small_work(task, store, cache, attempt=2, reporter=reporter)
    result = train_fold(task, dataclasses.replace(work, micro_batch=4))
    assert (result.numbers["micro_batch"], result.task, result.spec) == (4, work.task, work.spec)
    told = reporter.reports
    assert "resumes from commit" in told[0].note and "4 images on the card at once" in told[0].note
    assert told[0].best_epoch is None and told[-1].best_epoch in (1, 2)


def test_a_result_of_the_recipe_s_own_batches_says_nothing_of_them(store: Store, tmp_path: Path) -> None:
    task = small_task(store, RECIPE.model_copy(update={"epochs": 1, "head_epochs": 0}))
    assert "micro_batch" not in train_fold(task, small_work(task, store, Cache(tmp_path / "cache", 1.0))).numbers


def test_a_probe_says_what_a_slot_is_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LABELS, "attic, quiet,")
    found = probe("cpu", 1, slots=2, share=0.0, timed=True)
    assert found.passed and found.labels == ("attic", "quiet") and found.system
    assert found.speed is not None and found.speed > 0 and found.memory_gb is not None
    broken = probe("cuda:999", 1, slots=1, share=1.0, timed=True)
    assert not broken.passed and broken.what and broken.speed is None
