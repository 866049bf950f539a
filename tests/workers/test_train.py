from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from fold_support import (
    FULL_RECIPE,
    StepsReporter,
    StoppingReporter,
    WaitingReporter,
    WatchedBackend,
    small_task,
    small_work,
    ticking_clock,
    train_until_killed,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import RecordingReporter

from shared_store import layout
from shared_store.cache import Cache
from shared_store.commits import last_commit, put_commit, put_result, read_commit
from shared_store.errors import StoreDownError, StoreFullError
from shared_store.folds_table import read_folds
from shared_store.records import Result
from shared_store.snapshot import open_snapshot, read_manifest
from shared_store.store import Store, open_store
from shared_store.tables import SoftLabels, get_predictions, put_soft_labels
from workers.loop import NanLossError, logits_of
from workers.metrics import all_metrics
from workers.model import empty_model, load_state
from workers.recipe import Recipe
from workers.repeatable import repeatable
from workers.tasks import TrainTask, task_id, to_json
from workers.tier import open_tier
from workers.train import StoppedError, train_fold

MEASURED = {"seconds", "images_per_second", "ms_per_image"}
REPEATED_BLOBS = ("model", "held_out", "selection")
BEST_RECIPE = FULL_RECIPE.model_copy(update={"keep": "best", "optimizer": "adamw", "micro_batch": None})
RECIPES = {"ema": FULL_RECIPE, "best": BEST_RECIPE}


def repeated(store: Store, result: Result) -> dict[str, object]:
    """All of a result that must repeat to the bit."""
    rows = list(csv.DictReader(io.StringIO(store.get_blob(result.blobs["metrics"]).decode())))
    return {
        "blobs": {name: result.blobs[name] for name in REPEATED_BLOBS},
        "numbers": {name: value for name, value in result.numbers.items() if name not in MEASURED},
        "metrics": [{name: value for name, value in row.items() if name not in MEASURED} for row in rows],
    }


def begin(root: Path, recipe: Recipe) -> tuple[Store, Cache, TrainTask]:
    store = open_store(str(root / "store"))
    return store, Cache(root / "cache", 1.0), small_task(store, recipe)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    found = {}
    for name, recipe in RECIPES.items():
        store, cache, task = begin(tmp_path_factory.mktemp(name), recipe)
        found[name] = repeated(store, train_fold(task, small_work(task, store, cache)))
    return found


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext | SpawnContext]:
    """Makes processes that have torch loaded already where the system can (a fork of a server), else new ones."""
    if sys.platform == "win32":
        yield multiprocessing.get_context("spawn")
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fold_support"])
    with pytest.MonkeyPatch.context() as patch:
        # Before Python 3.13 the server does not get this process's sys.path before it loads.
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()
    yield context


class Cut(NamedTuple):
    """Kill a fold of the recipe `keep` the `nth` time it comes to `point`, on a clock that ticks so many seconds."""

    keep: str
    point: str
    nth: int
    tick_seconds: float  # at 10 a commit follows every second step or so, at 0 only every epoch
    elsewhere: bool = False  # another machine goes on, which has nothing of the first but its store


@pytest.mark.parametrize(
    "cut",
    [
        Cut("ema", "tier: commit stands", 1, 0.0),  # an epoch boundary
        Cut("ema", "store: commit stands", 1, 0.0, elsewhere=True),
        Cut("ema", "step", 5, 0.0),  # mid-epoch, nothing committed in it
        Cut("ema", "step", 6, 10.0, elsewhere=True),  # mid-epoch, with commits in mid-epoch
        Cut("ema", "store: blob stands, commit does not", 1, 10.0),
        Cut("ema", "store: blob half written", 2, 10.0, elsewhere=True),
        Cut("best", "tier: commit stands, old blobs too", 1, 10.0),
        Cut("best", "tier: blob half written", 3, 0.0),
    ],
    ids=str,
)
def test_a_killed_fold_ends_with_the_bytes_of_one_left_alone(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]], processes: ForkServerContext | SpawnContext, cut: Cut
) -> None:
    store, cache, task = begin(tmp_path, RECIPES[cut.keep].model_copy(update={"checkpoint_minutes": 0.5}))
    body = (str(tmp_path / "store"), to_json(task), (cut.point, cut.nth), cut.tick_seconds)
    process = processes.Process(target=train_until_killed, args=body)
    process.start()
    process.join(200)
    assert process.exitcode not in (0, 1, None), f"it was to be killed, and ended with {process.exitcode}"
    assert store.read(layout.result(task_id(task))) is None
    cache = Cache(tmp_path / "other", 1.0) if cut.elsewhere else cache
    again = train_fold(task, small_work(task, store, cache, attempt=2))
    assert repeated(store, again) == undisturbed[cut.keep]


