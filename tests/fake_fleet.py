"""A fleet without machines: it implements the coordinator's port under a clock of its own. No test in here."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from coordinator.config import DistillSection, Experiment, FoldsSection
from coordinator.events import (
    Fact,
    Kill,
    MachineCut,
    MachineJoined,
    MachineProbed,
    Migrate,
    Probe,
    Progressed,
    Start,
    Stop,
    TaskEnded,
)
from coordinator.graph import Graph, Photos, build
from shared_store.commits import put_result
from shared_store.records import Result
from shared_store.store import Store
from workers.recipe import Recipe
from workers.tasks import Failure, Outcome, Progress, Task, TrainTask, spec_hash

WORK = ("train", "label", "bundle", "predict")
Ending = Callable[[Task, int], Failure | None]


def always_well(task: Task, attempt: int) -> Failure | None:
    return None


def small_graph(folds: int = 3, rounds: int = 2, labels: str = "oof", has_test: bool = True) -> Graph:
    """The graph of a small experiment about no real data."""
    experiment = Experiment(
        folds=FoldsSection(count=folds),
        distill=DistillSection.model_validate({"rounds": rounds, "labels": labels}),
        recipe=Recipe(epochs=3, batch_size=12),
    )
    test = Photos("test", "1" * 64) if has_test else None
    return build(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), test)


def task_seconds(task: Task) -> float:
    return 10.0 if isinstance(task, TrainTask) else 1.0


class FakeFleet:
    """Machines with slots where a task takes `task_seconds`, then ends as `ending(task, attempt)` says.

    A task that ends well leaves its result in the store. `cut` and `join` change the machines at any time.
    Every `report_seconds` each running task tells how far it is.
    """

    def __init__(
        self,
        store: Store,
        machines: Mapping[str, int],
        ending: Ending = always_well,
        report_seconds: float | None = None,
    ) -> None:
        self.now = 0.0
        self.started: list[Start] = []
        self._store, self._ending, self._report_seconds = store, ending, report_seconds
        self._outbox: list[Fact] = []
        self._runs: dict[tuple[str, int], tuple[Start, Task]] = {}
        self._ends: list[tuple[float, int, str, int]] = []
        self._joined: dict[str, int] = {}
        self._outbox.append(MachineJoined("driver", 1, ("search",)))
        for name, slots in machines.items():
            self.join(name, slots)

    def clock(self) -> float:
        return self.now

    def join(self, machine: str, slots: int) -> None:
        self._joined[machine] = slots
        self._outbox.append(MachineJoined(machine, slots, WORK))

    def cut(self, machine: str) -> None:
        del self._joined[machine]
        self._runs = {key: run for key, run in self._runs.items() if run[0].machine != machine}
        self._outbox.append(MachineCut(machine, "cut"))

    def discover(self) -> list[Fact]:
        facts, self._outbox = self._outbox, []
        return facts

    def start(self, order: Start, task: Task) -> None:
        self.started.append(order)
        if order.machine != "driver" and order.machine not in self._joined:
            return  # it was cut a moment ago: nothing will ever be heard of this attempt
        self._runs[order.task, order.attempt] = (order, task)
        self._end_after(task_seconds(task), order.task, order.attempt)

    def stop(self, order: Stop | Migrate) -> None:
        if (order.task, order.attempt) in self._runs:
            del self._runs[order.task, order.attempt]
            self._outbox.append(TaskEnded(Outcome(order.task, order.attempt, Failure.STOPPED)))

    def kill(self, order: Kill) -> None:
        self._runs.pop((order.task, order.attempt), None)

    def probe(self, order: Probe) -> None:
        if order.machine in self._joined:
            self._outbox.append(MachineProbed(order.machine, True))

    def poll(self) -> list[Fact]:
        """Time goes on to the next end, or by a second."""
        facts = self.discover()
        if facts:
            return facts
        if not self._ends:
            self.now += 1.0
            return []
        if self._report_seconds is not None and self._ends[0][0] > self.now + self._report_seconds:
            self.now += self._report_seconds
            return [self._report(start, task) for start, task in self._runs.values()]
        at, _, task_id, attempt = heapq.heappop(self._ends)
        self.now = max(self.now, at)
        run = self._runs.pop((task_id, attempt), None)
        if run is None:
            return []
        failure = self._ending(run[1], attempt)
        if failure is Failure.HUNG:
            return []  # it is silent from now on; the coordinator must notice
        if failure is None:
            put_result(self._store, Result(task_id, spec_hash(run[1]), attempt, f"nonce-{attempt}"))
        commit = Progressed(Progress(task_id, attempt, epoch=1, commit=attempt))
        return [commit, TaskEnded(Outcome(task_id, attempt, failure, what="as scripted" if failure else ""))]

    def close(self) -> None:
        self._runs.clear()

    def _report(self, start: Start, task: Task) -> Progressed:
        end = next(at for at, _, name, attempt in self._ends if (name, attempt) == (start.task, start.attempt))
        done = 1 - (end - self.now) / task_seconds(task)
        return Progressed(Progress(start.task, start.attempt, epochs=1, step=int(100 * done), steps=100))

    def _end_after(self, seconds: float, task: str, attempt: int) -> None:
        heapq.heappush(self._ends, (self.now + seconds, len(self.started), task, attempt))
