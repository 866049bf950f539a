"""A run as it stands in its store, for whoever looks from anywhere: its journal followed, results and commits read.

The journal explains and the store decides: what has a result is done, whatever the journal says.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from coordinator.event_lines import EventLines
from coordinator.events import (
    Event,
    GiveUp,
    Kill,
    Migrate,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    TaskEnded,
)
from coordinator.generation import ENDED, PATIENCE_SECONDS, Chain, Watch
from coordinator.graph import Graph
from coordinator.journal import parse_journal
from coordinator.ledger import Ledger, State
from coordinator.retry import Rules
from coordinator.run_files import JOURNAL
from coordinator.watched import Score, Watched
from shared_store import layout
from shared_store.commits import last_commit, read_result
from shared_store.errors import UserError
from shared_store.records import Holder, Result
from shared_store.store import Store
from workers.tasks import Task, TrainTask

_LINES = 8
_ENDED_WELL = (State.DONE, State.FAILED, State.BLOCKED)


class JournalTail:
    """What is new in a run's journal, each time it is asked: of a long one only what was added is read."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._key = store, layout.run_file(run, JOURNAL)
        self._chain = Chain(store, layout.coordinators(run))
        self._read, self._is_copy = 0, False

    def new(self) -> list[tuple[float, Event]]:
        """(seconds, event) of the lines since the last call, or of all where another machine drives since then.

        UserError for lines of another version.
        """
        path = self._copy()
        if self._is_copy is not (path is not None):
            self._read, self._is_copy = 0, path is not None
        data = self._there() if path is None else self._here(path)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        try:
            return parse_journal(whole)
        except ValueError as error:
            mend = "look with the version of foldfleet that drives it; `foldfleet report` tells what stands"
            raise UserError(f"the run's journal is not understood: {error}", where=self._key, mend=mend) from error

    def _copy(self) -> Path | None:
        """This machine's copy, which is ahead of the one in a store elsewhere; None where another machine drives."""
        path = self._store.backend.local_path(self._key)
        if path is None or not path.exists():
            return None
        if self._store.backend.local_path("") is not None:
            return path
        holder = self._chain.newest()
        return path if holder is None or holder.host == socket.gethostname() else None

    def _here(self, path: Path) -> bytes:
        with path.open("rb") as file:
            file.seek(self._read)
            return file.read()

    def _there(self) -> bytes:
        parts = self._store.backend.parts(self._key, self._read)
        return b"" if parts is None else b"".join(parts)


@dataclass
class Drive:
    """One command that drove the run: what its journal says, taken in by a ledger of all the run's tasks."""

    ledger: Ledger
    watched: Watched = field(default_factory=Watched)
    words: EventLines = field(default_factory=EventLines)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    began: datetime | None = None
    began_at: float = 0.0
    found: set[str] = field(default_factory=set)  # tasks whose results stood before the journal said so

    def take(self, at: float, event: Event) -> None:
        if _task_of(event) in self.found:
            return
        self.ledger.apply(event)
        self.watched.take(event, self.ledger)
        line = self.words.line(event, self.ledger)
        if line and (not isinstance(event, Progressed) or event.progress.note):
            self.lines.append(f"{clock_time(self.time_of(at))} {line}".strip())

    def time_of(self, at: float) -> datetime | None:
        """The time of day at `at` seconds of the journal, as far as it was noted."""
        return None if self.began is None else self.began + timedelta(seconds=at - self.began_at)


class Followed:
    """The newest drive of a run, kept up by `look`."""

    def __init__(self, store: Store, run: str, graph: Graph, rules: Rules) -> None:
        self._store, self._graph, self._rules = store, graph, rules
        self._tail, self._chain = JournalTail(store, run), Chain(store, layout.coordinators(run))
        self._results: dict[str, Result] = {}
        self._beat: tuple[Holder, bytes | None, float] | None = None  # the last one that was another than before
        self.drive = Drive(Ledger(graph, rules))
        self.drives = 0
        self.foreign = False  # whether the newest drive was of other tasks, from before a change of the configuration

    def look(self, now: float) -> None:
        """Take in what is new. `now`: seconds on any one clock. UserError for a journal of another version."""
        for at, event in self._tail.new():
            if isinstance(event, RunBegan):
                self.foreign = not set(event.tasks) <= set(self._graph.tasks)
                self.drives += 1
                began = datetime.fromisoformat(event.began) if event.began else None
                self.drive = Drive(Ledger(self._graph, self._rules), began=began, began_at=at)
            elif not self.foreign:
                self.drive.take(at, event)
        self._read_store()
        self._look_for_beat(now)

    @property
    def results(self) -> Mapping[str, Result]:
        return self._results

    @property
    def is_over(self) -> bool:
        """Every task has its result, or can have none."""
        return all(entry.state in _ENDED_WELL for entry in self.drive.ledger.entries.values())

    @property
    def holder(self) -> Holder | None:
        """Who drove the run last."""
        return None if self._beat is None else self._beat[0]

    def is_driven(self, now: float) -> bool:
        """Whether somebody may drive it: who did last has not ended, nor stood still while watched for long enough."""
        return self._beat is not None and self._beat[1] != ENDED and now - self._beat[2] < PATIENCE_SECONDS

    def find_driver(self, watch: Watch) -> None:
        """Look once more when it is known whether somebody drives: one look cannot see that a beat stands still."""
        watch.living([self._chain])
        self.look(watch.clock())

    def _look_for_beat(self, now: float) -> None:
        holder = self._chain.newest()
        if holder is not None:
            beat = self._chain.beat(holder)
            if self._beat is None or self._beat[:2] != (holder, beat):
                self._beat = (holder, beat, now)

    def _read_store(self) -> None:
        """A result stays what it is and is read once; a commit is of interest where nothing runs."""
        ledger, watched = self.drive.ledger, self.drive.watched
        for name, entry in ledger.entries.items():
            result = self._results.get(name) or read_result(self._store, name)
            if result is not None:
                self._results[name] = result
                if entry.state in (State.WAITING, State.READY):
                    ledger.apply(ResultFound(name))
                    self.drive.found.add(name)
            if isinstance(entry.task, TrainTask) and (result is not None or name not in ledger.running):
                _stands(watched, self._store, name, entry.task, result)


def show_standing(watched: Watched, store: Store, tasks: Mapping[str, Task]) -> None:
    """Have `watched` know how far the folds of other days are, before anything is heard of them."""
    for name, task in tasks.items():
        if isinstance(task, TrainTask):
            _stands(watched, store, name, task, read_result(store, name))


def _stands(watched: Watched, store: Store, name: str, task: TrainTask, result: Result | None) -> None:
    """By its result, else by its newest commit."""
    epochs = task.recipe["epochs"]
    if result is not None:
        numbers = result.numbers
        best = Score(numbers["mean_ap"], int(numbers["kept_epoch"])) if "mean_ap" in numbers else None
        watched.stands(name, int(numbers.get("epochs", 0)), epochs, best, done=True)
    elif name not in watched.newest and (commit := last_commit(store, name)) is not None:
        watched.stands(name, commit.epoch, epochs, None)


def _task_of(event: Event) -> str | None:
    """The task that an event is about."""
    match event:
        case Progressed(progress):
            return progress.task
        case TaskEnded(outcome):
            return outcome.task
        case ResultFound(task) | Start(task) | Stop(task) | Migrate(task) | Kill(task) | GiveUp(task):
            return task
    return None


def clock_time(at: datetime | None) -> str:
    """`Wed 14:03:10`, in this machine's zone; nothing where it is not known."""
    return "" if at is None else f"{at.astimezone():%a %H:%M:%S}"
