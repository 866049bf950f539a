"""All tasks of a run by their state, and what follows when one is done or given up. Pure."""

from __future__ import annotations

import bisect
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable

from coordinator.entries import MOVES, OPEN, Entry, State
from coordinator.graph import Graph
from coordinator.retry import Verdict

Queued = tuple[float, int]
"""(level, negative, rank): the most urgent is the least."""


class Board:
    """The entries with the indices that `plan` looks at.

    What waits for a slot stands in `waiting`, most urgent first, by its queue: tasks of one queue fit the same
    machines.
    `level(task)` says how urgent a task is, `queue(task)` where it waits; both are asked when it begins to wait.
    """

    def __init__(self, graph: Graph, level: Callable[[str], float], queue: Callable[[str, Entry], Hashable]) -> None:
        self.graph = graph
        self._level, self._queue = level, queue
        self.hopeless: dict[str, str] = {}  # tasks that ended and will not be tried again, and why
        self.waiting: dict[Hashable, list[Queued]] = {}
        self.at_home: dict[str, set[str]] = defaultdict(set)  # waiting tasks by the machine of their last attempt
        self.version = 0  # of the levels that the queues were made with
        self._delayed: list[tuple[float, str, int]] = []  # (not before, task, its attempts then)
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
        self._leave_queue(entry)
        self.hopeless.pop(task, None)
        self.counts[entry.state] -= 1
        self.counts[state] += 1
        entry.state = state
        if state is State.READY:
            self._enter_queue(task)

    def ended(self, task: str, verdict: Verdict) -> None:
        """An attempt of `task` left no result: it waits again when the verdict says so, or is hopeless."""
        self.move(task, State.ENDED)
        if verdict.again:
            heapq.heappush(self._delayed, (verdict.not_before, task, len(self.entries[task].attempts)))
        else:
            self.hopeless[task] = verdict.why

    def release(self, now: float) -> None:
        """Whose delay is over waits for a slot again."""
        while self._delayed and self._delayed[0][0] <= now:
            _, task, attempts = heapq.heappop(self._delayed)
            entry = self.entries[task]
            if entry.state is State.ENDED and len(entry.attempts) == attempts:
                self._enter_queue(task)

    def queue_anew(self, version: int) -> None:
        """All levels have changed."""
        self.version = version
        for task in [self.by_rank[rank] for queue in self.waiting.values() for _, rank in queue]:
            self._leave_queue(self.entries[task])
            self._enter_queue(task)

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
        queued = {self.by_rank[rank] for queue in self.waiting.values() for _, rank in queue}
        assert queued == {name for name, entry in self.entries.items() if entry.queued}, self.waiting
        assert by_state[State.READY] <= queued <= by_state[State.READY] | by_state[State.ENDED], self.waiting
        assert all(queue and queue == sorted(set(queue)) for queue in self.waiting.values()), self.waiting
        assert {name for names in self.at_home.values() for name in names} <= queued, self.at_home
        later = {task for _, task, attempts in self._delayed if attempts == len(self.entries[task].attempts)}
        lost = by_state[State.ENDED] - queued - later - set(self.hopeless)
        assert not lost, f"ended and forgotten: {sorted(lost)}"

    def _enter_queue(self, task: str) -> None:
        entry = self.entries[task]
        entry.queue = self._queue(task, entry)
        entry.queued = (-self._level(task), entry.rank)
        bisect.insort(self.waiting.setdefault(entry.queue, []), entry.queued)
        if entry.attempts:
            entry.home = entry.attempts[-1].machine
            self.at_home[entry.home].add(task)

    def _leave_queue(self, entry: Entry) -> None:
        if entry.queued is None:
            return
        queue = self.waiting[entry.queue]
        queue.pop(bisect.bisect_left(queue, entry.queued))
        if not queue:
            del self.waiting[entry.queue]
        entry.queued = None
        self.at_home[entry.home].discard(self.by_rank[entry.rank])

    def _block(self, task: str) -> None:
        for follower in self.graph.followers[task]:
            entry = self.entries[follower]
            if entry.state is State.WAITING:
                self.move(follower, State.BLOCKED)
                entry.reason = f"needs {self.entries[task].task.name}, which is {self.entries[task].state}"
                self._block(follower)
