"""How long things take: epochs on each machine, epochs that are left, moves from one machine to another. Pure.

The seconds of an epoch are the work of its recipe over the speed of the machine. A probe says the speed first; then
work and speed are learned together, as medians of what the newest epochs took, so that one odd epoch changes little.
What was measured for just this recipe on just this machine comes before either.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from coordinator.early_stops import EarlyStops
from coordinator.events import MachineJoined
from coordinator.graph import Graph
from coordinator.moves import Moves
from shared_store.records import canonical_json, sha256
from workers.tasks import UNCOUNTED, Failure, Outcome, Progress, Task, TrainTask

_KEPT = 9  # newest epochs of a recipe on a machine: their median forgets a slow hour
_KEPT_OF_ALL = 31  # newest epochs of a recipe on whatever machine
_RECENT = 3  # epochs that say whether a machine is slower now than it was
_THROTTLED = 0.75
_FIRST_EPOCH_SECONDS = 600.0
_LEAST_SHARE = 0.05  # of an epoch, before its seconds are guessed from its steps
_CHANGED = 0.1  # a share by which the work of a recipe must be off before all levels are reckoned anew


class Interval(NamedTuple):
    """A number that is not known exactly: what it is likely to be, and between what it mostly lies."""

    low: float
    middle: float
    high: float


@dataclass
class _Watched:
    """A running attempt: where it runs, and the position (in epochs) from which its next epoch is timed."""

    machine: str
    started: float
    position: float | None = None
    at: float = 0.0


def work_key(task: Task) -> str:
    """What tasks have in common whose epochs cost the same: recipe (seed apart) and composites; else the kind."""
    if not isinstance(task, TrainTask):
        return task.kind
    recipe = {name: value for name, value in task.recipe.items() if name not in UNCOUNTED | {"seed"}}
    return f"train-{sha256(canonical_json([recipe, task.composites, task.snapshot]))[:12]}"


class Estimates:
    """What was measured in this run, fed by the ledger fact by fact. Positions of tasks count in epochs.

    A level counts in the graph's units of cost; `unit_seconds` is what one takes at speed 1. `version` goes up when the
    levels of all tasks have changed.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.keys = {name: work_key(task) for name, task in graph.tasks.items()}
        self.epochs = {name: _epochs(task) for name, task in graph.tasks.items()}
        self.stops = EarlyStops(graph, self.keys)
        self.moves = Moves()
        self.version = 0
        self._unit = _FIRST_EPOCH_SECONDS
        own = {name: graph.weights[name] - self._most_behind(name, graph.weights) for name in graph.tasks}
        self._first_cost = {key: own[name] / self.epochs[name] for name, key in self.keys.items()}
        self._cost = dict(self._first_cost)  # of an epoch, by kind of work
        self._behind: dict[str, float] = {}  # the longest chain of work after a task
        self._whole: dict[str, float] = {}  # the same with the task
        self._probed: dict[str, float] = {}
        self._speeds: dict[str, float] = {}
        self._ratios: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._works: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT_OF_ALL))
        self._work: dict[str, float] = {}
        self._pairs: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._typical: dict[tuple[str, str], Interval] = {}
        self._best_typical: dict[tuple[str, str], float] = {}
        self._watched: dict[str, _Watched] = {}
        self._position: dict[str, float] = {}
        self._reckon_behind()

    @property
    def unit_seconds(self) -> float:
        """Seconds that one unit of the graph's cost takes at speed 1."""
        return self._unit

    def joined(self, machine: MachineJoined) -> None:
        """A machine comes, with what its probe measured."""
        self.probed(machine.machine, machine.speed)
        self.moves.linked(machine.machine, machine.link_mb_per_second)

    def probed(self, machine: str, speed: float | None) -> None:
        """A probe measured the speed of a machine; what its epochs said since they were first timed comes before it."""
        if speed is not None and speed > 0:
            self._probed[machine] = speed

    def started(self, task: str, machine: str, at: float) -> None:
        """An attempt begins at `at` seconds."""
        self._watched[task] = _Watched(machine, at)

    def progressed(self, progress: Progress, at: float) -> None:
        """A report of the present attempt came in at `at` seconds."""
        task, watched = progress.task, self._watched[progress.task]
        position = _position(progress)
        self.stops.progressed(progress)
        if watched.position is None:
            before = self._position.get(task, 0.0)
            if before > 0:
                gone = max(0.0, position - before) * self.epoch_seconds(task, watched.machine).middle
                self.moves.took(task, watched.machine, at - watched.started - gone)
            self.moves.ran(task, watched.machine)
            watched.position, watched.at = position, at
        elif position > watched.position and at > watched.at:
            self._timed(task, watched, position, at)
        self._position[task] = position

    def ended(self, task: str, outcome: Outcome, at: float) -> None:
        """The present attempt is over, at `at` seconds."""
        watched = self._watched.pop(task)
        self.stops.ended(task, outcome.failure is None)
        key = self.keys[task]
        if outcome.failure is None and not isinstance(self._graph.tasks[task], TrainTask):
            self._measured(key, watched.machine, at - watched.started)
        if outcome.failure not in (None, Failure.STOPPED):
            self._position[task] = float(int(self._position.get(task, 0.0)))  # what came after the last epoch may be lost

    def speed(self, machine: str) -> float:
        """Of one slot, relative to the others; 1 while nothing is known."""
        return self._speeds.get(machine) or self._probed.get(machine, 1.0)

    def epoch_seconds(self, task: str, machine: str) -> Interval:
        """One epoch of `task` on `machine`; for what does not train, the whole task."""
        key = self.keys[task]
        typical = self._typical.get((key, machine))
        if typical is not None:
            return typical
        work = self._work.get(key)
        middle = (self._cost[key] * self._unit if work is None else work) / self.speed(machine)
        return Interval(middle / 2, middle, middle * 2)

    def remaining_epochs(self, task: str) -> Interval:
        """Epochs until `task` ends: between the earliest early stop that is still possible and the recipe's number."""
        done = self._position.get(task, 0.0)
        low, middle, high = self.stops.last_epoch(task)
        return Interval(max(0.0, low - done), max(0.0, middle - done), max(0.0, high - done))

    def remaining_seconds(self, task: str, machine: str) -> Interval:
        """From now to the end of `task`, were it to go on on `machine` without a move."""
        left, each = self.remaining_epochs(task), self.epoch_seconds(task, machine)
        return Interval(left.low * each.low, left.middle * each.middle, left.high * each.high)

    def level(self, task: str) -> float:
        """What remains of `task` and of the longest chain behind it, in units of cost."""
        left = max(0.0, self.stops.last_epoch(task)[1] - self._position.get(task, 0.0))
        return left * self._cost[self.keys[task]] + self._behind[task]

    def seconds(self, level: float, machine: str) -> float:
        """A level, or a difference of levels, as seconds on `machine`."""
        return level * self._unit / self.speed(machine)

    def move_seconds(self, machine: str) -> float:
        """What a move to `machine` costs: from the beginning of an attempt that resumes to its first new step."""
        return self.moves.seconds(machine)

    def throttled(self, machine: str) -> float | None:
        """How fast a machine is now, as a share of what it was at its best; None unless it is clearly slower."""
        shares = [
            self._best_typical[pair] / statistics.median(list(times)[-_RECENT:])
            for pair, times in self._pairs.items()
            if pair[1] == machine and len(times) >= 2 * _RECENT
        ]
        return min((share for share in shares if share < _THROTTLED), default=None)

    def _timed(self, task: str, watched: _Watched, position: float, at: float) -> None:
        """Time whole epochs; before the first one has ended, what there is of it."""
        assert watched.position is not None
        key, share = self.keys[task], position - watched.position
        if share >= 1:
            self._measured(key, watched.machine, (at - watched.at) / share)
            watched.position, watched.at = position, at
        elif share >= _LEAST_SHARE and not self._pairs.get((key, watched.machine)):
            seconds = (at - watched.at) / share
            self._typical[key, watched.machine] = Interval(seconds / 2, seconds, seconds * 2)

    def _measured(self, key: str, machine: str, seconds: float) -> None:
        if seconds <= 0:
            return
        times = self._pairs[key, machine]
        times.append(seconds)
        typical = Interval(min(times), statistics.median(times), max(times))
        self._typical[key, machine] = typical
        if len(times) >= _RECENT:
            best = self._best_typical.get((key, machine), typical.middle)
            self._best_typical[key, machine] = min(best, typical.middle)
        self._works[key].append(seconds * self.speed(machine))
        self._work[key] = statistics.median(self._works[key])
        self._ratios[machine].append(self._work[key] / seconds)
        self._speeds[machine] = statistics.median(self._ratios[machine])
        self._check_costs()

    def _check_costs(self) -> None:
        """Reckon all levels anew where the measured work of one kind, beside the others', is not what was thought."""
        self._unit = statistics.median(self._work[key] / self._first_cost[key] for key in self._trained())
        costs = {key: work / self._unit for key, work in self._work.items()}
        if any(abs(costs[key] / self._cost[key] - 1) > _CHANGED for key in self._trained()):
            self._cost.update(costs)
            self._reckon_behind()

    def _trained(self) -> list[str]:
        return [key for key in self._work if key.startswith("train-")] or list(self._work)

    def _reckon_behind(self) -> None:
        for name in reversed(self._graph.tasks):
            key, epochs = self.keys[name], self.epochs[name]
            behind = self._most_behind(name, self._whole)
            self._behind[name], self._whole[name] = behind, behind + epochs * self._cost[key]
        self.version += 1

    def _most_behind(self, task: str, whole: Mapping[str, float]) -> float:
        return max((whole[follower] for follower in self._graph.followers[task]), default=0.0)


def _position(progress: Progress) -> float:
    """Epochs that are finished, and the share of the present one."""
    if progress.steps > 0 and progress.epochs > 0:
        return max(float(progress.epoch), progress.step / progress.steps * progress.epochs)
    return float(progress.epoch)


def _epochs(task: Task) -> int:
    return int(task.recipe["epochs"]) if isinstance(task, TrainTask) else 1
