"""A run as numbers over time, for whoever draws curves of it: how far each fold is, what each machine does. Pure.

`Metrics` is a `drive.Watch`. Gauges are set anew every few seconds, and only for what is: those of a fold that has
ended are set no more, and Ray forgets what nobody set for half a minute.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from coordinator.entries import Attempt
from coordinator.events import (
    Event,
    Kill,
    MachineCut,
    MachineJoined,
    MachineLeft,
    Migrate,
    Progressed,
    Start,
    TaskEnded,
    Tick,
)
from coordinator.ledger import Ledger
from workers.tasks import Progress, TrainTask

SET_SECONDS = 5.0  # between two settings of a gauge: Ray takes them up every ten
STATES = ("alive", "draining", "quarantine", "lost")


@dataclass(frozen=True)
class Metric:
    """What is measured: its name, the words for it, and what tells one series from another."""

    name: str
    says: str
    tags: tuple[str, ...]


class Series(Protocol):
    """Where numbers go."""

    def set(self, gauge: Metric, value: float, tags: Mapping[str, str]) -> None: ...

    def count(self, counter: Metric, tags: Mapping[str, str]) -> None:
        """One more."""


_FOLD, _MACHINE, _CARD = ("run", "fold", "machine"), ("run", "machine"), ("run", "machine", "card")
LOSS = Metric("foldfleet_fold_loss", "Training loss of a running fold", _FOLD)
MEAN_AP = Metric("foldfleet_fold_mean_ap", "Mean AP on the held-out photos after the last finished epoch", _FOLD)
IMAGES = Metric("foldfleet_fold_images_per_second", "Images that a running fold trains on in a second", _FOLD)
EPOCHS = Metric("foldfleet_fold_epochs_done", "Epochs that a running fold has finished", _FOLD)
STEPS = Metric("foldfleet_fold_steps_done", "Optimizer steps that a running fold has finished", _FOLD)
BEST_EPOCH = Metric("foldfleet_fold_best_epoch", "The epoch with the best validation so far, counted from 1", _FOLD)
SECONDS_LEFT = Metric(
    "foldfleet_fold_seconds_left", "Seconds until a running fold is done, by its own reckoning", _FOLD
)
STATE = Metric("foldfleet_machine_state", "1 for the state that a machine is in", (*_MACHINE, "state"))
TASKS = Metric("foldfleet_machine_tasks_running", "Folds and other tasks that run on a machine", _MACHINE)
MEMORY = Metric("foldfleet_machine_gpu_memory_used_bytes", "Memory in use on a card that a fold runs on", _CARD)
WARMTH = Metric("foldfleet_machine_gpu_temperature_celsius", "Temperature of a card that a fold runs on", _CARD)
ENDS = Metric("foldfleet_attempts_ended", "Attempts at folds and other tasks, by how they ended", (*_FOLD, "ending"))
COMMITS = Metric("foldfleet_commits", "Commits of running folds", _FOLD)
MOVES = Metric("foldfleet_moves", "Folds asked to move to a machine", _FOLD)
LOSSES = Metric("foldfleet_machine_losses", "How often a machine went out of reach", _MACHINE)
GAUGES = (LOSS, MEAN_AP, IMAGES, EPOCHS, STEPS, BEST_EPOCH, SECONDS_LEFT, STATE, TASKS, MEMORY, WARMTH)
COUNTERS = (ENDS, COMMITS, MOVES, LOSSES)


class Metrics:
    """Tells `series` of one run."""

    def __init__(self, run: str, series: Series) -> None:
        self._run, self._series = run, series
        self._newest: dict[str, Progress] = {}  # the ledger does not hear of every report
        self._running: dict[str, Attempt] = {}
        self._lost: set[str] = set()
        self._set_at = -math.inf

    def __call__(self, event: Event, ledger: Ledger) -> None:
        match event:
            case Progressed(progress):
                self._reported(progress, ledger)
            case Start(task):
                self._running[task] = ledger.running[task]
            case Migrate(task, _, machine):
                self._series.count(MOVES, self._tags(ledger, task, machine))
            case MachineJoined(machine):
                self._lost.discard(machine)
            case MachineCut(machine):
                self._lost.add(machine)
                self._series.count(LOSSES, {"run": self._run, "machine": machine})
            case Tick() if ledger.now - self._set_at >= SET_SECONDS:
                self._set_at = ledger.now
                self._set(ledger)
        if isinstance(event, TaskEnded | Kill | MachineLeft | MachineCut):
            self._count_ends(ledger)

    def _reported(self, progress: Progress, ledger: Ledger) -> None:
        attempt = ledger.running.get(progress.task)
        if attempt is None or attempt.number != progress.attempt:
            return  # from an attempt that counts no more
        self._newest[progress.task] = progress
        if progress.commit is not None:
            self._series.count(COMMITS, self._tags(ledger, progress.task, attempt.machine))

    def _count_ends(self, ledger: Ledger) -> None:
        """Attempts also end with their machine, and by being killed: then nobody tells of each."""
        for task, attempt in list(self._running.items()):
            if attempt.outcome is not None:
                del self._running[task]
                self._newest.pop(task, None)
                ending = str(attempt.outcome.failure or "done")
                self._series.count(ENDS, {**self._tags(ledger, task, attempt.machine), "ending": ending})

    def _set(self, ledger: Ledger) -> None:
        for task, attempt in self._running.items():
            progress = self._newest.get(task)
            if progress is not None:
                self._set_fold(ledger, task, attempt.machine, progress)
        busy = Counter(attempt.machine for attempt in self._running.values())
        for machine, state in self._machines(ledger):
            tags = {"run": self._run, "machine": machine}
            self._series.set(TASKS, busy[machine], tags)
            for other in STATES:  # set to 0 at once: what is not set any more is shown for a while
                self._series.set(STATE, float(other == state), {**tags, "state": other})

    def _set_fold(self, ledger: Ledger, task: str, machine: str, progress: Progress) -> None:
        trains = isinstance(ledger.entries[task].task, TrainTask) and progress.steps > 0
        numbers = {
            LOSS: progress.loss,
            MEAN_AP: progress.mean_ap,
            IMAGES: progress.images_per_second,
            EPOCHS: progress.epoch,
            STEPS: progress.step,
            BEST_EPOCH: progress.best_epoch,
            SECONDS_LEFT: progress.seconds_left,
        }
        for gauge, number in numbers.items():
            if trains and number is not None:
                self._series.set(gauge, number, self._tags(ledger, task, machine))
        tags = {"run": self._run, "machine": machine, "card": str(progress.card)}
        if progress.gpu_memory_gb is not None:
            self._series.set(MEMORY, progress.gpu_memory_gb * 1e9, tags)
        if progress.temperature_celsius is not None:
            self._series.set(WARMTH, progress.temperature_celsius, tags)

    def _machines(self, ledger: Ledger) -> Iterator[tuple[str, str]]:
        """Machines and their states. The driver itself is none."""
        for machine, host in ledger.slots.hosts.items():
            if TrainTask.kind in host.joined.kinds:
                shut = "quarantine" if machine in ledger.slots.quarantine else "alive"
                yield machine, shut if host.draining_until is None else "draining"
        yield from ((machine, "lost") for machine in self._lost)

    def _tags(self, ledger: Ledger, task: str, machine: str) -> dict[str, str]:
        return {"run": self._run, "fold": ledger.entries[task].task.name, "machine": machine}
