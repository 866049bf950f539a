"""What the coordinator is told (facts) and what it says (orders), frozen, with their JSON for the journal. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from workers.tasks import Failure, Outcome, Progress


@dataclass(frozen=True)
class RunBegan:
    """A command begins, or goes on with, these tasks. What follows belongs to a ledger of its own."""

    tasks: tuple[str, ...]
    began: str = ""  # the time of day, ISO 8601 with its zone, for people; empty: not noted


@dataclass(frozen=True)
class MachineJoined:
    """A machine offers `slots` tasks at once, of the given kinds (`Task.kind`); what its probe found of each slot."""

    machine: str
    slots: int
    kinds: tuple[str, ...]
    gpu: bool = False
    memory_gb: float | None = None  # of a slot's card (or of its share of the machine); None: not known
    system: str = ""  # "linux", "windows", "darwin"
    labels: tuple[str, ...] = ()
    speed: float | None = None  # of a slot, relative to any one reference for the whole fleet; None: not measured
    link_mb_per_second: float | None = None  # to the store
    bits: int | None = None  # in which `precision: auto` trains there, 16 or 32; None: not known


@dataclass(frozen=True)
class MachineLeft:
    """A machine is gone, and what ran there has ended."""

    machine: str
    why: str = ""


@dataclass(frozen=True)
class MachineCut:
    """A machine is out of reach. What ran there counts as lost, and may go on and commit for as long as it likes."""

    machine: str
    why: str = ""


@dataclass(frozen=True)
class MachineDraining:
    """A machine will be taken back at `until` seconds on the ledger's clock: nothing new starts there."""

    machine: str
    until: float


@dataclass(frozen=True)
class MachineProbed:
    """What a probe that was ordered found. A machine in quarantine that passes takes work again."""

    machine: str
    passed: bool
    what: str = ""
    speed: float | None = None  # as in MachineJoined


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
    micro_batch: int | None = None  # images on the card at once, where the recipe's own did not fit


@dataclass(frozen=True)
class Stop:
    """Ask a running attempt to commit and end."""

    task: str
    attempt: int
    why: str = ""


@dataclass(frozen=True)
class Migrate:
    """Ask a running attempt to commit and end, and keep a slot of another machine for the next attempt."""

    task: str
    attempt: int
    machine: str
    slot: int


@dataclass(frozen=True)
class Kill:
    """End an attempt that shows no sign of life: its process is ended without a word, its last commit stands."""

    task: str
    attempt: int
    why: str


@dataclass(frozen=True)
class Drain:
    """Nothing new starts on `machine` until it passes a probe."""

    machine: str
    why: str


@dataclass(frozen=True)
class Probe:
    """See whether `machine`, which nothing runs on, can work; `MachineProbed` is the answer."""

    machine: str


@dataclass(frozen=True)
class GiveUp:
    """The task will not be tried again; `why` is for people."""

    task: str
    why: str


@dataclass(frozen=True)
class Finish:
    """Nothing runs and nothing more can be done."""

    why: str


Fact = (
    RunBegan
    | MachineJoined
    | MachineLeft
    | MachineCut
    | MachineDraining
    | MachineProbed
    | Progressed
    | TaskEnded
    | ResultFound
    | StopRequested
    | Tick
)
Order = Start | Stop | Migrate | Kill | Drain | Probe | GiveUp | Finish
Event = Fact | Order

FACTS: tuple[type[Fact], ...] = get_args(Fact)
ORDERS: tuple[type[Order], ...] = get_args(Order)
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
