"""What a worker process is: one task at a time, its progress kept until it is asked for, its stop flag.

The fleet makes an actor of it. One thread runs the task, another answers `reports` and `stop`, and one hands over what
lies on this machine and not in the store.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from workers.offer import hand_over_backlog
from workers.probe import probe
from workers.pulse import Pulse
from workers.run import Place, run
from workers.tasks import Outcome, Probed, Progress

_SIGN_SECONDS = 10.0


@dataclass(frozen=True)
class Ran:
    """How an attempt ended, and the reports that nobody had fetched yet."""

    outcome: Outcome
    reports: tuple[Progress, ...]


@dataclass
class _AtWork:
    """What runs in a slot: its last report, without what happened once, and when it last gave a sign of life."""

    newest: Progress
    pulse: Pulse
    told_at: float


class Slot:
    """One place on a machine where tasks run, one after the other."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._reports: list[Progress] = []
        self._stops: set[tuple[str, int]] = set()
        self._notes: list[str] = []  # about this machine, told with the next report
        self._backlog: threading.Thread | None = None
        self._at_work: _AtWork | None = None
        self._hand_over()

    def run(self, task: str, task_json: Mapping[str, Any], attempt: int, micro_batch: int | None = None) -> Ran:
        """Do one attempt at the task with id `task`; `micro_batch` takes the place of the recipe's."""
        with self._lock:
            self._at_work = _AtWork(Progress(task, attempt), Pulse(threading.get_ident()), time.monotonic())
        try:
            outcome = run(task_json, attempt, self._place, _SlotReporter(self, task, attempt), micro_batch)
        finally:
            with self._lock:
                self._at_work = None
        if outcome.failure is not None:
            self._hand_over()  # the next attempt may be another machine's
        return Ran(outcome, self.reports())

    def reports(self) -> tuple[Progress, ...]:
        """What was reported since the last call; now and then, where that is nothing, what was reported last."""
        with self._lock:
            taken, self._reports = tuple(self._reports), []
            return taken or self._signs_of_life()

    def _signs_of_life(self) -> tuple[Progress, ...]:
        """The task's last report once more, if its thread works. A card that hangs keeps a thread busy with waiting:
        once a task has begun to report from there, it must go on to.
        """
        work, now = self._at_work, time.monotonic()
        if work is None or now - work.told_at < _SIGN_SECONDS:
            return ()
        if self._place.device != "cpu" and not work.newest.says_nothing:
            return ()
        if not work.pulse.beats():
            return ()
        work.told_at = now
        return (work.newest,)

    def stop(self, task: str, attempt: int) -> None:
        """Ask an attempt to commit and end; it may not have begun yet."""
        self._stops.add((task, attempt))

    def probe(self, slots: int, share: float, timed: bool) -> Probed:
        """Try this slot, while no task runs in it: see `workers.probe`."""
        return probe(self._place.device, self._place.threads, slots=slots, share=share, timed=timed)

    def process(self) -> int:
        """This process's id."""
        return os.getpid()

    def keep(self, progress: Progress) -> None:
        """Queue a report. One that only moves the numbers on takes the place of the one before it."""
        with self._lock:
            if self._notes and not progress.note:
                progress = replace(progress, note=self._notes.pop(0))
            if self._reports and not lasting(self._reports[-1], progress):
                self._reports.pop()
            self._reports.append(progress)
            if self._at_work is not None:
                self._at_work.newest, self._at_work.told_at = replace(progress, commit=None, note=""), time.monotonic()

    def tell(self, note: str) -> None:
        """Keep a sentence about this machine for the next report of whatever task runs here."""
        with self._lock:
            self._notes.append(note)

    def _hand_over(self) -> None:
        """Let a thread hand over this machine's backlog, unless one does: it ends with the process, or before."""
        if self._backlog is None or not self._backlog.is_alive():
            place = self._place
            body = partial(hand_over_backlog, place.open_tier(), place.open_store, place.upload_share, self.tell)
            self._backlog = threading.Thread(target=body, name="backlog", daemon=True)
            self._backlog.start()

    def stopped(self, task: str, attempt: int) -> bool:
        return (task, attempt) in self._stops


def lasting(report: Progress, following: Progress) -> bool:
    """True when `report` says something that `following`, the next one, does not say again."""
    same = (report.task, report.attempt, report.epoch) == (following.task, following.attempt, following.epoch)
    return not same or report.commit is not None or report.note != ""


class _SlotReporter:
    """`workers.tasks.Reporter` of one attempt."""

    def __init__(self, slot: Slot, task: str, attempt: int) -> None:
        self._slot, self._task, self._attempt = slot, task, attempt

    def progress(self, progress: Progress) -> None:
        self._slot.keep(progress)

    def stop_requested(self) -> bool:
        return self._slot.stopped(self._task, self._attempt)
