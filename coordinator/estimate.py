"""How long things take: epochs on each machine, epochs that are left, moves from one machine to another. Pure.

A machine's speed comes from its probe first and from what it did since. The time of an epoch is the work of its
recipe over the speed of the machine; work and speed are learned together from every epoch that is reported.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.events import MachineJoined
from shared_store.records import canonical_json, sha256
from workers.tasks import UNCOUNTED, Outcome, Progress, Task, TrainTask

_KEPT = 9  # newest measurements of a pair: a median of as many forgets a slow hour
_FIRST_MOVE_SECONDS = 60.0
_FIRST_EPOCH_SECONDS = 600.0


@dataclass(frozen=True)
class Interval:
    """A number that is not known exactly: what it is likely to be, and between what it mostly lies."""

    low: float
    middle: float
    high: float


@dataclass
class _Watched:
    """A running attempt as far as it was heard of."""

    machine: str
    started: float
    epoch: int | None = None
    at: float = 0.0


def work_key(task: Task) -> str:
    """What tasks have in common whose epochs cost the same: recipe (seed apart) and composites; else the kind."""
    if not isinstance(task, TrainTask):
        return task.kind
    recipe = {name: value for name, value in task.recipe.items() if name not in UNCOUNTED | {"seed"}}
    return f"train-{sha256(canonical_json([recipe, task.composites, task.snapshot]))[:12]}"


class Estimates:
    """What was measured in this run, fed by the ledger fact by fact."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.keys = {name: work_key(task) for name, task in tasks.items()}
        self.epochs = {name: _epochs(task) for name, task in tasks.items()}
        self._patience = {name: _patience(task) for name, task in tasks.items()}
        self._probed: dict[str, float] = {}
        self._speeds: dict[str, float] = {}
        self._work: dict[str, float] = {}
        self._pairs: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._moves: deque[float] = deque(maxlen=_KEPT)
        self._watched: dict[str, _Watched] = {}
        self._epoch: dict[str, int] = {}
        self._best: dict[str, int] = {}

    def joined(self, machine: MachineJoined) -> None:
        """A machine comes, with what its probe measured."""
        if machine.speed is not None:
            self._probed[machine.machine] = machine.speed

    def probed(self, machine: str, speed: float | None) -> None:
        if speed is not None:
            self._probed[machine] = speed

    def started(self, task: str, machine: str, at: float) -> None:
        """An attempt begins at `at` seconds."""
        self._watched[task] = _Watched(machine, at)

    def progressed(self, progress: Progress, at: float) -> None:
        """A report of the present attempt came in at `at` seconds."""
        watched = self._watched[progress.task]
        if watched.epoch is None:
            if progress.epoch > 0 and self._epoch.get(progress.task, 0) >= progress.epoch:
                self._moves.append(at - watched.started)
        elif progress.epoch > watched.epoch and at > watched.at:
            self._measured(progress.task, watched.machine, (at - watched.at) / (progress.epoch - watched.epoch))
        if watched.epoch is None or (progress.epoch > watched.epoch and at > watched.at):
            watched.epoch, watched.at = progress.epoch, at
        self._epoch[progress.task] = max(progress.epoch, self._epoch.get(progress.task, 0))
        if progress.best_epoch is not None:
            self._best[progress.task] = progress.best_epoch

    def ended(self, task: str, outcome: Outcome, at: float) -> None:
        """The present attempt is over."""
        self._watched.pop(task, None)

    def speed(self, machine: str) -> float:
        """Of one slot, relative to the others; 1 while nothing is known."""
        return self._speeds.get(machine) or self._probed.get(machine, 1.0)

    def epoch_seconds(self, task: str, machine: str) -> Interval:
        """One epoch of `task` on `machine`; for what does not train, the whole task."""
        key = self.keys[task]
        seconds = self._pairs.get((key, machine))
        if seconds:
            middle = statistics.median(seconds)
            return Interval(min(seconds), middle, max(seconds))
        middle = self._work.get(key, _FIRST_EPOCH_SECONDS) / self.speed(machine)
        return Interval(middle / 2, middle, middle * 2)

    def remaining_epochs(self, task: str) -> Interval:
        """Epochs until `task` ends: between the earliest early stop that is still possible and the recipe's number."""
        done, most = self._epoch.get(task, 0), self.epochs[task]
        patience = self._patience[task]
        least = most if patience is None else min(most, self._best.get(task, 0) + patience)
        low, high = max(0.0, least - done), max(0.0, most - done)
        return Interval(low, (low + high) / 2, high)

    def move_seconds(self, machine: str) -> float:
        """From the end of an attempt to the first new step of the next one on `machine`."""
        return statistics.median(self._moves) if self._moves else _FIRST_MOVE_SECONDS

    def _measured(self, task: str, machine: str, seconds: float) -> None:
        key = self.keys[task]
        self._pairs[key, machine].append(seconds)
        measured = {m: statistics.median(times) for (k, m), times in self._pairs.items() if k == key}
        self._work[key] = statistics.median(s * self.speed(m) for m, s in measured.items())
        self._speeds[machine] = self._work[key] / measured[machine]


def _epochs(task: Task) -> int:
    return int(task.recipe["epochs"]) if isinstance(task, TrainTask) else 1


def _patience(task: Task) -> int | None:
    return task.recipe["patience"] if isinstance(task, TrainTask) else None
