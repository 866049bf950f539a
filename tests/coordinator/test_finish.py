"""When a run will end, reckoned from what its ledger measured: held against sums that can be done by hand."""

from __future__ import annotations

import random

import pytest

from coordinator.config import DistillSection, Experiment, FoldsSection
from coordinator.events import Event, MachineCut, MachineJoined, Progressed, Start, Tick
from coordinator.finish import Finish, seconds_left
from coordinator.graph import Photos, build
from coordinator.ledger import Ledger
from coordinator.retry import Rules
from coordinator.scenario import WORK
from workers.recipe import Recipe
from workers.tasks import Progress


def middling() -> float:
    """The chance that draws the middle of every interval."""
    return 0.5


def ledger_of(
    folds: int, *machines: MachineJoined, pins: dict[str, str] | None = None, patience: int | None = None
) -> Ledger:
    """Teachers alone; the first machine has begun fold 0 and timed its first epochs: 100 s each."""
    epochs = 10
    experiment = Experiment(
        folds=FoldsSection(count=folds),
        distill=DistillSection(rounds=1),
        recipe=Recipe(epochs=epochs, batch_size=12, patience=patience),
    )
    graph = build(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), None)
    teachers = graph.named("teacher/")
    ledger = Ledger(graph, Rules(pins={teachers[int(fold)]: machine for fold, machine in (pins or {}).items()}))
    events: list[Event] = [MachineJoined("driver", 1, ("search",)), *machines]
    events.append(Start(teachers[0], machines[0].machine, 0, 1))
    for epoch in range(3):
        events += [Tick(100.0 * epoch), Progressed(Progress(teachers[0], 1, epoch, epochs, epoch * 10, epochs * 10))]
    for event in events:
        ledger.apply(event)
    return ledger


def machine(name: str, speed: float, slots: int = 1) -> MachineJoined:
    return MachineJoined(name, slots, WORK, speed=speed)


def test_nothing_is_said_before_an_epoch_is_timed() -> None:
    ledger = Ledger(build(Experiment(), Photos("s", "0" * 64), ("a", "b"), None))
    assert seconds_left(ledger, middling) is None


def test_what_is_left_is_placed_on_slots_as_they_come_free() -> None:
    short = 2 * 5.0  # the search and the bundle, untimed
    assert seconds_left(ledger_of(3, machine("desk", 1.0)), middling) == pytest.approx(800 + 2 * 1000 + short)
    two = ledger_of(3, machine("desk", 1.0, slots=2))
    assert seconds_left(two, middling) == pytest.approx(1800 + short)


def test_a_fold_that_would_end_sooner_on_an_idle_faster_machine_goes_there() -> None:
    fast_and_slow = ledger_of(2, machine("desk", 1.0), machine("attic", 0.1))
    left = seconds_left(fast_and_slow, middling)
    assert left is not None and left < 3000  # not the 10,000 s that attic would take alone


def test_a_pinned_fold_waits_for_its_machine_and_without_it_nothing_is_said() -> None:
    pinned = ledger_of(2, machine("desk", 1.0), machine("attic", 0.1), pins={"1": "attic"})
    assert seconds_left(pinned, middling) == pytest.approx(10_000 + 10.0)
    pinned.apply(MachineCut("attic"))
    assert seconds_left(pinned, middling) is None


def test_the_interval_is_of_several_plays_and_forgets_machines_that_are_gone() -> None:
    ledger, finish = (
        ledger_of(4, machine("desk", 1.0, slots=2), patience=4),
        Finish(lambda: 0.0, random.Random(1).random),
    )
    found = finish.look(ledger)
    assert found is not None and ledger.now < found.low < found.middle < found.high
    assert finish.look(ledger) == found  # a play has its price: not again before it is due
    finish.tell(MachineCut("desk"))
    assert finish.look(ledger) is None
