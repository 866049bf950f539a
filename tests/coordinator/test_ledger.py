"""The ledger: what may follow what, late news, and indices that always say what the entries say."""

from __future__ import annotations

import random

import pytest
from fake_fleet import small_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.events import (
    Event,
    GiveUp,
    MachineJoined,
    MachineLeft,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
)
from coordinator.ledger import Ledger, State
from coordinator.plan import plan
from coordinator.retry import Budgets, Rules
from workers.tasks import Failure, Outcome, Progress

BOX = MachineJoined("box", 2, ("train", "label", "bundle", "predict"))
GRAPH = small_graph()
TEACHERS = GRAPH.named("teacher/")


def ledger_after(*events: Event) -> Ledger:
    ledger = Ledger(GRAPH)
    for event in events:
        ledger.apply(event)
        ledger.validate()
    return ledger


def test_tasks_without_inputs_are_ready_and_the_rest_wait() -> None:
    ledger = ledger_after()
    ready = {name for name, entry in ledger.entries.items() if entry.state is State.READY}
    assert ready == set(TEACHERS)


def test_a_task_is_ready_once_its_last_input_is_done() -> None:
    ledger = ledger_after(BOX, Start(TEACHERS[0], "box", 0, 1), TaskEnded(Outcome(TEACHERS[0], 1)))
    assert ledger.entries[GRAPH.named("label/fold0")[0]].state is State.READY
    assert ledger.entries[GRAPH.named("label/fold1")[0]].state is State.WAITING


def test_a_late_outcome_is_noted_and_not_believed() -> None:
    task = TEACHERS[0]
    ledger = ledger_after(
        BOX,
        Start(task, "box", 0, 1),
        MachineLeft("box", "cut"),
        MachineJoined("spare", 1, ("train",)),
        Start(task, "spare", 0, 2),
        TaskEnded(Outcome(task, 1)),
    )
    assert ledger.entries[task].state is State.RUNNING
    assert "attempt 1 ended late" in ledger.story(task)


def test_what_ran_on_a_machine_that_left_is_lost() -> None:
    ledger = ledger_after(
        BOX, Start(TEACHERS[0], "box", 0, 1), Start(TEACHERS[1], "box", 1, 1), MachineLeft("box", "cut")
    )
    assert ledger.ended == set(TEACHERS[:2])
    (attempt,) = ledger.entries[TEACHERS[0]].attempts
    assert attempt.outcome is not None and attempt.outcome.failure is Failure.LOST


def test_a_task_given_up_blocks_all_that_need_it_with_the_reason() -> None:
    task = TEACHERS[0]
    crash = TaskEnded(Outcome(task, 1, Failure.BAD_INPUT))
    ledger = ledger_after(BOX, Start(task, "box", 0, 1), crash, GiveUp(task, "no such weights"))
    blocked = {entry.task.name for entry in ledger.entries.values() if entry.state is State.BLOCKED}
    assert {"label/fold0", "student/fold1", "student/fold2", "search/ensemble", "bundle/winner"} <= blocked
    assert "student/fold0" not in blocked  # it does not learn from teacher 0
    assert "no such weights" in ledger.story(task)
    assert "teacher/fold0" in ledger.story(GRAPH.named("label/fold0")[0])


def test_a_result_in_the_store_is_done_without_an_attempt() -> None:
    ledger = ledger_after(*[ResultFound(task) for task in GRAPH.tasks])
    assert ledger.all_done and ledger.open == 0
    assert not any(entry.attempts for entry in ledger.entries.values())


def test_only_progress_of_the_present_attempt_counts() -> None:
    task = TEACHERS[0]
    ledger = ledger_after(BOX, Start(task, "box", 0, 1), Progressed(Progress(task, 1, epoch=2, commit=4)))
    ledger.apply(Progressed(Progress(task, 7, epoch=9)))
    progress = ledger.entries[task].progress
    assert progress is not None and progress.epoch == 2
    assert ledger.entries[task].attempts[0].commit == 4


def test_a_clock_set_back_does_not_move_the_ledger_back() -> None:
    assert ledger_after(Tick(100.0), Tick(40.0)).now == 100.0


@pytest.mark.parametrize(
    "events",
    [
        [Start(TEACHERS[0], "box", 0, 2)],  # attempts count from 1
        [Start(TEACHERS[0], "box", 5, 1)],  # no such slot
        [Start(TEACHERS[0], "nowhere", 0, 1)],
        [Start(GRAPH.named("search/")[0], "box", 0, 1)],  # its inputs are missing
        [Start(TEACHERS[0], "box", 0, 1), Start(TEACHERS[1], "box", 0, 1)],  # one slot, two tasks
        [Stop(TEACHERS[0], 1)],  # does not run
        [GiveUp(TEACHERS[0], "")],  # has not failed
        [BOX],  # joined twice
        [RunBegan(TEACHERS)],  # another run's tasks
        [ResultFound(TEACHERS[0]), ResultFound(TEACHERS[0])],
    ],
)
def test_what_cannot_follow_is_refused(events: list[Event]) -> None:
    ledger = ledger_after(BOX, *events[:-1])
    with pytest.raises(AssertionError):
        ledger.apply(events[-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["oof", "nested"]))
def test_whatever_happens_the_indices_hold_and_the_run_ends(seed: int, labels: str) -> None:
    """Machines come and go, attempts end in every way, old attempts speak up late; one machine keeps coming back."""
    chance = random.Random(seed)
    ledger = Ledger(small_graph(folds=3, labels=labels), Rules(Budgets(crashes=2)))
    ends: dict[str, int] = {}
    past: list[Outcome] = []
    now = 0.0

    def take(event: Event) -> None:
        ledger.apply(event)
        ledger.validate()

    take(MachineJoined("driver", 1, ("search",)))
    for _ in range(4000):
        now += chance.choice([0.1, 1.0, 30.0])
        take(Tick(now))
        for order in plan(ledger):
            take(order)
        if ledger.finished is not None:
            break
        for fact in _facts(chance, ledger, past):
            take(fact)
    assert ledger.finished is not None, "\n".join(ledger.story(task) for task in ledger.entries)
    for name, entry in ledger.entries.items():
        ends[name] = sum(a.outcome is not None and a.outcome.failure is None for a in entry.attempts)
        assert ends[name] == (entry.state is State.DONE), ledger.story(name)
        assert entry.state in (State.DONE, State.FAILED, State.BLOCKED) or ledger.stopping


def _facts(chance: random.Random, ledger: Ledger, past: list[Outcome]) -> list[Event]:
    facts: list[Event] = []
    if "box" not in ledger.slots.hosts:
        facts.append(BOX)
    elif chance.random() < 0.1:
        return [MachineLeft("box", "cut")]
    if chance.random() < 0.002:
        facts.append(StopRequested())
    if past and chance.random() < 0.2:
        facts.append(TaskEnded(chance.choice(past)))
    for task, attempt in list(ledger.running.items()):
        if chance.random() < 0.4:
            failure = None if chance.random() < 0.7 else chance.choice(list(Failure))
            outcome = Outcome(task, attempt.number, failure)
            past.append(outcome)
            facts.append(TaskEnded(outcome))
        elif chance.random() < 0.3:
            facts.append(Progressed(Progress(task, attempt.number, commit=chance.choice([None, 1]))))
    return facts
