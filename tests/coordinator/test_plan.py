"""The plan: one test for each of its rules."""

from __future__ import annotations

from fake_fleet import WORK, small_graph

from coordinator.events import (
    Event,
    Finish,
    GiveUp,
    MachineJoined,
    ResultFound,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from coordinator.ledger import Ledger
from coordinator.plan import plan
from workers.tasks import Failure, Outcome

GRAPH = small_graph()
TEACHERS = GRAPH.named("teacher/")
BOX = MachineJoined("box", 2, WORK)


def ledger_after(*events: Event) -> Ledger:
    ledger = Ledger(GRAPH)
    for event in events:
        ledger.apply(event)
    return ledger


def carried_out(ledger: Ledger) -> list[Event]:
    orders = plan(ledger)
    for order in orders:
        ledger.apply(order)
    return list(orders)


def test_ready_tasks_go_onto_free_slots_and_no_further() -> None:
    ledger = ledger_after(BOX)
    assert carried_out(ledger) == [Start(TEACHERS[0], "box", 0, 1), Start(TEACHERS[1], "box", 1, 1)]
    assert carried_out(ledger) == []


def test_every_machine_gets_its_first_task_before_any_its_second() -> None:
    ledger = ledger_after(BOX, MachineJoined("attic", 2, WORK))
    assert [(order.machine, order.slot) for order in plan(ledger) if isinstance(order, Start)] == [
        ("attic", 0),
        ("box", 0),
        ("attic", 1),
    ]


def test_the_longest_chain_goes_first() -> None:
    ledger = ledger_after(*[ResultFound(task) for task in TEACHERS[:2]], MachineJoined("box", 1, WORK))
    first = plan(ledger)[0]
    assert isinstance(first, Start) and first.task == TEACHERS[2]  # not a label, whose chain is shorter


def test_a_task_goes_only_where_its_kind_is_taken() -> None:
    found = [ResultFound(task) for task in GRAPH.tasks if not task.startswith(("search", "bundle", "predict"))]
    ledger = ledger_after(*found, BOX)
    assert plan(ledger) == []  # the search waits for a driver, it does not fail
    ledger.apply(MachineJoined("driver", 1, ("search",)))
    assert plan(ledger) == [Start(GRAPH.named("search/")[0], "driver", 0, 1)]


def test_a_failed_task_waits_for_its_delay_and_starts_with_the_next_attempt() -> None:
    ledger = ledger_after(Tick(50.0), MachineJoined("box", 1, ("train",)), Start(TEACHERS[2], "box", 0, 1))
    for task in TEACHERS[:2]:
        ledger.apply(ResultFound(task))
    ledger.apply(TaskEnded(Outcome(TEACHERS[2], 1, Failure.CRASHED)))
    assert plan(ledger) == []
    ledger.apply(Tick(51.0))
    assert plan(ledger) == [Start(TEACHERS[2], "box", 0, 2)]


def test_a_hopeless_task_is_given_up_with_its_reason() -> None:
    bad = Outcome(TEACHERS[0], 1, Failure.BAD_INPUT, "no model of that name", "recipe.model", "choose another")
    ledger = ledger_after(BOX, Start(TEACHERS[0], "box", 0, 1), TaskEnded(bad))
    given_up = plan(ledger)[0]
    assert isinstance(given_up, GiveUp) and "choose another" in given_up.why


def test_after_a_stop_request_nothing_starts_and_each_running_task_is_told_once() -> None:
    ledger = ledger_after(BOX, Start(TEACHERS[0], "box", 0, 1), StopRequested())
    assert carried_out(ledger) == [Stop(TEACHERS[0], 1)]
    assert carried_out(ledger) == []
    ledger.apply(TaskEnded(Outcome(TEACHERS[0], 1, Failure.STOPPED)))
    assert carried_out(ledger) == [Finish("stopped")]
    assert carried_out(ledger) == []


def test_the_run_finishes_when_all_is_done() -> None:
    assert plan(ledger_after(*[ResultFound(task) for task in GRAPH.tasks])) == [Finish("all done")]


def test_the_run_finishes_when_nothing_more_can_be_done() -> None:
    ledger = ledger_after(MachineJoined("box", 1, WORK), MachineJoined("driver", 1, ("search",)))
    for _ in range(100):
        for order in carried_out(ledger):
            if isinstance(order, Start):
                failure = Failure.BAD_INPUT if order.task == TEACHERS[0] else None
                ledger.apply(TaskEnded(Outcome(order.task, order.attempt, failure)))
        if ledger.finished:
            break
    assert ledger.finished == "what is left has failed"
    assert ledger.entries[GRAPH.named("student/fold0")[0]].state == "done"  # all that could be done was done


def test_a_task_waits_while_no_machine_is_there() -> None:
    assert plan(ledger_after()) == []
