"""What may go where, of what waits."""

from __future__ import annotations

from fake_fleet import WORK, small_graph

from coordinator.candidates import SMALL_FLEET, Waiting, climbers, fastest, fitting, partners, settled
from coordinator.events import Event, MachineJoined, Progressed, Start, Stop, TaskEnded, Tick
from coordinator.ledger import Ledger
from coordinator.retry import Needs, Rules
from workers.tasks import Failure, Outcome, Progress

GRAPH = small_graph()
TEACHERS = GRAPH.named("teacher/")
BOX = MachineJoined("box", 2, WORK, speed=2.0)
ATTIC = MachineJoined("attic", 2, WORK, memory_gb=4.0, speed=1.0)


def ledger_after(*events: Event, rules: Rules | None = None) -> Ledger:
    ledger = Ledger(GRAPH, rules)
    for event in events:
        ledger.apply(event)
    return ledger


def test_tasks_are_offered_in_their_order_and_each_once() -> None:
    waiting = Waiting(ledger_after(BOX))
    offered = []
    while (found := waiting.best("box")) is not None:
        offered.append(found.task)
        waiting.take(found.task)
    assert offered == list(TEACHERS)


def test_a_task_that_does_not_fit_hides_none_that_does() -> None:
    ledger = ledger_after(ATTIC, rules=Rules(needs={TEACHERS[0]: Needs(memory_gb=8.0)}))
    found = Waiting(ledger).best("attic")
    assert found is not None and found.task == TEACHERS[1]


def test_the_fastest_machine_comes_first_and_slots_of_equals_in_turn() -> None:
    ledger = ledger_after(BOX, ATTIC, MachineJoined("barn", 2, WORK, speed=1.0))
    places = [("box", 0), ("box", 1), ("attic", 0), ("barn", 0), ("attic", 1), ("barn", 1)]
    assert fastest(ledger, frozenset({"train"})) == places


def test_where_a_task_crashed_it_goes_only_when_nothing_else_is_open() -> None:
    task = TEACHERS[0]
    ledger = ledger_after(BOX, Start(task, "box", 0, 1), TaskEnded(Outcome(task, 1, Failure.CRASHED)), Tick(9.0))
    assert fitting(ledger, task, "box") is not None
    ledger.apply(ATTIC)
    assert fitting(ledger, task, "box") is None and fitting(ledger, task, "attic") is not None


def test_an_attempt_is_asked_to_move_once_and_not_before_it_was_heard_of() -> None:
    task = TEACHERS[0]
    ledger = ledger_after(BOX, Start(task, "box", 0, 1), Tick(5.0))
    assert settled(ledger, task) is None
    ledger.apply(Progressed(Progress(task, 1, epoch=1)))
    assert settled(ledger, task) is ledger.running[task]
    ledger.apply(Stop(task, 1))
    assert settled(ledger, task) is None


def fleet_at_work(count: int) -> Ledger:
    graph = small_graph(folds=count, rounds=1)
    ledger = Ledger(graph)
    for number, task in enumerate(graph.named("teacher/")):
        ledger.apply(MachineJoined(f"machine{number}", 1, WORK, speed=1.0))
        ledger.apply(Start(task, f"machine{number}", 0, 1))
    return ledger


def test_on_a_large_fleet_partners_are_the_extremes_of_a_band_in_an_order_of_their_own() -> None:
    ledger = fleet_at_work(SMALL_FLEET + 6)
    assert list(partners(ledger)) == [min(ledger.running), max(ledger.running)]


def test_a_slot_that_comes_free_is_offered_to_all_of_a_small_fleet() -> None:
    ledger = fleet_at_work(SMALL_FLEET)
    assert list(climbers(ledger)) == sorted(ledger.running)


def test_on_a_large_fleet_it_is_offered_to_the_longest_and_to_those_that_have_just_committed() -> None:
    ledger = fleet_at_work(SMALL_FLEET + 6)
    longest, others = sorted(ledger.running)[:4], sorted(ledger.running)[4:]
    assert list(climbers(ledger)) == longest  # of one level all: the first by name
    ledger.apply(Progressed(Progress(others[9], 1, epoch=1, commit=1)))
    assert list(climbers(ledger)) == sorted([*longest, others[9]])
    ledger.apply(TaskEnded(Outcome(longest[0], 1, None)))
    assert longest[0] not in climbers(ledger)
