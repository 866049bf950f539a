"""What the tests of the fleet reckon with, by hand: the lower bound of a run, and what an attempt lost."""

from __future__ import annotations

from fleet.journal import Event, done_again, given_up_and_heard, losses
from fleet.makespan import makespan


def joins(machine: str, at: float) -> Event:
    return {"event": "MachineJoined", "machine": machine, "at": at}


def starts(task: str, machine: str, at: float, attempt: int = 1) -> Event:
    return {"event": "Start", "task": task, "machine": machine, "attempt": attempt, "at": at}


def told(task: str, epoch: int, at: float, attempt: int = 1) -> Event:
    """Four steps an epoch."""
    progress = {"task": task, "attempt": attempt, "epoch": epoch, "epochs": 30, "step": 4 * epoch}
    return {"event": "Progressed", "progress": progress, "at": at}


def done(task: str, at: float, attempt: int = 1) -> Event:
    return {"event": "TaskEnded", "outcome": {"task": task, "attempt": attempt, "failure": None}, "at": at}


def trains(task: str, machine: str, at: float, epoch_seconds: float) -> list[Event]:
    """Thirty epochs from `at` on."""
    epochs = [told(task, epoch, at + epoch * epoch_seconds) for epoch in range(31)]
    return [starts(task, machine, at), *epochs, done(task, at + 30 * epoch_seconds)]


def test_the_bound_is_all_work_on_all_machines_from_when_they_were_there() -> None:
    begin = [joins("fast", 10.0), joins("slow", 40.0)]
    folds = [*trains("teacher-0", "fast", 10.0, 1.0), *trains("teacher-1", "slow", 40.0, 2.0)]
    folds += [*trains("student-0", "fast", 100.0, 1.0), *trains("student-1", "fast", 130.0, 1.0)]
    found = makespan([*begin, *folds], 2, 30)
    assert found.seconds == 150.0 and found.epoch_seconds == {"fast": 1.0, "slow": 2.0}
    # 30 epochs until the slow machine comes, the other 90 at one and a half a second.
    assert found.bound == 30 + 90 / 1.5


def test_the_bound_knows_that_students_wait_for_all_teachers_but_one() -> None:
    folds = [*trains("teacher-0", "fast", 0.0, 1.0), *trains("student-0", "slow", 40.0, 10.0)]
    found = makespan([joins("fast", 0.0), joins("slow", 0.0), *folds], 2, 30)
    # Both teachers need 60 / 1.1 s, and one student 30 s more on the fast machine alone.
    assert found.bound == max(120 / 1.1, 60 / 1.1 + 30)


def test_what_an_attempt_lost_is_held_against_what_an_interval_has_room_for() -> None:
    first = [starts("teacher-0", "a", 0.0), *(told("teacher-0", epoch, float(epoch)) for epoch in range(11))]
    second = [starts("teacher-0", "b", 20.0, 2), told("teacher-0", 8, 21.0, 2)]
    [loss] = losses([*first, *second], 3.0)
    assert loss.steps == 8 and loss.of_an_interval == 3.0 * 4 + 1
    [loss] = losses([*first, {"event": "RunBegan"}, starts("teacher-0", "b", 1.0), told("teacher-0", 10, 2.0)], 3.0)
    assert loss.steps == 0


def test_orphans_that_are_adopted_are_seen() -> None:
    cut = {"event": "MachineCut", "machine": "a"}
    begin = [starts("teacher-0", "a", 0.0), cut, starts("teacher-0", "b", 1.0, 2)]
    assert given_up_and_heard([*begin, done("teacher-0", 2.0, 2)]) == []
    assert given_up_and_heard([*begin, done("teacher-0", 2.0)]) == ["teacher-0"]
    assert done_again([*begin, done("teacher-0", 2.0), done("teacher-0", 3.0, 2)]) == ["teacher-0"]
    assert done_again([done("teacher-0", 2.0), starts("teacher-0", "b", 3.0, 2)]) == ["teacher-0"]
