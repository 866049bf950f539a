"""What the ledger keeps about one task: its state, its attempts, and which state may follow which. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

from coordinator.retry import Ended
from workers.tasks import Outcome, Progress, Task


class State(StrEnum):
    WAITING = "waiting"  # for its inputs
    READY = "ready"
    RUNNING = "running"
    ENDED = "ended"  # the last attempt left no result; retry.py says what next
    DONE = "done"
    FAILED = "failed"  # given up
    BLOCKED = "blocked"  # an input failed for good


MOVES = {
    State.WAITING: {State.READY, State.DONE, State.BLOCKED},
    State.READY: {State.RUNNING, State.DONE},
    State.RUNNING: {State.ENDED, State.DONE},
    State.ENDED: {State.RUNNING, State.FAILED},
    State.DONE: set[State](),
    State.FAILED: set[State](),
    State.BLOCKED: set[State](),
}
OPEN = (State.WAITING, State.READY, State.RUNNING, State.ENDED)


@dataclass
class Attempt:
    """One try at a task. `outcome` stays None while it runs."""

    machine: str
    slot: int
    number: int
    started: float
    heard: float  # when it last gave a sign of life
    micro_batch: int | None = None
    memory_gb: float | None = None
    commit: int | None = None
    moved: bool = False  # it began in a slot that was kept for it
    told_at: float | None = None  # when it was told to leave
    outcome: Outcome | None = None
    ended: float = 0.0

    @property
    def told_to_stop(self) -> bool:
        return self.told_at is not None


@dataclass
class Entry:
    """What is known about one task."""

    task: Task
    rank: int  # place in the order of urgency: 0 has the longest chain of work behind it
    missing: int  # inputs that are not done
    state: State = State.WAITING
    queued: tuple[float, int] | None = None  # its place among what waits for a slot (board.py)
    queue: Hashable = None
    home: str = ""  # the machine of its last attempt when it began to wait
    found: bool = False  # its result stood in the store before this run
    attempts: list[Attempt] = field(default_factory=list)
    progress: Progress | None = None
    reason: str = ""  # why it failed or is blocked
    notes: list[str] = field(default_factory=list)

    def history(self) -> list[Ended]:
        """The attempts that are over, as retry.py judges them."""
        return [
            Ended(a.outcome, a.ended, a.commit is not None, a.machine, a.micro_batch, a.memory_gb)
            for a in self.attempts
            if a.outcome is not None
        ]
