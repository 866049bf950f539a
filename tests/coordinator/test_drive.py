"""The loop, over a fake fleet and a real store: to the end, over failures, stopped, resumed, journaled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_fleet import FakeFleet, small_graph
from support import run_again

from coordinator.config import FleetSection
from coordinator.drive import drive
from coordinator.events import (
    Event,
    Kill,
    MachineCut,
    MachineJoined,
    Order,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    TaskEnded,
    Tick,
)
from coordinator.journal import Journal, read_journal
from coordinator.ledger import Ledger, State
from coordinator.placing import rules_of
from coordinator.plan import plan
from coordinator.replay import drives, replay
from shared_store.commits import read_result
from shared_store.store import Store
from workers.tasks import Failure, Progress, Task

GRAPH = small_graph()
SETTINGS = FleetSection(attempts=3)
RULES = rules_of(SETTINGS, GRAPH)


def never() -> bool:
    return False


def driven(
    store: Store,
    fleet: FakeFleet,
    path: Path,
    *,
    stop: Callable[[], bool] = never,
    watch: Callable[[Event, Ledger], None] | None = None,
) -> Ledger:
    def check(event: Event, ledger: Ledger) -> None:
        ledger.validate()
        if watch is not None:
            watch(event, ledger)

    with Journal(path) as journal:
        return drive(GRAPH, store, fleet, SETTINGS, clock=fleet.clock, journal=journal, watch=check, stop=stop)


def journaled(path: Path) -> list[Event]:
    return [event for _, event in read_journal(path)]


def test_every_task_is_run_once_and_its_result_stands(store: Store, tmp_path: Path) -> None:
    fleet = FakeFleet(store, {"box": 2})
    ledger = driven(store, fleet, tmp_path / "events.jsonl")
    assert ledger.all_done and ledger.finished == "all done"
    assert sorted(order.task for order in fleet.started) == sorted(GRAPH.tasks)
    assert all(read_result(store, task) is not None for task in GRAPH.tasks)


def test_a_student_starts_before_the_last_teacher_is_done(store: Store, tmp_path: Path) -> None:
    fleet = FakeFleet(store, {"box": 2})
    driven(store, fleet, tmp_path / "events.jsonl")
    story = [
        (type(event).__name__, GRAPH.tasks[task].name)
        for event in journaled(tmp_path / "events.jsonl")
        if isinstance(event, Start | TaskEnded)
        for task in [event.task if isinstance(event, Start) else event.outcome.task]
    ]
    assert story.index(("Start", "student/fold2")) < story.index(("TaskEnded", "teacher/fold2"))


def test_the_same_command_again_runs_nothing(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    driven(store, FakeFleet(store, {"box": 2}), path)
    again = FakeFleet(store, {"box": 2})
    assert driven(store, again, path).all_done
    assert again.started == []
    assert run_again(journaled(path)) == []


def test_a_stopped_run_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = FakeFleet(store, {"box": 2})
    ledger = driven(store, first, path, stop=lambda: first.now >= 15.0)
    assert ledger.stopping and not ledger.all_done and not ledger.running
    second = FakeFleet(store, {"box": 2})
    assert driven(store, second, path).all_done
    events = journaled(path)
    assert run_again(events) == []
    resumed = events[len(events) - 1 - events[::-1].index(RunBegan(tuple(GRAPH.tasks))) :]
    found = {event.task for event in resumed if isinstance(event, ResultFound)}
    assert found == {task for task, entry in ledger.entries.items() if entry.state is State.DONE}
    assert found and found.isdisjoint(order.task for order in second.started)


def test_a_lost_machine_costs_only_its_running_tasks(store: Store, tmp_path: Path) -> None:
    fleet = FakeFleet(store, {"box": 1, "attic": 1})
    cut = []

    def cut_once(event: Event, ledger: Ledger) -> None:
        if not cut and isinstance(event, Progressed) and "attic" in ledger.slots.hosts:
            cut.append(event)
            fleet.cut("attic")

    ledger = driven(store, fleet, tmp_path / "events.jsonl", watch=cut_once)
    assert ledger.all_done and "attic" not in ledger.slots.hosts
    tries = [len(entry.attempts) for entry in ledger.entries.values()]
    assert sorted(tries) == [1] * (len(tries) - 1) + [2]


def test_a_task_that_keeps_crashing_is_given_up_and_the_rest_is_done(store: Store, tmp_path: Path) -> None:
    def ending(task: Task, attempt: int) -> Failure | None:
        return Failure.CRASHED if task.name == "teacher/fold1" else None

    ledger = driven(store, FakeFleet(store, {"box": 2}, ending), tmp_path / "events.jsonl")
    assert ledger.finished == "what is left has failed"
    by_name = {entry.task.name: entry for entry in ledger.entries.values()}
    assert by_name["teacher/fold1"].state is State.FAILED and len(by_name["teacher/fold1"].attempts) == 3
    assert by_name["student/fold1"].state is State.DONE  # the one student that does not learn from teacher 1
    assert by_name["student/fold0"].state is State.BLOCKED


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.CRASHED, Failure.NAN])
def test_one_failure_of_every_task_delays_and_changes_nothing(store: Store, tmp_path: Path, failure: Failure) -> None:
    fleet = FakeFleet(store, {"box": 2}, lambda task, attempt: failure if attempt == 1 else None)
    ledger = driven(store, fleet, tmp_path / "events.jsonl")
    assert ledger.all_done
    assert {len(entry.attempts) for entry in ledger.entries.values()} == {2}


def troubles(task: Task, attempt: int) -> Failure | None:
    """Every first attempt is lost, and one teacher hangs and crashes on top."""
    if task.name == "teacher/fold1" and attempt < 4:
        return [Failure.HUNG, Failure.CRASHED, Failure.OUT_OF_MEMORY][attempt - 1]
    return Failure.LOST if attempt == 1 else None


@pytest.fixture
def troubled(store: Store, tmp_path: Path) -> list[Event]:
    """The journal of a run with cuts and failures of every kind, and of a second command that finds it all done."""
    fleet, path = FakeFleet(store, {"box": 2, "attic": 1}, troubles), tmp_path / "events.jsonl"
    seen: list[Event] = []

    def cut_and_join(event: Event, ledger: Ledger) -> None:
        seen.extend([event] if isinstance(event, TaskEnded) else [])
        if len(seen) == 3 and "attic" in ledger.slots.hosts and "shed" not in ledger.slots.hosts:
            seen.append(event)
            fleet.cut("attic")
            fleet.join("shed", 2)

    assert driven(store, fleet, path, watch=cut_and_join).finished is not None
    assert driven(store, FakeFleet(store, {"box": 1}), path).finished is not None
    return journaled(path)


def test_replaying_a_journal_gives_the_same_orders(troubled: list[Event]) -> None:
    first, second = drives(troubled)
    kinds = {type(event) for event in first}
    assert {MachineCut, Kill, Start, TaskEnded} <= kinds and any(isinstance(event, ResultFound) for event in second)
    assert replay(GRAPH, RULES, first) == replay(GRAPH, RULES, second) == []
    for length in range(2, len(first), 7):  # the driver may be killed after any line
        assert replay(GRAPH, RULES, first[:length]) == []


def test_a_plan_that_decides_otherwise_is_found_out_where_it_does(troubled: list[Event]) -> None:
    def backwards(ledger: Ledger) -> list[Order]:
        return plan(ledger)[::-1]

    first, _ = drives(troubled)
    differences = replay(GRAPH, RULES, first, backwards)
    assert differences and all(set(found.recorded) >= set(found.replayed) for found in differences)


def test_the_ledger_hears_of_numbers_now_and_then_and_the_journal_has_all_that_it_heard(
    store: Store, tmp_path: Path
) -> None:
    watched: list[Event] = []
    path = tmp_path / "events.jsonl"
    fleet = FakeFleet(store, {"box": 1}, report_seconds=0.5)
    driven(store, fleet, path, watch=lambda event, _: watched.append(event))
    assert any(isinstance(event, Tick) for event in watched)
    heard = [event for event in journaled(path) if isinstance(event, Progressed)]
    told = [event for event in watched if isinstance(event, Progressed)]
    assert len(told) > 5 * len(heard)
    others = (Tick, Progressed)
    assert [e for e in watched if not isinstance(e, others)] == [
        e for e in journaled(path) if not isinstance(e, others)
    ]
    assert replay(GRAPH, RULES, journaled(path)) == []


def test_a_sign_of_life_is_heard_and_tells_nothing_else() -> None:
    ledger, task = Ledger(GRAPH), GRAPH.named("teacher/")[0]
    for event in (MachineJoined("box", 1, ("train",)), Start(task, "box", 0, 1), Tick(5.0)):
        ledger.apply(event)
    ledger.apply(Progressed(Progress(task, 1)))
    assert ledger.running[task].heard == 5.0 and ledger.entries[task].progress is None
