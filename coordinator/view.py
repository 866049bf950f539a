"""What the person sees while work goes on: a live table or bar on a terminal, plain lines when piped.

A view is a `drive.Watch`: told every fact and order right after the ledger took it in. It decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.events import (
    Event,
    GiveUp,
    Kill,
    Migrate,
    Progressed,
    ResultFound,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
)
from coordinator.ledger import Entry, Ledger, State
from coordinator.machine_lines import duration, machine_line, slower
from workers.tasks import Failure, Outcome, Task, TrainTask
from workers.tasks import Progress as TaskProgress


class View:
    """Shows a ledger. Use as a context manager around the drive."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._newest: dict[str, TaskProgress] = {}  # the ledger does not hear of every report
        self._told: dict[str, tuple[int, int]] = {}  # epoch and commit last shown, by task
        self._ledger: Ledger | None = None
        self._live = (
            Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._table)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event, ledger: Ledger) -> None:
        self._ledger = ledger
        line = self._line(event, ledger)
        if line:
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _line(self, event: Event, ledger: Ledger) -> str:
        """The words for an event, or nothing: what is worth a line stays on the screen."""
        match event:
            case Start(task, machine, slot, attempt, micro_batch):
                again = f", attempt {attempt}" if attempt > 1 else ""
                fewer = f", {micro_batch} images at once" if micro_batch is not None else ""
                return f"{ledger.entries[task].task.name}: started on {machine}, slot {slot}{again}{fewer}"
            case Progressed(progress):
                entry = ledger.entries[progress.task]
                if entry.progress is None or entry.progress.attempt <= progress.attempt:
                    self._newest[progress.task] = progress
                line = self._epoch_line(entry.task.name, progress)
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
        return machine_line(event, ledger)

    def _epoch_line(self, name: str, progress: TaskProgress) -> str:
        if progress.note:
            return f"{name}: {progress.note}"
        known_epoch, known_commit = self._told.get(progress.task, (0, 0))
        new_epoch = progress.epoch > known_epoch and progress.mean_ap is not None
        new_commit = (progress.commit or 0) > known_commit  # within a long epoch: every few minutes
        if not new_epoch and not new_commit:
            return ""
        self._told[progress.task] = (max(progress.epoch, known_epoch), max(progress.commit or 0, known_commit))
        if not new_epoch and progress.epoch < progress.epochs:
            step = f"step {progress.step} of {progress.steps}"
            return f"{name}: in epoch {progress.epoch + 1}/{progress.epochs}, {step}, {_numbers(progress)}"
        return f"{name}: epoch {progress.epoch}/{progress.epochs}, {_numbers(progress)}"

    def _table(self) -> Group:
        """Fold table and summary line of the moment."""
        ledger = self._ledger
        if ledger is None:
            return Group(Text("starting ..."))
        table = Table(box=None, pad_edge=False)
        for column in ("task", "epoch", "", "loss", "mAP", "images/s", "left"):
            table.add_column(column, justify="left" if column in ("task", "") else "right")
        for name in sorted(ledger.running):
            table.add_row(*_row(ledger.entries[name].task, self._newest.get(name)))
        return Group(table, Text(summary(ledger), style="bold"))


def summary(ledger: Ledger) -> str:
    """`7 of 18 tasks done, 2 running, 9 waiting`, with what failed if anything did."""
    counts = ledger.counts
    waiting = counts[State.WAITING] + counts[State.READY] + counts[State.ENDED]
    parts = [f"{counts[State.DONE]} of {len(ledger.entries)} tasks done", f"{counts[State.RUNNING]} running"]
    parts += [f"{waiting} waiting"] if waiting else []
    parts += [f"{counts[State.FAILED]} failed"] if counts[State.FAILED] else []
    parts += [f"{counts[State.BLOCKED]} blocked by a failure"] if counts[State.BLOCKED] else []
    return ", ".join(parts)


def size(count: float) -> str:
    """`812 bytes`, `212 MB`, `1.9 GB`: three digits at most."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 9.95 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _row(task: Task, progress: TaskProgress | None) -> tuple[str | ProgressBar, ...]:
    if not isinstance(task, TrainTask) or progress is None or not progress.steps:
        return task.name, "", "", "", "", "", ""
    return (
        task.name,
        f"{progress.epoch}/{progress.epochs}",
        ProgressBar(total=progress.steps, completed=progress.step, width=24),
        "" if progress.loss is None else f"{progress.loss:.3f}",
        "" if progress.mean_ap is None else f"{progress.mean_ap:.3f}",
        "" if progress.images_per_second is None else f"{progress.images_per_second:.1f}",
        "" if progress.seconds_left is None else duration(progress.seconds_left),
    )


def _numbers(progress: TaskProgress) -> str:
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
    return f"{name}: {outcome.failure}. {outcome.what} {outcome.where}".rstrip()


@contextmanager
def shown(console: Console, what: str, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, all): a bar on a terminal, a line for each tenth when piped.

    Bytes come with their speed.
    """
    numbers = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *numbers, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar_task = bar.add_task(what, total=None, visible=False)
        told, began = 0, time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal told
            bar.update(bar_task, completed=done, total=total, visible=True)
            tenths = done * 10 // total if total else 0
            if not console.is_terminal and tenths > told:
                told = tenths
                line = f"{done} of {total}"
                if in_bytes:
                    line = f"{size(done)} of {size(total)}, {size(done / max(time.monotonic() - began, 1e-3))}/s"
                console.print(f"{what}: {line}", highlight=False)

        yield progress
