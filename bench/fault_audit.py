"""Holds a simulation with faults against what must be true whatever happens, by books of its own. For bench.simulate.

Nothing here asks the ledger or the plan anything: what a coordinator knew is reckoned from the facts that it was told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

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
    MachineProbed,
    Migrate,
    Progressed,
    ResultFound,
    Start,
    Stop,
    TaskEnded,
    Tick,
)
from coordinator.faults import Faults
from coordinator.ledger import Ledger
from coordinator.scenario import Scenario
from coordinator.simulated_attempts import Run
from coordinator.simulated_store import SimulatedCommit, SimulatedStore
from workers.tasks import Failure, LabelTask, TrainTask

_NEARLY = 1e-6
_ROWS_PER_FOLD = 3
_QUIET_EVENTS = 5
LOST = (Failure.LOST, Failure.STORE)
FEW = {Failure.CRASHED: 2, Failure.HUNG: 3, Failure.NAN: 2, Failure.OUT_OF_MEMORY: 1, Failure.LOST: 8, Failure.STORE: 8}


class ViolationError(Exception):
    """Something happened that must not."""

    def __init__(self, invariant: str, at: float, story: str) -> None:
        super().__init__(invariant, at, story)
        self.invariant, self.at, self.story = invariant, at, story

    def __str__(self) -> str:
        return f"at {self.at:.1f} s: {self.invariant}: {self.story}"


@dataclass
class Book:
    """What one coordinator was told and ordered."""

    hosts: dict[str, MachineJoined] = field(default_factory=dict)
    draining: set[str] = field(default_factory=set)
    shut: set[str] = field(default_factory=set)
    busy: dict[tuple[str, int], Start] = field(default_factory=dict)
    running: dict[str, Start] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    ends: dict[str, Counter[Failure]] = field(default_factory=lambda: defaultdict(Counter))
    short: dict[str, list[Start]] = field(default_factory=lambda: defaultdict(list))  # ran out of memory
    given_up: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)

    def close(self, start: Start) -> None:
        del self.running[start.task], self.busy[start.machine, start.slot]


class Audit:
    """Told of everything: as watch of every coordinator, and as witness of the fleet."""

    def __init__(self, scenario: Scenario, faults: Faults, store: SimulatedStore) -> None:
        self.scenario, self.faults, self.store = scenario, faults, store
        self.books: dict[int, Book] = {}
        self.now = 0.0
        self.chains: dict[str, list[SimulatedCommit]] = defaultdict(list)
        self.results: dict[str, int] = {}
        self.safe: dict[int, float] = {}  # by run: a position that outlasts it
        self.stale: set[int] = set()  # runs whose commits had to wait for the store
        self.rows = {f"row{fold}-{i}": fold for fold in self._folds() for i in range(_ROWS_PER_FOLD)}

    def fail(self, invariant: str, story: str) -> None:
        raise ViolationError(invariant, self.now, story)

    # What coordinators are told and order

    def watch(self, number: int, at: float, event: Event, ledger: Ledger) -> None:
        self.now = at
        book = self.books.setdefault(number, Book())
        book.events.append(event)
        match event:
            case Start():
                self._start(book, event, ledger)
            case Stop(task, attempt) | Migrate(task, attempt):
                self._runs(book, event, task, attempt)
            case Kill(task, attempt):
                self._runs(book, event, task, attempt)
                book.ends[task][Failure.HUNG] += 1
                book.close(book.running[task])
            case TaskEnded():
                self._ended(book, event)
            case ResultFound(task):
                book.done.add(task)
            case GiveUp(task, why):
                self._given_up(book, task, why)
            case Finish():
                self._finish(book, event)
            case _:
                self._machine(book, event)
        quiet = isinstance(event, Tick | Progressed)  # they touch little, and are most of all events
        if not quiet or len(book.events) % _QUIET_EVENTS == 0:
            try:
                ledger.validate()
            except AssertionError as error:
                self.fail("the ledger's indices say what its entries say", str(error))

    def _machine(self, book: Book, event: Event) -> None:
        match event:
            case MachineJoined(machine):
                book.hosts[machine] = event
            case MachineLeft(machine) | MachineCut(machine):
                preempted = machine in book.draining
                del book.hosts[machine]
                book.draining.discard(machine)
                for start in [start for start in book.running.values() if start.machine == machine]:
                    book.ends[start.task][Failure.PREEMPTED if preempted else Failure.LOST] += 1
                    book.close(start)
            case MachineDraining(machine):
                book.draining.add(machine)
            case Drain(machine):
                book.shut.add(machine)
            case MachineProbed(machine, passed) if passed and machine in book.hosts:
                book.shut.discard(machine)

    def _start(self, book: Book, start: Start, ledger: Ledger) -> None:
        task, host = self.scenario.graph.tasks[start.task], book.hosts.get(start.machine)
        story = f"{start}\n{ledger.story(start.task)}"
        if host is None:
            return self.fail("no start on a machine that is not here", story)
        if start.machine in book.draining or start.machine in book.shut:
            self.fail("no start on a draining machine or one in quarantine", story)
        if (start.machine, start.slot) in book.busy or start.slot >= host.slots:
            self.fail("no start in a busy slot", f"{story}\n{book.busy.get((start.machine, start.slot))}")
        if start.task in book.running or start.task in book.done:
            self.fail("no start of a task that runs or is done", story)
        if any(name not in book.done for name in task.inputs):
            self.fail("no start before the inputs are done", story)
        needs, pin = self.scenario.rules.needs.get(start.task), self.scenario.rules.pins.get(start.task)
        if task.kind not in host.kinds or pin not in (None, start.machine):
            self.fail("no start where the task may not run", story)
        if needs is not None:
            small = host.memory_gb is not None and host.memory_gb < needs.memory_gb
            if small or needs.system not in ("", host.system) or (needs.label and needs.label not in host.labels):
                self.fail("no start on a machine without what the task needs", f"{needs}\n{story}")
        for short in book.short[start.task]:
            same = start.machine == short.machine
            if same and (start.micro_batch or 10**6) >= (short.micro_batch or 10**6):
                self.fail("no start where as much ran out of memory", story)
        book.busy[start.machine, start.slot] = book.running[start.task] = start
        return None

    def _runs(self, book: Book, event: Event, task: str, attempt: int) -> None:
        if task not in book.running or book.running[task].attempt != attempt:
            self.fail("no order to an attempt that does not run", str(event))

    def _ended(self, book: Book, event: TaskEnded) -> None:
        outcome = event.outcome
        start = book.running.get(outcome.task)
        if start is None or start.attempt != outcome.attempt:
            return
        book.close(start)
        if outcome.failure is None:
            book.done.add(outcome.task)
            if outcome.task not in self.results:
                self.fail("done is only what has its result", str(event))
        else:
            book.ends[outcome.task][outcome.failure] += 1
            if outcome.failure is Failure.OUT_OF_MEMORY:
                book.short[outcome.task].append(start)

    def _given_up(self, book: Book, task: str, why: str) -> None:
        book.given_up.add(task)
        ends = book.ends[task]
        if not any(ends[failure] >= few for failure, few in FEW.items()):
            self.fail("nothing is given up without its budget spent", f"{task}: {dict(ends)}: {why}")

    def _finish(self, book: Book, event: Finish) -> None:
        tasks = self.scenario.graph.tasks
        if book.running:
            self.fail("nothing runs when all is over", str(book.running))
        if event.why == "all done" and set(tasks) - set(self.results):
            self.fail("all done is said when all results stand", str(sorted(set(tasks) - set(self.results))))
        if event.why != "stopped":
            failed = set(book.given_up)
            for name, task in tasks.items():
                if failed & set(task.inputs):
                    failed.add(name)
                elif name not in failed and name not in book.done:
                    self.fail("every task ends", f"{name} is neither done nor given up nor blocked")

    # What happens on machines and in the store

    def began(self, run: Run) -> None:
        task = self.scenario.graph.tasks[run.task]
        if isinstance(task, TrainTask) and task.labels:
            self._student(task)

    def resumed(self, run: Run) -> None:
        furthest = max((commit.position for commit in self.chains[run.task]), default=0.0)
        if run.position < furthest - _NEARLY:
            self.fail("an attempt goes on from the furthest commit", f"{run.task} at {run.position}, not {furthest}")
        self.safe[run.number] = run.position

    def stored(self, run: Run) -> None:
        chain, mine = self.store.commits.get(run.task, []), self.chains[run.task]
        if chain[: len(mine)] != mine:
            self.fail("no commit is ever replaced", f"{run.task}: {mine}, now {chain}")
        for commit in chain[len(mine) :]:
            if mine and commit.position <= mine[-1].position:
                self.fail("no committed step is lost", f"{run.task}: {commit} behind {mine[-1]}")
            mine.append(commit)
            if commit.writer == run.number:
                self.safe[run.number] = commit.position
        winner = self.store.results.get(run.task)
        if winner is not None and self.results.setdefault(run.task, winner) != winner:
            self.fail("no two results of one task", f"{run.task}: of runs {self.results[run.task]} and {winner}")

    def lost(self, run: Run) -> None:
        if not isinstance(self.scenario.graph.tasks[run.task], TrainTask) or run.number not in self.safe:
            return
        chain = self.chains[run.task]
        kept = max(self.safe[run.number], chain[-1].position if chain else 0.0)
        if run.position - kept > self.scenario.commit_share + _NEARLY and not self._store_was_down(run):
            self.fail("no fault costs more than an interval", f"{run.task}: at {run.position}, kept {kept}")

    def _store_was_down(self, run: Run) -> bool:
        """Whether commits had to wait not long ago."""
        each = self.scenario.epoch_seconds
        seconds = each if isinstance(each, float) else each[run.task]
        recent = self.now - 20 * seconds / run.machine.speed
        return any(begin <= self.now and end >= recent for begin, end in self.faults.store_down)

    def _student(self, student: TrainTask) -> None:
        """Row by row: whoever labelled a row that the student learns from had never seen it."""
        tasks = self.scenario.graph.tasks
        nested = any(len(task.held_out) == 2 for task in tasks.values() if isinstance(task, TrainTask))
        own = {row for row, fold in self.rows.items() if fold in student.held_out}
        for name in student.labels:
            label = tasks[name]
            assert isinstance(label, LabelTask)
            teacher = tasks[label.teacher]
            assert isinstance(teacher, TrainTask)
            seen = {row for row, fold in self.rows.items() if fold not in teacher.held_out}
            labelled = {row for row, fold in self.rows.items() if fold in label.held_out} - own
            if labelled & seen or (nested and own & seen):
                who = f"{teacher.name} labels for {student.name} by {label.name}"
                self.fail("labels are honest", f"{who}: {sorted(labelled & seen)} {sorted(own & seen)}")

    def _folds(self) -> list[int]:
        trained = [task for task in self.scenario.graph.tasks.values() if isinstance(task, TrainTask)]
        return sorted({fold for task in trained for fold in task.held_out})
