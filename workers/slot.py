"""What a worker process is: one task at a time, its progress kept until it is asked for, its stop flag.

The fleet makes an actor of it, that loads no torch and lives long: every task, and a probe, is done in a process of its
own (apart.py). One thread waits for that, another answers `reports` and `stop`, and one hands over what lies on this
machine and not in the store.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from shared_store.errors import StoreDownError, StoreError, StoreFullError
from shared_store.relayed import Relay
from shared_store.store import open_shared
from workers.apart import Apart, DiedError, Hear
from workers.card_watch import CardWatch
from workers.cards import card_of
from workers.deaths import classified
from workers.nursery import BEATS, BEGINS, HEARD, SAYS, STOP, Act, Hands
from workers.offer import hand_over_backlog
from workers.probe import probe
from workers.run import Place, run
from workers.tasks import Failure, Outcome, Probed, Progress

_HEARD_SECONDS = 5.0  # between two times that a task is told of being asked for
_SIGN_SECONDS = 10.0


@dataclass(frozen=True)
class Ran:
    """How an attempt ended, and the reports that nobody had fetched yet. The process that made it is over."""

    outcome: Outcome
    reports: tuple[Progress, ...]


@dataclass
class _AtWork:
    """What runs in a slot: its last report, without what happened once, and when it last gave a sign of life."""

    newest: Progress
    told_at: float
    beats: bool = False  # its thread has worked since the last sign


class Calls(Protocol):
    """Where tasks are done, as `Apart` does."""

    def call(self, act: Act, hear: Hear) -> Any: ...

    def tell(self, word: str) -> None: ...


class Slot:
    """One place on a machine where tasks run, one after the other."""

    def __init__(
        self, place: Place, apart: Calls | None = None, card: CardWatch | None = None, name: str = "slot"
    ) -> None:
        """`apart`: where tasks are done. `card`: of its card, if it has one. `name`: for people."""
        self._place, self._name = place, name
        self._apart: Calls = apart or Apart()
        self._card = card or CardWatch(partial(card_of, place.device, os.environ.get("CUDA_VISIBLE_DEVICES")))
        self._lock = threading.Lock()
        self._reports: list[Progress] = []
        self._stops: set[tuple[str, int]] = set()
        self._notes: list[str] = []  # about this machine, told with the next report
        self._backlog: threading.Thread | None = None
        self._at_work: _AtWork | None = None
        self._heard_at = time.monotonic()
        self._relay: Relay | None = None
        self._hand_over()

    def __repr__(self) -> str:
        """What Ray's dashboard calls it."""
        return self._name

    def run(self, task: str, task_json: Mapping[str, Any], attempt: int, micro_batch: int | None = None) -> Ran:
        """Do one attempt at the task with id `task`; `micro_batch` takes the place of the recipe's."""
        began = time.monotonic()
        with self._lock:
            self._at_work = _AtWork(Progress(task, attempt), began)
        try:
            act = partial(_attempted, task_json, attempt, self._outside(), micro_batch)
            outcome: Outcome = self._apart.call(act, self._hear)
        except StoreError as error:
            transient = isinstance(error, (StoreDownError, StoreFullError))
            outcome = Outcome(task, attempt, Failure.STORE, error.what, error.where, error.mend, transient=transient)
        except DiedError as died:
            failure, what, mend = classified(died.exit_code, died.killed_for_memory)
            where, seconds = socket.gethostname(), time.monotonic() - began
            outcome = Outcome(task, attempt, failure, what, where, mend, died.said, seconds)
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
            taken = taken or self._signs_of_life()
            tells = self._at_work is not None and time.monotonic() - self._heard_at >= _HEARD_SECONDS
            if tells:
                self._heard_at = time.monotonic()
        if tells:
            self._apart.tell(HEARD)
        return taken

    def _signs_of_life(self) -> tuple[Progress, ...]:
        """The task's last report once more, if its thread works. A card that hangs keeps a thread busy with waiting:
        once a task has begun to report from there, it must go on to.
        """
        work, now = self._at_work, time.monotonic()
        if work is None or now - work.told_at < _SIGN_SECONDS:
            return ()
        if self._place.device != "cpu" and not work.newest.says_nothing:
            return ()
        if not work.beats:
            return ()
        work.told_at, work.beats = now, False
        return (self._with_card(work.newest),)

    def stop(self, task: str, attempt: int) -> None:
        """Ask an attempt to commit and end; it may not have begun yet."""
        with self._lock:
            self._stops.add((task, attempt))
            self._pass_on_stop()

    def probe(self, slots: int, share: float, timed: bool) -> Probed:
        """Try this slot, while no task runs in it: see `workers.probe`."""
        place = self._place
        act = partial(_probed, place.device, place.threads, slots=slots, share=share, timed=timed)
        try:
            probed: Probed = self._apart.call(act, lambda _kind, _value: None)
        except DiedError as died:
            return Probed(False, classified(died.exit_code, died.killed_for_memory)[1])
        return probed

    def process(self) -> int:
        """This process's id."""
        return os.getpid()

    def keep(self, progress: Progress) -> None:
        """Queue a report. One that only moves the numbers on takes the place of the one before it."""
        progress = self._with_card(progress)
        with self._lock:
            if self._notes and not progress.note:
                progress = replace(progress, note=self._notes.pop(0))
            if self._reports and not lasting(self._reports[-1], progress):
                self._reports.pop()
            self._reports.append(progress)
            if self._at_work is not None:
                self._at_work.newest, self._at_work.told_at = replace(progress, commit=None, note=""), time.monotonic()

    def _with_card(self, progress: Progress) -> Progress:
        """A report with what is known of the slot's card, which costs the task's own process nothing."""
        card = self._card.newest() if self._place.device != "cpu" else None
        if card is None:
            return progress
        return replace(
            progress, gpu_memory_gb=card.used_gb, temperature_celsius=card.temperature_celsius, card=card.index
        )

    def _hear(self, kind: str, value: Any) -> None:
        """Take in what the task's process says."""
        if kind == SAYS:
            self.keep(value)
            return
        with self._lock:
            if kind == BEGINS:
                self._pass_on_stop()
            elif kind == BEATS and self._at_work is not None:
                self._at_work.beats = True

    def _pass_on_stop(self) -> None:
        work = self._at_work
        if work is not None and (work.newest.task, work.newest.attempt) in self._stops:
            self._apart.tell(STOP)

    def _outside(self) -> Place:
        """Where tasks run, for a process that is no part of the Ray cluster. StoreError."""
        place = self._place
        if not place.is_reached_through_ray:
            return place
        if self._relay is None:
            self._relay = Relay(open_shared(place.store_url, place.single_committer))
        return replace(place, door=self._relay.door)

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


def lasting(report: Progress, following: Progress) -> bool:
    """True when `report` says something that `following`, the next one, does not say again."""
    same = (report.task, report.attempt, report.epoch) == (following.task, following.attempt, following.epoch)
    return not same or report.commit is not None or report.note != ""


def _attempted(
    task_json: Mapping[str, Any], attempt: int, place: Place, micro_batch: int | None, hands: Hands
) -> Outcome:
    hands.stops_unheard_after(place.orphan_seconds)
    return run(task_json, attempt, place, hands, micro_batch)


def _probed(device: str, threads: int, _hands: Hands, *, slots: int, share: float, timed: bool) -> Probed:
    return probe(device, threads, slots=slots, share=share, timed=timed)
