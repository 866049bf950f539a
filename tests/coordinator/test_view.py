"""The view tells the run's story: plain lines when piped, a table of what runs on a terminal."""

from __future__ import annotations

import io
from datetime import datetime

import pytest
from rich.console import Console

from coordinator.config import Experiment, FoldsSection
from coordinator.estimate import Interval
from coordinator.events import (
    Drain,
    Event,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Progressed,
    ResultFound,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from coordinator.graph import Graph, Photos, build
from coordinator.ledger import Ledger
from coordinator.machine_lines import duration
from coordinator.view import View, finish_line, summary
from shared_store.commits import put_commit, put_result
from shared_store.records import Commit, Result
from shared_store.store import Store
from workers.tasks import Failure, Outcome, Progress, spec_hash


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
                console.print(view.screen(ledger))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_piped_there_is_one_line_for_each_thing_worth_telling() -> None:
    assert story(Console(file=io.StringIO(), width=100)).splitlines() == [
        "desk: joined, 1 slot",
        "teacher/fold0: started on desk, slot 0",
        "teacher/fold0: begins from pretrained weights",
        "teacher/fold0: epoch 1/35, loss 0.710, mAP 0.845, 12.5 images/s, 65 min left",
        "stopping: running folds commit their last step first (Ctrl-C again stops at once)",
        "teacher/fold0: stopped, its last step is committed",
    ]


def test_what_becomes_of_machines_and_of_what_runs_there_is_told() -> None:
    console = Console(file=io.StringIO(), width=200)
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    ledger = Ledger(graph)
    one, two, three = graph.named("teacher/")[:3]
    events: list[Event] = [
        MachineJoined("driver", 1, ("search",)),
        MachineJoined("desk", 2, ("train",), True, 11.5, "linux", ("loud",), 14.0, 90.0),
        MachineJoined("attic", 2, ("train",)),
        Start(one, "attic", 0, 1, 4),
        Migrate(one, 1, "desk", 0),
        Start(two, "attic", 1, 1),
        Kill(two, 1, "no sign of life for 30 minutes"),
        Start(three, "desk", 1, 1),
        Stop(three, 1, "desk will be taken back"),
        MachineDraining("desk", 600.0),
        Drain("attic", "3 failures in a row"),
        MachineProbed("attic", False, "no answer"),
        MachineProbed("attic", True),
        MachineCut("attic", "no heartbeat"),
        MachineLeft("desk"),
    ]
    with View(console) as view:
        for event in events:
            ledger.apply(event)
            view(event, ledger)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "desk: joined, 2 slots on a GPU of 11.5 GB, speed 14, 90 MB/s to the store, linux, loud",
        "attic: joined, 2 slots",
        "teacher/fold0: started on attic, slot 0, 4 images at once",
        "teacher/fold0: commits and moves to desk",
        "teacher/fold1: started on attic, slot 1",
        "teacher/fold1: its process is ended, no sign of life for 30 minutes",
        "teacher/fold2: started on desk, slot 1",
        "teacher/fold2: asked to stop, desk will be taken back",
        "desk: taken back in 10 min; nothing new starts there",
        "attic: in quarantine until it passes a probe: 3 failures in a row",
        "attic: failed its probe: no answer",
        "attic: passed its probe, takes work again",
        "attic: lost, out of reach (no heartbeat); teacher/fold0 goes on elsewhere, from the last commit",
        "desk: left; teacher/fold2 goes on elsewhere, from the last commit",
    ]


@pytest.mark.parametrize(
    ("slots", "gpu", "named"), [(1, False, True), (2, True, True), (2, False, False)], ids=["alone", "cards", "cores"]
)
def test_a_machine_that_has_become_slower_is_named_unless_its_slots_share_its_cores(
    slots: int, gpu: bool, named: bool
) -> None:
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    task, ledger = graph.named("teacher/")[0], Ledger(graph)
    screen = io.StringIO()
    view, at = View(Console(file=screen, width=100)), 0.0
    begun = Progressed(Progress(task, 1, step=1, steps=3000))
    for event in (MachineJoined("desk", slots, ("train",), gpu), Start(task, "desk", 0, 1), begun):
        ledger.apply(event)
    for epoch in range(1, 12):
        at += 10.0 if epoch < 8 else 30.0
        ledger.apply(Tick(at))
        report = Progressed(Progress(task, 1, epoch, 12, mean_ap=0.5))
        ledger.apply(report)
        view(report, ledger)
    lines = screen.getvalue().splitlines()
    assert "best speed" not in lines[0]
    assert lines[-1].endswith("(desk runs at 33% of its best speed)") is named


