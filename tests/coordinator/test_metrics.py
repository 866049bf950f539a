"""What a run's numbers are: gauges of what is, counters of what happened; and that they arrive at Ray's port."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import ray
from fake_fleet import small_graph
from processes import eventually

from coordinator.events import (
    Drain,
    Event,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    Migrate,
    Progressed,
    Start,
    TaskEnded,
    Tick,
)
from coordinator.ledger import Ledger
from coordinator.metrics import COMMITS, ENDS, LOSSES, MOVES, SET_SECONDS, STATE, Metric, Metrics, Series
from coordinator.ray_series import RaySeries
from coordinator.scratch import Scratch
from workers.tasks import Failure, Outcome, Progress

GRAPH = small_graph()
ONE, TWO = GRAPH.named("teacher/")[:2]
LABEL = GRAPH.named("label/")[0]


class Recording:
    """Implements `metrics.Series`: the gauges that were set since the last look, and what was counted."""

    def __init__(self) -> None:
        self.gauges: dict[tuple[str, ...], float] = {}
        self.counted: Counter[tuple[str, ...]] = Counter()

    def set(self, gauge: Metric, value: float, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(gauge.tags) and tags["run"] == "first"
        self.gauges[gauge.name, *(tags[tag] for tag in gauge.tags[1:])] = value

    def count(self, counter: Metric, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(counter.tags) and tags["run"] == "first"
        self.counted[counter.name, *(tags[tag] for tag in counter.tags[1:])] += 1


class Watched:
    """A ledger whose metrics are recorded."""

    def __init__(self, *events: Event, series: Series | None = None) -> None:
        self.series, self.ledger = Recording(), Ledger(GRAPH)
        self._metrics = Metrics("first", series or self.series)
        self.take(MachineJoined("driver", 1, ("search",)), MachineJoined("desk", 2, ("train", "label")), *events)

    def take(self, *events: Event) -> None:
        for event in events:
            self.ledger.apply(event)
            self._metrics(event, self.ledger)

    def set_at(self, seconds: float) -> dict[tuple[str, ...], float]:
        """The gauges that are set when the clock says so."""
        self.series.gauges.clear()
        self.take(Tick(seconds))
        return dict(self.series.gauges)


def test_a_running_fold_has_a_gauge_for_every_number_that_is_known() -> None:
    run = Watched(
        Start(ONE, "desk", 0, 1), Progressed(Progress(ONE, 1, 2, 3, 80, 120, 0.5, 0.8, 12.5, 60.0, best_epoch=1))
    )
    folds = {key: value for key, value in run.set_at(10.0).items() if key[0].startswith("foldfleet_fold_")}
    assert folds == {
        (f"foldfleet_fold_{name}", "teacher/fold0", "desk"): value
        for name, value in {
            "loss": 0.5,
            "mean_ap": 0.8,
            "images_per_second": 12.5,
            "epochs_done": 2,
            "steps_done": 80,
            "best_epoch": 1,
            "seconds_left": 60.0,
        }.items()
    }


def test_gauges_are_set_again_and_again_as_long_as_the_fold_runs_and_no_longer() -> None:
    run = Watched(Start(ONE, "desk", 0, 1), Progressed(Progress(ONE, 1, 0, 3, 8, 120, 0.5)))
    loss = ("foldfleet_fold_loss", "teacher/fold0", "desk")
    assert loss in run.set_at(10.0)
    assert run.set_at(10.0 + SET_SECONDS / 2) == {}
    assert run.set_at(10.0 + SET_SECONDS)[loss] == 0.5
    run.take(TaskEnded(Outcome(ONE, 1)))
    assert not [key for key in run.set_at(60.0) if key[0].startswith("foldfleet_fold_")]


def test_an_attempt_begins_without_the_numbers_of_the_one_before_and_hears_nothing_of_it() -> None:
    run = Watched(
        Start(ONE, "desk", 0, 1),
        Progressed(Progress(ONE, 1, 0, 3, 8, 120, 0.5)),
        TaskEnded(Outcome(ONE, 1, Failure.LOST)),
        Tick(1000.0),
        Start(ONE, "desk", 1, 2),
        Progressed(Progress(ONE, 1, 0, 3, 9, 120, 0.4, commit=1)),
    )
    assert not [key for key in run.set_at(2000.0) if key[0].startswith("foldfleet_fold_")]
    assert not [key for key in run.series.counted if key[0] == COMMITS.name]


def test_a_machine_has_one_state_and_a_number_of_tasks() -> None:
    def told(run: Watched, at: float, machine: str = "desk") -> tuple[list[str], float]:
        gauges = run.set_at(at)
        assert not [key for key in gauges if "driver" in key]
        states = [key[2] for key, value in gauges.items() if key[:2] == (STATE.name, machine) and value == 1]
        return states, gauges["foldfleet_machine_tasks_running", machine]

    run = Watched(Start(ONE, "desk", 0, 1), Start(TWO, "desk", 1, 1))
    assert told(run, 10.0) == (["alive"], 2)
    run.take(Drain("desk", "3 failures in a row"))
    assert told(run, 20.0) == (["quarantine"], 2)
    run.take(MachineDraining("desk", 600.0))
    assert told(run, 30.0) == (["draining"], 2)
    run.take(MachineCut("desk", "no heartbeat"))
    assert told(run, 40.0) == (["lost"], 0)
    run.take(MachineJoined("attic", 1, ("train",)), MachineLeft("attic"))
    assert not [key for key in run.set_at(50.0) if "attic" in key]


def test_a_machine_that_comes_back_is_lost_no_more() -> None:
    run = Watched(MachineCut("desk"), MachineJoined("desk", 2, ("train",)))
    assert run.set_at(10.0)[STATE.name, "desk", "lost"] == 0
    assert run.series.counted[LOSSES.name, "desk"] == 1


def test_a_card_is_told_of_by_whatever_runs_on_it() -> None:
    run = Watched(Start(ONE, "desk", 0, 1), Start(TWO, "desk", 1, 1))
    run.take(Progressed(Progress(ONE, 1, gpu_memory_gb=2.5, temperature_celsius=71.0, card=0)))
    run.take(Progressed(Progress(TWO, 1, gpu_memory_gb=1.0, card=1)))
    cards = {key: value for key, value in run.set_at(10.0).items() if "_gpu_" in key[0]}
    assert cards == {
        ("foldfleet_machine_gpu_memory_used_bytes", "desk", "0"): 2.5e9,
        ("foldfleet_machine_gpu_temperature_celsius", "desk", "0"): 71.0,
        ("foldfleet_machine_gpu_memory_used_bytes", "desk", "1"): 1e9,
    }


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        (TaskEnded(Outcome(ONE, 1)), "done"),
        (TaskEnded(Outcome(ONE, 1, Failure.OUT_OF_MEMORY)), "out of memory"),
        (Kill(ONE, 1, "no sign of life"), "hung"),
        (MachineCut("desk", "no heartbeat"), "lost"),
        (MachineLeft("desk"), "lost"),
    ],
)
def test_every_end_of_an_attempt_is_counted_once_whoever_tells_of_it(end: Event, ending: str) -> None:
    run = Watched(Start(ONE, "desk", 0, 1), end)
    run.take(Tick(100.0), TaskEnded(Outcome(ONE, 1, Failure.STOPPED)))  # late news of it
    ends = {key: count for key, count in run.series.counted.items() if key[0] == ENDS.name}
    assert ends == {(ENDS.name, "teacher/fold0", "desk", ending): 1}


def test_commits_and_moves_are_counted() -> None:
    run = Watched(MachineJoined("attic", 1, ("train",)), Start(ONE, "desk", 0, 1))
    for commit in (None, 1, 2):
        run.take(Progressed(Progress(ONE, 1, 0, 3, 8, 120, commit=commit)))
    run.take(Migrate(ONE, 1, "attic", 0))
    assert run.series.counted == {
        (COMMITS.name, "teacher/fold0", "desk"): 2,
        (MOVES.name, "teacher/fold0", "attic"): 1,
    }


def at_the_port(node: Mapping[str, Any]) -> dict[str, float]:
    """foldfleet's series at a Ray node's metrics port: value by name and tags, as `name run fold machine ...`."""
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_foldfleet_")]
    found = {}
    for line in lines:
        (name, *_), tags = line.split("{"), dict(re.findall(r'(\w+)="([^"]*)"', line))
        words = [tags[tag] for tag in ("run", "fold", "machine", "state", "ending") if tag in tags]
        found[" ".join([name, *words])] = float(line.rpartition(" ")[2])
    return found


def test_the_numbers_arrive_at_the_port_of_an_embedded_ray_and_a_fold_s_go_with_it() -> None:
    with contextlib.closing(Scratch()) as scratch:
        ray.init(
            address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            _temp_dir=str(scratch.path), _system_config={"metrics_report_interval_ms": 1000},
        )  # fmt: skip
        try:
            (node,) = ray.nodes()
            run = Watched(Start(ONE, "desk", 0, 1), series=RaySeries())
            seconds = 0.0

            def turns_until(holds: Callable[[dict[str, float]], bool]) -> bool:
                def after_a_turn() -> bool:
                    nonlocal seconds
                    seconds += SET_SECONDS
                    run.take(Tick(seconds))
                    with contextlib.suppress(OSError):  # the port opens a little later than Ray
                        return holds(at_the_port(node))
                    return False

                return eventually(after_a_turn)

            loss, commits = "ray_foldfleet_fold_loss first", "ray_foldfleet_commits_total first teacher/fold0 desk"
            alive = "ray_foldfleet_machine_state first desk alive"
            run.take(Progressed(Progress(ONE, 1, 0, 3, 8, 120, 0.5, commit=1)))
            assert turns_until(lambda there: there.get(f"{loss} teacher/fold0 desk") == 0.5 and commits in there)
            run.take(TaskEnded(Outcome(ONE, 1, Failure.STOPPED)))
            ended = "ray_foldfleet_attempts_ended_total first teacher/fold0 desk stopped"
            assert turns_until(lambda there: ended in there and not [key for key in there if key.startswith(loss)])
            assert at_the_port(node)[alive] == 1
        finally:
            ray.shutdown()
