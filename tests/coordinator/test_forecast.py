"""A forecast is right where it can be known by hand: the finish, what holds it up, and what one more machine saves."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from fake_fleet import small_graph

from coordinator.config import DistillSection, Experiment, FoldsSection
from coordinator.estimate import work_key
from coordinator.events import Event, MachineJoined, MachineLeft, Progressed, RunBegan, Start, TaskEnded
from coordinator.forecast import Forecast, forecast
from coordinator.forecast_basis import Basis, Chance, Standing, draw, learned, machines_of
from coordinator.forecast_plays import Question
from coordinator.graph import Graph, Photos, build
from coordinator.retry import Rules
from shared_store.errors import UserError
from workers.recipe import Recipe
from workers.tasks import Outcome, Progress

EPOCH = 1000.0
WORK = ("train", "label", "bundle", "predict")


def two_teachers(epochs: int = 3, patience: int | None = None) -> Graph:
    recipe = Recipe(epochs=epochs, patience=patience, checkpoint_minutes=60)
    experiment = Experiment(folds=FoldsSection(count=2), distill=DistillSection(rounds=1), recipe=recipe)
    return build(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), None)


def chances(play: int) -> Chance:
    return random.Random(play).random


def foreseen(graph: Graph, machines: str, rules: Rules | None = None, standing: Standing | None = None) -> Forecast:
    basis = Basis(machines_of(machines), dict.fromkeys(graph.named("teacher/"), EPOCH), 60.0, "by hand")
    return forecast(Question(graph, rules or Rules(), basis, standing or Standing(), chances, plays=5))


def test_one_machine_trains_one_fold_after_the_other_and_a_second_one_saves_half() -> None:
    found = foreseen(two_teachers(), "desk:2")
    assert found.finish.middle == pytest.approx(6 * EPOCH / 2, rel=0.15)
    assert found.finish.low <= found.finish.middle <= found.finish.high
    (saving,) = found.savings
    assert saving.machine == "desk" and saving.saved == pytest.approx(3 * EPOCH / 2, rel=0.25)
    (machine,) = found.machines
    assert machine.folds == 2 and machine.busy > 0.95


def test_a_fold_that_is_pinned_to_a_slow_machine_holds_the_run_up_and_no_machine_helps() -> None:
    graph = two_teachers()
    pinned = Rules(pins={graph.named("teacher/fold1")[0]: "attic", graph.named("teacher/fold0")[0]: "desk"})
    found = foreseen(graph, "desk:1,attic:0.25", pinned)
    assert found.finish.middle == pytest.approx(3 * EPOCH / 0.25, rel=0.15)
    assert found.bottleneck is not None
    assert (found.bottleneck.machine, found.bottleneck.share) == ("attic", 1.0)
    assert found.bottleneck.alone == pytest.approx(3 * EPOCH / 0.25 - 3 * EPOCH, rel=0.2)
    assert [(fold.name, fold.last) for fold in found.folds] == [("teacher/fold0", "desk"), ("teacher/fold1", "attic")]
    assert all(abs(saving.saved) < 0.02 * found.finish.middle for saving in found.savings)


def test_what_is_done_is_not_played_and_what_has_begun_goes_on() -> None:
    graph = two_teachers()
    first, second = graph.named("teacher/")
    found = foreseen(graph, "desk:1", standing=Standing(frozenset([first]), {second: 2}))
    assert found.finish.middle == pytest.approx(EPOCH, rel=0.25)
    assert [fold.name for fold in found.folds] == ["teacher/fold1"]
    assert foreseen(graph, "desk:1", standing=Standing(frozenset(graph.tasks))).bottleneck is None


def test_a_fold_that_fits_no_machine_is_named_with_the_reason() -> None:
    graph = two_teachers()
    with pytest.raises(UserError, match="teacher/fold0 would wait for ever: it may run only on attic"):
        foreseen(graph, "desk:1", Rules(pins={graph.named("teacher/fold0")[0]: "attic"}))


def test_folds_end_as_those_of_their_kind_did_and_else_anywhere_from_patience_on() -> None:
    graph = two_teachers(epochs=30, patience=5)
    task = graph.named("teacher/")[0]
    known = Standing(last_epochs={work_key(graph.tasks[task]): [12]})
    assert {truth.last_epoch for truth in draw(graph, known, chances(0)).values()} == {12}
    for play in range(30):
        truth = draw(graph, Standing(), chances(play))[task]
        assert 5 <= truth.last_epoch <= 30
        assert truth.last_epoch == 30 or not truth.improvements or truth.last_epoch == truth.improvements[-1] + 5
        assert draw(graph, Standing(epochs={task: 20}), chances(play))[task].last_epoch >= 20


def trained(task: str, attempt: int, epochs: Sequence[int]) -> list[Event]:
    reports = [Progressed(Progress(task, attempt, epoch, 3, epoch * 10, 30, commit=epoch or None)) for epoch in epochs]
    return [*reports, TaskEnded(Outcome(task, attempt))]


def test_a_journal_says_how_fast_each_machine_is_and_what_an_epoch_takes() -> None:
    graph = small_graph(folds=3, rounds=1, has_test=False)
    one, other, third = graph.named("teacher/")
    story: list[tuple[float, Event]] = [
        (0, RunBegan(("teacher-of-another-recipe",))),
        (0, Start("teacher-of-another-recipe", "desk", 0, 1)),
        (0, RunBegan(tuple(graph.tasks))),
        (0, MachineJoined("driver", 1, ("search",))),
        (0, MachineJoined("desk", 1, WORK, memory_gb=8.0, labels=("quiet",))),
        (0, MachineJoined("attic", 2, WORK)),
        (0, MachineJoined("gone", 1, WORK)),
        (0, Start(one, "desk", 0, 1)),
        (0, Start(other, "attic", 0, 1)),
        (0, Start(third, "gone", 0, 1)),
        *zip((0, 100, 200, 300, 300), trained(one, 1, range(4)), strict=True),
        (310, MachineLeft("gone")),
        *zip((0, 400, 800, 1200, 1200), trained(other, 1, range(4)), strict=True),
    ]
    basis = learned(graph, sorted(story, key=lambda line: line[0]))
    assert basis is not None
    assert {model.name: model.slots for model in basis.machines} == {"desk": 1, "attic": 2}
    attic, desk = basis.machines
    assert (desk.memory_gb, desk.labels) == (8.0, ("quiet",))
    assert desk.speed / attic.speed == pytest.approx(4, rel=0.1)
    assert basis.epoch_seconds[third] / desk.speed == pytest.approx(100, rel=0.3)
    assert learned(graph, story[:2]) is None


def test_machines_are_read_as_people_write_them() -> None:
    one, other, third = machines_of("2070s:1.15, 1060:0.5:6gb,old-box:0.2:4GB:2slots")
    assert (one.name, one.speed, one.slots, one.memory_gb) == ("2070s", 1.15, 1, None)
    assert (other.name, other.memory_gb) == ("1060", 6.0)
    assert (third.name, third.memory_gb, third.slots) == ("old-box", 4.0, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [("desk", "'desk' is not understood"), ("desk:0", "'desk:0'"), ("a:1,a:2", "'a:2' is there twice")],
)
def test_a_machine_that_is_not_understood_is_named(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        machines_of(text)
