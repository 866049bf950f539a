"""What the coordinator is told (facts) and what it says (orders), frozen, with their JSON for the journal. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workers.tasks import Failure, Outcome, Progress


@dataclass(frozen=True)
class RunBegan:
    """A command begins, or goes on with, these tasks. What follows belongs to a ledger of its own."""

    tasks: tuple[str, ...]


@dataclass(frozen=True)
class MachineJoined:
    """A machine offers `slots` tasks at once, of the given kinds (`Task.kind`)."""

    machine: str
    slots: int
    kinds: tuple[str, ...]
    gpu: bool = False


@dataclass(frozen=True)
class MachineLeft:
    """A machine is gone; what ran there is lost, though it may not have stopped."""

    machine: str
    why: str = ""


@dataclass(frozen=True)
class Progressed:
    progress: Progress


@dataclass(frozen=True)
class TaskEnded:
    """An attempt ended on its machine, well or not."""

    outcome: Outcome


@dataclass(frozen=True)
class ResultFound:
    """The task's result stood in the store when the run began: it is never run again."""

    task: str


@dataclass(frozen=True)
class StopRequested:
    """The person asked to stop: running tasks commit and end, nothing new starts."""


@dataclass(frozen=True)
class Tick:
    """The clock, in seconds; it opens every turn of the loop."""

    at: float


@dataclass(frozen=True)
class Start:
    """Run `task` in slot number `slot` of `machine`; attempts of a task count from 1."""

    task: str
    machine: str
    slot: int
    attempt: int


@dataclass(frozen=True)
class Stop:
    """Ask a running attempt to commit and end."""

    task: str
    attempt: int


@dataclass(frozen=True)
class GiveUp:
    """The task will not be tried again; `why` is for people."""

    task: str
    why: str


@dataclass(frozen=True)
class Finish:
    """Nothing runs and nothing more can be done."""

    why: str


Fact = RunBegan | MachineJoined | MachineLeft | Progressed | TaskEnded | ResultFound | StopRequested | Tick
Order = Start | Stop | GiveUp | Finish
Event = Fact | Order

FACTS = (RunBegan, MachineJoined, MachineLeft, Progressed, TaskEnded, ResultFound, StopRequested, Tick)
ORDERS = (Start, Stop, GiveUp, Finish)
_KINDS: dict[str, Callable[..., Event]] = {kind.__name__: kind for kind in (*FACTS, *ORDERS)}


def to_json(event: Event) -> dict[str, Any]:
    """An event as JSON values under its kind. Numbers that are not finite become null: JSON has none."""
    fields: dict[str, Any] = _plain(dataclasses.asdict(event))
    return {"event": type(event).__name__, **fields}


def from_json(value: Mapping[str, Any]) -> Event:
    """The way back from `to_json`. KeyError for a kind of event that this version does not know."""
    fields = dict(value)
    kind = _KINDS[fields.pop("event")]
    if kind is Progressed:
        return Progressed(Progress(**fields["progress"]))
    if kind is TaskEnded:
        outcome = fields["outcome"]
        failure = None if outcome["failure"] is None else Failure(outcome["failure"])
        return TaskEnded(Outcome(**{**outcome, "failure": failure}))
    return kind(**{name: tuple(item) if isinstance(item, list) else item for name, item in fields.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
