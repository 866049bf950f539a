"""What a run is about to do is told in a few lines; what failed, with its machine, its log and its story."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fake_fleet import FakeFleet, small_graph
from finished_run import finished_run
from rich.console import Console

from coordinator.config import Experiment, FleetSection
from coordinator.data import findings
from coordinator.drive import drive
from coordinator.endings import check_ending
from coordinator.events import Event, MachineCut, MachineJoined, Progressed, RunBegan, Start, Tick
from coordinator.generation import Chain, Hold, this_process
from coordinator.journal import Journal
from coordinator.overview import overview, photos_text, work_text
from coordinator.scenario import WORK
from coordinator.session import Session
from shared_store import layout
from shared_store.cache import Cache
from shared_store.errors import RunFailedError
from shared_store.store import Store
from workers.tasks import Failure, LabelTask, Progress, Task, TrainTask


def test_a_run_says_beforehand_what_it_has_what_is_done_and_where_things_go(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, (TrainTask, LabelTask))
    graph = made.data.graph(made.experiment)
    to_do = [name for name, task in graph.tasks.items() if not isinstance(task, TrainTask | LabelTask)]
    session = Session("demo", store, made.experiment, Console(quiet=True), new_recipe=False)
    lines = overview(session, made.data, graph, to_do)
    assert photos_text(made.data) in lines[0] and "4 classes in 2 folds" in lines[0] and "to select on" in lines[0]
    assert "teacher 2 of 2" in lines[1] and "search 0 of 1" in lines[1]
    assert "`foldfleet plan --simulate`" in lines[3]  # nothing was measured, and nothing is tried for this
    assert lines[-1].endswith("runs/demo") and len(lines) <= 10
    assert work_text(graph, list(graph.tasks)).startswith(f"{len(graph.tasks)} tasks: 2 teacher")


def test_what_was_left_out_is_told_with_examples_and_two_labels_apart_from_copies(store: Store, cache: Cache) -> None:
    row = {"kind": "exact", "part": "train", "other_part": "train", "label": "cat", "action": "as it is"}
    copy = {**row, "path": "a.jpg", "other_path": "b.jpg", "other_label": "cat"}
    contrary = {**row, "path": "c.jpg", "other_path": "d.jpg", "other_label": "dog"}
    rejected = [{"part": "train", "path": f"{number}.jpg", "reason": "the file is empty"} for number in range(3)]
    prepared = finished_run(store, cache, ()).data.prepared
    found = dataclasses.replace(prepared, rejected=rejected, duplicates=[copy, contrary])
    assert findings(found) == [
        "files left out (rejected.csv): 3, first 0.jpg: the file is empty",
        "photos left out, for their picture has two labels (duplicates.csv): 1, first c.jpg beside d.jpg",
        "photos that repeat another one, used once (duplicates.csv): 1, first a.jpg beside b.jpg",
    ]
    lines = findings(found, shown=2)
    assert lines[:4] == ["files left out (rejected.csv): 3"] + [f"  {n}.jpg: the file is empty" for n in (0, 1)] + [
        "  and 1 more"
    ]


def test_a_fold_whose_machine_is_not_here_is_told_and_refuses_nothing(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, ())
    graph = made.data.graph(made.experiment)
    path = store.backend.local_path(layout.run_file("demo", "events.jsonl"))
    assert path is not None
    one, two = graph.named("teacher/")
    told: list[Event] = [RunBegan(tuple(graph.tasks)), *(MachineJoined(name, 1, WORK) for name in ("attic", "desk"))]
    told += [Start(one, "attic", 0, 1), Start(two, "desk", 0, 1)]
    told += [Progressed(Progress(two, 1, 0, 3, 0, 30)), Tick(10.0), Progressed(Progress(two, 1, 1, 3, 10, 30))]
    told += [Tick(20.0), Progressed(Progress(two, 1, 2, 3, 20, 30)), MachineCut("attic")]
    with Journal(path) as journal:
        at = 0.0
        for event in told:
            at = event.at if isinstance(event, Tick) else at
            journal.write(at, event)
    placed = made.experiment.model_copy(update={"fleet": FleetSection(address="head:6379", pin={"fold0": "attic"})})
    session = Session("demo", store, placed, Console(quiet=True), new_recipe=False)
    lines = overview(session, made.data, graph, list(graph.tasks))
    (finish,) = [line for line in lines if line.startswith("finish:")]
    assert "not foreseen" in finish and "attic" in finish


def test_what_failed_comes_with_its_machine_its_log_and_the_command_for_its_story(store: Store, tmp_path: Path) -> None:
    def ending(task: Task, attempt: int) -> Failure | None:
        return Failure.CRASHED if task.name == "teacher/fold1" else None

    graph, fleet = small_graph(), FakeFleet(store, {"attic": 1}, ending)
    failing = graph.named("teacher/fold1")[0]
    store.publish(layout.log(failing, "train.log"), b"epoch 1")
    hold = Hold(Chain(store, layout.coordinators("demo")), this_process("demo"), print)
    with Journal(tmp_path / "events.jsonl") as journal:
        ledger = drive(
            graph,
            store,
            fleet,
            FleetSection(attempts=2),
            clock=fleet.clock,
            journal=journal,
            watch=lambda event, ledger: None,
            stop=lambda: False,
        )
    with pytest.raises(RunFailedError) as caught:
        check_ending(Experiment(), store, "demo", ledger, hold)
    said = str(caught.value)
    for words in (
        "teacher/fold1: crashed, 2 times: as scripted",
        "  on:    attic, attempt 2",
        f"  log:   {store.backend.local_path(layout.log(failing, 'train.log'))}",
        f"  story: foldfleet explain teacher/fold1 --store {store.url} --run demo",
        "the same command goes on from there",
    ):
        assert words in said
