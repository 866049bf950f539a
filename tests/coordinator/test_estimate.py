"""Estimates: what is learned from epochs, and how little one odd epoch changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from fake_fleet import small_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from long_folds import long_graph

from coordinator.estimate import Estimates, work_key
from coordinator.events import MachineJoined
from coordinator.graph import Graph
from workers.tasks import Failure, Outcome, Progress, TrainTask

LONG = long_graph()
FOLDS = LONG.named("teacher/")
PATIENT = long_graph(patience=20)
PATIENT_FOLDS = PATIENT.named("teacher/")
few = settings(max_examples=25, deadline=None)
SECONDS = st.floats(20.0, 2000.0)


class Clock:
    """Feeds estimates with epochs, one after the other."""

    def __init__(self, graph: Graph, machines: Mapping[str, float | None]) -> None:
        self.estimates = Estimates(graph)
        self.graph, self.at = graph, 0.0
        self.epoch: dict[str, int] = {}
        for name, speed in machines.items():
            self.estimates.joined(MachineJoined(name, 1, ("train",), speed=speed, link_mb_per_second=10.0))

    def start(self, task: str, machine: str) -> None:
        """Its first step comes at once."""
        self.estimates.started(task, machine, self.at)
        self.report(task, self.epoch.setdefault(task, 0))

    def report(self, task: str, epoch: float, best: int | None = None) -> None:
        now = Progress(task, 1, int(epoch), 100, round(10 * epoch), 1000, best_epoch=best)
        self.estimates.progressed(now, self.at)

    def epochs(self, task: str, seconds: Sequence[float]) -> None:
        for each in seconds:
            self.at += each
            self.epoch[task] += 1
            self.report(task, self.epoch[task])

    def end(self, task: str, failure: Failure | None = None) -> None:
        self.estimates.ended(task, Outcome(task, 1, failure), self.at)


@few
@given(SECONDS, st.floats(5.0, 1000.0), st.integers(3, 8))
def test_one_odd_epoch_changes_little(seconds: float, times: float, place: int) -> None:
    clock = Clock(LONG, {"box": None})
    clock.start(FOLDS[0], "box")
    clock.epochs(FOLDS[0], [seconds * (times if number == place else 1.0) for number in range(10)])
    assert clock.estimates.epoch_seconds(FOLDS[0], "box").middle == pytest.approx(seconds, rel=0.05)
    assert clock.estimates.epoch_seconds(FOLDS[1], "box").middle == pytest.approx(seconds, rel=0.05)


@few
@given(SECONDS, st.floats(0.1, 10.0))
def test_the_speed_of_a_machine_that_was_never_probed_is_learned_from_its_epochs(seconds: float, faster: float) -> None:
    clock = Clock(LONG, {"known": 1.0, "unknown": None})
    for task, machine, each in ((FOLDS[0], "known", seconds), (FOLDS[1], "unknown", seconds / faster)):
        clock.start(task, machine)
        clock.epochs(task, [each] * 7)
    speed = clock.estimates.speed
    assert speed("unknown") / speed("known") == pytest.approx(faster, rel=0.1)


@few
@given(SECONDS, st.floats(0.2, 5.0))
def test_a_probe_alone_says_what_an_epoch_takes_where_none_was_run(seconds: float, speed: float) -> None:
    clock = Clock(LONG, {"box": 1.0, "attic": speed})
    clock.start(FOLDS[0], "box")
    clock.epochs(FOLDS[0], [seconds] * 5)
    low, middle, high = clock.estimates.epoch_seconds(FOLDS[0], "attic")
    assert middle == pytest.approx(seconds / speed, rel=0.01) and low < middle < high


@few
@given(SECONDS, st.floats(1.6, 10.0))
def test_a_machine_that_slows_down_is_noticed_and_one_slow_epoch_is_not(seconds: float, times: float) -> None:
    clock = Clock(LONG, {"box": None})
    clock.start(FOLDS[0], "box")
    clock.epochs(FOLDS[0], [seconds] * 6)
    assert clock.estimates.throttled("box") is None
    clock.epochs(FOLDS[0], [seconds * times])
    assert clock.estimates.throttled("box") is None
    clock.epochs(FOLDS[0], [seconds * times] * 2)
    assert clock.estimates.throttled("box") == pytest.approx(1 / times)


@few
@given(SECONDS, st.floats(0.06, 0.9))
def test_steps_say_what_an_epoch_takes_before_the_first_one_ends(seconds: float, share: float) -> None:
    clock = Clock(LONG, {"box": None})
    clock.start(FOLDS[0], "box")
    clock.at += seconds * round(share, 1 if share > 0.1 else 2)
    clock.report(FOLDS[0], round(max(share, 0.1), 1))
    assert clock.estimates.epoch_seconds(FOLDS[0], "box").middle == pytest.approx(seconds, rel=0.5)


def test_nothing_known_is_an_interval_that_says_so() -> None:
    low, middle, high = Clock(LONG, {"box": None}).estimates.epoch_seconds(FOLDS[0], "box")
    assert 0 < low < middle < high


@few
@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=12))
def test_a_fold_is_never_thought_to_end_before_or_after_what_is_possible(others: list[tuple[int, bool]]) -> None:
    """Bests of folds that ended, some of them lost; patience 20 of 100 epochs."""
    clock = Clock(PATIENT, {"box": None})
    for best, done in others:
        clock.estimates.started(PATIENT_FOLDS[1], "box", clock.at)
        clock.report(PATIENT_FOLDS[1], min(100, best + 20), best)
        clock.end(PATIENT_FOLDS[1], None if done else Failure.LOST)
    clock.start(PATIENT_FOLDS[0], "box")
    for epoch, best in ((0, None), (1, 1), (15, 3), (60, 45), (90, 85), (100, 85)):
        clock.report(PATIENT_FOLDS[0], epoch, best)
        low, middle, high = clock.estimates.stops.last_epoch(PATIENT_FOLDS[0])
        assert min(100, (best or 0) + 20) <= low <= middle <= high == 100 and low >= epoch
        left = clock.estimates.remaining_epochs(PATIENT_FOLDS[0])
        assert 0 <= left.low <= left.middle <= left.high == 100 - epoch


def test_folds_are_thought_to_stop_when_others_of_their_kind_did() -> None:
    clock = Clock(PATIENT, {"box": None})
    clock.start(PATIENT_FOLDS[0], "box")
    clock.report(PATIENT_FOLDS[0], 30, 15)
    before = clock.estimates.remaining_epochs(PATIENT_FOLDS[0]).middle
    for task in PATIENT_FOLDS[1:]:
        clock.start(task, "box")
        clock.report(task, 40, 20)
        clock.end(task)
    assert clock.estimates.remaining_epochs(PATIENT_FOLDS[0]).middle < before


@few
@given(st.lists(st.integers(0, 3), min_size=3, max_size=3), SECONDS)
def test_with_one_recipe_levels_are_epochs_that_are_left(done: list[int], seconds: float) -> None:
    graph = small_graph()  # 3 epochs each, students after teachers
    clock = Clock(graph, {"box": None})
    for task, epochs in zip(graph.named("teacher/"), done, strict=True):
        clock.start(task, "box")
        clock.epochs(task, [seconds] * epochs)
        assert clock.estimates.level(task) == pytest.approx(graph.weights[task] - epochs)


def test_two_recipes_are_weighed_anew_once_both_are_measured() -> None:
    graph = long_graph(recipes={"light": {"model": "a"}, "heavy": {"model": "b"}})
    light, heavy = graph.named("teacher/light/"), graph.named("teacher/heavy/")
    clock = Clock(graph, {"box": 1.0, "attic": 1.0})
    assert clock.estimates.level(light[1]) == pytest.approx(clock.estimates.level(heavy[1]))
    version = clock.estimates.version
    for task, machine, seconds in ((light[0], "box", 100.0), (heavy[0], "attic", 400.0)):
        clock.start(task, machine)
        clock.epochs(task, [seconds] * 5)
    levels, behind = clock.estimates, 0.3  # the search and the bundle
    assert levels.version > version
    ratio = (levels.level(heavy[1]) - behind) / (levels.level(light[1]) - behind)
    assert ratio == pytest.approx(4.0, rel=0.1)
    assert levels.seconds(levels.level(heavy[1]), "box") == pytest.approx(100 * 400.0, rel=0.1)


def test_work_that_differs_in_its_seed_or_its_commits_alone_costs_the_same() -> None:
    tasks = [task for task in LONG.tasks.values() if isinstance(task, TrainTask)]
    other = [task for task in long_graph(seed=7, checkpoint_minutes=3.0).tasks.values() if isinstance(task, TrainTask)]
    larger = [task for task in long_graph(image_size=64).tasks.values() if isinstance(task, TrainTask)]
    assert work_key(tasks[0]) == work_key(other[1]) != work_key(larger[0])


def test_what_does_not_train_is_timed_whole() -> None:
    graph = small_graph()
    labels = graph.named("label/")
    clock = Clock(graph, {"box": None})
    clock.estimates.started(labels[0], "box", 0.0)
    clock.at = 40.0
    clock.end(labels[0])
    assert clock.estimates.remaining_seconds(labels[1], "box").middle == pytest.approx(40.0)


def test_after_a_loss_only_whole_epochs_count_and_after_a_stop_every_step() -> None:
    for failure, left in ((Failure.LOST, 98.0), (Failure.STOPPED, 97.5)):
        clock = Clock(LONG, {"box": None})
        clock.start(FOLDS[0], "box")
        clock.report(FOLDS[0], 2.5)
        clock.end(FOLDS[0], failure)
        assert clock.estimates.remaining_epochs(FOLDS[0]).middle == left