class PowerCutError(BaseException):
    """Stands for a kill, inside the process."""


def cut_at_write(number: int) -> Callable[[str, str, bytes], None]:
    writes = itertools.count(1)

    def before(_action: str, _key: str, _data: bytes) -> None:
        if next(writes) == number:
            raise PowerCutError

    return before


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 24), min_size=1, max_size=4), tick=st.sampled_from([0.0, 10.0, 25.0]))
def test_any_number_of_cuts_at_any_write_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    undisturbed: dict[str, dict[str, object]],
    cuts: list[int],
    tick: float,
) -> None:
    root = tmp_path_factory.mktemp("cuts")
    _, cache, task = begin(root, BEST_RECIPE.model_copy(update={"checkpoint_minutes": 0.5}))
    result = None
    for attempt, cut in enumerate([*cuts, 10**6], start=1):
        before = cut_at_write(cut)  # of either tier
        store = Store(WatchedBackend(root / "store", before))
        tier = Store(WatchedBackend(Path(open_tier(cache.folder, store.url).url), before))
        try:
            result = train_fold(task, small_work(task, store, cache, attempt=attempt), ticking_clock(tick), tier)
            break
        except PowerCutError:
            continue
    assert result is not None
    assert repeated(open_store(str(root / "store")), result) == undisturbed["best"]


