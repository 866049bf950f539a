"""The ledger: what may follow what, late news, and indices that always say what the entries say."""

from __future__ import annotations

import random

import pytest
from fake_fleet import WORK, small_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.events import (
    Drain,
    Event,
    Finish,
    GiveUp,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Order,
    Probe,
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
from coordinator.retry import Rules
from workers.tasks import Failure, Outcome, Progress

BOX = MachineJoined("box", 2, ("train", "label", "bundle", "predict"))
GRAPH = small_graph()
TEACHERS = GRAPH.named("teacher/")
RARE = (Failure.BAD_INPUT, Failure.STORE, Failure.NAN)  # soon for good
FAILURES = [failure for failure in Failure for _ in range(1 if failure in RARE else 6)]


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
    assert {ledger.entries[task].state for task in TEACHERS[:2]} == {State.ENDED}
    (attempt,) = ledger.entries[TEACHERS[0]].attempts
    assert attempt.outcome is not None and attempt.outcome.failure is Failure.LOST


@pytest.mark.parametrize(
    ("events", "failure"),
    [
        ([MachineCut("box", "no route")], Failure.LOST),
        ([MachineDraining("box", 60.0), MachineLeft("box")], Failure.PREEMPTED),
        ([Kill(TEACHERS[0], 1, "silent")], Failure.HUNG),
    ],
)
def test_how_an_attempt_ended_follows_from_what_became_of_it(events: list[Event], failure: Failure) -> None:
    ledger = ledger_after(BOX, Start(TEACHERS[0], "box", 0, 1), *events)
    outcome = ledger.entries[TEACHERS[0]].attempts[0].outcome
    assert outcome is not None and outcome.failure is failure


def test_an_orphan_of_a_cut_machine_is_not_believed_when_it_speaks_up() -> None:
    task, orphan = TEACHERS[0], Progressed(Progress(TEACHERS[0], 1, epoch=2, commit=7))
    ledger = ledger_after(BOX, Start(task, "box", 0, 1), MachineCut("box"), BOX, Start(task, "box", 1, 2), orphan)
    assert ledger.entries[task].progress is None and ledger.entries[task].attempts[1].commit is None


def test_a_slot_is_kept_for_a_fold_that_moves_until_it_begins_there() -> None:
    task, spare = TEACHERS[0], MachineJoined("spare", 1, ("train",))
    ledger = ledger_after(BOX, spare, Start(task, "box", 0, 1), Migrate(task, 1, "spare", 0))
    assert ledger.slots.targets == {task: ("spare", 0)}
    with pytest.raises(AssertionError):
        ledger.apply(Start(TEACHERS[1], "spare", 0, 1))
    for event in (TaskEnded(Outcome(task, 1, Failure.STOPPED)), Start(task, "spare", 0, 2)):
        ledger.apply(event)
        ledger.validate()
    assert not ledger.slots.kept and ledger.running[task].machine == "spare"


@pytest.mark.parametrize(
    "event",
    [
        MachineLeft("spare"),
        MachineDraining("spare", 9.0),
        Drain("spare", "three failures"),
        TaskEnded(Outcome(TEACHERS[0], 1, Failure.CRASHED)),
        TaskEnded(Outcome(TEACHERS[0], 1)),
    ],
)
def test_a_kept_slot_is_let_go_when_nobody_will_come(event: Event) -> None:
    spare = MachineJoined("spare", 1, ("train",))
    ledger = ledger_after(BOX, spare, Start(TEACHERS[0], "box", 0, 1), Migrate(TEACHERS[0], 1, "spare", 0), event)
    assert not ledger.slots.kept and not ledger.slots.targets


def test_a_machine_in_quarantine_takes_work_again_once_it_passes_a_probe_wherever_it_was() -> None:
    shut = [BOX, Drain("box", "three failures"), MachineLeft("box"), BOX, Probe("box")]
    failed = ledger_after(*shut, MachineProbed("box", passed=False))
    assert failed.slots.quarantine["box"].probes == 1 and not failed.slots.free
    passed = ledger_after(*shut, MachineProbed("box", passed=True, speed=2.0))
    assert passed.slots.free == {("box", 0), ("box", 1)} and passed.estimates.speed("box") == 2.0
    assert ledger_after(*shut, MachineLeft("box"), MachineProbed("box", passed=True)).slots.quarantine  # too late


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
        [Start(TEACHERS[0], "box", 0, 1), Stop(TEACHERS[0], 1), Migrate(TEACHERS[0], 1, "box", 1)],  # told twice
        [Start(TEACHERS[0], "box", 0, 1), Migrate(TEACHERS[0], 1, "nowhere", 0)],
        [Start(TEACHERS[0], "box", 0, 1), Kill(TEACHERS[0], 2, "")],
        [MachineDraining("box", 9.0), Start(TEACHERS[0], "box", 0, 1)],
        [Drain("box", ""), Start(TEACHERS[0], "box", 0, 1)],
        [RunBegan(TEACHERS)],  # another run's tasks
        [ResultFound(TEACHERS[0]), ResultFound(TEACHERS[0])],
    ],
)
def test_what_cannot_follow_is_refused(events: list[Event]) -> None:
    ledger = ledger_after(BOX, *events[:-1])
    with pytest.raises(AssertionError):
        ledger.apply(events[-1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["oof", "nested"]))
