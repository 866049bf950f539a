"""A small fold of digit photos to train, and stores that are killed at named points. No test in here."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import RecordingReporter, digit_rows

from shared_store.backend import Content
from shared_store.cache import Cache
from shared_store.folds_table import FoldRow, FoldTable
from shared_store.local import LocalBackend
from shared_store.snapshot import write_snapshot
from shared_store.store import Store
from workers.recipe import Augmentation, Recipe
from workers.tasks import Reporter, TrainTask, from_json, spec_hash, task_id
from workers.tier import open_tier
from workers.train import train_fold
from workers.work import Work

FULL_RECIPE = Recipe(
    model="test_efficientnet",
    weights="none",
    image_size=32,
    batch_size=8,
    micro_batch=4,
    epochs=3,
    head_epochs=1,
    patience=None,
    keep="ema",
    optimizer="ranger",
    learning_rate=5e-3,
    schedule="restarts",
    restart_epochs=2,
    warmup_epochs=0.5,
    ema_decay=0.9,
    dropout=0.2,
    label_smoothing=0.1,
    mixup=0.3,
    cutmix=0.5,
    augmentation=Augmentation(flip=0.0),
)
"""Everything on that a resume could get wrong."""


def small_task(store: Store, recipe: Recipe, *, composites: bool = False, **changes: Any) -> TrainTask:
    """A snapshot of 4 x 12 digits in `store` (each class's last train row a composite), 3 folds, a selection part."""
    rows, kept = digit_rows(12, side=32)
    placed: dict[str, int] = {}
    table: list[FoldRow] = []
    for place, row in enumerate(rows):
        nth = placed[row.label] = placed.get(row.label, -1) + 1
        part = "selection" if nth % 4 == 3 else "train"
        rows[place] = dataclasses.replace(row, kind="composite" if nth == 10 else "photo", part=part)
        table.append(FoldRow(row.image_id, row.path, row.label, row.group, part, nth % 3 if part == "train" else None))
    folds = FoldTable(table)
    snapshot = write_snapshot(store, rows, kept.__getitem__)
    task = TrainTask(
        name="teacher/fold0",
        snapshot=snapshot.snapshot_id,
        folds=store.put_blob(folds.to_csv()),
        classes=folds.classes,
        held_out=(0,),
        recipe=recipe.model_dump(mode="json"),
        composites=composites,
    )
    return dataclasses.replace(task, **changes)


def small_work(
    task: TrainTask, store: Store, cache: Cache, *, attempt: int = 1, reporter: Reporter | None = None
) -> Work:
    nonce = f"nonce{attempt}"
    reporter = reporter or RecordingReporter()
    return Work(task_id(task), spec_hash(task), attempt, nonce, store, cache, reporter)


class WatchedBackend(LocalBackend):
    """A local disk that calls `before` and `after` with (what it does, key) around every write."""

    def __init__(
        self,
        root: Path,
        before: Callable[[str, str, bytes], None] = lambda _action, _key, _data: None,
        after: Callable[[str, str], None] = lambda _action, _key: None,
    ) -> None:
        super().__init__(root)
        self.before, self.after = before, after

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.before("put", key, data)
        won = super().put_if_absent(key, data)
        self.after("put", key)
        return won

    def publish(self, key: str, content: Content) -> None:
        self.before("publish", key, b"".join(content))
        super().publish(key, content)
        self.after("publish", key)

    def move(self, key: str, to: str) -> None:
        self.before("move", to, b"")
        super().move(key, to)
        self.after("move", to)

    def delete(self, key: str) -> None:
        self.before("delete", key, b"")
        super().delete(key)
        self.after("delete", key)


def kill_me() -> None:
    """What a power cut does: no handler runs, nothing is flushed."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


class KillingReporter(RecordingReporter):
    """Kills the process when it is asked for the `step`-th time, which is after that many steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def stop_requested(self) -> bool:
        self.left -= 1
        if self.left == 0:
            kill_me()
        return False


class StoppingReporter(RecordingReporter):
    """Asks to stop at the `step`-th step of the attempt."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left == 0


class StepsReporter(RecordingReporter):
    """Counts the attempt's steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def stop_requested(self) -> bool:
        self.steps += 1
        return False


class WaitingReporter(RecordingReporter):
    """Holds the training up after its `step`-th step until `happened`, and a moment longer."""

    def __init__(self, step: int, happened: threading.Event) -> None:
        super().__init__()
        self.left, self.happened = step, happened

    def stop_requested(self) -> bool:
        self.left -= 1
        if self.left == 0:
            assert self.happened.wait(60)
            time.sleep(0.1)
        return False


def ticking_clock(seconds: float) -> Callable[[], float]:
    """A clock that goes on by `seconds` whenever it is read."""
    return itertools.count(0.0, seconds).__next__


STORE_POINTS = (
    "blob not begun",
    "blob half written",
    "blob stands, commit does not",
    "commit stands",
    "commit stands, old blobs too",
)
POINTS = tuple(f"{place}: {point}" for place in ("tier", "store") for point in STORE_POINTS)
"""Where a fold may be killed: on the way to this machine's own tier, and from there into the store."""


def killer(
    point: str, nth: int, root: Path | None = None
) -> tuple[Callable[[str, str, bytes], None], Callable[[str, str], None]]:
    """The `before` and `after` of a backend at `root` that is killed the `nth` time it comes to one of STORE_POINTS."""
    left = nth

    def due(reached: bool) -> bool:
        nonlocal left
        left -= reached
        return reached and left == 0

    def before(action: str, key: str, data: bytes) -> None:
        begins = action == "publish" and key.startswith(("blobs/", "incoming/"))
        if point == "blob not begun" and due(begins):
            kill_me()
        if point == "blob half written" and due(begins):
            assert root is not None
            torn = root.joinpath(*key.split("/")).with_name(".torn.part")
            torn.parent.mkdir(parents=True, exist_ok=True)
            torn.write_bytes(data[: len(data) // 2])
            kill_me()
        if point == "blob stands, commit does not" and due(action == "put" and key.startswith("commits/")):
            kill_me()
        if point == "commit stands, old blobs too" and due(action == "delete" and key.startswith("blobs/")):
            kill_me()

    def after(action: str, key: str) -> None:
        if point == "commit stands" and due(action == "put" and key.startswith("commits/")):
            kill_me()

    return before, after


def watched(root: Path, place: str, point: str, nth: int) -> Store:
    """A store at `root` that is killed at `point` when that is one of `place` ("tier" or "store")."""
    where, _, what = point.partition(": ")
    return Store(WatchedBackend(root, *killer(what if where == place else "", nth, root)))


def train_until_killed(root: str, task_json: dict[str, Any], kill: tuple[str, int], tick_seconds: float) -> None:
    """The body of a process that is killed the n-th time it comes to a named point of its training."""
    point, nth = kill
    task = from_json(task_json)
    assert isinstance(task, TrainTask)
    reporter = KillingReporter(nth) if point == "step" else RecordingReporter()
    cache = Cache(Path(root).parent / "cache", 1.0)
    store = watched(Path(root), "store", point, nth)
    tier = watched(Path(open_tier(cache.folder, root).url), "tier", point, nth)
    train_fold(task, small_work(task, store, cache, reporter=reporter), ticking_clock(tick_seconds), tier)
