"""The plan: one test for each of its rules."""

from __future__ import annotations

import dataclasses
from typing import TypeGuard

from fake_fleet import WORK, small_graph
from long_folds import long_graph

from coordinator.events import (
    Drain,
    Event,
    Finish,
    GiveUp,
    Kill,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Order,
    Probe,
    Progressed,
    ResultFound,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from coordinator.graph import Graph
from coordinator.ledger import Ledger
from coordinator.plan import FIRST_PROBE_SECONDS, plan
from coordinator.retry import Needs, Rules
from coordinator.unfit import REFUSED, UNFIT_SECONDS, too_large
from workers.footprint import Footprint, TrainingMemory
from workers.tasks import Failure, Outcome, Progress

GRAPH = small_graph()
TEACHERS = GRAPH.named("teacher/")
LABELS, STUDENTS = GRAPH.named("label/"), GRAPH.named("student/")
BOX = MachineJoined("box", 2, WORK)
ONE = MachineJoined("box", 1, WORK)
FAST = MachineJoined("fast", 1, WORK, speed=4.0)
SLOW = MachineJoined("slow", 1, WORK, speed=1.0)
LONG = long_graph()
FOLDS = LONG.named("teacher/")


def ledger_after(*events: Event, graph: Graph = GRAPH, rules: Rules | None = None) -> Ledger:
    ledger = Ledger(graph, rules)
    for event in events:
        ledger.apply(event)
    return ledger


def carried_out(ledger: Ledger) -> list[Order]:
    """All that the plan says until it is silent."""
    said: list[Order] = []
    while orders := plan(ledger):
        for order in orders:
            ledger.apply(order)
            ledger.validate()
        said += orders
    return said


def at_epoch(task: str, epoch: int, attempt: int = 1, epochs: int = 100) -> Progressed:
    """A fold has finished an epoch and committed it."""
    return Progressed(Progress(task, attempt, epoch, epochs, 10 * epoch, 10 * epochs, commit=epoch, best_epoch=epoch))


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
    assert not any(isinstance(order, Start) and order.task == TEACHERS[2] for order in plan(ledger))
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


def test_a_task_goes_where_its_needs_are_met_and_where_it_is_pinned() -> None:
    rules = Rules(pins={TEACHERS[0]: "attic"}, needs={TEACHERS[1]: Needs(memory_gb=8.0), TEACHERS[2]: Needs(label="x")})
    small = MachineJoined("box", 3, ("train",), memory_gb=4.0, labels=("x",))
    ledger = ledger_after(small, rules=rules)
    assert carried_out(ledger) == [Start(TEACHERS[2], "box", 0, 1)]  # the others wait: such a machine may join
    ledger.apply(MachineJoined("attic", 1, ("train",), memory_gb=4.0))
    ledger.apply(MachineJoined("cloud", 1, ("train",), memory_gb=16.0))
    assert set(carried_out(ledger)) == {Start(TEACHERS[0], "attic", 0, 1), Start(TEACHERS[1], "cloud", 0, 1)}


def test_the_longest_chain_gets_the_fastest_machine() -> None:
    found = [ResultFound(task) for task in TEACHERS[:2]]
    started = {order.task: order.machine for order in carried_out(ledger_after(*found, SLOW, FAST)) if is_start(order)}
    assert started[TEACHERS[2]] == "fast"


def is_start(order: Order) -> TypeGuard[Start]:
    return isinstance(order, Start)


def test_a_fold_goes_on_where_it_was_when_others_are_about_as_urgent() -> None:
    one, other = (MachineJoined(name, 1, ("train",)) for name in ("attic", "box"))
    began = [Start(TEACHERS[0], "attic", 0, 1), Start(TEACHERS[1], "box", 0, 1)]
    ends = [TaskEnded(Outcome(task, 1, Failure.STOPPED)) for task in TEACHERS[:2]]
    ledger = ledger_after(ResultFound(TEACHERS[2]), one, other, *began, *ends, Tick(1.0))
    assert carried_out(ledger) == [Start(TEACHERS[0], "attic", 0, 2), Start(TEACHERS[1], "box", 0, 2)]


def test_a_task_that_crashed_goes_elsewhere_while_there_is_an_elsewhere() -> None:
    crash = TaskEnded(Outcome(TEACHERS[0], 1, Failure.CRASHED))
    others = [ResultFound(task) for task in TEACHERS[1:]]
    began = [ONE, Start(TEACHERS[0], "box", 0, 1), crash, Tick(60.0)]
    assert Start(TEACHERS[0], "box", 0, 2) in carried_out(ledger_after(*others, *began))
    orders = carried_out(ledger_after(*others, *began, MachineJoined("attic", 1, WORK)))
    assert Start(TEACHERS[0], "attic", 0, 2) in orders


def test_a_task_that_was_lost_again_and_again_goes_elsewhere_while_there_is_an_elsewhere() -> None:
    others = [ResultFound(task) for task in TEACHERS[1:]]
    lost = [TaskEnded(Outcome(TEACHERS[0], attempt, Failure.LOST, "killed for memory")) for attempt in (1, 2)]
    began = [
        *others,
        dataclasses.replace(BOX, slots=4, speed=1.0),
        MachineJoined("attic", 1, WORK, speed=0.1),
        Start(TEACHERS[0], "box", 0, 1),
        lost[0],
    ]
    ledger = ledger_after(*began, Tick(10.0))
    assert Start(TEACHERS[0], "box", 0, 2) in carried_out(ledger)  # once is nothing
    for event in (lost[1], Tick(60.0)):
        ledger.apply(event)
    assert Start(TEACHERS[0], "attic", 0, 3) in carried_out(ledger)


def test_after_out_of_memory_a_fold_goes_on_with_fewer_images_at_once() -> None:
    short = TaskEnded(Outcome(TEACHERS[0], 1, Failure.OUT_OF_MEMORY))
    ledger = ledger_after(
        *[ResultFound(task) for task in TEACHERS[1:]],
        MachineJoined("box", 1, ("train",)),
        Start(TEACHERS[0], "box", 0, 1),
    )
    for event in (short, Tick(1.0)):
        ledger.apply(event)
    assert carried_out(ledger) == [Start(TEACHERS[0], "box", 0, 2, micro_batch=6)]


def test_what_fits_no_card_is_given_up_after_a_while_in_which_a_larger_one_might_have_come() -> None:
    box = MachineJoined("box", 1, ("train",), memory_gb=4.0)
    ends = [
        event
        for number, size in enumerate((None, 6, 4, 3, 2, 1), start=1)
        for event in (
            Start(TEACHERS[0], "box", 0, number, size),
            TaskEnded(Outcome(TEACHERS[0], number, Failure.OUT_OF_MEMORY)),
            Tick(float(number)),
        )
    ]
    ledger = ledger_after(*[ResultFound(task) for task in TEACHERS[1:]], box, *ends)
    assert carried_out(ledger) == []
    ledger.apply(Tick(UNFIT_SECONDS + 10))
    given_up = carried_out(ledger)[0]
    assert isinstance(given_up, GiveUp) and "with 1 image at a time on box (4 GB)" in given_up.why


def reckoned(*tasks: str, settle_seconds: float = 60.0) -> Rules:
    """Each of `tasks` takes 2.1 GB of a card with one image at once, and 13 GB with its batch of 12."""
    memory = TrainingMemory(400, 12_050, 100, 1000, 5, 12)
    needs = Needs(footprint=Footprint(memory, memory, "auto", None))
    return Rules(needs=dict.fromkeys(tasks, needs), settle_seconds=settle_seconds)


def card(machine: str, memory_gb: float) -> MachineJoined:
    return MachineJoined(machine, 1, WORK, gpu=True, memory_gb=memory_gb)


def test_a_card_with_room_for_less_than_a_batch_is_given_what_it_has_room_for_from_the_start() -> None:
    ledger = ledger_after(card("box", 4.0), card("large", 24.0), rules=reckoned(*TEACHERS))
    starts = {order.machine: order.micro_batch for order in carried_out(ledger) if isinstance(order, Start)}
    assert starts == {"box": 3, "large": None}


def test_a_run_that_no_card_here_is_large_enough_for_is_refused_before_anything_starts() -> None:
    ledger = ledger_after(Tick(5.0), card("attic", 1.0), card("box", 1.5), rules=reckoned(*STUDENTS))
    assert carried_out(ledger) == []  # not even what fits, though students come last
    ledger.apply(Tick(64.0))
    assert carried_out(ledger) == []  # a larger card may still come
    ledger.apply(Tick(65.0))
    assert carried_out(ledger) == [Finish(REFUSED)]
    found = too_large(ledger)
    assert found is not None and (found[0], found[2].machine) == (GRAPH.tasks[STUDENTS[0]], "box")


def test_a_larger_card_that_joins_in_time_sets_the_run_going() -> None:
    ledger = ledger_after(Tick(5.0), card("box", 1.5), rules=reckoned(*TEACHERS))
    assert carried_out(ledger) == []
    for event in (Tick(60.0), card("large", 24.0)):
        ledger.apply(event)
    assert carried_out(ledger) == [Start(TEACHERS[0], "large", 0, 1)]
    ledger.apply(MachineLeft("large"))
    ledger.apply(Tick(6000.0))
    assert carried_out(ledger) == []  # once something has started, it waits for a card to come back


def test_on_a_machine_that_is_alone_the_refusal_waits_for_nobody() -> None:
    assert carried_out(ledger_after(card("box", 1.5), rules=reckoned(*TEACHERS, settle_seconds=0.0))) == [
        Finish(REFUSED)
    ]
    done = [ResultFound(task) for task in TEACHERS]
    ledger = ledger_after(*done, card("box", 1.5), rules=reckoned(*TEACHERS, settle_seconds=0.0))
    assert isinstance(carried_out(ledger)[0], Start)  # what is done needs no card
    ledger = ledger_after(MachineJoined("box", 1, WORK, memory_gb=1.5), rules=reckoned(*TEACHERS))
    assert isinstance(carried_out(ledger)[0], Start)  # on a machine without a card nothing is refused


def three_crashes() -> list[Event]:
    starts: list[Event] = [MachineJoined("box", 3, WORK), *(Start(t, "box", n, 1) for n, t in enumerate(TEACHERS))]
    return [*starts, *(TaskEnded(Outcome(task, 1, Failure.CRASHED, "no driver")) for task in TEACHERS), Tick(10.0)]


def test_a_machine_with_three_failures_in_a_row_is_shut_out_with_the_reason() -> None:
    orders = carried_out(ledger_after(*three_crashes()))
    assert orders == [Drain("box", "3 failures in a row, the last: crashed, no driver")]


def test_a_machine_in_quarantine_is_probed_later_and_later_until_it_passes() -> None:
    ledger = ledger_after(*three_crashes())
    carried_out(ledger)
    for wait in (FIRST_PROBE_SECONDS, 2 * FIRST_PROBE_SECONDS):
        ledger.apply(Tick(ledger.now + wait - 1))
        assert carried_out(ledger) == []
        ledger.apply(Tick(ledger.now + 1))
        assert carried_out(ledger) == [Probe("box")]
        ledger.apply(MachineProbed("box", passed=False))
    ledger.apply(Tick(ledger.now + 4 * FIRST_PROBE_SECONDS))
    assert carried_out(ledger) == [Probe("box")]
    ledger.apply(MachineProbed("box", passed=True))
    assert {order.machine for order in carried_out(ledger) if is_start(order)} == {"box"}


def test_an_attempt_without_a_sign_of_life_is_ended() -> None:
    rules = Rules(hang_seconds=600.0)
    ledger = ledger_after(BOX, Start(TEACHERS[0], "box", 0, 1), Start(TEACHERS[1], "box", 1, 1), rules=rules)
    for event in (Tick(500.0), at_epoch(TEACHERS[1], 1, epochs=3), Tick(601.0)):
        ledger.apply(event)
    assert carried_out(ledger)[0] == Kill(TEACHERS[0], 1, "no sign of life for 10 minutes")
    assert TEACHERS[1] in ledger.running


def begun(machine: MachineJoined, *others: MachineJoined) -> Ledger:
    """One long fold that has come to its tenth epoch of 100 s, and nothing else to do."""
    found = [ResultFound(task) for task in FOLDS[1:]]
    ledger = ledger_after(*found, machine, Start(FOLDS[0], machine.machine, 0, 1), graph=LONG)
    for epoch in range(11):
        ledger.apply(Tick(100.0 * epoch + 30))
        ledger.apply(at_epoch(FOLDS[0], epoch))
    for other in others:
        ledger.apply(other)
    return ledger


def test_what_runs_on_a_machine_that_will_be_taken_back_leaves_for_a_free_slot_at_once() -> None:
    ledger = begun(ONE, MachineJoined("attic", 1, ("train",)))
    assert carried_out(ledger) == []
    ledger.apply(MachineDraining("box", ledger.now + 600.0))
    assert carried_out(ledger) == [Migrate(FOLDS[0], 1, "attic", 0)]


def test_without_a_free_slot_it_stays_to_the_last_moment_and_commits() -> None:
    ledger = begun(ONE)
    ledger.apply(MachineDraining("box", ledger.now + 600.0))
    assert carried_out(ledger) == []
    ledger.apply(Tick(ledger.now + 560.0))
    assert carried_out(ledger) == [Stop(FOLDS[0], 1, "box will be taken back")]


def test_a_fold_that_ends_in_time_stays_on_a_machine_that_will_be_taken_back() -> None:
    ledger = begun(ONE, MachineJoined("attic", 1, ("train",)))
    ledger.apply(MachineDraining("box", ledger.now + 20_000.0))
    assert carried_out(ledger) == []


def test_with_nothing_waiting_a_fold_climbs_to_an_idle_machine_that_is_faster_and_begins_there() -> None:
    ledger = begun(SLOW, FAST)
    assert carried_out(ledger) == [Migrate(FOLDS[0], 1, "fast", 0)]
    ledger.apply(TaskEnded(Outcome(FOLDS[0], 1, Failure.STOPPED)))
    ledger.apply(Tick(ledger.now + 1))
    assert carried_out(ledger) == [Start(FOLDS[0], "fast", 0, 2)]


def test_a_fold_near_its_end_does_not_climb() -> None:
    ledger = begun(SLOW)
    ledger.apply(at_epoch(FOLDS[0], 99))
    ledger.apply(dataclasses.replace(FAST, speed=1.2))
    assert carried_out(ledger) == []


def test_on_machines_that_are_about_as_fast_no_two_folds_change_places() -> None:
    attic, box = MachineJoined("attic", 1, WORK, speed=1.01), MachineJoined("box", 1, WORK, speed=1.0)
    starts = [Start(FOLDS[0], "attic", 0, 1), Start(FOLDS[1], "box", 0, 1)]
    first = [Tick(30.0), at_epoch(FOLDS[0], 0), Tick(1970.0), at_epoch(FOLDS[1], 0)]
    then = [Tick(8030.0), at_epoch(FOLDS[0], 80), at_epoch(FOLDS[1], 60)]  # 100 s an epoch and 101 s
    ledger = ledger_after(ResultFound(FOLDS[2]), attic, box, *starts, *first, *then, graph=LONG)
    assert carried_out(ledger) == []  # 40 epochs, each a second shorter, do not pay for a move


def test_two_folds_that_have_just_changed_places_do_not_change_back_for_one_odd_epoch() -> None:
    starts = [Start(FOLDS[0], "fast", 0, 1), Start(FOLDS[1], "slow", 0, 1), Tick(30.0)]
    begun_both = [at_epoch(FOLDS[0], 0), at_epoch(FOLDS[1], 0), Tick(6030.0)]
    far = [at_epoch(FOLDS[0], 60), at_epoch(FOLDS[1], 15)]
    ledger = ledger_after(ResultFound(FOLDS[2]), FAST, SLOW, *starts, *begun_both, *far, graph=LONG)
    assert carried_out(ledger) == [Migrate(FOLDS[0], 1, "slow", 0), Migrate(FOLDS[1], 1, "fast", 0)]
    for task in FOLDS[:2]:
        ledger.apply(TaskEnded(Outcome(task, 1, Failure.STOPPED)))
    ledger.apply(Tick(6031.0))
    assert all(is_start(order) for order in carried_out(ledger))
    for event in (Tick(6060.0), at_epoch(FOLDS[0], 60, 2), at_epoch(FOLDS[1], 15, 2)):  # the move took 30 s
        ledger.apply(event)
    assert carried_out(ledger) == []
    for event in (Tick(6065.0), at_epoch(FOLDS[0], 61, 2)):  # in 5 s what took 400 s there before
        ledger.apply(event)
    assert carried_out(ledger) == []
    for event in (Tick(6170.0), at_epoch(FOLDS[0], 82, 2)):  # it is so: 21 more epochs of 5 s
        ledger.apply(event)
    assert carried_out(ledger) == [Migrate(FOLDS[0], 2, "fast", 0), Migrate(FOLDS[1], 2, "slow", 0)]


def test_with_nothing_waiting_the_longer_of_two_folds_takes_the_faster_machine() -> None:
    starts = [Start(FOLDS[0], "fast", 0, 1), Start(FOLDS[1], "slow", 0, 1)]
    ledger = ledger_after(ResultFound(FOLDS[2]), FAST, SLOW, *starts, graph=LONG)
    for epoch in range(61):
        ledger.apply(Tick(100.0 * epoch + 30))
        ledger.apply(at_epoch(FOLDS[0], epoch))
        if epoch % 4 == 0:
            ledger.apply(at_epoch(FOLDS[1], epoch // 4))
    assert carried_out(ledger) == [Migrate(FOLDS[0], 1, "slow", 0), Migrate(FOLDS[1], 1, "fast", 0)]
    for task in FOLDS[:2]:
        ledger.apply(TaskEnded(Outcome(task, 1, Failure.STOPPED)))
    ledger.apply(Tick(ledger.now + 1))
    assert {(order.task, order.machine) for order in carried_out(ledger) if is_start(order)} == {
        (FOLDS[0], "slow"),
        (FOLDS[1], "fast"),
    }


def test_at_a_commit_a_fold_makes_room_for_one_that_has_much_more_before_it() -> None:
    ledger = ledger_after(ONE, Start(FOLDS[0], "box", 0, 1), *[ResultFound(FOLDS[2])], graph=LONG)
    for epoch in range(30):
        ledger.apply(Tick(100.0 * epoch + 30))
        ledger.apply(at_epoch(FOLDS[0], epoch))
        said = carried_out(ledger)
        if said:
            break
    assert said == [Stop(FOLDS[0], 1, "teacher/fold1 has more before it")]
    assert 4 < epoch < 30


def test_a_machine_that_leaves_lets_its_folds_go_on_elsewhere() -> None:
    ledger = begun(ONE, MachineJoined("attic", 1, ("train",)))
    ledger.apply(MachineLeft("box"))
    ledger.apply(Tick(ledger.now + 5))
    assert carried_out(ledger) == [Start(FOLDS[0], "attic", 0, 2)]


def test_a_kept_slot_is_taken_even_when_a_better_machine_joins_meanwhile() -> None:
    task, (fast, slow, new) = TEACHERS[0], (MachineJoined(name, 1, ("train",)) for name in ("fast", "slow", "new"))
    crashed = [fast, Start(task, "fast", 0, 1), TaskEnded(Outcome(task, 1, Failure.CRASHED)), slow, Tick(5.0)]
    goes_on = [Start(task, "slow", 0, 2), Tick(9.0), at_epoch(task, 1, 2, epochs=3), MachineDraining("slow", 70.0)]
    ledger = ledger_after(*[ResultFound(other) for other in TEACHERS[1:]], *crashed, *goes_on)
    assert carried_out(ledger) == [Migrate(task, 2, "fast", 0)]  # where it crashed, for there is nothing else
    for event in (new, TaskEnded(Outcome(task, 2, Failure.STOPPED)), Tick(12.0)):
        ledger.apply(event)
    assert carried_out(ledger) == [Start(task, "fast", 0, 3)]


def test_no_two_folds_make_room_for_one() -> None:
    graph = long_graph(epochs=1000)
    folds = graph.named("teacher/")
    starts = [BOX, Start(folds[0], "box", 0, 1), Start(folds[1], "box", 1, 1)]
    ledger = ledger_after(*starts, graph=graph)
    said: list[Order] = []
    for epoch in range(100):
        ledger.apply(Tick(100.0 * epoch + 30))
        for task in folds[:2]:
            ledger.apply(at_epoch(task, epoch, epochs=1000))
        said += carried_out(ledger)
    assert [type(order) for order in said] == [Stop]
