"""A task's story in words: every attempt with its machine, its commits, its end and why; in the time of day."""

from __future__ import annotations

import pytest
from fake_fleet import small_graph

from coordinator.events import (
    Event,
    GiveUp,
    MachineCut,
    Migrate,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    TaskEnded,
)
from coordinator.stories import named_task, story_of
from shared_store.errors import UserError
from workers.tasks import Failure, Outcome, Progress

GRAPH = small_graph()
TASK, OTHER = GRAPH.named("teacher/")[:2]


def report(epoch: int, commit: int | None = None, attempt: int = 1, note: str = "") -> Progressed:
    return Progressed(Progress(TASK, attempt, epoch, 35, epoch * 10, 350, 0.5, 0.8, commit=commit, note=note))


def lines(*events: tuple[float, Event]) -> list[str]:
    return story_of(TASK, [(100.0, RunBegan(tuple(GRAPH.tasks))), *events]).told()[1:]


def words(*events: tuple[float, Event]) -> list[str]:
    return [line[13:] if line[:9].strip().isdigit() else line for line in lines(*events)]


def test_attempts_commits_moves_and_losses_are_told_in_their_order() -> None:
    assert words(
        (101.0, Start(TASK, "desk", 0, 1)),
        (101.0, Start(OTHER, "attic", 0, 1)),
        (110.0, report(0, note="begins from pretrained weights")),
        (200.0, report(1, commit=1)),
        (300.0, report(2, commit=2)),
        (310.0, Migrate(TASK, 1, "attic", 0)),
        (320.0, TaskEnded(Outcome(TASK, 1, Failure.STOPPED))),
        (330.0, Start(TASK, "attic", 0, 2)),
        (400.0, report(3, commit=3, attempt=2)),
        (500.0, MachineCut("attic", "no heartbeat")),
        (501.0, MachineCut("desk")),
        (510.0, Start(TASK, "shed", 1, 3, 4)),
        (600.0, TaskEnded(Outcome(TASK, 3))),
    ) == [
        "attempt 1 starts on desk, slot 0",
        "begins from pretrained weights",
        "commits 1 to 2: epoch 2 of 35, mAP 0.800, the first at 200 s",
        "asked to commit and move to attic",
        "attempt 1 ends after 4 min on desk: stopped, with its last step committed",
        "attempt 2 starts on attic, slot 0",
        "commit 3: epoch 3 of 35, mAP 0.800",
        "attempt 2 ends after 3 min on attic: lost: attic was lost, out of reach: no heartbeat",
        "attempt 3 starts on shed, slot 1, 4 images at once",
        "attempt 3 ends after 2 min on shed: done",
    ]


def test_failures_come_with_their_cause_their_mend_and_their_traceback() -> None:
    end = Outcome(TASK, 1, Failure.CRASHED, "no room", "disk /data", "free some", traceback="Traceback ...")
    story = story_of(TASK, [(0.0, Start(TASK, "desk", 0, 1)), (9.0, TaskEnded(end)), (9.0, GiveUp(TASK, "it crashed"))])
    told = "\n".join(story.told())
    assert "crashed: no room (disk /data)\n  mend:  free some" in told and "given up. it crashed" in told
    assert story.tracebacks == ["Traceback ..."] and "Traceback" not in told


def test_what_a_killed_driver_left_is_told_as_cut_off_and_what_runs_as_at_work() -> None:
    story = words(
        (101.0, Start(TASK, "desk", 0, 1)),
        (200.0, report(1, commit=1)),
        (0.0, RunBegan(tuple(GRAPH.tasks), "2026-03-04T12:00:00+00:00")),
        (5.0, Start(TASK, "attic", 0, 1)),
        (90.0, report(4, attempt=1)),
    )
    assert story[2] == "  cut off on desk with the process that drove the run"
    assert story[-1] == "  it was at work on attic, in epoch 5 of 35 when the journal ends"
    assert ":00:05  attempt 1 starts on attic" in story[-2]


def test_a_result_that_stood_and_reports_of_old_attempts_are_known_for_what_they_are() -> None:
    assert words((101.0, ResultFound(TASK)), (102.0, report(5, commit=5))) == [
        "its result stood in the store: not run again"
    ]


def test_a_task_is_named_by_name_or_id_and_a_typo_gets_the_nearest() -> None:
    assert named_task("teacher/fold0", GRAPH.tasks) == named_task(TASK, GRAPH.tasks) == TASK
    with pytest.raises(UserError, match="did you mean teacher/fold0"):
        named_task("teacher/flod0", GRAPH.tasks)
