"""The view tells the run's story: plain lines when piped, a table of what runs on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from coordinator.config import Experiment
from coordinator.events import Event, MachineJoined, Progressed, Start, StopRequested, TaskEnded
from coordinator.graph import Graph, Photos, build
from coordinator.ledger import Ledger
from coordinator.view import View, duration, summary
from workers.tasks import Failure, Outcome, Progress


def story(console: Console) -> str:
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    ledger = Ledger(graph)
    task = graph.named("teacher/fold0")[0]
    events: list[Event] = [
        MachineJoined("desk", 1, ("train",)),
        Start(task, "desk", 0, 1),
        Progressed(Progress(task, 1, 0, 35, 3, 350, note="begins from pretrained weights")),
        Progressed(Progress(task, 1, 1, 35, 10, 350, 0.71, 0.845, 12.5, 3900.0, commit=1)),
        Progressed(Progress(task, 1, 1, 35, 12, 350, 0.70, 0.845, 12.5, 3890.0)),
        StopRequested(),
        TaskEnded(Outcome(task, 1, Failure.STOPPED)),
    ]
    with View(console) as view:
        for event in events:
            ledger.apply(event)
            view(event, ledger)
            if console.is_terminal and isinstance(event, Progressed):
                console.print(view._table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_piped_there_is_one_line_for_each_thing_worth_telling() -> None:
    assert story(Console(file=io.StringIO(), width=100)).splitlines() == [
        "teacher/fold0: started on desk, slot 0",
        "teacher/fold0: begins from pretrained weights",
        "teacher/fold0: epoch 1/35, loss 0.710, mAP 0.845, 12.5 images/s, 65 min left",
        "stopping: running folds commit their last step first (Ctrl-C again stops at once)",
        "teacher/fold0: stopped, its last step is committed",
    ]


def test_a_terminal_has_a_table_of_what_runs_within_100_columns() -> None:
    shown = story(Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None))
    assert "images/s" in shown
    assert "of 17 tasks done, 1 running" in shown
    assert max(len(line) for line in shown.splitlines()) <= 110  # control sequences included


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (4.4, 89, 720, 11100)] == ["4 s", "89 s", "12 min", "3 h 05 min"]


def test_the_summary_counts_what_waits() -> None:
    ledger = Ledger(
        Graph.of(build(Experiment(), Photos("s", "0" * 64), ("a", "b"), Photos("t", "1" * 64)).tasks.values())
    )
    assert summary(ledger) == "0 of 18 tasks done, 0 running, 18 waiting"