def test_the_commit_of_a_folds_last_epoch_is_not_told_once_more() -> None:
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    task, ledger = graph.named("teacher/")[0], Ledger(graph)
    screen = io.StringIO()
    view = View(Console(file=screen, width=100))
    for event in (
        MachineJoined("desk", 1, ("train",)),
        Start(task, "desk", 0, 1),
        Progressed(Progress(task, 1, 12, 12, step=240, steps=240, mean_ap=0.5, commit=11)),
        Progressed(Progress(task, 1, 12, 12, step=240, steps=240, mean_ap=0.5, commit=12)),
    ):
        ledger.apply(event)
        view(event, ledger)
    assert [line for line in screen.getvalue().splitlines() if "epoch" in line] == [
        "teacher/fold0: epoch 12/12, mAP 0.500"
    ]


def test_a_terminal_has_tables_of_machines_and_folds() -> None:
    shown = story(Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None))
    assert "images/s" in shown and "0.845 @1" in shown
    assert "of 17 tasks done, 1 running" in shown


def troubled(view: View, folds: int = 10) -> Ledger:
    """Two of three machines train; one of them is lost at 100 s, and a late one comes at 200 s."""
    graph = build(Experiment(folds=FoldsSection(count=folds)), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    ledger = Ledger(graph)
    one, two = graph.named("teacher/")[:2]
    events: list[Event] = [
        MachineJoined("rtx2070", 1, ("train",), True, 8.0, "linux", (), 1.15, 90.0),
        MachineJoined("gtx1060", 1, ("train",), True, 6.0),
        Start(one, "rtx2070", 0, 1),
        Start(two, "gtx1060", 0, 1),
        Progressed(Progress(two, 1, 11, 35, 110, 350, 0.5, 0.9, 5.0, 900.0, commit=1)),
        Tick(40.0),
        Progressed(Progress(two, 1, 12, 35, 120, 350, 0.4, 0.8, 5.0, 860.0, commit=2, gpu_memory_gb=4.2)),
        Tick(100.0),
        MachineCut("gtx1060", "no heartbeat"),
        Tick(200.0),
        MachineJoined("rtx3090", 1, ("train",)),
        Start(two, "rtx3090", 0, 2),
    ]
    for event in events:
        ledger.apply(event)
        view(event, ledger)
    return ledger


@pytest.mark.parametrize(("width", "height"), [(60, 16), (80, 10), (80, 5), (48, 30)])
def test_a_small_terminal_keeps_the_summary_and_the_finish(width: int, height: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    view = View(console)
    lines = view.screen(troubled(view, folds=80)).plain.splitlines()
    assert max(map(len, lines)) <= width and len(lines) <= height
    assert "tasks done" in lines[-2] and lines[-1].startswith("expected finish")


def test_the_screen_of_a_run_that_goes_on_begins_with_what_stands(store: Store) -> None:
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    done, begun = graph.named("teacher/")[:2]
    numbers = {"mean_ap": 0.9, "epochs": 30, "kept_epoch": 25}
    put_result(store, Result(done, spec_hash(graph.tasks[done]), 1, "x", {}, numbers))
    put_commit(store, Commit(begun, 1, None, "spec", 1, "nonce", 7, 0, {}))
    view = View(Console(file=io.StringIO(), width=140, height=60, force_terminal=True))
    view.show_standing(store, graph.tasks)
    ledger = Ledger(graph)
    ledger.apply(ResultFound(done))
    lines = view.screen(ledger).plain.splitlines()
    assert any("teacher/fold0" in line and "0.900 @25" in line for line in lines)
    assert any("teacher/fold1" in line and "7/35" in line for line in lines)
    (bar,) = [line for line in lines if line.endswith(" %")]
    assert bar.endswith(" 12 %")  # 1.2 folds of ten


def test_the_best_epoch_of_a_fold_that_goes_on_is_not_its_newest() -> None:
    view = View(Console(file=io.StringIO(), width=140, height=60, force_terminal=True))
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    task, ledger = graph.named("teacher/")[0], Ledger(graph)
    for event in (
        MachineJoined("desk", 1, ("train",)),
        Start(task, "desk", 0, 1),
        Progressed(Progress(task, 1, 20, 35, 200, 350, 0.4, 0.88, best_epoch=15)),
    ):
        ledger.apply(event)
        view(event, ledger)
    (line,) = [line for line in view.screen(ledger).plain.splitlines() if "20/35" in line]
    assert line.split()[-1] == "@15"
    better = Progressed(Progress(task, 1, 21, 35, 210, 350, 0.4, 0.93, best_epoch=21))
    ledger.apply(better)
    view(better, ledger)
    assert "0.930 @21" in view.screen(ledger).plain


@pytest.mark.parametrize(("width", "height"), [(100, 40), (80, 24), (80, 16)])
def test_the_screen_stays_within_the_terminal_whatever_there_is_to_show(width: int, height: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    view = View(console)
    lines = view.screen(troubled(view, folds=80)).plain.splitlines()
    assert max(map(len, lines)) <= width and len(lines) <= height
    assert any("teacher/fold1 " in line and "rtx3090" in line for line in lines)  # what runs comes first
    assert any("more folds: " in line and "waiting" in line for line in lines)


def test_lost_and_late_machines_are_on_the_screen_and_in_words_above() -> None:
    console = Console(file=io.StringIO(), width=140, height=60, force_terminal=True, color_system=None)
    view = View(console, clock=iter(range(1000)).__next__)
    with view:
        ledger = troubled(view)
        lines = view.screen(ledger).plain.splitlines()
    assert any(line.split()[:4] == ["gtx1060", "GPU", "6.0", "GB"] and "lost" in line for line in lines)
    assert any("teacher/fold1" in line and "12/35" in line and "0.900 @11" in line for line in lines)
    assert any("teacher/fold0" in line and "silent 3 min" in line for line in lines)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "gtx1060: lost, out of reach (no heartbeat); teacher/fold1 goes on elsewhere" in told
    assert "rtx3090: joined 3 min after the run began" in told
    assert "teacher/fold1: goes on at epoch 12 on rtx3090, slot 0, attempt 2" in told


def test_the_expected_finish_is_told_as_a_time_of_day_once_an_epoch_was_timed() -> None:
    graph = build(Experiment(), Photos("snapshot", "0" * 64), ("no", "yes"), None)
    task, ledger, noon = graph.named("teacher/")[0], Ledger(graph), datetime(2026, 3, 4, 12, 0)
    assert finish_line(None, ledger, noon).endswith("once an epoch is timed")
    for event in (MachineJoined("desk", 1, ("train",)), Start(task, "desk", 0, 1)):
        ledger.apply(event)
    for epoch in range(3):
        ledger.apply(Tick(500.0 * epoch))
        ledger.apply(Progressed(Progress(task, 1, epoch, 12)))
    assert finish_line(None, ledger, noon).endswith("once a machine is here for all")
    line = finish_line(Interval(4000.0, 8200.0, 44200.0), ledger, noon)
    assert line == "expected finish 14:00, between 12:50 and Thu 05 Mar 00:00: in 2 h 00 min"


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (4.4, 89, 720, 11100)] == ["4 s", "89 s", "12 min", "3 h 05 min"]


def test_the_summary_counts_what_waits() -> None:
    ledger = Ledger(
        Graph.of(build(Experiment(), Photos("s", "0" * 64), ("a", "b"), Photos("t", "1" * 64)).tasks.values())
    )
    assert summary(ledger) == "0 of 18 tasks done, 0 running, 18 waiting"
