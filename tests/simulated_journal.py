"""A journal without machines: the simulator's, of a fleet that loses machines and moves folds. No test in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from finished_run import FinishedRun

from coordinator.events import Event, Finish, GiveUp, MachineJoined, ResultFound, RunBegan, Start, TaskEnded, Tick
from coordinator.journal import Journal
from coordinator.ledger import Ledger
from coordinator.run_files import JOURNAL
from coordinator.scenario import DRIVER, WORK, Ending, FoldTruth, MachineModel, Outage, Scenario
from coordinator.simulate import Simulation
from shared_store import layout
from workers.tasks import Failure, Outcome, TrainTask

EPOCH_SECONDS = 120.0
FLEET = (
    MachineModel("workstation", 1.0, slots=2, told_speed=1.0, memory_gb=12.0),
    MachineModel("a-machine-with-a-rather-long-name.lab.example.org", 0.6, told_speed=0.6, memory_gb=8.0),
    MachineModel("attic", 0.35, told_speed=0.35, memory_gb=6.0, system="windows"),
    MachineModel("laptop", 0.5, told_speed=0.5, memory_gb=6.0, outages=(Outage(1500, 4000, Ending.CUT),)),
    MachineModel("spot", 0.9, told_speed=0.9, memory_gb=16.0, outages=(Outage(2400, 3100, Ending.PREEMPTION, 120.0),)),
)


def write_journal(run: FinishedRun, fleet: Sequence[MachineModel] = FLEET, first_seconds: float = 1800.0) -> None:
    """`events.jsonl` of two commands: the first was killed after `first_seconds`, the second goes on to the end."""
    graph = run.data.graph(run.experiment)
    epochs = {name: int(task.recipe["epochs"]) for name, task in graph.tasks.items() if isinstance(task, TrainTask)}
    truths = {name: FoldTruth((count,), count) for name, count in epochs.items()}
    scenario = Scenario(graph, (DRIVER, *fleet), truths, EPOCH_SECONDS, move_seconds=20.0, seed=1)
    with _journal(run) as journal:

        def write(_: float, event: Event, ledger: Ledger) -> None:
            journal.write(ledger.now, event)

        first = Simulation(replace(scenario, horizon=first_seconds), watch=write)
        first.play()
        second = Simulation(replace(scenario, seed=2), store=lambda: first.store, watch=write)
        for task in first.store.results:
            second.tell(ResultFound(task))
        assert second.play().finished


def write_failed_journal(run: FinishedRun, why: str) -> None:
    """`events.jsonl` of a command that gave its first teacher up, for it crashed on two machines, and found no more
    to do; the others that it began were done."""
    teachers = [name for name, task in run.data.graph(run.experiment).tasks.items() if isinstance(task, TrainTask)]
    with _journal(run) as journal:
        journal.write(0.0, Tick(0.0))
        journal.write(0.0, RunBegan(tuple(run.data.graph(run.experiment).tasks)))
        for machine in ("desk", "attic"):
            journal.write(1.0, MachineJoined(machine, 1, WORK))
        for number, machine in enumerate(("desk", "attic"), start=1):
            at = 100.0 * number
            journal.write(at, Start(teachers[0], machine, 0, number))
            crash = Outcome(teachers[0], number, Failure.CRASHED, what=why, where=machine)
            journal.write(at + 60.0, TaskEnded(crash))
        journal.write(300.0, GiveUp(teachers[0], f"teacher/fold0: {why}"))
        journal.write(300.0, Finish("1 task failed"))


def _journal(run: FinishedRun) -> Journal:
    path = run.store.backend.local_path(layout.run_file("demo", JOURNAL))
    assert path is not None
    return Journal(path)
