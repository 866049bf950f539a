"""The Ray port: which machines there are, start, stop, and what became of it. cluster.py begins Ray.

Ray starts processes; it decides nothing. A task runs in a process that its slot's actor begins, and a fault ends with
it; an actor that dies itself is reported as a loss, and its slot gets a fresh one with its next task (actors.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError

from coordinator.actors import ANSWER_SECONDS, Actors, first_line
from coordinator.cluster import begin_ray, dashboard_address
from coordinator.config import FleetSection, StoreSection
from coordinator.events import (
    Fact,
    Kill,
    MachineCut,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Probe,
    Progressed,
    Start,
    Stop,
    TaskEnded,
)
from coordinator.machines import DRIVER, Machines
from coordinator.measured import Known
from shared_store.records import Result
from shared_store.store import Store, open_store
from workers.run import guarded
from workers.slot import Ran
from workers.tasks import (
    BundleTask,
    Failure,
    LabelTask,
    Outcome,
    PredictTask,
    SearchTask,
    Task,
    TrainTask,
    to_json,
)

WORKER_KINDS = tuple(kind.kind for kind in (TrainTask, LabelTask, BundleTask, PredictTask))
POLL_SECONDS = 0.2
_UNSURE_SECONDS = 15.0  # Ray needs about 10 to be sure that a machine is gone

Search = Callable[[SearchTask, Store], Result]


class Fleet(Protocol):
    """What the loop drives: Ray, or a fake."""

    def discover(self) -> list[Fact]:
        """Machines that joined or left since the last call."""

    def start(self, order: Start, task: Task) -> None:
        """Begin an attempt. How it ends comes from `poll`."""

    def stop(self, order: Stop | Migrate) -> None:
        """Ask an attempt to commit and end; one that is over already is no error."""

    def kill(self, order: Kill) -> None:
        """End the process of an attempt. Nothing more is told of the attempt."""

    def probe(self, order: Probe) -> None:
        """Begin to probe a machine. `MachineProbed` comes from `discover`."""

    def poll(self) -> list[Fact]:
        """Progress and ends since the last call; waits a moment for the first of them."""

    def close(self) -> None:
        """End everything that this fleet started."""


@dataclass
class _Run:
    """One attempt under way: where, its end to come, and a request for reports on its way."""

    place: tuple[str, int]
    ended: Any
    reports: Any = None
    lost_at: float | None = None  # Ray says that its process does not answer, and that may be its whole machine


class RayFleet:
    """Machines of a Ray cluster at `settings.address`, or this one with an embedded Ray that ends on `close`."""

    def __init__(
        self,
        settings: FleetSection,
        store: StoreSection,
        cache_folder: str,
        search: Search,
        single_committer: bool = False,
        *,
        clock: Callable[[], float] = time.monotonic,
        measured: Mapping[str, Known] | None = None,
    ) -> None:
        """`clock`: the ledger's, in seconds. `measured`: what is known of machines before they are probed, by id."""
        self._store, self._search, self._single_committer = store, search, single_committer
        self._actors = Actors(settings, store, cache_folder, single_committer)
        self._machines = Machines(settings, self._actors, WORKER_KINDS, clock, measured=measured or {})
        self._runs: dict[tuple[str, int], _Run] = {}  # by (task, attempt)
        self._outbox: list[Fact] = [MachineJoined(DRIVER, 1, (SearchTask.kind,))]
        self._ends_ray = not ray.is_initialized()  # else it was for a store on the head, and goes on to be
        self.scratch = begin_ray(settings.address, settings.dashboard)

    @property
    def has_cards(self) -> bool:
        """Whether any machine that Ray knows of has a card."""
        return bool(ray.cluster_resources().get("GPU", 0) > 0)

    @property
    def dashboard(self) -> str:
        """The address of an embedded Ray's dashboard, where the settings asked for one; else empty."""
        return "" if self.scratch is None else dashboard_address()

    def discover(self) -> list[Fact]:
        facts, self._outbox = self._outbox, []
        facts += self._machines.changes()
        for fact in facts:
            if isinstance(fact, MachineLeft | MachineCut):
                self._forget(fact.machine)
        return facts

    def start(self, order: Start, task: Task) -> None:
        if isinstance(task, SearchTask):
            opens = partial(open_store, self._store.url, self._single_committer)
            outcome = guarded(task, order.attempt, opens, lambda store, _nonce: self._search(task, store))
            self._outbox.append(TaskEnded(outcome))
            return
        place = (order.machine, order.slot)
        run = self._actors.at(self._machines.named[order.machine], order.slot).run
        named = run.options(name=f"{task.name}@{order.machine}")
        ended = named.remote(order.task, to_json(task), order.attempt, order.micro_batch)
        self._runs[order.task, order.attempt] = _Run(place, ended)

    def stop(self, order: Stop | Migrate) -> None:
        run = self._runs.get((order.task, order.attempt))
        if run is not None and (slot := self._actors.of(run.place)) is not None:
            slot.stop.remote(order.task, order.attempt)

    def kill(self, order: Kill) -> None:
        run = self._runs.pop((order.task, order.attempt), None)
        if run is not None:
            self._actors.dismiss(run.place)

    def probe(self, order: Probe) -> None:
        if order.machine == DRIVER:
            self._outbox.append(MachineProbed(DRIVER, True))  # we are here to say so
        else:
            self._machines.probe(order.machine)

    def poll(self) -> list[Fact]:
        facts, self._outbox = self._outbox, []
        ends = [run.ended for run in self._runs.values() if run.lost_at is None]
        if ends:
            ray.wait(ends, timeout=0 if facts else POLL_SECONDS)
            ready, _ = ray.wait(ends, num_returns=len(ends), timeout=0)
        else:
            time.sleep(0 if facts else POLL_SECONDS)
            ready = []
        for (task, attempt), run in list(self._runs.items()):
            facts += self._reported(run)
            if run.ended in ready or run.lost_at is not None:
                facts += self._ended(task, attempt, run)
        return facts

    def close(self) -> None:
        self._actors.dismiss_all()
        self._runs.clear()
        if self._ends_ray:
            ray.shutdown()
        if self.scratch is not None:
            self.scratch.close()

    def processes(self) -> list[int]:
        """Process ids of the slots at work on this machine's Ray; for tests and for people who look."""
        return self._actors.processes()

    def _forget(self, machine: str) -> None:
        """The ledger counts what ran there as lost; so must not we wait for it."""
        for key, run in list(self._runs.items()):
            if run.place[0] == machine:
                del self._runs[key]

    def _reported(self, run: _Run) -> list[Fact]:
        """Reports that have come, and a request for the next ones. A slot that is gone says so by its end."""
        facts = self._fetched(run, 0.0)
        if run.reports is None and (slot := self._actors.of(run.place)) is not None:
            run.reports = slot.reports.remote()
        return facts

    def _fetched(self, run: _Run, seconds: float) -> list[Fact]:
        """What a request under way brings within `seconds`; it is over then, unless it has not come."""
        if run.reports is None or not ray.wait([run.reports], timeout=seconds)[0]:
            return []
        reports, run.reports = run.reports, None
        try:
            return [Progressed(progress) for progress in ray.get(reports, timeout=ANSWER_SECONDS)]
        except RayError:
            return []

    def _is_of_its_machine(self, run: _Run, error: RayError) -> bool:
        """Whether the whole machine is gone, or may be: then it is told of at once, not as tasks lost one by one."""
        now, alive = time.monotonic(), self._machines.is_alive(run.place[0])
        if run.lost_at is None or alive is None:  # a head that is back needs its time too
            run.lost_at = now
        unsure = isinstance(error, ActorUnavailableError) and now - run.lost_at < _UNSURE_SECONDS
        return unsure or not alive

    def _ended(self, task: str, attempt: int, run: _Run) -> list[Fact]:
        try:
            ran: Ran = ray.get(run.ended, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            return []  # asked again next turn
        except RayTaskError as error:  # the door itself failed, such as workers of another version there
            outcome = Outcome(task, attempt, Failure.CRASHED, str(error.cause), run.place[0], traceback=str(error))
            ran = Ran(outcome, ())
            self._actors.dismiss(run.place)
        except RayError as error:
            if self._is_of_its_machine(run, error):
                return []
            ran = Ran(Outcome(task, attempt, Failure.LOST, first_line(error), run.place[0]), ())
            self._actors.dismiss(run.place)
        facts = self._fetched(run, ANSWER_SECONDS)  # a request under way took its reports out of the slot
        del self._runs[task, attempt]
        return [*facts, *(Progressed(progress) for progress in ran.reports), TaskEnded(ran.outcome)]
