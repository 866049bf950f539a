"""Speeds of machines and work of recipes, learned in turn from reports; what must not be mistaken for either."""

from __future__ import annotations

import dataclasses
import statistics

import pytest
from fake_fleet import WORK, small_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.estimate import Estimates, Interval
from coordinator.events import MachineJoined
from coordinator.graph import Graph
from workers.tasks import Failure, LabelTask, Outcome, Progress, TrainTask, task_id

FOLD = next(task for task in small_graph().tasks.values() if isinstance(task, TrainTask))
EPOCHS, PATIENCE, STEPS = 20, 5, 100  # steps: of one epoch


def fold(number: int, epochs: int = EPOCHS, patience: int | None = PATIENCE, **recipe: object) -> TrainTask:
    values = {**FOLD.recipe, "epochs": epochs, "patience": patience, **recipe}
    return dataclasses.replace(FOLD, name=f"teacher/fold{number}", held_out=(number,), recipe=values)


FOLDS = [fold(number) for number in range(12)]
NAMES = [task_id(task) for task in FOLDS]


def joined(name: str, speed: float | None = None, link: float | None = None) -> MachineJoined:
    return MachineJoined(name, 1, WORK, speed=speed, link_mb_per_second=link)


def fleet(*machines: MachineJoined, graph: Graph | None = None) -> Estimates:
    estimates = Estimates(graph or Graph.of(FOLDS))
    for machine in machines:
        estimates.joined(machine)
    return estimates


def tell(estimates: Estimates, task: str, position: float, at: float, best: int | None = None) -> None:
    """A report at `position`, in epochs."""
    epochs = estimates.epochs[task]
    step, steps = round(position * STEPS), epochs * STEPS
    estimates.progressed(Progress(task, 1, int(position), epochs, step, steps, best_epoch=best), at)


def run(estimates: Estimates, task: str, machine: str, *seconds: float, first: int = 0) -> float:
    """An attempt whose epochs, from number `first` on, take so many seconds each; when the last one ends."""
    at = 0.0
    estimates.started(task, machine, at)
    tell(estimates, task, first, at)
    for number, each in enumerate(seconds, start=first + 1):
        at += each
        tell(estimates, task, number, at)
    return at


def test_before_any_epoch_the_probe_says_how_machines_compare_and_what_is_not_probed_counts_as_the_middle() -> None:
    estimates = fleet(joined("slow", 1.0), joined("middle", 3.0), joined("fast", 4.0), joined("unknown"))
    slow, unknown, fast = (estimates.epoch_seconds(NAMES[0], name) for name in ("slow", "unknown", "fast"))
    assert slow.middle == 3 * unknown.middle == 4 * fast.middle
    assert slow.low < slow.middle < slow.high
    estimates.probed("slow", 2.0)
    assert estimates.epoch_seconds(NAMES[0], "slow").middle == slow.middle / 2
    assert fleet(joined("box")).speed("box") == 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(90.0, 110.0), min_size=5, max_size=12), st.floats(0.01, 1e6), st.integers(0, 11))
def test_one_odd_epoch_even_the_first_changes_little_here_and_on_machines_that_only_a_probe_knows(
    usual: list[float], odd: float, place: int
) -> None:
    estimates = fleet(joined("box", 1.0), joined("attic", 2.0))
    run(estimates, NAMES[0], "box", *usual[:place], odd, *usual[place:])
    there, elsewhere = (estimates.epoch_seconds(NAMES[1], name) for name in ("box", "attic"))
    assert 89.9 <= there.low <= there.middle <= there.high <= 110.1
    assert 89.9 <= 2 * elsewhere.middle <= 110.1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]), min_size=2, max_size=10))
def test_speeds_are_learned_without_any_probe(speeds: list[float]) -> None:
    """Machines report in turn, an epoch each; what an epoch takes differs by up to 5 %."""
    machines = {NAMES[number]: (f"box{number}", speed, [0.0]) for number, speed in enumerate(speeds)}
    estimates = fleet(*[joined(machine) for machine, _, _ in machines.values()], joined("new"))
    for task, (machine, _, _) in machines.items():
        estimates.started(task, machine, 0.0)
    for epoch in range(8):
        for place, (task, (_, speed, now)) in enumerate(machines.items()):
            tell(estimates, task, epoch, now[0])
            now[0] += 100.0 / speed * (1 + 0.025 * ((7 * epoch + 3 * place) % 5 - 2))
    for machine, speed, _ in machines.values():
        assert estimates.speed(machine) / estimates.speed("box0") == pytest.approx(speed / speeds[0], rel=0.11)
        assert estimates.epoch_seconds(NAMES[-1], machine).middle == pytest.approx(100.0 / speed, rel=0.06)
    middle = statistics.median(estimates.speed(machine) for machine, _, _ in machines.values())
    assert estimates.speed("new") == pytest.approx(middle, rel=0.06)