def test_a_stop_commits_the_last_step_and_the_next_attempt_goes_on_from_it(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    with pytest.raises(StoppedError) as stopped:
        train_fold(task, small_work(task, store, cache, reporter=StoppingReporter(1)))
    commit = last_commit(store, task_id(task))
    assert commit is not None
    assert (commit.number, commit.epoch, commit.step) == (stopped.value.commit, 0, 1)
    reporter = RecordingReporter()
    again = train_fold(task, small_work(task, store, cache, attempt=2, reporter=reporter))
    assert reporter.reports[0].note == "attempt 2 resumes from commit 1 on this machine: epoch 0, step 1"
    assert repeated(store, again) == undisturbed["ema"]


def test_a_stop_at_the_last_step_of_an_epoch_still_gets_its_validation(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    steps = train_steps(store, task)

    with pytest.raises(StoppedError):
        train_fold(task, small_work(task, store, cache, reporter=StoppingReporter(steps)))
    commit = last_commit(store, task_id(task))
    assert commit is not None
    assert (commit.epoch, commit.step) == (0, steps)
    assert repeated(store, train_fold(task, small_work(task, store, cache, attempt=2))) == undisturbed["ema"]


def train_steps(store: Store, task: TrainTask) -> int:
    return -(-len(learned_ids(store, task)) // task.recipe["batch_size"])


def learned_ids(store: Store, task: TrainTask) -> list[str]:
    photos = {row.image_id for row in read_manifest(store, task.snapshot)[1] if row.kind == "photo"}
    rows = read_folds(store, task.folds)
    return [r.image_id for r in rows if r.fold not in (None, 0) and (task.composites or r.image_id in photos)]


def test_who_loses_the_race_goes_on_from_the_winners_state(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    elsewhere, its_cache, _ = begin(tmp_path / "elsewhere", FULL_RECIPE)
    with pytest.raises(StoppedError):
        train_fold(task, small_work(task, elsewhere, its_cache, attempt=2, reporter=StoppingReporter(7)))
    winner = last_commit(elsewhere, task_id(task))
    assert winner is not None

    def rival(action: str, key: str, _data: bytes) -> None:
        if action == "put" and key == layout.commit(winner.task, 1) and last_commit(store, winner.task) is None:
            for digest in winner.blobs.values():
                store.put_blob(elsewhere.get_blob(digest))
            put_commit(store, dataclasses.replace(winner, number=1, parent=None))

    lost = threading.Event()

    def after(action: str, key: str) -> None:
        if action == "put" and key == layout.commit(winner.task, 1):
            lost.set()

    watched = Store(WatchedBackend(tmp_path / "store", rival, after))
    result = train_fold(task, small_work(task, watched, cache, reporter=WaitingReporter(4, lost)))
    assert repeated(store, result) == undisturbed["ema"]
    log = store.read(layout.log(task_id(task), "train.log"))
    assert log is not None
    assert b"attempt 2 made commit 1 first" in log


def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    for attempt in (1, 2):
        with pytest.raises(StoppedError):
            train_fold(task, small_work(task, store, cache, attempt=attempt, reporter=StoppingReporter(1)))
    commit = last_commit(store, task_id(task))
    assert commit is not None and commit.number == 2
    path = store.blob_path(commit.blobs["state"])
    assert path is not None
    data = bytearray(path.read_bytes())  # on one disk, the two tiers share these bytes
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    reporter = RecordingReporter()
    result = train_fold(task, small_work(task, store, cache, attempt=3, reporter=reporter))
    assert "from commit 1 on this machine" in reporter.reports[0].note
    assert repeated(store, result) == undisturbed["ema"]
    log = store.read(layout.log(task_id(task), "train.log"))
    assert log is not None
    assert (
        f"commit {commit.number} on this machine cannot be used: a blob's bytes do not match its hash" in log.decode()
    )


def test_only_the_last_two_states_and_the_best_weights_stay(tmp_path: Path) -> None:
    recipe = BEST_RECIPE.model_copy(update={"checkpoint_minutes": 0.5})
    store, cache, task = begin(tmp_path, recipe)
    given = {entry.key for entry in store.list("blobs/")}
    result = train_fold(task, small_work(task, store, cache), ticking_clock(10.0))
    newest = last_commit(store, task_id(task))
    assert newest is not None
    assert newest.number > recipe.epochs, "there were commits in mid-epoch"
    before = read_commit(store, task_id(task), newest.number - 1)
    assert before is not None
    kept = {layout.blob(d) for d in [*newest.blobs.values(), *before.blobs.values(), *result.blobs.values()]}
    assert {entry.key for entry in store.list("blobs/")} - given == kept


def away_from(step: int, until: int) -> tuple[Callable[[str, str, bytes], None], RecordingReporter]:
    """A `before` that fails between two steps of the training, and the reporter that tells it the step."""
    reporter = StepsReporter()

    def before(_action: str, _key: str, _data: bytes) -> None:
        if step <= reporter.steps < until:
            raise StoreDownError("the store does not answer", where="there", mend="wait")

    return before, reporter


def test_a_store_that_is_away_for_a_while_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    before, reporter = away_from(2, 9)
    watched = Store(WatchedBackend(tmp_path / "store", before))
    result = train_fold(task, small_work(task, watched, cache, reporter=reporter))
    assert repeated(store, result) == undisturbed["ema"]


def test_a_full_disk_on_the_machine_changes_nothing_and_is_told_once(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, BEST_RECIPE)

    def full(_action: str, key: str, _data: bytes) -> None:
        raise StoreFullError("the disk is full", where=key, mend="free some space")

    reporter = RecordingReporter()
    tier = Store(WatchedBackend(tmp_path / "tier", full))
    result = train_fold(task, small_work(task, store, cache, reporter=reporter), tier=tier)
    assert repeated(store, result) == undisturbed["best"]
    assert sum("the disk is full" in report.note for report in reporter.reports) == 1
    assert last_commit(store, task_id(task)) is not None


def test_a_fold_that_ends_while_the_store_is_away_is_published_by_the_next_attempt_on_its_machine_at_once(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, BEST_RECIPE)
    before, reporter = away_from(4, 10**6)
    watched = Store(WatchedBackend(tmp_path / "store", before))
    with pytest.raises(StoreDownError):
        train_fold(task, small_work(task, watched, cache, reporter=reporter), patience_seconds=0.1)
    again = StepsReporter()
    result = train_fold(task, small_work(task, store, cache, attempt=2, reporter=again))
    assert again.steps == 0, "nothing is trained a second time"
    assert repeated(store, result) == undisturbed["best"]


def test_a_stop_while_the_store_is_away_says_which_machine_has_the_last_step(
    tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    before, _ = away_from(0, 1)
    watched = Store(WatchedBackend(tmp_path / "store", before))
    with pytest.raises(StoppedError, match=f"{socket.gethostname()} keeps all of it") as stopped:
        train_fold(task, small_work(task, watched, cache, reporter=StoppingReporter(2)), patience_seconds=0.1)
    assert stopped.value.commit is None
    reporter = RecordingReporter()
    result = train_fold(task, small_work(task, store, cache, attempt=2, reporter=reporter))
    assert reporter.reports[0].note == "attempt 2 resumes from commit 1 on this machine: epoch 0, step 2"
    assert repeated(store, result) == undisturbed["ema"]


def test_a_stop_that_nothing_keeps_says_so(tmp_path: Path) -> None:
    _, cache, task = begin(tmp_path, FULL_RECIPE)
    before, _ = away_from(0, 1)
    store, tier = (Store(WatchedBackend(tmp_path / name, before)) for name in ("store", "tier"))
    with pytest.raises(StoppedError, match="what was committed before stands"):
        train_fold(task, small_work(task, store, cache, reporter=StoppingReporter(2)), tier=tier, patience_seconds=0.1)


def test_a_loss_that_is_not_finite_names_step_and_images_and_commits_nothing_more(tmp_path: Path) -> None:
    recipe = FULL_RECIPE.model_copy(update={"learning_rate": 10.0, "clip": "none", "optimizer": "sgd", "epochs": 30})
    store, cache, task = begin(tmp_path, recipe.model_copy(update={"schedule": "constant", "head_epochs": 0}))
    with pytest.raises(NanLossError) as stopped:
        train_fold(task, small_work(task, store, cache))
    assert set(stopped.value.image_ids) <= set(learned_ids(store, task))
    commit = last_commit(store, task_id(task))
    assert commit is None or commit.step <= stopped.value.step


def test_composites_are_learned_from_only_when_asked_and_never_scored(tmp_path: Path) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE.model_copy(update={"epochs": 2}))
    kinds = {row.image_id: row.kind for row in read_manifest(store, task.snapshot)[1]}
    plain = train_fold(task, small_work(task, store, cache))
    both = dataclasses.replace(task, composites=True)
    assert len(learned_ids(store, both)) > len(learned_ids(store, task))
    with_them = train_fold(both, small_work(both, store, cache))
    assert plain.blobs["model"] != with_them.blobs["model"]
    # fold 1 holds the composites (nth 10): hold it out, and they are predicted but not scored
    other = dataclasses.replace(task, held_out=(1,), composites=True)
    result = train_fold(other, small_work(other, store, cache))
    held_out = get_predictions(store, result.blobs["held_out"])
    assert {kinds[image_id] for image_id in held_out.image_ids} == {"photo", "composite"}
    photos = [image_id for image_id in held_out.image_ids if kinds[image_id] == "photo"]
    labels = [task.classes.index(label) for label in read_folds(store, task.folds).labels(photos)]
    assert all_metrics(held_out.rows(photos), labels)["mean_ap"] == result.numbers["mean_ap"]


def test_the_model_blob_gives_the_predictions_that_stand_beside_it(tmp_path: Path) -> None:
    store, cache, task = begin(tmp_path, BEST_RECIPE)
    result = train_fold(task, small_work(task, store, cache))
    model = empty_model(BEST_RECIPE, len(task.classes))
    load_state(model, safetensors.torch.load(store.get_blob(result.blobs["model"])))
    selection = get_predictions(store, result.blobs["selection"])
    snapshot = open_snapshot(store, task.snapshot, cache)
    with repeatable("cpu", 1):
        again = logits_of(model, snapshot, selection.image_ids, recipe=BEST_RECIPE, device="cpu")
    np.testing.assert_array_equal(again, selection.logits)
    assert result.numbers["kept_epoch"] <= result.numbers["epochs"] == BEST_RECIPE.epochs
    assert result.numbers["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_student_learns_from_the_soft_labels_of_its_label_tasks(tmp_path: Path) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE.model_copy(update={"epochs": 2}))
    table = read_folds(store, task.folds)
    for fold in (1, 2):
        ids = table.ids("train", (fold,))
        soft = np.full((len(ids), 4), 0.25, np.float32)
        blob = put_soft_labels(store, SoftLabels(ids, task.classes, soft, (f"teacher-{fold}",) * len(ids)))
        put_result(
            store, Result(f"label-{fold}", "0" * 64, 1, "n", {"labels": blob}, {}, {"held_out": json.dumps([fold])})
        )
    student = dataclasses.replace(task, name="student/fold0", labels=("label-1", "label-2"), label_weight=0.5)
    results = [train_fold(t, small_work(t, store, cache)) for t in (task, student)]
    assert results[0].blobs["model"] != results[1].blobs["model"]


def test_patience_ends_the_training_early(tmp_path: Path) -> None:
    recipe = BEST_RECIPE.model_copy(update={"patience": 1, "epochs": 40, "learning_rate": 1e-9, "head_epochs": 0})
    store, cache, task = begin(tmp_path, recipe)
    result = train_fold(task, small_work(task, store, cache))
    assert result.numbers["epochs"] == result.numbers["kept_epoch"] + 1 < 40


def test_reports_are_throttled_and_name_every_epoch_and_commit(tmp_path: Path) -> None:
    store, cache, task = begin(tmp_path, FULL_RECIPE)
    reporter = RecordingReporter()
    train_fold(task, small_work(task, store, cache, reporter=reporter), ticking_clock(0.0))
    newest = last_commit(store, task_id(task))
    assert newest is not None
    commits = [report.commit for report in reporter.reports if report.commit is not None]
    assert commits == sorted(set(commits)) and commits[-1] == newest.number
    plain = [report for report in reporter.reports if report.commit is None]
    assert [report.epoch for report in plain] == [0, 1, 2, 3], "its beginning and each epoch's end"
    last = plain[-1]
    assert (last.epochs, last.step) == (3, last.steps)
    assert last.mean_ap is not None


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    store, cache, task = begin(tmp_path, FULL_RECIPE.model_copy(update={"epochs": 2}))
    train_fold(task, small_work(task, store, cache))
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
