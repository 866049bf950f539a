"""All that goes wrong in a simulation, beside machines that go away: drawn before it begins. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Span = tuple[float, float]
"""From, to, in seconds."""


class Relief(StrEnum):
    """Why another coordinator takes over."""

    CRASH = "crash"  # the first is gone, and with it what it ran on machines that it could reach
    STOP = "stop"  # a person asked the first to stop
    CUT = "cut"  # the first is cut off from some machines, and goes on with the rest


@dataclass(frozen=True)
class Change:
    """Another coordinator begins `gap` seconds after `at`. A first one that is cut off `stays` for so long."""

    at: float
    how: Relief
    gap: float = 60.0
    stays: float = 0.0


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Chances are of each attempt, commit or piece of news."""

    memory_gb: Mapping[str, float] = field(default_factory=dict)  # by task: with a whole batch on the card
    smallest_share: float = 0.3  # of that memory, which one image takes
    bad: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)  # by machine: what begins there then crashes
    hot: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)  # by machine: it is at half its speed
    store_down: tuple[Span, ...] = ()
    landing_seconds: float = 0.0  # of a commit, from snapshot to store
    crash: float = 0.0
    nan: float = 0.0
    hang: float = 0.0
    lost_answer: float = 0.0  # the store did as asked, and whoever asked does not hear of it
    doubled: float = 0.0
    late: float = 0.0
    longest_delay: float = 300.0  # of late news
    unnoticed: float = 0.0  # longest time until coordinators are told that a machine went away
    clock: tuple[Span, ...] = ()  # (at, by): the coordinators' clock jumps
    changes: tuple[Change, ...] = ()
    tick_seconds: float = 60.0  # between turns in which nothing happened

    def is_store_down(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self.store_down)

    def is_bad(self, machine: str, now: float) -> bool:
        return any(begin <= now < end for begin, end in self.bad.get(machine, ()))

    def is_hot(self, machine: str, now: float) -> bool:
        return any(begin <= now < end for begin, end in self.hot.get(machine, ()))

    def clock_at(self, now: float) -> float:
        """What the coordinators' clock says."""
        return now + sum(by for at, by in self.clock if at <= now)
