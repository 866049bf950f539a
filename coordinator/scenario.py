"""What a simulation plays: machines, what becomes of them, and the truth about all tasks, unseen by coordinators. Pure.

Everything is drawn before it begins, so that bounds can be reckoned from it and a run repeats to the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coordinator.graph import Graph
from coordinator.retry import Rules
from workers.tasks import BundleTask, LabelTask, PredictTask, SearchTask, TrainTask

WORK = tuple(kind.kind for kind in (TrainTask, LabelTask, BundleTask, PredictTask))
SEARCH = (SearchTask.kind,)


class Ending(StrEnum):
    """How a machine goes away."""

    DEATH = "death"  # what ran there is gone, and the coordinator is told at once
    CUT = "cut"  # out of reach, and what runs there goes on
    PREEMPTION = "preemption"  # a death that was announced


@dataclass(frozen=True)
class Outage:
    """A machine is away from `down` to `up` seconds. `notice`: seconds that a preemption is announced before."""

    down: float
    up: float
    ending: Ending = Ending.DEATH
    notice: float = 0.0


@dataclass(frozen=True)
class MachineModel:
    """A machine as it is. `told_speed` is what its probe says, which may be wrong; None: it is not probed."""

    name: str
    speed: float = 1.0
    slots: int = 1
    kinds: tuple[str, ...] = WORK
    memory_gb: float | None = None
    system: str = "linux"
    labels: tuple[str, ...] = ()
    told_speed: float | None = None
    told_memory_gb: float | None = None
    link_mb_per_second: float | None = None
    outages: tuple[Outage, ...] = ()
    gpu: bool = True  # its memory is a card's
    bits: int | None = None  # as in MachineJoined


DRIVER = MachineModel("driver", kinds=SEARCH)


@dataclass(frozen=True)
class FoldTruth:
    """How a fold will go: the epochs in which its validation improves, and the one that it ends with."""

    improvements: tuple[int, ...]
    last_epoch: int


@dataclass(frozen=True)
class Scenario:
    """All that decides a simulation. Seconds of an epoch, and of what does not train, are those at speed 1."""

    graph: Graph
    machines: tuple[MachineModel, ...]
    truths: Mapping[str, FoldTruth]
    epoch_seconds: Mapping[str, float] | float = 600.0  # by task, or of all
    short_seconds: float = 1.0  # of a task that does not train
    commit_share: float = 0.25  # of an epoch, from commit to commit
    move_seconds: float = 90.0  # from the start of an attempt to its first step, where the last commit is elsewhere's
    restart_seconds: float = 0.0  # the same where the last commit was made
    noise: float = 0.0  # standard deviation of the logarithm of an epoch's seconds
    rules: Rules = field(default_factory=Rules)
    seed: int = 0
    horizon: float = 1e9  # the simulation ends then, whatever has not ended