def test_whatever_happens_the_indices_hold_and_the_run_ends(seed: int, labels: str) -> None:
    """Unequal machines come, go, are cut off, reclaimed, shut out and probed; attempts move, hang, end in every way."""
    world = World(random.Random(seed), Ledger(small_graph(folds=3, labels=labels), Rules(hang_seconds=600.0)))
    ledger = world.ledger
    for _ in range(3000):
        world.turn()
        if ledger.finished is not None:
            break
    assert ledger.finished is not None, "\n".join(ledger.story(task) for task in ledger.entries)
    for name, entry in ledger.entries.items():
        done = sum(a.outcome is not None and a.outcome.failure is None for a in entry.attempts)
        assert done == (entry.state is State.DONE), ledger.story(name)
        assert entry.state in (State.DONE, State.FAILED, State.BLOCKED) or ledger.stopping


class World:
    """What happens around a ledger, drawn at random. Every order of the plan is carried out, sooner or later."""

    def __init__(self, chance: random.Random, ledger: Ledger) -> None:
        self.chance, self.ledger = chance, ledger
        self.machines = 0
        self.past: list[Outcome] = []
        self.probing: list[str] = []
        self.orders: list[Order] = []
        self.take(MachineJoined("driver", 1, ("search",)))

    def take(self, event: Event) -> None:
        self.ledger.apply(event)
        self.ledger.validate()

    def turn(self) -> None:
        self.take(Tick(self.ledger.now + self.chance.choice([0.1, 1.0, 30.0, 200.0])))
        for _ in range(50):
            orders = plan(self.ledger)
            for order in orders:
                self.take(order)
                self.orders.append(order)
                assert isinstance(order, Stop | Kill | GiveUp | Finish) or not self.ledger.stopping
                if isinstance(order, Probe):
                    self.probing.append(order.machine)
            if not orders:
                break
        else:
            raise AssertionError(f"the plan is never silent: {self.orders[-6:]}")
        self.facts_of_machines()
        for task, attempt in list(self.ledger.running.items()):
            self.fact_of_attempt(task, attempt.number, attempt.told_to_stop)

    def facts_of_machines(self) -> None:
        chance, hosts = self.chance, self.ledger.slots.hosts
        if len(hosts) < 4 and chance.random() < 0.3:
            self.machines += 1
            returns = chance.random() < 0.5
            name = f"old-{self.machines % 3}" if returns else f"new-{self.machines}"
            if name not in hosts:
                memory_gb, speed = chance.choice([None, 4.0, 12.0]), chance.choice([None, 1.0, 6.0])
                self.take(MachineJoined(name, chance.choice([1, 2]), WORK, memory_gb=memory_gb, speed=speed))
        machine = chance.choice(sorted(hosts))
        if machine != "driver" and chance.random() < 0.06:
            leaves = [MachineLeft(machine), MachineCut(machine), MachineDraining(machine, self.ledger.now + 150.0)]
            self.take(chance.choice(leaves))
        for gone in [name for name, host in hosts.items() if (host.draining_until or 1e9) < self.ledger.now]:
            self.take(MachineLeft(gone))
        while self.probing:
            self.take(MachineProbed(self.probing.pop(), chance.random() < 0.7, speed=chance.choice([None, 2.0])))
        if chance.random() < 0.002:
            self.take(StopRequested())
        if self.past and chance.random() < 0.2:
            self.take(TaskEnded(chance.choice(self.past)))

    def fact_of_attempt(self, task: str, number: int, told: bool) -> None:
        chance, known = self.chance, self.ledger.entries[task].progress
        what = chance.random()
        if told and what < 0.5:
            self.end(Outcome(task, number, Failure.STOPPED))
        elif what < 0.15:
            self.end(Outcome(task, number, None if chance.random() < 0.5 else chance.choice(FAILURES)))
        elif what < 0.4:
            step = min(30, (0 if known is None else known.step) + chance.choice([0, 1, 10]))
            commit = chance.choice([None, step])
            self.take(Progressed(Progress(task, number, step // 10, 3, step, 30, commit=commit, best_epoch=1)))

    def end(self, outcome: Outcome) -> None:
        self.past.append(outcome)
        self.take(TaskEnded(outcome))
