"""The one door: results are kept once, and whatever goes wrong behind it comes out as an Outcome."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import RecordingReporter
from tiny_fold import tiny_task

from shared_store.commits import last_commit, put_result, read_result
from shared_store.errors import StoreDownError, StoreError, StoreFullError, UserError
from shared_store.records import Result, canonical_json
from shared_store.store import Store, open_store
from workers.run import Place, guarded, run
from workers.stopped import StoppedError
from workers.tasks import Failure, Outcome, SearchTask, Task, spec_hash, task_id, to_json
from workers.tier import open_tier
from workers.train import NanLossError

TASK = SearchTask("search/ensemble", "0" * 64, ("cat", "dog"), ("teacher-0",), {})


def result_of(task: Task, nonce: str) -> Result:
    return Result(task_id(task), spec_hash(task), 1, nonce)


def raising(error: BaseException) -> Callable[[Store, str], Result]:
    def execute(_store: Store, _nonce: str) -> Result:
        raise error

    return execute


def through(task: Task, store: Store, tmp_path: Path, reporter: RecordingReporter, attempt: int = 1) -> Outcome:
    place = Place(store.url, str(tmp_path / "cache"), 1.0, "cpu", 1)
    return run(json.loads(canonical_json(to_json(task))), attempt, place, reporter)


def test_what_the_executor_returns_stands_in_the_store(store: Store) -> None:
    outcome = guarded(TASK, 3, lambda: store, lambda _store, nonce: result_of(TASK, nonce))
    assert (outcome.task, outcome.attempt, outcome.failure) == (task_id(TASK), 3, None)
    assert read_result(store, task_id(TASK)) is not None


def test_work_whose_result_stands_is_not_done_again(store: Store) -> None:
    first = put_result(store, result_of(TASK, "first"))
    assert guarded(TASK, 2, lambda: store, raising(AssertionError("ran again"))).failure is None
    assert read_result(store, task_id(TASK)) == first


def test_of_two_attempts_that_end_the_first_result_stands(store: Store) -> None:
    def overtaken(_store: Store, nonce: str) -> Result:
        put_result(store, result_of(TASK, "faster"))
        return result_of(TASK, nonce)

    assert guarded(TASK, 2, lambda: store, overtaken).failure is None
    standing = read_result(store, task_id(TASK))
    assert standing is not None and standing.nonce == "faster"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (UserError("no such model", where="recipe.model", mend="choose another"), Failure.BAD_INPUT),
        (StoreError("the store is full", where="/data", mend="free some space"), Failure.STORE),
        (OSError(errno.ENOSPC, "No space left on device"), Failure.STORE),
        (OSError(errno.EIO, "Input/output error"), Failure.CRASHED),
        (MemoryError(), Failure.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Failure.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Failure.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Failure.OUT_OF_MEMORY),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Failure.OUT_OF_MEMORY),
        (RuntimeError("shapes do not match"), Failure.CRASHED),
        (AssertionError(), Failure.CRASHED),
        (NanLossError(7, ("a", "b")), Failure.NAN),
        (StoppedError(1, 0, 3), Failure.STOPPED),
    ],
)
def test_every_failure_has_its_kind(store: Store, error: Exception, failure: Failure) -> None:
    outcome = guarded(TASK, 1, lambda: store, raising(error))
    assert outcome.failure is failure
    assert outcome.what
    assert read_result(store, task_id(TASK)) is None


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (StoreDownError("away", where="there", mend="wait"), True),
        (StoreFullError("full", where="there", mend="free some"), True),
        (StoreError("not writable", where="there", mend="choose another"), False),
        (UserError("no such model", where="recipe.model", mend="choose another"), False),
        (StoppedError(3, 0, 3), False),
        (StoppedError(None, 0, 3), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(store: Store, error: Exception, transient: bool) -> None:
    assert guarded(TASK, 1, lambda: store, raising(error)).transient is transient


def test_what_a_person_can_mend_keeps_its_three_parts(store: Store) -> None:
    error = UserError("no such model", where="recipe.model", mend="choose another")
    outcome = guarded(TASK, 1, lambda: store, raising(error))
    assert (outcome.what, outcome.where, outcome.mend) == ("no such model", "recipe.model", "choose another")
    assert outcome.traceback == ""


def test_a_crash_tells_its_line_and_its_traceback(store: Store) -> None:
    outcome = guarded(TASK, 1, lambda: store, raising(RuntimeError("shapes do not match")))
    assert outcome.what == "RuntimeError: shapes do not match"
    assert "test_run.py:" in outcome.where
    assert "Traceback" in outcome.traceback and "raise error" in outcome.traceback


def test_what_a_failed_attempt_held_is_let_go_though_its_error_is_kept(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def execute(_store: Store, _nonce: str) -> Result:
        tensor = torch.zeros(1)
        held.append(weakref.ref(tensor))
        try:
            raise ValueError("within")
        except ValueError as error:
            raise RuntimeError("shapes do not match") from error

    assert guarded(TASK, 1, lambda: store, execute).failure is Failure.CRASHED
    assert caplog.records[-1].exc_info is not None
    assert held[0]() is None


def test_ctrl_c_is_no_failure_of_the_task(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        guarded(TASK, 1, lambda: store, raising(KeyboardInterrupt()))


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    outcome = guarded(
        TASK, 1, lambda: open_store(str(tmp_path / "file" / "store")), raising(AssertionError("not reached"))
    )
    assert outcome.failure is Failure.STORE and outcome.mend


def test_an_executor_that_answers_for_another_task_is_our_own_mistake(store: Store) -> None:
    outcome = guarded(TASK, 1, lambda: store, lambda _store, nonce: Result("other", "spec", 1, nonce))
    assert outcome.failure is Failure.CRASHED and "other" in outcome.what


def test_a_fold_goes_through_the_door(store: Store, tmp_path: Path) -> None:
    task, reporter = tiny_task(store, "teacher/fold0"), RecordingReporter()
    assert through(task, store, tmp_path, reporter).failure is None
    result = read_result(store, task_id(task))
    assert result is not None and {"model", "held_out", "selection", "metrics"} <= set(result.blobs)
    assert {report.task for report in reporter.reports} == {task_id(task)}


def test_a_fold_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(store: Store, tmp_path: Path) -> None:
    task = tiny_task(store, "teacher/fold0", epochs=3)
    stopped = through(task, store, tmp_path, RecordingReporter(stop_at_step=1))
    assert stopped.failure is Failure.STOPPED
    assert last_commit(store, task_id(task)) is not None
    assert through(task, store, tmp_path, RecordingReporter(), attempt=2).failure is None


def test_a_fold_that_is_done_leaves_nothing_on_its_machine(store: Store, tmp_path: Path) -> None:
    task = tiny_task(store, "teacher/fold0", epochs=2)
    tier = open_tier(tmp_path / "cache", store.url)
    assert through(task, store, tmp_path, RecordingReporter(stop_at_step=1)).failure is Failure.STOPPED
    assert last_commit(tier, task_id(task)) is not None
    assert through(task, store, tmp_path, RecordingReporter(), attempt=2).failure is None
    assert tier.list("commits/") == tier.list("blobs/") == []


def test_a_machine_that_can_keep_nothing_still_brings_its_fold_to_an_end(store: Store, tmp_path: Path) -> None:
    task = tiny_task(store, "teacher/fold0")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "checkpoints").write_text("in the way")
    reporter = RecordingReporter()
    assert through(task, store, tmp_path, reporter).failure is None
    assert last_commit(store, task_id(task)) is not None


def test_an_unknown_model_is_the_persons_to_mend(store: Store, tmp_path: Path) -> None:
    outcome = through(tiny_task(store, "teacher/fold0", model="efficientnet_b44"), store, tmp_path, RecordingReporter())
    assert outcome.failure is Failure.BAD_INPUT and "efficientnet_b4" in outcome.what + outcome.mend


def test_a_search_does_not_run_on_a_worker(store: Store, tmp_path: Path) -> None:
    outcome = through(TASK, store, tmp_path, RecordingReporter())
    assert outcome.failure is Failure.CRASHED and "does not run on a worker" in outcome.what


def test_the_door_opens_without_torch() -> None:
    code = "import sys, workers.slot; sys.exit('torch' in sys.modules or 'albumentations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
