"""The Ray port: which machines there are, start, stop, and what became of it. cluster.py begins Ray.

Ray starts processes; it decides nothing. Each slot is one long-lived actor that takes no CPU in Ray's books
(plan.py is the one placer, and Tune's trials find the CPUs free while slots idle), a GPU where there is one,
and is never restarted or retried by Ray: a slot whose process dies reports the loss, and gets a fresh process
with its next task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.cluster import begin_ray
from coordinator.config import FleetSection, StoreSection
from coordinator.events import Fact, MachineJoined, MachineLeft, Progressed, Start, Stop, TaskEnded
from shared_store.records import Result
from shared_store.store import Store, open_store
from workers.run import Place, guarded
from workers.slot import Ran, Slot
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

DRIVER = "driver"
WORKER_KINDS = tuple(kind.kind for kind in (TrainTask, LabelTask, BundleTask, PredictTask))
POLL_SECONDS = 0.2
ANSWER_SECONDS = 10.0  # for a value that Ray says is there

Search = Callable[[SearchTask, Store], Result]


class Fleet(Protocol):
    """What the loop drives: Ray, or a fake."""

    def discover(self) -> list[Fact]:
        """Machines that joined or left since the last call."""

    def start(self, order: Start, task: Task) -> None:
        """Begin an attempt. How it ends comes from `poll`."""

    def stop(self, order: Stop) -> None:
        """Ask an attempt to commit and end; one that is over already is no error."""

    def poll(self) -> list[Fact]:
        """Progress and ends since the last call; waits a moment for the first of them."""

    def close(self) -> None:
        """End everything that this fleet started."""


@dataclass(frozen=True)
class _Machine:
    """One Ray node as the ledger knows it. `gpus` is the share of a card that each slot takes."""

    name: str
    node: str
    slots: int
    gpus: float


@dataclass
class _Run:
    """One attempt under way: where, its end to come, and a request for reports on its way."""

    place: tuple[str, int]
    ended: Any
    reports: Any = None


class RayFleet:
    """Machines of a Ray cluster at `settings.address`, or this one with an embedded Ray that ends on `close`."""

    def __init__(
        self,
        settings: FleetSection,
        store: StoreSection,
        cache_folder: str,
        search: Search,
        single_committer: bool = False,
    ) -> None:
        self._settings, self._store, self._cache_folder, self._search = settings, store, cache_folder, search
        self._single_committer = single_committer
        self._machines: dict[str, _Machine] = {}
        self._slots: dict[tuple[str, int], Any] = {}
        self._runs: dict[tuple[str, int], _Run] = {}  # by (task, attempt)
        self._outbox: list[Fact] = [MachineJoined(DRIVER, 1, (SearchTask.kind,))]
        self._ends_ray = not ray.is_initialized()  # else it was for a store on the head, and goes on to be
        self.scratch = begin_ray(settings.address)

    def discover(self) -> list[Fact]:
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        gone = [machine for machine in self._machines.values() if machine.node not in alive]
        facts, self._outbox = self._outbox, []
        for machine in gone:
            facts.append(self._forget(machine))
        known = {machine.node for machine in self._machines.values()}
        for node in sorted(alive.values(), key=lambda node: (node["NodeManagerHostname"], node["NodeID"])):
            if node["NodeID"] not in known:
                facts.append(self._meet(node))
        return facts

    def start(self, order: Start, task: Task) -> None:
        if isinstance(task, SearchTask):
            opens = partial(open_store, self._store.url, self._single_committer)
            outcome = guarded(task, order.attempt, opens, lambda store, _nonce: self._search(task, store))
            self._outbox.append(TaskEnded(outcome))
            return
        place = (order.machine, order.slot)
        slot = self._slots.get(place) or self._hire(place)
        ended = slot.run.options(name=f"{task.name}@{order.machine}").remote(order.task, to_json(task), order.attempt)
        self._runs[order.task, order.attempt] = _Run(place, ended)

    def stop(self, order: Stop) -> None:
        run = self._runs.get((order.task, order.attempt))
        if run is not None:
            self._slots[run.place].stop.remote(order.task, order.attempt)

    def poll(self) -> list[Fact]:
        facts, self._outbox = self._outbox, []
        ends = [run.ended for run in self._runs.values()]
        if ends:
            ray.wait(ends, timeout=0 if facts else POLL_SECONDS)
            ready, _ = ray.wait(ends, num_returns=len(ends), timeout=0)
        else:
            time.sleep(0 if facts else POLL_SECONDS)
            ready = []
        for (task, attempt), run in list(self._runs.items()):
            facts += self._reported(run)
            if run.ended in ready:
                facts += self._ended(task, attempt, run)
        return facts

    def close(self) -> None:
        for slot in self._slots.values():
            ray.kill(slot, no_restart=True)
        self._slots.clear()
        self._runs.clear()
        if self._ends_ray:
            ray.shutdown()
        if self.scratch is not None:
            self.scratch.close()

    def processes(self) -> list[int]:
        """Process ids of the slots at work on this machine's Ray; for tests and for people who look."""
        found: list[int] = ray.get([slot.process.remote() for slot in self._slots.values()], timeout=60.0)
        return found

    def _meet(self, node: dict[str, Any]) -> MachineJoined:
        host, resources = node["NodeManagerHostname"], node["Resources"]
        name = host if host not in self._machines else f"{host}-{node['NodeID'][:6]}"
        cards = int(resources.get("GPU", 0))
        slots = self._settings.slots or cards or max(1, int(resources.get("CPU", 1)) // self._settings.threads)
        share = 1.0 if slots <= cards else int(cards / slots * 10_000) / 10_000  # Ray counts in 1/10,000
        self._machines[name] = _Machine(name, node["NodeID"], slots, share if cards else 0.0)
        self._hire((name, 0))  # whatever the machine is given to do, it hands over what it has of other days
        return MachineJoined(name, slots, WORKER_KINDS, gpu=cards > 0)

    def _forget(self, machine: _Machine) -> MachineLeft:
        """The ledger counts what ran there as lost; so must not we wait for it."""
        del self._machines[machine.name]
        for key, run in list(self._runs.items()):
            if run.place[0] == machine.name:
                del self._runs[key]
        for place in [place for place in self._slots if place[0] == machine.name]:
            self._dismiss(place)
        return MachineLeft(machine.name, "Ray counts it as dead")

    def _hire(self, place: tuple[str, int]) -> Any:
        machine, threads = self._machines[place[0]], self._settings.threads
        device = "cuda:0" if machine.gpus else "cpu"  # Ray shows a slot its own card only
        environment = {"OMP_NUM_THREADS": str(threads), "NO_ALBUMENTATIONS_UPDATE": "1"}
        slot = (
            ray.remote(Slot)
            .options(
                num_cpus=0,
                num_gpus=machine.gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=2,
                scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node, soft=False),
                runtime_env={"env_vars": environment},
            )
            .remote(
                Place(
                    self._store.url,
                    self._cache_folder,
                    self._store.cache_gb,
                    device,
                    threads,
                    self._single_committer,
                    self._store.upload_share,
                )
            )
        )
        self._slots[place] = slot
        return slot

    def _dismiss(self, place: tuple[str, int]) -> None:
        ray.kill(self._slots.pop(place), no_restart=True)

    def _reported(self, run: _Run) -> list[Fact]:
        """Reports that have come, and a request for the next ones. A slot that is gone says so by its end."""
        facts = self._fetched(run, 0.0)
        if run.reports is None:
            run.reports = self._slots[run.place].reports.remote()
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

    def _ended(self, task: str, attempt: int, run: _Run) -> list[Fact]:
        try:
            ran: Ran = ray.get(run.ended, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            return []  # asked again next turn
        except RayTaskError as error:  # the door itself failed, such as workers of another version there
            outcome = Outcome(task, attempt, Failure.CRASHED, str(error.cause), run.place[0], traceback=str(error))
            ran = Ran(outcome, ())
        except RayError as error:
            first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            ran = Ran(Outcome(task, attempt, Failure.LOST, first_line, run.place[0]), ())
        facts = self._fetched(run, ANSWER_SECONDS)  # a request under way took its reports out of the slot
        del self._runs[task, attempt]
        if ran.outcome.failure in (Failure.LOST, Failure.CRASHED, Failure.OUT_OF_MEMORY):
            self._dismiss(run.place)  # what a fault left in the process must not reach the next task
        return [*facts, *(Progressed(progress) for progress in ran.reports), TaskEnded(ran.outcome)]
