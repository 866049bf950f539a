"""Two writers per fold, killed over and over until their folds are done, and what that cost. No test in here.

Everything that is chosen comes from one seed; when a process comes to the place chosen for it does not.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from ctypes import c_long
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from fold_support import FULL_RECIPE, small_task, small_work
from kill_points import ANYWHERE, AT_RANDOM, CLOCK_SECONDS_A_STEP, NAMED_KINDS, Kill, Place, try_fold

from shared_store.cache import Cache
from shared_store.care import check
from shared_store.commits import last_commit, read_result
from shared_store.records import Result
from shared_store.store import Store, open_store
from shared_store.sweep import find_needless, remove
from workers.offer import hand_over_backlog
from workers.tasks import TrainTask, task_id, to_json
from workers.tier import lock_of, open_tier
from workers.train import train_fold

INTERVAL_STEPS = 3
RECIPE = FULL_RECIPE.model_copy(
    update={"batch_size": 4, "epochs": 4, "checkpoint_minutes": INTERVAL_STEPS * CLOCK_SECONDS_A_STEP / 60}
)
RECIPES = (RECIPE, RECIPE.model_copy(update={"keep": "best", "optimizer": "adamw", "micro_batch": None}), RECIPE)
MEASURED = {"seconds", "images_per_second", "ms_per_image", "memory_mb"}
LONGEST_ATTEMPT_SECONDS = 60.0


def nothing(*_news: object) -> None:
    """A progress that nobody wants to see."""


def repeated(store: Store, result: Result) -> dict[str, object]:
    """All of a result that must repeat to the bit."""
    rows = list(csv.DictReader(io.StringIO(store.get_blob(result.blobs["metrics"]).decode())))
    return {
        "blobs": {name: digest for name, digest in result.blobs.items() if name != "metrics"},
        "numbers": {name: value for name, value in result.numbers.items() if name not in MEASURED},
        "metrics": [{name: value for name, value in row.items() if name not in MEASURED} for row in rows],
    }


def tasks_in(store: Store) -> list[TrainTask]:
    """Three folds over one snapshot: some keep an average, one its best weights; one learns from composites."""
    return [
        small_task(store, recipe, name=f"teacher/fold{fold}", held_out=(fold,), composites=fold == 2)
        for fold, recipe in enumerate(RECIPES)
    ]


def undisturbed(folder: Path) -> dict[str, dict[str, object]]:
    """What every fold ends with when nobody disturbs it, by task id."""
    store = open_store(str(folder / "store"))
    work = [small_work(task, store, Cache(folder / "cache", 1.0)) for task in tasks_in(store)]
    results = [train_fold(task, one, lambda: 0.0) for task, one in zip(tasks_in(store), work, strict=True)]
    return {result.task: repeated(store, result) for result in results}


@contextlib.contextmanager
def loaded_processes() -> Iterator[ForkServerContext | SpawnContext]:
    """Makes processes that have torch loaded already where the system can (a fork of a server), else new ones."""
    if sys.platform == "win32":
        yield multiprocessing.get_context("spawn")
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_points"])
    before = os.environ.get("PYTHONPATH")
    # Before Python 3.13 the server does not get this process's sys.path before it loads.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    yield context


@dataclass
class Deck:
    """Kinds of kills, each as often as any other; what is drawn depends on the seed alone."""

    draw: random.Random
    left: list[tuple[str, str]] = field(default_factory=list)

    def next(self) -> Kill:
        if not self.left:
            self.left = [*NAMED_KINDS, *[(AT_RANDOM, ANYWHERE)] * 4]
            self.draw.shuffle(self.left)
        point, tier = self.left.pop()
        return Kill(point, tier, self.draw.randint(1, 3), self.draw.uniform(0.1, 4.0))


class Writer:
    """One machine's process at a fold: what it was to die of, and how far it had come."""

    def __init__(self, context: ForkServerContext | SpawnContext, place: Place) -> None:
        self.place, self._context = place, context
        self.steps = context.RawValue(c_long, -1)
        self.process: BaseProcess | None = None
        self.kill: Kill | None = None
        self.began = 0.0

    def start(self, task: TrainTask, attempt: int, kill: Kill | None) -> None:
        self.kill, self.began, self.steps.value = kill, time.monotonic(), -1
        body = (self.place, to_json(task), attempt, kill, self.steps)
        self.process = self._context.Process(target=try_fold, args=body)
        self.process.start()

    def has_ended(self) -> bool:
        """Whether the process is gone; it is killed when its time has come."""
        assert self.process is not None
        lived = time.monotonic() - self.began
        if self.kill is not None and self.kill.point == AT_RANDOM and lived > self.kill.seconds:
            self.process.kill()
            self.process.join()
        assert lived < LONGEST_ATTEMPT_SECONDS, f"an attempt does not come to an end ({self.kill})"
        return not self.process.is_alive()

    def was_killed(self) -> bool:
        """Whether it died of what it was to die of; its own errors are raised."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode
        assert code in (0, -signal.SIGKILL), f"an attempt that was to die {self.kill} ended with {code}: see stderr"
        return code != 0

    def lost_steps(self, store: Store, task: str) -> int:
        """Steps that were done and are in no commit that this machine can go on from."""
        tier = open_tier(Path(self.place.cache_folder), self.place.store_url)
        newest = [commit.step for chain in (tier, store) if (commit := last_commit(chain, task)) is not None]
        return max(0, self.steps.value - max([0, *newest]))


@dataclass
class Campaign:
    """Rounds of all folds in a fresh store each, until enough processes were killed."""

    context: ForkServerContext | SpawnContext
    seed: int
    folder: Path
    lost: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.deck = Deck(random.Random(self.seed))
        self.expected = undisturbed(self.folder / "undisturbed")

    @property
    def kills(self) -> int:
        return sum(map(len, self.lost.values()))

    @property
    def late(self) -> int:
        """Kills that cost more than an interval."""
        return sum(lost > INTERVAL_STEPS for kind in self.lost.values() for lost in kind)

    def round(self, place: str, store_url: str, environment: dict[str, str], enough: int) -> None:
        """Bring every fold to its result in the store at `store_url`, and look at what is left."""
        store = open_store(store_url)
        places = [Place(store_url, environment, str(self.folder / place / machine)) for machine in ("one", "other")]
        for task in tasks_in(store):
            self._fold(store, task, [Writer(self.context, where) for where in places], enough)
            result = read_result(store, task_id(task))
            assert result is not None
            assert repeated(store, result) == self.expected[result.task], f"{task.name} did not end as if left alone"
        for where in places:
            self._nothing_is_left_on(where)
        self._look_after(store)
        store.backend.close()

    def _fold(self, store: Store, task: TrainTask, writers: list[Writer], enough: int) -> None:
        attempts = itertools.count(1)
        at_work = list(writers)
        for writer in at_work:
            writer.start(task, next(attempts), self._next_kill(enough))
        while at_work:
            time.sleep(0.01)
            for writer in [one for one in at_work if one.has_ended()]:
                if not writer.was_killed():
                    at_work.remove(writer)
                    continue
                assert writer.kill is not None, "somebody else killed it"
                self.lost[writer.kill.kind].append(writer.lost_steps(store, task_id(task)))
                writer.start(task, next(attempts), self._next_kill(enough))

    def _next_kill(self, enough: int) -> Kill | None:
        return self.deck.next() if self.kills < enough else None

    def _look_after(self, store: Store) -> None:
        """After gc all that is there is named, and all that is named is there, to the last bit."""
        remove(store, find_needless(store, 0.0, nothing).goes, lambda: True, nothing)
        assert not find_needless(store, 0.0, nothing).goes
        assert not store.backend.leftovers()
        assert not store.list("incoming/")
        wrong = check(store, nothing).wrong
        assert not wrong, f"after gc: {wrong}"
        there = {entry.key.removeprefix("blobs/") for entry in store.list("blobs/")}
        results = [read_result(store, task) for task in self.expected]
        named = {digest for result in results if result is not None for digest in result.blobs.values()}
        assert named <= there

    def _nothing_is_left_on(self, place: Place) -> None:
        """No process lives, none that a killed one made holds what it held, and the next worker here tidies up."""
        assert not multiprocessing.active_children()
        tier = open_tier(Path(place.cache_folder), place.store_url)
        for task in self.expected:
            with lock_of(tier, task).acquire(blocking=False):
                pass
        hand_over_backlog(tier, lambda: open_store(place.store_url), 1.0, nothing, first_seconds=0.0)
        remove(tier, find_needless(tier, 0.0, nothing).goes, lambda: True, nothing)
        assert not [*tier.list("commits/"), *tier.list("blobs/"), *tier.list("incoming/"), *tier.backend.leftovers()]

    def report(self) -> str:
        """One line per kind of kill."""
        lines = [f"{'killed':45} kills  steps lost: max  mean   (an interval is {INTERVAL_STEPS} steps)"]
        for kind, lost in sorted(self.lost.items()):
            lines.append(f"{kind:45} {len(lost):5}  {max(lost):15}  {sum(lost) / len(lost):4.1f}")
        lines.append(f"{self.kills} kills; {self.late} of them cost more than an interval")
        return "\n".join(lines)
