"""How long a run took on a fleet, beside the least that it could have taken. No test in here.

By the run's own journal: what an epoch takes on each machine, how many epochs there were, when which machine was there.
The bound is that of preemptive schedules on uniform machines in which moving is free and starting takes no time
(Horvath, Lam, Sethi 1977), so 1.00 is out of reach.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.journal import Event, attempts, ends, reports


@dataclass(frozen=True)
class Makespan:
    """Seconds from the first fold's start to the last fold's end, and the least of any schedule."""

    seconds: float
    bound: float
    epoch_seconds: dict[str, float]  # by machine

    @property
    def ratio(self) -> float:
        return self.seconds / self.bound

    def __str__(self) -> str:
        machines = ", ".join(f"{machine} {seconds:.2f}" for machine, seconds in self.epoch_seconds.items())
        told = f"{self.seconds:.1f} s, lower bound {self.bound:.1f} s, ratio {self.ratio:.3f}"
        return f"{told}; seconds of an epoch: {machines}"


def makespan(events: Sequence[Event], teachers: int, epochs: int) -> Makespan:
    """Of a run with one coordinator, whose folds all train for `epochs`: as many teachers as students."""
    began = min(one.began for one in attempts(events))
    ended = max(end["at"] for end in ends(events) if end["task"].startswith("student"))
    each = epoch_seconds(events)
    there = {event["machine"]: event["at"] - began for event in events if event["event"] == "MachineJoined"}
    fleet = _Fleet({machine: (1 / seconds, there[machine]) for machine, seconds in each.items()})
    return Makespan(ended - began, _bound(fleet, teachers, float(epochs)), each)


def epoch_seconds(events: Sequence[Event]) -> dict[str, float]:
    """What an epoch takes on each machine, in the mean of all that ended there after another one."""
    took: dict[str, list[float]] = {}
    for one in attempts(events):
        told = reports(events, one)
        firsts = [report for before, report in itertools.pairwise(told) if report["epoch"] > before["epoch"]]
        for before, after in itertools.pairwise(firsts):
            took.setdefault(one.machine, []).append((after["at"] - before["at"]) / (after["epoch"] - before["epoch"]))
    return {machine: statistics.mean(seconds) for machine, seconds in sorted(took.items())}


def _bound(fleet: _Fleet, folds: int, epochs: float) -> float:
    """The larger of two bounds: all work on all machines; and the chain teachers -> labels -> students.

    A student waits for all teachers but one, which is its own. So all students but one, that whose teacher is the last,
    begin after every teacher has ended.
    """
    everything = fleet.end(0.0, 2 * folds, 2 * folds * epochs)
    taught = max(fleet.end(0.0, k, k * epochs) for k in range(1, folds + 1))
    return max(everything, *(fleet.end(taught, k, k * epochs) for k in range(1, folds)))


class _Fleet:
    """Machines by name: epochs a second, and when each was there."""

    def __init__(self, machines: dict[str, tuple[float, float]]) -> None:
        self._machines = machines

    def end(self, start: float, at_once: int, work: float) -> float:
        """When `work` epochs are done at the earliest, from `start` on, at most `at_once` folds at a time."""
        edges = sorted({start} | {there for _, there in self._machines.values() if there > start})
        for begin, finish in zip(edges, [*edges[1:], float("inf")], strict=True):
            speeds = sorted((speed for speed, there in self._machines.values() if there <= begin), reverse=True)
            rate = sum(speeds[:at_once])
            if rate * (finish - begin) >= work and rate:
                return begin + work / rate
            work -= rate * (finish - begin)
        raise AssertionError("no machine ever came")
