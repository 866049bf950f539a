"""How long things take: epochs on each machine, epochs that are left, chains of work, moves. Pure.

The seconds of an epoch come from speeds.py, when a fold ends from early_stops.py, what a move costs from moves.py. Here
they are fed from the reports of running attempts and put together.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.early_stops import EarlyStops
from coordinator.events import MachineJoined
from coordinator.graph import Graph
from coordinator.moves import Moves
from coordinator.speeds import Interval, Speeds
from shared_store.records import canonical_json, sha256
from workers.tasks import UNCOUNTED, Failure, Outcome, Progress, Task, TrainTask

__all__ = ["Estimates", "Interval", "work_key"]

_FIRST_EPOCH_SECONDS = 600.0
_LEAST_SHARE = 0.05  # of an epoch, before its seconds are guessed from its steps
_TRAINS = "train-"
_CHANGED = 0.1  # a share by which the work of a recipe must be off before all levels are reckoned anew


@dataclass
class _Watched:
    """A running attempt: where it runs, and the position (in epochs) from which its next epoch is timed."""

    machine: str
    started: float
    left: float  # when it was asked to leave where it was before; else when it started
    position: float | None = None
    at: float = 0.0


def work_key(task: Task) -> str:
    """What tasks have in common whose epochs cost the same: recipe (seed apart) and composites; else the kind."""
    if not isinstance(task, TrainTask):
        return task.kind
    recipe = {name: value for name, value in task.recipe.items() if name not in UNCOUNTED | {"seed"}}
    return f"{_TRAINS}{sha256(canonical_json([recipe, task.composites, task.snapshot]))[:12]}"


class Estimates:
    """What was measured in this run, fed by the ledger fact by fact. Positions of tasks count in epochs.

    A level counts in the graph's units of cost. `version` goes up when the levels of all tasks have changed.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.keys = {name: work_key(task) for name, task in graph.tasks.items()}
        self.epochs = {name: _epochs(task) for name, task in graph.tasks.items()}
        self.stops = EarlyStops(graph, self.keys)
        self.moves = Moves()
        self.speeds = Speeds()
        self.version = 0
        self._unit = _FIRST_EPOCH_SECONDS  # what one unit of the graph's cost takes at speed 1
        own = {name: graph.weights[name] - self._most_behind(name, graph.weights) for name in graph.tasks}
        self._first_cost = {key: own[name] / self.epochs[name] for name, key in self.keys.items()}
        self._cost = dict(self._first_cost)  # of an epoch, by kind of work
        self._behind: dict[str, float] = {}  # the longest chain of work after a task
        self._whole: dict[str, float] = {}  # the same with the task
        self._watched: dict[str, _Watched] = {}
        self._position: dict[str, float] = {}
        self._told: dict[str, float] = {}  # the same as last reported, although some of it may be lost since
        self._reckon_behind()

    def joined(self, machine: MachineJoined) -> None:
        """A machine comes, with what its probe measured."""
        self.probed(machine.machine, machine.speed)
        self.moves.linked(machine.machine, machine.link_mb_per_second)

    def probed(self, machine: str, speed: float | None) -> None:
        """A probe measured the speed of a machine; what its epochs said since they were first timed comes before it."""
        if speed is not None and speed > 0:
            self.speeds.probed(machine, speed)

    def started(self, task: str, machine: str, at: float, asked: float | None = None) -> None:
        """An attempt begins at `at` seconds; `asked`: when the one before was asked to leave for this place."""
        self._watched[task] = _Watched(machine, at, left=at if asked is None else asked)

    def progressed(self, progress: Progress, at: float) -> None:
        """A report of the present attempt came in at `at` seconds."""
        task, watched = progress.task, self._watched[progress.task]
        position = _position(progress)
        self.stops.progressed(progress)
        if watched.position is None:
            before = self._told.get(task, 0.0)
            if before > 0:
                gone = max(0.0, position - before) * self.epoch_seconds(task, watched.machine).middle
                self.moves.took(task, watched.machine, at - watched.left - gone)
            self.moves.ran(task, watched.machine)
            watched.position, watched.at = position, at
        elif position > watched.position and at > watched.at:
            self._timed(task, watched, position, at)
        self._position[task] = self._told[task] = position

    def ended(self, task: str, outcome: Outcome, at: float) -> None:
        """The present attempt is over, at `at` seconds."""
        watched = self._watched.pop(task)
        self.stops.ended(task, outcome.failure is None)
        key = self.keys[task]
        if outcome.failure is None and not isinstance(self._graph.tasks[task], TrainTask):
            self._measured(key, watched.machine, at - watched.started)
        if outcome.failure not in (None, Failure.STOPPED):
            # What came after the last whole epoch may be lost
            self._position[task] = float(int(self._position.get(task, 0.0)))

    @property
    def timed(self) -> bool:
        """Whether any epoch was timed yet."""
        return any(key.startswith(_TRAINS) for key in self.speeds.work)

    def measured(self, task: str) -> bool:
        """Whether work of this kind was timed anywhere."""
        return self.keys[task] in self.speeds.work

    def speed(self, machine: str) -> float:
        """Of one slot, relative to the others; what is not known is as fast as the middle of the others, or 1."""
        return self.speeds.speed(machine)

    def epoch_seconds(self, task: str, machine: str) -> Interval:
        """One epoch of `task` on `machine`; for what does not train, the whole task."""
        key = self.keys[task]
        return self.speeds.seconds(key, machine, unknown=self._cost[key] * self._unit)

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
        return self.speeds.throttled(machine)

    def _timed(self, task: str, watched: _Watched, position: float, at: float) -> None:
        """Time whole epochs; before the first one has ended, what there is of it."""
        assert watched.position is not None
        key, share = self.keys[task], position - watched.position
        if share >= 1:
            self._measured(key, watched.machine, (at - watched.at) / share)
            watched.position, watched.at = position, at
        elif share >= _LEAST_SHARE:
            self.speeds.guessed(key, watched.machine, (at - watched.at) / share)

    def _measured(self, key: str, machine: str, seconds: float) -> None:
        if seconds > 0 and self.speeds.timed(key, machine, seconds, key.startswith(_TRAINS)):
            self._check_costs()

    def _check_costs(self) -> None:
        """Reckon all levels anew where the measured work of one kind, beside the others', is not what was thought."""
        works = self.speeds.work
        trained = [key for key in works if key.startswith(_TRAINS)] or list(works)
        self._unit = statistics.median(works[key] / self._first_cost[key] for key in trained)
        costs = {key: work / self._unit for key, work in works.items()}
        if any(abs(costs[key] / self._cost[key] - 1) > _CHANGED for key in trained):
            self._cost.update(costs)
            self._reckon_behind()

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
