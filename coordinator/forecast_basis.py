"""What a forecast goes by: machines and their speeds, seconds of an epoch, how far folds are, how they may end. Pure.

A journal knows it best: what was measured while a run went on. Else it is given, or measured on one machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.estimate import Estimates, work_key
from coordinator.events import (
    Event,
    Kill,
    MachineCut,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Progressed,
    RunBegan,
    Start,
    TaskEnded,
)
from coordinator.graph import Graph
from coordinator.scenario import SEARCH, FoldTruth, MachineModel
from shared_store.errors import UserError
from workers.tasks import Failure, Outcome, TrainTask

Chance = Callable[[], float]
"""Gives the next random number, evenly spread from 0 to below 1."""

SHORT_SECONDS = 5.0
_NAME = r"(?P<name>[A-Za-z0-9][\w.-]*)"
_MACHINE = re.compile(
    _NAME + r":(?P<speed>\d+(\.\d+)?)(:(?P<memory>\d+(\.\d+)?)gb)?(:(?P<slots>[1-9]\d*)slots?)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Basis:
    """Machines without the driver, and what work takes, in seconds at speed 1. `said`: where all this is from."""

    machines: tuple[MachineModel, ...]
    epoch_seconds: Mapping[str, float]  # by train task
    move_seconds: float
    said: str


@dataclass(frozen=True)
class Standing:
    """What the store holds of a run already."""

    done: frozenset[str] = frozenset()
    epochs: Mapping[str, int] = field(default_factory=dict)  # by task that has begun: epochs that are committed
    last_epochs: Mapping[str, Sequence[int]] = field(default_factory=dict)  # by kind of work: what folds ended with


def machines_of(text: str) -> tuple[MachineModel, ...]:
    """The machines of a text like `2070s:1.15,1060:0.5:6gb,old:0.2:2slots`. UserError says what one must look like."""
    found: dict[str, MachineModel] = {}
    for word in text.replace(" ", "").split(","):
        match = _MACHINE.fullmatch(word)
        if match is None or float(match["speed"]) <= 0 or match["name"] in found:
            why = "is there twice" if match is not None and match["name"] in found else "is not understood"
            mend = "write NAME:SPEED, NAME:SPEED:6gb or NAME:SPEED:6gb:2slots, with commas between machines"
            raise UserError(f"the machine {word!r} {why}", where="--machines", mend=mend)
        speed, memory = float(match["speed"]), match["memory"]
        found[match["name"]] = MachineModel(
            match["name"],
            speed,
            int(match["slots"] or 1),
            memory_gb=None if memory is None else float(memory),
            told_speed=speed,
        )
    return tuple(found.values())


def learned(graph: Graph, events: Iterable[tuple[float, Event]]) -> Basis | None:
    """What the newest run in a journal that timed an epoch of these tasks measured; None without any.

    Its machines are those that were there at its end.
    """
    runs: list[_Watched] = []
    for at, event in events:
        if isinstance(event, RunBegan):
            runs.append(_Watched(graph, set(event.tasks) <= set(graph.tasks)))
        elif runs and runs[-1].known:
            runs[-1].take(at, event)
    newest = next((run for run in reversed(runs) if run.timed and run.machines), None)
    return None if newest is None else newest.basis()


def draw(graph: Graph, standing: Standing, chance: Chance) -> dict[str, FoldTruth]:
    """How each fold may go, drawn: it ends as one of its kind that is done did, else anywhere from patience on."""
    truths: dict[str, FoldTruth] = {}
    for name, task in graph.tasks.items():
        if not isinstance(task, TrainTask):
            continue
        epochs, patience = task.recipe["epochs"], task.recipe["patience"]
        begun, known = standing.epochs.get(name, 0), standing.last_epochs.get(work_key(task), ())
        if patience is None or patience >= epochs:
            last, best = epochs, epochs
        else:
            last = known[int(chance() * len(known))] if known else patience + int(chance() * (epochs - patience + 1))
            last = min(epochs, max(last, begun, 1))
            best = last - patience if last < epochs else last - int(chance() * (patience + 1))
        # a best of t tries is the best of all so far with chance 1 / t
        better = [epoch for epoch in range(1, best) if chance() < 1 / epoch]
        truths[name] = FoldTruth((*better, *([best] if best > 0 else [])), last)
    return truths


class _Watched:
    """One run as its journal tells it."""

    def __init__(self, graph: Graph, known: bool) -> None:
        self.known = known
        self.machines: dict[str, MachineJoined] = {}
        self.timed: set[str] = set()  # machines on which an epoch ended
        self._graph, self._estimates = graph, Estimates(graph)
        self._running: dict[str, Start] = {}
        self._epochs: dict[str, int] = {}

    def take(self, at: float, event: Event) -> None:
        match event:
            case MachineJoined(machine, kinds=kinds) if tuple(kinds) != SEARCH:
                self.machines[machine] = event
                self._estimates.joined(event)
            case MachineLeft(machine) | MachineCut(machine):
                self.machines.pop(machine, None)
                for task in [task for task, start in self._running.items() if start.machine == machine]:
                    self._end(Outcome(task, self._running[task].attempt, Failure.LOST), at)
            case MachineProbed(machine, speed=speed):
                self._estimates.probed(machine, speed)
            case Start(task, machine):
                self._running[task] = event
                self._estimates.started(task, machine, at)
            case Progressed(progress) if self._is_running(progress.task, progress.attempt):
                if progress.epoch > self._epochs.setdefault(progress.task, progress.epoch):
                    self.timed.add(self._running[progress.task].machine)
                self._epochs[progress.task] = progress.epoch
                self._estimates.progressed(progress, at)
            case TaskEnded(outcome) if self._is_running(outcome.task, outcome.attempt):
                self._end(outcome, at)
            case Kill(task, attempt) if self._is_running(task, attempt):
                self._end(Outcome(task, attempt, Failure.HUNG), at)

    def basis(self) -> Basis:
        machines = []
        for name, joined in sorted(self.machines.items()):
            speed = self._estimates.speed(name)
            about = (joined.memory_gb, joined.system, joined.labels, speed)
            slots, kinds = joined.slots, joined.kinds
            machines.append(MachineModel(name, speed, slots, kinds, *about, gpu=joined.gpu, bits=joined.bits))
        seconds = {
            name: self._estimates.epoch_seconds(name, "").middle  # a machine of which nothing is known has speed 1
            for name, task in self._graph.tasks.items()
            if isinstance(task, TrainTask)
        }
        return Basis(
            tuple(machines), seconds, self._estimates.move_seconds(""), "as measured in this run's last command"
        )

    def _is_running(self, task: str, attempt: int) -> bool:
        return task in self._running and self._running[task].attempt == attempt

    def _end(self, outcome: Outcome, at: float) -> None:
        del self._running[outcome.task]
        self._epochs.pop(outcome.task, None)
        self._estimates.ended(outcome.task, outcome, at)
