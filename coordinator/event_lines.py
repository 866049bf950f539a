"""The words for what happens in a run: a line for each event that is worth one. Pure."""

from __future__ import annotations

from coordinator.events import (
    Event,
    GiveUp,
    Kill,
    MachineCut,
    MachineLeft,
    Migrate,
    Progressed,
    ResultFound,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
)
from coordinator.ledger import Entry, Ledger
from coordinator.machine_lines import duration, machine_line, slower
from workers.tasks import Failure, Outcome, Progress


class EventLines:
    """Tells each epoch and commit once. Events are told right after the ledger took them in."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}  # epoch and commit last told, by task
        self._running: dict[str, str] = {}  # the machine of every running task

    def line(self, event: Event, ledger: Ledger) -> str:
        """The words for an event, or nothing."""
        words = self._words(event, ledger)
        match event:
            case Start(task, machine):
                self._running[task] = machine
            case TaskEnded(outcome) if outcome.task not in ledger.running:
                self._running.pop(outcome.task, None)
            case Kill(task):
                self._running.pop(task, None)
        return words

    def _words(self, event: Event, ledger: Ledger) -> str:
        match event:
            case Start():
                return _start(event, ledger.entries[event.task])
            case Progressed(progress):
                line = self._epoch_line(ledger.entries[progress.task].task.name, progress)
                return line and line + slower(progress.task, ledger)
            case Stop(task, _, why) | Kill(task, _, why) if why:
                told = "asked to stop" if isinstance(event, Stop) else "its process is ended"
                return f"{ledger.entries[task].task.name}: {told}, {why}"
            case Migrate(task, _, machine):
                return f"{ledger.entries[task].task.name}: commits and moves to {machine}"
            case TaskEnded(outcome):
                return _ending(ledger.entries[outcome.task], outcome)
            case ResultFound(task):
                return f"{ledger.entries[task].task.name}: already done"
            case GiveUp(_, why):
                return why
            case StopRequested():
                return "stopping: running folds commit their last step first (Ctrl-C again stops at once)"
            case MachineLeft(machine) | MachineCut(machine):
                return machine_line(event, ledger, self._freed(machine, ledger))
        return machine_line(event, ledger)

    def _freed(self, machine: str, ledger: Ledger) -> list[str]:
        """Names of the tasks that ran on a machine which is gone."""
        gone = [task for task, where in self._running.items() if where == machine]
        for task in gone:
            del self._running[task]
        return [ledger.entries[task].task.name for task in gone]

    def _epoch_line(self, name: str, progress: Progress) -> str:
        if progress.note:
            return f"{name}: {progress.note}"
        known_epoch, known_commit = self._told.get(progress.task, (0, 0))
        new_epoch = progress.epoch > known_epoch and progress.mean_ap is not None
        new_commit = (progress.commit or 0) > known_commit  # within a long epoch: every few minutes
        if not new_epoch and (not new_commit or progress.epoch >= progress.epochs):
            return ""
        self._told[progress.task] = (max(progress.epoch, known_epoch), max(progress.commit or 0, known_commit))
        if not new_epoch:
            step = f"step {progress.step} of {progress.steps}"
            return f"{name}: in epoch {progress.epoch + 1}/{progress.epochs}, {step}, {_numbers(progress)}"
        return f"{name}: epoch {progress.epoch}/{progress.epochs}, {_numbers(progress)}"


def _start(order: Start, entry: Entry) -> str:
    known = entry.progress
    fewer = f", {order.micro_batch} images at once" if order.micro_batch is not None else ""
    where = f"on {order.machine}, slot {order.slot}"
    if order.attempt == 1:
        return f"{entry.task.name}: started {where}{fewer}"
    goes_on = f"goes on at epoch {known.epoch}" if known is not None and known.epoch > 0 else "starts again"
    return f"{entry.task.name}: {goes_on} {where}, attempt {order.attempt}{fewer}"


def _numbers(progress: Progress) -> str:
    parts = [
        None if progress.loss is None else f"loss {progress.loss:.3f}",
        None if progress.mean_ap is None else f"mAP {progress.mean_ap:.3f}",
        None if progress.images_per_second is None else f"{progress.images_per_second:.1f} images/s",
        None if progress.seconds_left is None else f"{duration(progress.seconds_left)} left",
    ]
    return ", ".join(part for part in parts if part)


def _ending(entry: Entry, outcome: Outcome) -> str:
    name = entry.task.name
    if outcome.failure is None:
        return f"{name}: done in {duration(outcome.seconds)}"
    if outcome.failure is Failure.STOPPED:
        return f"{name}: {outcome.what if outcome.transient else 'stopped, its last step is committed'}"
    machine = next((one.machine for one in entry.attempts if one.number == outcome.attempt), "")
    return f"{name}: {outcome.failure} on {machine}. {outcome.what} {outcome.where}".rstrip()
