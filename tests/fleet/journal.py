"""What a run's journal says, asked by the tests of the fleet. Events are its lines as JSON. No test in here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One try at a task by one coordinator; coordinators count from 1, each numbers attempts anew."""

    coordinator: int
    task: str
    number: int
    machine: str
    began: float  # seconds, by its coordinator's clock
    first: int  # place of its order among the events


def attempts(events: Sequence[Event]) -> list[Attempt]:
    """Every attempt that was ordered, in order."""
    found, coordinator = [], 0
    for place, event in enumerate(events):
        coordinator += event["event"] == "RunBegan"
        if event["event"] == "Start":
            number, at = event["attempt"], event["at"]
            found.append(Attempt(coordinator, event["task"], number, event["machine"], at, place))
    return found


def reports(events: Sequence[Event], attempt: Attempt) -> list[Event]:
    """What an attempt told of itself, each report with the time `at` that it was heard."""
    found, coordinator = [], 0
    for event in events:
        coordinator += event["event"] == "RunBegan"
        if event["event"] != "Progressed" or coordinator != attempt.coordinator:
            continue
        if (event["progress"]["task"], event["progress"]["attempt"]) == (attempt.task, attempt.number):
            found.append({**event["progress"], "at": event["at"]})
    return found


def ends(events: Sequence[Event]) -> list[Event]:
    """Outcomes of attempts, each with the time `at` that it was heard."""
    return [{**event["outcome"], "at": event["at"]} for event in events if event["event"] == "TaskEnded"]


def training_on(events: Sequence[Event], machine: str, epochs: int) -> str | None:
    """A task at work on a machine, at least `epochs` in, with a commit, and not at its last epochs."""
    machines: dict[str, str] = {}
    for event in events:
        if event["event"] == "RunBegan":
            machines = {}
        elif event["event"] == "Start":
            machines[event["task"]] = event["machine"]
        elif event["event"] == "TaskEnded":
            machines.pop(event["outcome"]["task"], None)
    for event in reversed(events):
        if event["event"] == "RunBegan":
            return None
        if event["event"] == "Progressed" and machines.get((seen := event["progress"])["task"]) == machine:
            in_the_middle = epochs <= seen["epoch"] < 0.9 * seen["epochs"] - 1
            return str(seen["task"]) if in_the_middle and has_committed(events, seen["task"]) else None
    return None


def has_committed(events: Sequence[Event], task: str) -> bool:
    """Whether a commit of a task has been told of."""
    told = (event["progress"] for event in events if event["event"] == "Progressed")
    return any(progress["task"] == task and progress["commit"] for progress in told)


def training_seconds(events: Sequence[Event]) -> dict[str, float]:
    """How long each machine had a training task, by the journal's clock. For a run with one coordinator."""
    ended = {(end["task"], end["attempt"]): end["at"] for end in ends(events)}
    seconds: dict[str, float] = {}
    for one in attempts(events):
        if one.task.startswith(("teacher", "student")) and (one.task, one.number) in ended:
            seconds[one.machine] = seconds.get(one.machine, 0.0) + ended[one.task, one.number] - one.began
    return seconds


@dataclass(frozen=True)
class Loss:
    """Steps that a task made again, after one of its attempts was over; and how many an interval holds there."""

    task: str
    steps: int
    of_an_interval: float


def losses(events: Sequence[Event], interval_seconds: float) -> list[Loss]:
    """What each attempt that was not the first began behind those before it.

    A kill costs the work since the newest snapshot that landed, and snapshots land an interval apart at most: so no
    more steps than an interval has room for, at the fastest pace at which the fold was ever seen to train (or any fold
    of the run, where it was lost before its pace was seen), and one that was under way.
    """
    anyones = min((pace for one in attempts(events) if (pace := _step_seconds(reports(events, one)))), default=0.0)
    furthest: dict[str, int] = {}
    fastest: dict[str, float] = {}
    found = []
    for one in attempts(events):
        told = reports(events, one)
        if not told:
            continue
        if one.task in furthest:
            pace = fastest.get(one.task) or anyones
            room = interval_seconds / pace + 1 if pace else float("inf")
            found.append(Loss(one.task, max(0, furthest[one.task] - told[0]["step"]), room))
        furthest[one.task] = max(furthest.get(one.task, 0), *(report["step"] for report in told))
        paces = [_step_seconds(told)] + ([fastest[one.task]] if fastest.get(one.task) else [])
        fastest[one.task] = min((pace for pace in paces if pace), default=0.0)
    return found


def _step_seconds(told: Sequence[Event]) -> float:
    """The least seconds of a step in one attempt, over some epochs: reports come a moment late, one after the other."""
    over = 4
    ended = [report for before, report in itertools.pairwise(told) if report["epoch"] > before["epoch"]]
    pairs = [(a, b) for a, b in zip(ended, ended[over:], strict=False) if b["at"] > a["at"]]
    return min(((b["at"] - a["at"]) / (b["step"] - a["step"]) for a, b in pairs), default=0.0)


def done_again(events: Sequence[Event]) -> list[str]:
    """Tasks that were started, or ended well, although they were done: none, or an orphan was adopted."""
    done: set[str] = set()
    again = []
    for event in events:
        match event:
            case {"event": "TaskEnded", "outcome": {"failure": None, "task": task}}:
                again += [task] if task in done else []
                done.add(task)
            case {"event": "ResultFound", "task": task}:
                done.add(task)
            case {"event": "Start", "task": task} if task in done:
                again.append(task)
    return again


def given_up_and_heard(events: Sequence[Event]) -> list[str]:
    """Tasks of which an attempt was listened to after its machine had been missed: none, or an orphan was adopted."""
    at_work: dict[tuple[str, int], str] = {}
    orphans: set[tuple[str, int]] = set()
    heard = []
    for event in events:
        match event:
            case {"event": "RunBegan"}:
                at_work, orphans = {}, set()  # the next coordinator numbers attempts anew
            case {"event": "Start", "task": task, "attempt": attempt, "machine": machine}:
                at_work[task, attempt] = machine
            case {"event": "MachineCut" | "MachineLeft", "machine": machine}:
                orphans |= {key for key, where in at_work.items() if where == machine}
            case {"event": "TaskEnded", "outcome": {"task": task, "attempt": attempt}}:
                heard += [task] if (task, attempt) in orphans else []
                at_work.pop((task, attempt), None)
    return heard


def missed(machine: str, events: Sequence[Event]) -> Event | None:
    """The event by which a machine is missed."""
    kinds = ("MachineCut", "MachineLeft")
    return next((one for one in events if one["event"] in kinds and one["machine"] == machine), None)


def ended_badly(events: Sequence[Event]) -> bool:
    """Whether an attempt ended by a fault."""
    return any(end["failure"] not in (None, "stopped") for end in ends(events))


def joined(events: Sequence[Event]) -> list[str]:
    """Names of the machines that joined, in order."""
    return [event["machine"] for event in events if event["event"] == "MachineJoined"]
