"""The coordinator's one state: facts and orders are applied to it, nothing else writes it. Pure.

It is built anew from the graph and the store at every start. Indices keep what `plan` looks at, so that a
turn costs what changed and not what exists.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from coordinator.board import Board
from coordinator.entries import Attempt, Entry, State
from coordinator.estimate import Estimates
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
    Probe,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from coordinator.fit import tells_of_machines
from coordinator.graph import Graph
from coordinator.retry import AGAINST_MACHINE, GOES_ON, Rules, judge
from coordinator.slots import Extremes, Fastest, Slots
from workers.tasks import Failure, Outcome, Progress

__all__ = ["Attempt", "Entry", "Ledger", "State"]


class Ledger:
    """Single-writer state of one run. `apply` every fact that comes in and every order that goes out."""

    def __init__(self, graph: Graph, rules: Rules | None = None) -> None:
        self.graph = graph
        self.rules = rules or Rules()
        self.now = 0.0
        self.stopping = False
        self.finished: str | None = None
        self.fastest: dict[frozenset[str], Fastest] = {}  # what candidates.py found, kept while it holds
        self.extremes = Extremes()  # likewise
        self.slots = Slots()
        self.estimates = Estimates(graph)
        self.running: dict[str, Attempt] = {}
        self.leaving: set[str] = set()  # running tasks that were told to stop, and keep no slot elsewhere
        self.begun = False  # whether anything has started
        self.joined_at = 0.0  # when the newest machine came
        self.short_of_memory: set[str] = set()  # tasks that ran out of memory somewhere and have no result yet
        self.committed: set[str] = set()  # running tasks that committed since the last tick
        self.commits = 0  # of the whole run
        self.freed = False  # whether a slot came free since the last tick
        self.heard: OrderedDict[str, None] = OrderedDict()  # running tasks, the one not heard of for longest first
        self.board = Board(graph, self.estimates.level, self._queue)
        self.entries, self.counts = self.board.entries, self.board.counts

    def apply(self, event: Event) -> None:
        """Take in one fact or order. AssertionError, with the task's story, for what cannot follow."""
        match event:
            case Tick(at):
                self.now = max(self.now, at)  # a clock set back must not shorten a delay
                self.committed.clear()
                self.freed = False
                self.board.release(self.now)
                if self.board.version != self.estimates.version:
                    self.board.queue_anew(self.estimates.version)
            case RunBegan(tasks):
                assert set(tasks) == set(self.entries), "a ledger of other tasks than the run's"
            case Progressed(progress):
                self._progressed(progress)
            case TaskEnded(outcome):
                self._ended(outcome)
            case ResultFound(task):
                self.entries[task].found = True
                self._done(task)
            case StopRequested():
                self.stopping = True
            case Start() | Stop() | Migrate() | Kill() | GiveUp() | Finish():
                self._of_task(event)
            case _:
                self._of_machine(event)

    def _of_task(self, order: Start | Stop | Migrate | Kill | GiveUp | Finish) -> None:
        match order:
            case Start():
                self._started(order)
            case Stop(task, attempt):
                self._told(task, attempt, order)
            case Migrate(task, attempt, machine, slot):
                self._told(task, attempt, order)
                self.slots.keep((machine, slot), task)
            case Kill(task, attempt, why):
                machine = self._current(task, attempt).machine
                self._ended(Outcome(task, attempt, Failure.HUNG, why, where=machine))
            case GiveUp(task, why):
                self.board.give_up(task, why)
                self.short_of_memory.discard(task)
                self.slots.release(task)
            case Finish(why):
                self.finished = why

    def _of_machine(self, event: Event) -> None:
        match event:
            case MachineJoined():
                self.slots.join(event)
                self.freed, self.joined_at = True, self.now
                self.estimates.joined(event)
            case MachineLeft(machine, why):
                self._left(machine, f"{machine} left" + (f": {why}" if why else ""))
            case MachineCut(machine, why):
                self._left(machine, f"{machine} is out of reach" + (f": {why}" if why else ""))
            case MachineDraining(machine, until):
                self.slots.drain(machine, until)
            case Drain(machine, why):
                self.slots.shut(machine, why, self.now)
            case Probe(machine):
                self.slots.hosts[machine].probing = True
            case MachineProbed(machine, passed):
                self.estimates.probed(machine, event.speed)
                self.slots.probed(machine, passed, self.now)
                self.freed = True
            case _:
                raise AssertionError(f"an event that the ledger does not know: {event}")

    @property
    def all_done(self) -> bool:
        """Every task has its result."""
        return self.board.all_done

    @property
    def open(self) -> int:
        """Tasks that may still come to a result."""
        return self.board.open

    def story(self, task: str) -> str:
        """All that happened to a task, for people and for every assertion."""
        return self.board.story(task)

    def validate(self) -> None:
        """Check that every index says what the entries say. AssertionError names the first that does not."""
        self.board.validate()
        for name, attempt in self.running.items():
            assert self.entries[name].attempts[-1] is attempt, f"runs as an older attempt\n{self.story(name)}"
        running = {name for name, entry in self.entries.items() if entry.state is State.RUNNING}
        assert set(self.running) == running, f"running {sorted(self.running)}, should be {sorted(running)}"
        sits = {(attempt.machine, attempt.slot): task for task, attempt in self.running.items()}
        assert len(sits) == len(self.running), f"two tasks in one slot: {self.running}"
        assert sits == self.slots.taken, f"attempts sit in {sits}, slots say {self.slots.taken}"
        assert set(self.heard) == running, f"heard of {sorted(self.heard)}, running {sorted(running)}"
        told = {name for name, attempt in self.running.items() if attempt.told_to_stop}
        assert self.leaving <= told, f"leaving and not told: {self.leaving - told}"
        assert self.committed <= running, f"committed and not running: {self.committed - running}"
        self.slots.validate()

    def _left(self, machine: str, what: str) -> None:
        failure = Failure.LOST if self.slots.hosts[machine].draining_until is None else Failure.PREEMPTED
        for task in self.slots.leave(machine):
            self._close(task, Outcome(task, self.running[task].number, failure, what, where=machine))

    def _started(self, order: Start) -> None:
        entry, place = self.entries[order.task], (order.machine, order.slot)
        expected = len(entry.attempts) + 1
        assert order.attempt == expected, f"attempt {order.attempt}, expected {expected}\n{self.story(order.task)}"
        assert self.slots.startable(place, order.task), f"{order}: not a slot for it\n{self.story(order.task)}"
        asked = entry.attempts[-1].told_at if self.slots.targets.get(order.task) == place else None
        attempt = Attempt(*place, order.attempt, self.now, self.now, order.micro_batch, moved=asked is not None)
        attempt.memory_gb = self.slots.hosts[order.machine].joined.memory_gb
        entry.attempts.append(attempt)
        self.board.move(order.task, State.RUNNING)
        self.running[order.task] = attempt
        self.begun = True
        self.heard[order.task] = None
        self.slots.take(place, order.task)
        self.estimates.started(order.task, order.machine, self.now, asked)

    def _told(self, task: str, attempt: int, order: Stop | Migrate) -> None:
        current = self._current(task, attempt)
        assert current.told_at is None, f"told to stop twice, by {order}\n{self.story(task)}"
        current.told_at = self.now
        if isinstance(order, Stop):
            self.leaving.add(task)

    def _progressed(self, progress: Progress) -> None:
        attempt = self._believed(progress.task, progress.attempt)
        if attempt is None:
            return  # an old attempt that goes on somewhere: its commits are fenced by the store
        attempt.heard = self.now
        self.heard.move_to_end(progress.task)
        if progress.says_nothing:
            return
        self.entries[progress.task].progress = progress
        self.estimates.progressed(progress, self.now)
        if progress.commit is not None:
            attempt.commit = progress.commit
            self.commits += 1
            self.committed.add(progress.task)

    def _ended(self, outcome: Outcome) -> None:
        if self._believed(outcome.task, outcome.attempt) is None:
            late = f"attempt {outcome.attempt} ended late, at {self.now:.1f} s: {outcome.failure or 'done'}"
            self.entries[outcome.task].notes.append(f"{late}; not believed")
            return
        machine = self.running[outcome.task].machine
        self._close(outcome.task, outcome)
        if outcome.failure in AGAINST_MACHINE:
            self.slots.failed[machine].append(outcome)

    def _believed(self, task: str, attempt: int) -> Attempt | None:
        """The running attempt that news is about; None when they are late, from an attempt that counts no more."""
        running = self.running.get(task)
        return running if running is not None and running.number == attempt else None

    def _close(self, task: str, outcome: Outcome) -> None:
        attempt = self.running.pop(task)
        attempt.outcome, attempt.ended = outcome, self.now
        self.slots.vacate((attempt.machine, attempt.slot))
        self.estimates.ended(task, outcome, self.now)
        self.committed.discard(task)
        self.leaving.discard(task)
        del self.heard[task]
        self.freed = True
        if outcome.failure is Failure.OUT_OF_MEMORY:
            self.short_of_memory.add(task)
        if outcome.failure is None:
            self.slots.failed.pop(attempt.machine, None)
            self._done(task)
        else:
            if outcome.failure not in GOES_ON:
                self.slots.release(task)
            entry = self.entries[task]
            self.board.ended(task, judge(entry.task, entry.history(), self.rules.budgets))

    def _done(self, task: str) -> None:
        self.board.done(task)
        self.short_of_memory.discard(task)
        self.slots.release(task)

    def _queue(self, task: str, entry: Entry) -> Hashable:
        """Tasks of one queue fit the same machines. Failures that say something about machines make a queue of one."""
        kind = (self.estimates.keys[task], self.rules.needs.get(task), self.rules.pins.get(task))
        return (*kind, task) if tells_of_machines(entry.history()) else kind

    def _current(self, task: str, attempt: int) -> Attempt:
        running = self.running.get(task)
        assert running is not None and running.number == attempt, f"attempt {attempt} does not run\n{self.story(task)}"
        return running
