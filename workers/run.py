"""The one door to a machine: `run(task, ...) -> Outcome`. Nothing that goes wrong behind it crosses as an exception.

Executors are imported when their kind of task comes: a machine that only predicts loads no trainer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import math
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from shared_store.cache import Cache
from shared_store.commits import put_result, read_result
from shared_store.errors import StoreDownError, StoreError, StoreFullError, UserError
from shared_store.records import Result
from shared_store.relayed import Door, open_relayed
from shared_store.retrying import Retrying
from shared_store.store import Store, open_store
from workers.stopped import StoppedError
from workers.tasks import (
    BundleTask,
    Failure,
    LabelTask,
    Outcome,
    PredictTask,
    Reporter,
    Task,
    TrainTask,
    from_json,
    spec_hash,
    task_id,
)
from workers.tier import forget, lock_of, open_tier
from workers.work import Work

log = logging.getLogger(__name__)
# Whose errors have no class of their own: torch's CPU allocator, the driver (pinned memory too), cuBLAS, cuDNN
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
_HOLD_SECONDS = 10.0  # the machine's backlog may be looking at the task's commits, which reads them


@dataclass(frozen=True)
class Place:
    """Where tasks run: what is the same for all of them in one slot."""

    store_url: str
    cache_folder: str  # of the machine; `~` is the home of whoever runs there
    cache_gb: float
    device: str  # torch's word: "cpu", "cuda:0"
    threads: int
    single_committer: bool = False  # see `open_store`
    upload_share: float = 0.5  # of the link, for commits that go into the store while training goes on
    orphan_seconds: float = math.inf  # without being asked for reports: then a task stops itself
    door: Door | None = None  # to the process that reaches the store for this one

    def open_store(self) -> Store:
        """The store that all share."""
        if self.door is not None:
            return Store(Retrying(open_relayed(self.door)))
        return open_store(self.store_url, self.single_committer)

    @property
    def is_reached_through_ray(self) -> bool:
        """Whether only a process that is part of the Ray cluster can open the store."""
        return self.single_committer or self.store_url.startswith("head:")

    def open_tier(self) -> Store:
        """This machine's own tier of commits."""
        return open_tier(Path(self.cache_folder).expanduser(), self.store_url)


def run(
    task_json: Mapping[str, Any], attempt: int, place: Place, reporter: Reporter, micro_batch: int | None = None
) -> Outcome:
    """Do one attempt at a task, or find that its result stands. `micro_batch` takes the place of the recipe's."""
    task, tier = from_json(task_json), place.open_tier()

    def execute(store: Store, nonce: str) -> Result:
        cache = Cache(Path(place.cache_folder).expanduser(), place.cache_gb)
        name, spec, share = task_id(task), spec_hash(task), place.upload_share
        work = Work(name, spec, attempt, nonce, store, cache, reporter, place.device, place.threads, share, micro_batch)
        return _execute(task, work, tier)

    with _held(tier, task):
        outcome = guarded(task, attempt, place.open_store, execute)
        if outcome.failure is None:
            try:
                forget(tier, outcome.task)
            except StoreError as error:  # it is tried again when the next slot begins on this machine
                log.warning("what lies on this machine of %s stays: %s", outcome.task, error)
    return outcome


@contextlib.contextmanager
def _held(tier: Store, task: Task) -> Iterator[None]:
    """Meanwhile nobody else on this machine offers the fold's commits: its own attempt does."""
    with contextlib.ExitStack() as stack:
        if isinstance(task, TrainTask):
            try:
                stack.enter_context(lock_of(tier, task_id(task)).acquire(timeout=_HOLD_SECONDS))
            except (Timeout, OSError) as error:  # an older attempt lives on here, or nothing can be kept: no harm
                log.warning("%s is not held on this machine: %s", task.name, error)
        yield


def guarded(task: Task, attempt: int, opens: Callable[[], Store], execute: Callable[[Store, str], Result]) -> Outcome:
    """Call `execute(store, nonce)` unless the result stands, keep what it returns, and classify every failure."""
    name, began = task_id(task), time.monotonic()

    def outcome(failure: Failure | None, what: str = "", where: str = "", mend: str = "", trace: str = "") -> Outcome:
        return Outcome(name, attempt, failure, what, where, mend, trace, time.monotonic() - began)

    try:
        store = opens()
        if read_result(store, name) is None:
            result = execute(store, secrets.token_hex(8))
            assert result.task == name, f"the executor of {name} returned a result of {result.task}"
            put_result(store, result)
        return outcome(None)
    except UserError as error:
        kind = Failure.STORE if isinstance(error, StoreError) else Failure.BAD_INPUT
        ended = outcome(kind, error.what, error.where, error.mend)
        return dataclasses.replace(ended, transient=isinstance(error, (StoreDownError, StoreFullError)))
    except Exception as error:
        kind, mend = _classify(error)
        log.exception("%s, attempt %d ended: %s", task.name, attempt, kind)
        text = str(error).strip()
        what = f"{type(error).__name__}: {text}" if kind is Failure.CRASHED else text or type(error).__name__
        ended = outcome(kind, what, _where(error), mend, traceback.format_exc())
        _let_go(error)
        return dataclasses.replace(ended, transient=isinstance(error, StoppedError) and error.commit is None)


def _execute(task: Task, work: Work, tier: Store) -> Result:
    match task:
        case TrainTask():
            from workers.train import train_fold

            return train_fold(task, work, tier=tier)
        case LabelTask():
            from workers.label import make_labels

            return make_labels(task, work)
        case BundleTask():
            from workers.bundle import export_bundle

            return export_bundle(task, work)
        case PredictTask():
            from workers.predict import predict_test

            return predict_test(task, work)
        case _:
            raise AssertionError(f"{task.name}: a {task.kind} task does not run on a worker")


def _classify(error: Exception) -> tuple[Failure, str]:
    """The kind of failure, and how to mend it where the kind alone says it."""
    if isinstance(error, StoppedError):
        return Failure.STOPPED, ""
    training = sys.modules.get("workers.train")  # its own errors exist only once it is loaded
    if training is not None and isinstance(error, training.NanLossError):
        return Failure.NAN, ""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure.STORE, "free some space on that disk, then give the same command again"
    return (Failure.OUT_OF_MEMORY if _is_out_of_memory(error) else Failure.CRASHED), ""


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _let_go(error: BaseException | None) -> None:
    """Free what the failed calls' frames hold, a card's memory above all: whoever logged the error may keep it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _where(error: Exception) -> str:
    """The machine, and the line of code that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{socket.gethostname()}{place}"
