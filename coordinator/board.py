"""All tasks of a run by their state, and what follows when one is done or given up. Pure."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Mapping

from coordinator.entries import MOVES, OPEN, Entry, State
from coordinator.graph import Graph


class Board:
    """The entries with the indices that `plan` looks at. `keys`: the kind of work of every task."""

    def __init__(self, graph: Graph, keys: Mapping[str, str]) -> None:
        self.graph = graph
        self.keys = keys
        self.ended: set[str] = set()
        self.ready: dict[str, list[int]] = defaultdict(list)  # ranks by kind of work, most urgent first
        places = {name: place for place, name in enumerate(graph.tasks)}
        self.by_rank = sorted(graph.tasks, key=lambda name: (-graph.weights[name], places[name]))
        ranks = {name: rank for rank, name in enumerate(self.by_rank)}
        self.entries = {name: Entry(task, ranks[name], len(task.inputs)) for name, task in graph.tasks.items()}
        self.counts = Counter(entry.state for entry in self.entries.values())
        for name, entry in self.entries.items():
            if entry.missing == 0:
                self.move(name, State.READY)

    @property
    def all_done(self) -> bool:
        """Every task has its result."""
        return self.counts[State.DONE] == len(self.entries)

    @property
    def open(self) -> int:
        """Tasks that may still come to a result."""
        return sum(self.counts[state] for state in OPEN)

    def move(self, task: str, state: State) -> None:
        """The only place where a task's state changes, and with it the indices by state."""
        entry = self.entries[task]
        assert state in MOVES[entry.state], f"cannot become {state}\n{self.story(task)}"
        ready = self.ready[self.keys[task]]
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

    def done(self, task: str) -> None:
        """`task` has its result; who waited for nothing else is ready."""
        self.move(task, State.DONE)
        for follower in self.graph.followers[task]:
            entry = self.entries[follower]
            entry.missing -= 1
            if entry.missing == 0 and entry.state is State.WAITING:
                self.move(follower, State.READY)

    def give_up(self, task: str, why: str) -> None:
        """`task` will have no result, and nothing that needs it either."""
        self.move(task, State.FAILED)
        self.entries[task].reason = why
        self._block(task)

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
            unfinished = sum(attempt.outcome is None for attempt in entry.attempts)
            assert unfinished == (entry.state is State.RUNNING), f"attempts and state differ\n{self.story(name)}"
        assert self.counts == Counter({state: len(names) for state, names in by_state.items()}), self.counts
        assert self.ended == by_state[State.ENDED], self.ended
        ranks = [rank for queue in self.ready.values() for rank in queue]
        assert {self.by_rank[rank] for rank in ranks} == by_state[State.READY], self.ready
        assert all(queue == sorted(set(queue)) for queue in self.ready.values()), self.ready

    def _block(self, task: str) -> None:
        for follower in self.graph.followers[task]:
            entry = self.entries[follower]
            if entry.state is State.WAITING:
                self.move(follower, State.BLOCKED)
                entry.reason = f"needs {self.entries[task].task.name}, which is {self.entries[task].state}"
                self._block(follower)
