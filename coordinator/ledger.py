"""The coordinator's one state: facts and orders are applied to it, nothing else writes it. Pure.

It is built anew from the graph and the store at every start. Indices keep what `plan` looks at, so that a
turn costs what changed and not what exists.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict

from coordinator.entries import MOVES, OPEN, Attempt, Entry, State
from coordinator.events import (
    Event,
    Finish,
    GiveUp,
    MachineJoined,
    MachineLeft,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from coordinator.graph import Graph
from coordinator.retry import Budgets
from workers.tasks import Failure, Outcome, Progress

__all__ = ["Attempt", "Entry", "Ledger", "State"]


class Ledger:
    """Single-writer state of one run. `apply` every fact that comes in and every order that goes out."""

    def __init__(self, graph: Graph, budgets: Budgets | None = None) -> None:
        self.graph = graph
        self.budgets = budgets or Budgets()
        self.now = 0.0
        self.stopping = False
        self.finished: str | None = None
        self.machines: dict[str, MachineJoined] = {}
        self.free: set[tuple[int, str]] = set()  # (slot, machine)
        self.running: dict[str, Attempt] = {}
        self.ended: set[str] = set()
        self.ready: dict[str, list[int]] = defaultdict(list)  # ranks by kind of task, most urgent first
        places = {name: place for place, name in enumerate(graph.tasks)}
        self.by_rank = sorted(graph.tasks, key=lambda name: (-graph.weights[name], places[name]))
        ranks = {name: rank for rank, name in enumerate(self.by_rank)}
        self.entries = {name: Entry(task, ranks[name], len(task.inputs)) for name, task in graph.tasks.items()}
        self.counts = Counter(entry.state for entry in self.entries.values())
        for name, entry in self.entries.items():
            if entry.missing == 0:
                self._move(name, State.READY)

    def apply(self, event: Event) -> None:
        """Take in one fact or order. AssertionError, with the task's story, for what cannot follow."""
        match event:
            case Tick(at):
                self.now = max(self.now, at)  # a clock set back must not shorten a delay
            case RunBegan(tasks):
                assert set(tasks) == set(self.entries), "a ledger of other tasks than the run's"
            case MachineJoined():
                self._joined(event)
            case MachineLeft():
                self._left(event)
            case Progressed(progress):
                self._progressed(progress)
            case TaskEnded(outcome):
                self._ended(outcome)
            case ResultFound(task):
                self.entries[task].found = True
                self._done(task)
            case StopRequested():
                self.stopping = True
            case Start():
                self._started(event)
            case Stop(task, attempt):
                self._current(task, attempt).told_to_stop = True
            case GiveUp(task, why):
                self._move(task, State.FAILED)
                self.entries[task].reason = why
                self._block(task)
            case Finish(why):
                self.finished = why

    @property
    def all_done(self) -> bool:
        """Every task has its result."""
        return self.counts[State.DONE] == len(self.entries)

    @property
    def open(self) -> int:
        """Tasks that may still come to a result."""
        return sum(self.counts[state] for state in OPEN)

    def story(self, task: str) -> str:
        """All that happened to a task, for people and for every assertion."""
        entry = self.entries[task]
        lines = [f"{entry.task.name} ({task}): {entry.state}{': ' + entry.reason if entry.reason else ''}"]
        waits = [name for name in entry.task.inputs if self.entries[name].state is not State.DONE]
        lines += [f"  waits for {name} ({self.entries[name].state})" for name in waits]
        lines += ["  its result stood before this run"] if entry.found else []
        for attempt in entry.attempts:
            lines.append(f"  attempt {attempt.number} on {attempt.machine}/{attempt.slot} from {attempt.started:.1f} s")
            if attempt.outcome is not None:
                end = attempt.outcome.failure or "done"
                lines.append(f"    ended at {attempt.ended:.1f} s: {end} {attempt.outcome.what}".rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in entry.notes)])

    def validate(self) -> None:
        """Check that the indices say what the entries say. AssertionError names the first that does not."""
        by_state = defaultdict(set)
        for name, entry in self.entries.items():
            by_state[entry.state].add(name)
            missing = sum(self.entries[item].state is not State.DONE for item in entry.task.inputs)
            assert entry.missing == missing, f"{missing} inputs missing, {entry.missing} noted\n{self.story(name)}"
            needs = entry.state is State.READY or entry.state is State.RUNNING or entry.state is State.ENDED
            assert not needs or missing == 0, f"begun without its inputs\n{self.story(name)}"
            unfinished = [a for a in entry.attempts if a.outcome is None]
            expected = [self.running[name]] if entry.state is State.RUNNING else []
            assert unfinished == expected, f"attempts and state differ\n{self.story(name)}"
        assert self.counts == Counter({state: len(names) for state, names in by_state.items()}), self.counts
        assert set(self.running) == by_state[State.RUNNING], self.running
        assert self.ended == by_state[State.ENDED], self.ended
        ranks = [rank for queue in self.ready.values() for rank in queue]
        assert {self.by_rank[rank] for rank in ranks} == by_state[State.READY], self.ready
        assert all(queue == sorted(set(queue)) for queue in self.ready.values()), self.ready
        taken = {(attempt.slot, attempt.machine) for attempt in self.running.values()}
        slots = {(slot, machine.machine) for machine in self.machines.values() for slot in range(machine.slots)}
        assert len(taken) == len(self.running), f"two tasks in one slot: {self.running}"
        assert not taken & self.free and taken | self.free == slots, f"slots {slots}, taken {taken}, free {self.free}"

    def _joined(self, machine: MachineJoined) -> None:
        assert machine.machine not in self.machines, f"{machine.machine} joined twice"
        self.machines[machine.machine] = machine
        self.free.update((slot, machine.machine) for slot in range(machine.slots))

    def _left(self, left: MachineLeft) -> None:
        machine = self.machines.pop(left.machine)
        for task, attempt in list(self.running.items()):
            if attempt.machine == left.machine:
                what = f"{left.machine} left" + (f": {left.why}" if left.why else "")
                self._close(task, Outcome(task, attempt.number, Failure.LOST, what, where=left.machine))
        self.free.difference_update((slot, machine.machine) for slot in range(machine.slots))

    def _started(self, order: Start) -> None:
        entry = self.entries[order.task]
        expected = len(entry.attempts) + 1
        assert order.attempt == expected, f"attempt {order.attempt}, expected {expected}\n{self.story(order.task)}"
        assert (order.slot, order.machine) in self.free, f"{order} on a slot that is not free\n{self.story(order.task)}"
        attempt = Attempt(order.attempt, order.machine, order.slot, self.now)
        entry.attempts.append(attempt)
        self._move(order.task, State.RUNNING)
        self.running[order.task] = attempt
        self.free.remove((order.slot, order.machine))

    def _progressed(self, progress: Progress) -> None:
        attempt = self.running.get(progress.task)
        if attempt is None or attempt.number != progress.attempt:
            return  # an old attempt that goes on somewhere: its commits are fenced by the store
        self.entries[progress.task].progress = progress
        if progress.commit is not None:
            attempt.commit = progress.commit

    def _ended(self, outcome: Outcome) -> None:
        attempt = self.running.get(outcome.task)
        if attempt is None or attempt.number != outcome.attempt:
            late = f"attempt {outcome.attempt} ended late, at {self.now:.1f} s: {outcome.failure or 'done'}"
            self.entries[outcome.task].notes.append(f"{late}; not believed")
            return
        self._close(outcome.task, outcome)

    def _close(self, task: str, outcome: Outcome) -> None:
        attempt = self.running.pop(task)
        attempt.outcome, attempt.ended = outcome, self.now
        self.free.add((attempt.slot, attempt.machine))
        if outcome.failure is None:
            self._done(task)
        else:
            self._move(task, State.ENDED)

    def _done(self, task: str) -> None:
        self._move(task, State.DONE)
        for follower in self.graph.followers[task]:
            entry = self.entries[follower]
            entry.missing -= 1
            if entry.missing == 0 and entry.state is State.WAITING:
                self._move(follower, State.READY)

    def _block(self, task: str) -> None:
        for follower in self.graph.followers[task]:
            entry = self.entries[follower]
            if entry.state is State.WAITING:
                self._move(follower, State.BLOCKED)
                entry.reason = f"needs {self.entries[task].task.name}, which is {self.entries[task].state}"
                self._block(follower)

    def _move(self, task: str, state: State) -> None:
        """The only place where a task's state changes, and with it the indices by state."""
        entry = self.entries[task]
        assert state in MOVES[entry.state], f"cannot become {state}\n{self.story(task)}"
        ready = self.ready[entry.task.kind]
        if entry.state is State.READY:
            ready.pop(bisect.bisect_left(ready, entry.rank))
        if state is State.READY:
            bisect.insort(ready, entry.rank)
        self.ended.discard(task)
        if state is State.ENDED:
            self.ended.add(task)
        self.counts[entry.state] -= 1
        self.counts[state] += 1
        entry.state = state

    def _current(self, task: str, attempt: int) -> Attempt:
        running = self.running.get(task)
        assert running is not None and running.number == attempt, f"attempt {attempt} does not run\n{self.story(task)}"
        return running
