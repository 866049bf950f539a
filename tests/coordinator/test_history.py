"""A journal as spans: one command behind the other, losses and moves where they were, late news left out."""

from __future__ import annotations

from coordinator.events import (
    Event,
    Finish,
    GiveUp,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    Migrate,
    Progressed,
    RunBegan,
    Start,
    TaskEnded,
    Tick,
)
from coordinator.history import CUT_SHORT, DONE, MOVED, RUNNING, History, read_history
from coordinator.timeline_chart import timeline
from workers.tasks import Failure, Outcome, Progress

BEGAN = (RunBegan(("a", "b")), MachineJoined("desk", 2, ("train",)), MachineJoined("attic", 1, ("train",)))


def _history(*events: tuple[float, Event]) -> History:
    return read_history([(0.0, Tick(0.0)), *((0.0, event) for event in BEGAN), *events])


def _told(history: History) -> list[tuple[str, str, float, float, str]]:
    return [(span.task, span.machine, span.begin, span.end, span.ending) for span in history.spans]


def test_an_attempt_is_a_span_on_its_machine() -> None:
    history = _history(
        (5.0, Start("a", "desk", 1, 1)),
        (6.0, Progressed(Progress("a", 1))),  # a sign of life alone
        (9.0, Progressed(Progress("a", 1, epoch=3, epochs=9, commit=1))),
        (12.0, Progressed(Progress("a", 1, epoch=7, epochs=9))),
        (20.0, TaskEnded(Outcome("a", 1))),
        (20.0, Finish("all done")),
    )
    (span,) = history.spans
    assert _told(history) == [("a", "desk", 5.0, 20.0, DONE)]
    assert (span.slot, span.epochs) == (1, (3, 7))
    assert "epochs 4 to 7, done" in timeline(history, lambda task: (task, "teacher"))
    assert history.drives[0].finished == "all done"


def test_a_fold_that_moves_is_no_loss_and_goes_on_elsewhere() -> None:
    history = _history(
        (1.0, Start("a", "attic", 0, 1)),
        (5.0, Migrate("a", 1, "desk", 0)),
        (6.0, TaskEnded(Outcome("a", 1, Failure.STOPPED))),
        (6.0, Start("a", "desk", 0, 2)),
    )
    assert [(end, machine) for _, machine, _, _, end in _told(history)] == [(MOVED, "attic"), (RUNNING, "desk")]
    assert timeline(history, lambda task: (task, "teacher")).count('class="move"') == 1


def test_a_fold_that_was_lost_before_it_could_move_has_not_moved() -> None:
    history = _history(
        (1.0, Start("a", "attic", 0, 1)),
        (5.0, Migrate("a", 1, "desk", 0)),
        (6.0, MachineCut("attic", "no heartbeat")),
        (7.0, Start("a", "desk", 0, 2)),
    )
    assert history.spans[0].ending == Failure.LOST
    assert 'class="move"' not in timeline(history, lambda task: (task, "teacher"))


def test_what_ran_on_a_machine_ends_with_it() -> None:
    history = _history(
        (1.0, Start("a", "desk", 0, 1)),
        (1.0, Start("b", "attic", 0, 1)),
        (4.0, MachineCut("desk", "no heartbeat")),
        (6.0, MachineDraining("attic", 9.0)),
        (8.0, TaskEnded(Outcome("a", 1))),  # the lost attempt goes on for a while: it counts no more
        (9.0, MachineLeft("attic")),
        (30.0, MachineJoined("desk", 2, ("train",))),
    )
    assert [(task, end, ending) for task, _, _, end, ending in _told(history)] == [
        ("a", 4.0, Failure.LOST),
        ("b", 9.0, Failure.PREEMPTED),
    ]
    assert history.spans[0].what == "desk out of reach: no heartbeat"
    assert [(mark.machine, mark.lost) for mark in history.marks] == [
        ("desk", True),
        ("attic", False),
        ("attic", False),
    ]
    assert history.hosts["desk"].here == [(0.0, 4.0), (30.0, 30.0)]
    drawn = timeline(history, lambda task: (task, "teacher"))
    assert drawn.count('class="cross"') == 2 and drawn.count('class="lost"') == 1


def test_an_attempt_that_was_killed_ends_then() -> None:
    history = _history((1.0, Start("a", "desk", 0, 1)), (9.0, Kill("a", 1, "silent for 8 s")))
    assert _told(history) == [("a", "desk", 1.0, 9.0, Failure.HUNG)]


def test_commands_stand_one_behind_the_other_each_with_its_own_clock() -> None:
    history = _history(
        (2.0, Start("a", "desk", 0, 1)),
        (10.0, Progressed(Progress("a", 1, epoch=1))),  # then the driver was killed
        (0.0, Tick(0.0)),
        *((0.0, event) for event in BEGAN),
        (3.0, Start("a", "desk", 0, 1)),
        (8.0, TaskEnded(Outcome("a", 1))),
        (8.0, GiveUp("b", "it crashed")),
    )
    assert _told(history) == [("a", "desk", 2.0, 10.0, CUT_SHORT), ("a", "desk", 13.0, 18.0, DONE)]
    assert [(drive.begin, drive.end) for drive in history.drives] == [(0.0, 10.0), (10.0, 18.0)]
    assert history.drives[1].gave_up == {"b": "it crashed"}
    assert history.seconds == 18.0


def test_every_slot_that_was_here_has_a_lane_idle_ones_too() -> None:
    history = _history((0.0, Start("a", "desk", 0, 1)), (9.0, TaskEnded(Outcome("a", 1))))
    drawn = timeline(history, lambda task: (task, "student"))
    assert [f">{name}<" in drawn for name in ("desk 0", "desk 1", "attic")] == [True] * 3
    assert timeline(_history(), lambda task: (task, "student")) == ""
