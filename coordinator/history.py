"""Who worked on what, and when: a journal's events as spans of attempts on machines, losses and moves. Pure.

A journal has one part for each command that drove the run, and each has its own clock: here they stand one behind the
other, without the time between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from coordinator.events import (
    Drain,
    Event,
    Finish,
    GiveUp,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    Migrate,
    Progressed,
    RunBegan,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from workers.tasks import Failure

DONE, MOVED, CUT_SHORT, RUNNING = "done", "moved", "its command ended", "no end known yet"
LOSSES = frozenset({Failure.LOST, Failure.PREEMPTED, Failure.HUNG})
UNHURT = frozenset({DONE, MOVED, CUT_SHORT, RUNNING, Failure.STOPPED})
"""Endings by which nothing is lost and nothing went wrong; the others are kinds of failure."""


@dataclass(frozen=True)
class Span:
    """One attempt. `ending` is one of the four words above, or how it failed."""

    task: str
    attempt: int
    machine: str
    slot: int
    begin: float
    end: float
    ending: str = RUNNING
    what: str = ""
    epochs: tuple[int, int] | None = None  # finished when it first and last told of it
    moves: bool = False  # a slot elsewhere was kept for the next attempt


@dataclass(frozen=True)
class Mark:
    """What became of a machine at one moment, in words."""

    machine: str
    at: float
    lost: bool
    words: str


@dataclass
class Host:
    """A machine as it last joined, and when it was here."""

    joined: MachineJoined
    here: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Drive:
    """One command's part. `finished` is why it ended, empty where nobody wrote that: it was killed, or still runs."""

    begin: float
    end: float
    finished: str = ""
    stopped: bool = False
    gave_up: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """All of a run, in seconds from its first command on; times in which no command ran are left out."""

    seconds: float
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...]
    hosts: dict[str, Host]
    drives: tuple[Drive, ...]


def read_history(events: Iterable[tuple[float, Event]]) -> History:
    """The history that a journal tells: (seconds on its command's clock, event), in its order."""
    reader = _Reader()
    for at, event in events:
        reader.take(at, event)
    last = reader.drives[-1] if reader.drives else None
    reader.end_all(CUT_SHORT if last is not None and last.finished else RUNNING)
    spans = sorted(reader.spans, key=lambda span: (span.begin, span.task, span.attempt))
    return History(reader.now, tuple(spans), tuple(reader.marks), reader.hosts, tuple(reader.drives))


class _Reader:
    def __init__(self) -> None:
        self.now, self.offset = 0.0, 0.0
        self.spans: list[Span] = []
        self.marks: list[Mark] = []
        self.hosts: dict[str, Host] = {}
        self.drives: list[Drive] = []
        self._open: dict[str, Span] = {}
        self._since: dict[str, float] = {}  # when each machine came that is here
        self._leaving: set[str] = set()  # machines that said they would be taken back

    def take(self, at: float, event: Event) -> None:
        if isinstance(event, RunBegan):
            self.end_all(CUT_SHORT)
            self.offset = self.now - at
            self.drives.append(Drive(self.now, self.now))
        if not self.drives or isinstance(event, Tick):
            return  # the first tick of a command stands before its beginning, on the clock of that
        self.now = max(self.now, self.offset + at)
        self.drives[-1].end = self.now
        self._of_tasks(event)
        self._of_machines(event)

    def end_all(self, ending: str) -> None:
        """Nobody tells of what still ran."""
        for task in list(self._open):
            self._close(task, ending)
        for machine in list(self._since):
            self._gone(machine)

    def _of_tasks(self, event: Event) -> None:
        drive = self.drives[-1]
        match event:
            case Start(task, machine, slot, attempt):
                self._open[task] = Span(task, attempt, machine, slot, self.now, self.now)
            case Progressed(progress) if self._runs(progress.task, progress.attempt) and not progress.says_nothing:
                span = self._open[progress.task]
                first, last = span.epochs or (progress.epoch, progress.epoch)
                self._open[progress.task] = replace(span, epochs=(first, max(last, progress.epoch)))
            case Migrate(task, attempt) if self._runs(task, attempt):
                self._open[task] = replace(self._open[task], moves=True)
            case Stop(task, attempt, why) if self._runs(task, attempt):
                self._open[task] = replace(self._open[task], what=why)
            case Kill(task, attempt, why) if self._runs(task, attempt):
                self._close(task, Failure.HUNG, why)
            case TaskEnded(outcome) if self._runs(outcome.task, outcome.attempt):
                moved = outcome.failure is Failure.STOPPED and self._open[outcome.task].moves
                self._close(outcome.task, MOVED if moved else str(outcome.failure or DONE), outcome.what)
            case GiveUp(task, why):
                drive.gave_up[task] = why
            case StopRequested():
                drive.stopped = True
            case Finish(why):
                drive.finished = why

    def _of_machines(self, event: Event) -> None:
        match event:
            case MachineJoined(machine):
                here = self.hosts[machine].here if machine in self.hosts else []
                self.hosts[machine] = Host(event, here)
                if machine in self._since:
                    self._gone(machine)
                self._since[machine] = self.now
                self._leaving.discard(machine)
            case MachineLeft(machine, why) | MachineCut(machine, why):
                lost = isinstance(event, MachineCut)
                words = "out of reach" if lost else "left"
                self._lost(machine, f"{machine} {words}" + (f": {why}" if why else ""))
                self.marks.append(Mark(machine, self.now, lost, words + (f": {why}" if why else "")))
            case MachineDraining(machine):
                self._leaving.add(machine)
                self.marks.append(Mark(machine, self.now, False, "is taken back soon"))
            case Drain(machine, why):
                self.marks.append(Mark(machine, self.now, False, f"in quarantine: {why}"))

    def _runs(self, task: str, attempt: int) -> bool:
        """False for news of an attempt that counts no more."""
        return task in self._open and self._open[task].attempt == attempt

    def _lost(self, machine: str, what: str) -> None:
        failure = Failure.PREEMPTED if machine in self._leaving else Failure.LOST
        for task, span in list(self._open.items()):
            if span.machine == machine:
                self._close(task, failure, what)
        if machine in self._since:
            self._gone(machine)

    def _gone(self, machine: str) -> None:
        self.hosts[machine].here.append((self._since.pop(machine), self.now))

    def _close(self, task: str, ending: str, what: str = "") -> None:
        span = self._open.pop(task)
        self.spans.append(replace(span, end=self.now, ending=str(ending), what=what or span.what))