def test_recipes_that_ran_on_different_machines_are_compared_by_those_that_ran_both() -> None:
    """Nobody was probed. The dear recipe ran on the slow machine and on one that ran the cheap one too."""
    cheap, dear = fold(0), fold(1, model="resnet50")
    estimates = fleet(joined("slow"), joined("both"), joined("fast"), graph=Graph.of([cheap, dear]))
    for _ in range(3):
        run(estimates, task_id(dear), "slow", 400.0, 400.0)
        run(estimates, task_id(dear), "both", 200.0, 200.0)
        run(estimates, task_id(cheap), "both", 50.0, 50.0)
        run(estimates, task_id(cheap), "fast", 25.0, 25.0)
    assert estimates.epoch_seconds(task_id(cheap), "slow").middle == pytest.approx(100.0)
    assert estimates.epoch_seconds(task_id(dear), "fast").middle == pytest.approx(100.0)


def test_a_first_epoch_that_warmed_the_machine_up_is_forgotten_with_the_second() -> None:
    estimates = fleet(joined("box"))
    run(estimates, NAMES[0], "box", 500.0, 100.0)
    assert estimates.epoch_seconds(NAMES[0], "box").middle == 100.0


def test_short_tasks_have_times_of_their_own_and_say_nothing_of_a_machines_speed() -> None:
    graph = small_graph()
    estimates = fleet(joined("box", 1.0), joined("attic", 4.0), graph=graph)
    label, other = (name for name, task in graph.tasks.items() if isinstance(task, LabelTask) and task.held_out != (2,))
    for machine in ("box", "attic"):
        estimates.started(label, machine, 0.0)
        estimates.ended(label, Outcome(label, 1), 12.0)
    assert estimates.epoch_seconds(other, "attic").middle == 12.0
    assert estimates.remaining_epochs(other) == Interval(1.0, 1.0, 1.0)
    assert (estimates.speed("box"), estimates.speed("attic")) == (1.0, 4.0)


def end(estimates: Estimates, task: str, best: int) -> None:
    estimates.started(task, "box", 0.0)
    tell(estimates, task, min(EPOCHS, best + PATIENCE), 100.0, best=best)
    estimates.ended(task, Outcome(task, 1), 100.0)


def test_folds_that_ended_say_whether_a_better_epoch_is_likely_to_come() -> None:
    estimates = fleet(joined("box"))
    for task, best in zip(NAMES[1:], [3, 3, 3, 10], strict=False):
        end(estimates, task, best)
    estimates.started(NAMES[0], "box", 0.0)
    tell(estimates, NAMES[0], 5.0, 100.0, best=2)
    chance = (1 + 1) / (4 + 2)  # one of four had its best after epoch 5, and Laplace's rule
    assert estimates.remaining_epochs(NAMES[0]).middle == pytest.approx((1 - chance) * 7 + chance * 15 - 5)
    likely = estimates.remaining_epochs(NAMES[0]).middle
    for task in NAMES[5:8]:
        end(estimates, task, 15)
    assert estimates.remaining_epochs(NAMES[0]).middle > likely


def moved(estimates: Estimates, task: str, to: str, failure: Failure, seconds: float) -> None:
    """`task` makes two epochs and a half on box, ends, and goes on on `to`, where it reports after so many seconds."""
    run(estimates, task, "box", 100.0, 100.0)
    tell(estimates, task, 2.5, 250.0)
    estimates.ended(task, Outcome(task, 1, failure), 260.0)
    estimates.started(task, to, 300.0)
    tell(estimates, task, 2.5, 300.0 + seconds)


@pytest.mark.parametrize("failure", [Failure.STOPPED, Failure.LOST])
def test_a_move_is_guessed_from_the_link_and_then_measured_after_a_loss_too(failure: Failure) -> None:
    estimates = fleet(joined("box", link=100.0), joined("attic", link=1.0), joined("cloud"))
    assert estimates.move_seconds("cloud") < estimates.move_seconds("box") < estimates.move_seconds("attic")
    for task, seconds in zip(NAMES, (70.0, 75.0, 900.0), strict=False):
        moved(estimates, task, "attic", failure, seconds)
    assert estimates.move_seconds("attic") == 75.0
    assert estimates.move_seconds("box") == 75.0  # nobody came there yet: the fleet's median
    moved(estimates, NAMES[4], "box", failure, 3.0)  # it goes on where it was, which is no move
    assert estimates.move_seconds("box") == 75.0


def test_a_move_begins_when_the_fold_is_asked_to_leave() -> None:
    estimates = fleet(joined("box"), joined("attic"))
    run(estimates, NAMES[0], "box", 100.0, 100.0)
    estimates.ended(NAMES[0], Outcome(NAMES[0], 1, Failure.STOPPED), 260.0)
    estimates.started(NAMES[0], "attic", 262.0, asked=240.0)
    tell(estimates, NAMES[0], 2.0, 290.0)
    assert estimates.move_seconds("attic") == 50.0


def test_reports_that_go_back_or_come_at_once_time_nothing() -> None:
    estimates = fleet(joined("box"))
    before = estimates.epoch_seconds(NAMES[0], "box")
    estimates.started(NAMES[0], "box", 0.0)
    for position, at in ((3.0, 10.0), (2.0, 20.0), (5.0, 10.0)):
        tell(estimates, NAMES[0], position, at)
    assert estimates.epoch_seconds(NAMES[0], "box") == before
