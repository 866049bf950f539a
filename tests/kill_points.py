"""One attempt at a fold in a process of its own, which is killed at a named point of its dealings with either tier.

No test in here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from ctypes import c_long
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fold_support import kill_me, small_work
from support import RecordingReporter

from shared_store.backend import Backend, Content, Passing
from shared_store.cache import Cache
from shared_store.commits import put_result, read_result
from shared_store.store import Store, open_store
from workers.tasks import Progress, TrainTask, from_json, task_id
from workers.tier import open_tier
from workers.train import train_fold

BEFORE_BLOB, MID_BLOB = "before the blob", "mid-blob"
BEFORE_COMMIT, AFTER_COMMIT = "between blob and commit", "after the commit"
CLEANING = "while old blobs go"
BEFORE_RESULT, AFTER_RESULT = "before the result", "after the result"
AT_RANDOM = "at a random time"
HERE, STORE, ANYWHERE = "on this machine", "in the store", ""
STEP_SECONDS, CLOCK_SECONDS_A_STEP = 0.06, 10.0
LONGEST_LANDING_SECONDS = 5.0


@dataclass(frozen=True)
class Kill:
    """Where an attempt is killed: the `nth` time it comes to a point of one tier, or after some seconds."""

    point: str
    tier: str
    nth: int = 1
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        return f"{self.point} {self.tier}".strip()


NAMED_KINDS = [
    (point, tier) for tier in (HERE, STORE) for point in (BEFORE_BLOB, MID_BLOB, BEFORE_COMMIT, AFTER_COMMIT, CLEANING)
] + [(BEFORE_RESULT, STORE), (AFTER_RESULT, STORE)]


class HalfContent(Content):
    """Content whose reader is killed when half of it is written."""

    def __init__(self, content: Content) -> None:
        super().__init__(())
        self._content = content

    @property
    def size(self) -> int:
        return self._content.size

    def __iter__(self) -> Iterator[memoryview]:
        left = self.size // 2
        for part in self._content:
            yield part[:left]
            left -= part.nbytes
            if left <= 0:
                kill_me()


class KillingBackend(Passing):
    """`inner`, in a process that is killed the n-th time it comes to a point; never without one."""

    def __init__(self, inner: Backend, kill: Kill | None) -> None:
        super().__init__(inner)
        self.is_landing = False  # a blob was begun, and no commit names it yet
        self._point, self._left = (kill.point, kill.nth) if kill else ("", 0)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        before, after = (BEFORE_RESULT, AFTER_RESULT) if key.startswith("results/") else (BEFORE_COMMIT, AFTER_COMMIT)
        self._come_to(before)
        won = self.inner.put_if_absent(key, data)
        self._come_to(after)
        self.is_landing = False
        return won

    def publish(self, key: str, content: Content) -> None:
        if key.startswith(("blobs/", "incoming/")):
            self.is_landing = True
            self._come_to(BEFORE_BLOB)
            if self._is_at(MID_BLOB):
                content = HalfContent(content)
        self.inner.publish(key, content)

    def delete(self, key: str) -> None:
        if key.startswith("blobs/"):
            self._come_to(CLEANING)
        self.inner.delete(key)

    def _come_to(self, point: str) -> None:
        if self._is_at(point):
            kill_me()

    def _is_at(self, point: str) -> bool:
        self._left -= point == self._point
        return point == self._point and self._left == 0


class Steps(RecordingReporter):
    """Knows how many steps are done, tells it through memory that outlives the process, and is the training's clock."""

    def __init__(self, shared: c_long, disk: KillingBackend) -> None:
        super().__init__()
        self.shared, self.disk, self.done = shared, disk, 0

    def progress(self, progress: Progress) -> None:
        if progress.note.startswith("attempt"):  # begins, or resumes
            self.shared.value = progress.step

    def stop_requested(self) -> bool:
        self.done += 1
        self.shared.value += 1
        time.sleep(STEP_SECONDS)
        until = time.monotonic() + LONGEST_LANDING_SECONDS
        while self.disk.is_landing and time.monotonic() < until:  # as outside of tests, a step is no shorter than that
            time.sleep(STEP_SECONDS / 10)
        return False

    def clock(self) -> float:
        return self.done * CLOCK_SECONDS_A_STEP


@dataclass(frozen=True)
class Place:
    """What a process needs to work on a fold: the store, and the machine that it is on."""

    store_url: str
    environment: Mapping[str, str]
    cache_folder: str


def try_fold(place: Place, task_json: dict[str, Any], attempt: int, kill: Kill | None, steps: c_long) -> None:
    """The body of a process: one attempt at a fold as workers/run.py makes it, killed where `kill` says."""
    os.environ.update(place.environment)
    task = from_json(task_json)
    assert isinstance(task, TrainTask)
    name, folder = task_id(task), Path(place.cache_folder)
    kills = {tier: kill if kill is not None and kill.tier == tier else None for tier in (HERE, STORE)}
    store = Store(KillingBackend(open_store(place.store_url).backend, kills[STORE]))
    disk = KillingBackend(open_tier(folder, place.store_url).backend, kills[HERE])
    if read_result(store, name) is None:
        reporter = Steps(steps, disk)
        work = small_work(task, store, Cache(folder, 1.0), attempt=attempt, reporter=reporter)
        result = train_fold(task, work, reporter.clock, Store(disk))
        standing = put_result(store, result)
        for blob in ("model", "held_out", "selection"):
            assert standing.blobs[blob] == result.blobs[blob], f"two attempts at {name} ended with another {blob}"
    store.backend.close()
