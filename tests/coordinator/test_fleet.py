"""One contract for every fleet, the fake one and a real embedded Ray; and what only real processes can show."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from fake_fleet import FakeFleet
from processes import alive, child_processes, eventually, is_agent
from safetensors.torch import load
from tiny_fold import tiny_task

from coordinator.config import FleetSection, StoreSection
from coordinator.drive import drive
from coordinator.events import (
    Event,
    Fact,
    Kill,
    MachineJoined,
    MachineProbed,
    Migrate,
    Probe,
    Progressed,
    Start,
    Stop,
    TaskEnded,
)
from coordinator.fleet import Fleet, RayFleet
from coordinator.graph import Graph
from coordinator.journal import Journal, read_journal
from coordinator.ledger import Ledger
from shared_store.commits import last_commit, put_commit, read_result
from shared_store.errors import UserError
from shared_store.records import Commit, Result
from shared_store.store import Store, open_store
from workers.tasks import Failure, Outcome, SearchTask, Task, TrainTask, spec_hash, task_id
from workers.tier import open_tier

LEFT_HERE = "teacher-left-here-0"
LONG = 10_000  # epochs, for folds that a test stops or kills
PATIENCE_SECONDS = 120.0


def chosen(task: SearchTask, _store: Store) -> Result:
    if not task.members:
        raise UserError("nothing to choose from", where="members", mend="train a model first")
    return Result(task_id(task), spec_hash(task), 1, "nonce", texts={"process": str(os.getpid())})


class Harness:
    """A fleet with one worker machine of two slots, and the facts it has told."""

    def __init__(self, fleet: Fleet, store: Store) -> None:
        self.fleet, self.store = fleet, store
        self.machines = [fact for fact in fleet.discover() if isinstance(fact, MachineJoined)]
        (self.machine,) = (joined.machine for joined in self.machines if "train" in joined.kinds)
        self.told: list[Fact] = []

    def start(self, task: Task, slot: int = 0, attempt: int = 1, machine: str = "") -> str:
        self.fleet.start(Start(task_id(task), machine or self.machine, slot, attempt), task)
        return task_id(task)

    def until(self, wanted: Callable[[Fact], bool]) -> Fact:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            facts = [*self.fleet.discover(), *self.fleet.poll()]
            self.told += facts
            found = next((fact for fact in facts if wanted(fact)), None)
            if found is not None:
                return found
        raise AssertionError(f"not told in {PATIENCE_SECONDS} s; told: {self.told}")

    def outcome(self, task: str, attempt: int = 1) -> Outcome:
        def ends(fact: Fact) -> bool:
            return isinstance(fact, TaskEnded) and (fact.outcome.task, fact.outcome.attempt) == (task, attempt)

        known = next((fact for fact in self.told if ends(fact)), None)
        fact = known or self.until(ends)
        assert isinstance(fact, TaskEnded)
        return fact.outcome


def scripted(task: Task, _attempt: int) -> Failure | None:
    wrong = isinstance(task, TrainTask) and task.recipe["model"] == "no_such_model"
    return Failure.BAD_INPUT if wrong or (isinstance(task, SearchTask) and not task.members) else None


@pytest.fixture(scope="module")
def ray_harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """One embedded Ray for this module. After it, no process and no folder that it began is left."""
    folder = tmp_path_factory.mktemp("fleet")
    store = open_store(str(folder / "store"))
    tier = open_tier(folder / "cache", store.url)  # as if this machine had been cut off
    put_commit(tier, Commit(LEFT_HERE, 1, None, "0" * 64, 1, "nonce", 2, 30, {"state": tier.put_blob(b"state")}))
    before = child_processes(os.getpid())
    fleet = RayFleet(FleetSection(slots=2), StoreSection(url=store.url), str(folder / "cache"), chosen)
    begun = child_processes(os.getpid()) - before
    yield Harness(fleet, store)
    begun |= child_processes(os.getpid()) - before
    assert fleet.scratch is not None and fleet.scratch.path.exists()
    fleet.close()
    assert len(begun) > 3 and eventually(lambda: not alive(begun)), alive(begun)
    assert not fleet.scratch.path.exists()


@pytest.fixture(params=["fake", "ray"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    if request.param == "ray":
        real: Harness = request.getfixturevalue("ray_harness")
        return real
    store = open_store(str(tmp_path / "store"))
    return Harness(FakeFleet(store, {"box": 2}, scripted), store)


def test_machines_are_told_once(harness: Harness) -> None:
    (worker,) = (joined for joined in harness.machines if "train" in joined.kinds)
    (driver,) = (joined for joined in harness.machines if "search" in joined.kinds)
    assert worker.slots == 2 and driver.slots == 1 and worker.machine != driver.machine
    assert harness.fleet.discover() == []


def test_a_machine_that_joins_hands_over_what_it_has_without_being_given_a_task(ray_harness: Harness) -> None:
    assert eventually(lambda: last_commit(ray_harness.store, LEFT_HERE) is not None)
    commit = last_commit(ray_harness.store, LEFT_HERE)
    assert commit is not None and ray_harness.store.get_blob(commit.blobs["state"]) == b"state"


def test_a_task_that_ends_well_leaves_its_result(harness: Harness) -> None:
    task = harness.start(tiny_task(harness.store, "contract/well"))
    assert harness.outcome(task).failure is None
    assert read_result(harness.store, task) is not None


def test_progress_comes_before_the_end(harness: Harness) -> None:
    task = harness.start(tiny_task(harness.store, "contract/progress"))
    harness.outcome(task)
    mine = [
        fact
        for fact in harness.told
        if (isinstance(fact, TaskEnded) and fact.outcome.task == task)
        or (isinstance(fact, Progressed) and fact.progress.task == task)
    ]
    assert len(mine) > 1 and isinstance(mine[-1], TaskEnded)
    assert any(isinstance(fact, Progressed) and fact.progress.commit is not None for fact in mine)


def test_a_failure_is_an_outcome_and_the_slot_goes_on(harness: Harness) -> None:
    bad = harness.start(tiny_task(harness.store, "contract/bad", model="no_such_model"), attempt=3)
    assert harness.outcome(bad, attempt=3).failure is Failure.BAD_INPUT
    assert read_result(harness.store, bad) is None
    good = harness.start(tiny_task(harness.store, "contract/after"))
    assert harness.outcome(good).failure is None


def test_a_running_task_stops_when_asked_and_can_go_on(harness: Harness) -> None:
    task = tiny_task(harness.store, "contract/stop", epochs=LONG)
    name = harness.start(task, slot=1)
    harness.fleet.stop(Stop(name, 1))
    assert harness.outcome(name).failure is Failure.STOPPED
    harness.start(task, slot=1, attempt=2)
    harness.fleet.stop(Stop(name, 2))
    assert harness.outcome(name, attempt=2).failure is Failure.STOPPED


def test_of_an_attempt_that_is_killed_nothing_more_is_told_and_its_slot_goes_on(harness: Harness) -> None:
    task = tiny_task(harness.store, "contract/killed", epochs=LONG)
    name = harness.start(task, slot=1)
    harness.fleet.poll()
    harness.fleet.kill(Kill(name, 1, "no sign of life"))
    harness.start(task, slot=1, attempt=2)
    harness.fleet.stop(Migrate(name, 2, "elsewhere", 0))
    assert harness.outcome(name, attempt=2).failure is Failure.STOPPED
    ends = [fact.outcome for fact in harness.told if isinstance(fact, TaskEnded) and fact.outcome.task == name]
    assert [outcome.attempt for outcome in ends] == [2]


def test_a_probe_is_answered(harness: Harness) -> None:
    harness.fleet.probe(Probe(harness.machine))
    probed = harness.until(lambda fact: isinstance(fact, MachineProbed))
    assert isinstance(probed, MachineProbed) and probed.passed and probed.machine == harness.machine
    assert isinstance(harness.fleet, FakeFleet) or (probed.speed or 0) > 0


def test_a_machine_is_told_of_with_its_memory_and_its_system(ray_harness: Harness) -> None:
    (worker,) = (joined for joined in ray_harness.machines if "train" in joined.kinds)
    assert worker.memory_gb is not None and worker.memory_gb > 0 and worker.system == platform.system().lower()
    assert worker.speed is None  # one machine compares with nothing


def test_a_start_with_a_micro_batch_reaches_the_fold(ray_harness: Harness) -> None:
    task = tiny_task(ray_harness.store, "micro/fold0")
    ray_harness.fleet.start(Start(task_id(task), ray_harness.machine, 0, 1, micro_batch=2), task)
    assert ray_harness.outcome(task_id(task)).failure is None
    result = read_result(ray_harness.store, task_id(task))
    assert result is not None and result.numbers["micro_batch"] == 2


def test_a_stop_that_comes_too_late_is_no_error(harness: Harness) -> None:
    task = harness.start(tiny_task(harness.store, "contract/late"))
    harness.outcome(task)
    harness.fleet.stop(Stop(task, 1))
    assert all(not isinstance(fact, TaskEnded) for fact in harness.fleet.poll())


def test_two_slots_work_side_by_side(harness: Harness) -> None:
    tasks = [harness.start(tiny_task(harness.store, f"contract/side{slot}"), slot) for slot in (0, 1)]
    assert [harness.outcome(task).failure for task in tasks] == [None, None]


@pytest.mark.parametrize("members", [("teacher-0",), ()])
def test_the_search_runs_on_the_driver(harness: Harness, members: tuple[str, ...]) -> None:
    search = SearchTask("search/ensemble", "0" * 64, ("cat", "dog"), members, {})
    outcome = harness.outcome(harness.start(search, machine="driver"))
    assert outcome.failure is (None if members else Failure.BAD_INPUT)


def test_the_driver_itself_does_the_search_and_the_cores_are_free_for_it(ray_harness: Harness) -> None:
    tasks = [ray_harness.start(tiny_task(ray_harness.store, f"free/{slot}"), slot) for slot in (0, 1)]
    for task in tasks:
        ray_harness.outcome(task)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    search = SearchTask("search/here", "0" * 64, ("cat", "dog"), ("teacher-0",), {})
    name = ray_harness.start(search, machine="driver")
    ray_harness.outcome(name)
    result = read_result(ray_harness.store, name)
    assert result is not None and result.texts["process"] == str(os.getpid())


def test_a_run_whose_workers_are_killed_ends_with_the_same_weights(ray_harness: Harness, tmp_path: Path) -> None:
    fleet = ray_harness.fleet
    assert isinstance(fleet, RayFleet)
    undisturbed = tiny_task(ray_harness.store, "teacher/left-alone", epochs=24)
    ray_harness.outcome(ray_harness.start(undisturbed))
    task = tiny_task(ray_harness.store, "teacher/disturbed", epochs=24)
    killed: list[int] = []

    def kill_once(event: Event, _ledger: Ledger) -> None:
        if not killed and isinstance(event, Progressed) and event.progress.commit is not None:
            killed.extend(fleet.processes())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    machines, path = MachinesAgain(fleet, ray_harness.machines), tmp_path / "events.jsonl"
    with Journal(path) as journal:
        ledger = drive(
            Graph.of([task]), ray_harness.store, machines, FleetSection(),
            clock=time.monotonic, journal=journal, watch=kill_once, stop=lambda: False,
        )  # fmt: skip
    assert ledger.all_done and killed
    (entry,) = ledger.entries.values()
    assert [attempt.outcome and attempt.outcome.failure for attempt in entry.attempts] == [Failure.LOST, None]
    notes = [event.progress.note for _, event in read_journal(path) if isinstance(event, Progressed)]
    assert any(note.startswith("attempt 2 resumes from commit") for note in notes)
    results = [read_result(ray_harness.store, task_id(fold)) for fold in (undisturbed, task)]
    weights = [load(ray_harness.store.get_blob(result.blobs["model"])) for result in results if result is not None]
    assert len(weights) == 2 and weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


class MachinesAgain:
    """A fleet that is under way already, for a ledger that has not met its machines yet."""

    def __init__(self, fleet: Fleet, machines: list[MachineJoined]) -> None:
        self.start, self.stop, self.poll, self.close = fleet.start, fleet.stop, fleet.poll, fleet.close
        self.kill, self.probe = fleet.kill, fleet.probe
        self._machines: list[Fact] = list(machines)

    def discover(self) -> list[Fact]:
        facts, self._machines = self._machines, []
        return facts


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_named_at_once(store: Store, address: str) -> None:
    with pytest.raises(UserError, match="no Ray cluster answers") as caught:
        RayFleet(FleetSection(address=address), StoreSection(url=store.url), "cache", chosen)
    assert address in caught.value.where


HOLDER = """
import signal, sys, time
sys.path[:0] = sys.argv[2:]
from coordinator.config import FleetSection, StoreSection
from coordinator.events import Progressed, Start
from coordinator.fleet import RayFleet
from shared_store.store import open_store
from tiny_fold import tiny_task
from workers.tasks import task_id

signal.signal(signal.SIGINT, lambda *_: print("asked to stop", flush=True))
store = open_store(sys.argv[1])
fleet = RayFleet(FleetSection(slots=1), StoreSection(url=store.url), sys.argv[1] + "/cache", None)
task = tiny_task(store, "teacher/fold0", epochs=10_000)
fleet.start(Start(task_id(task), fleet.discover()[1].machine, 0, 1), task)
while True:
    for fact in fleet.poll():
        print(type(fact).__name__, flush=True)
"""


def test_ctrl_c_reaches_the_driver_alone_and_a_killed_driver_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group: workers must go on to their commit. kill -9 must take them along."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "store"), str(Path(__file__).parents[1])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as driver:
        assert driver.stdout is not None
        try:
            assert next(driver.stdout) == "Progressed\n"
            os.killpg(driver.pid, signal.SIGINT)
            lines = iter(driver.stdout)
            assert next(line for line in lines if line != "Progressed\n") == "asked to stop\n"
            assert [next(lines) for _ in range(3)] == ["Progressed\n"] * 3
            begun = {process for process in child_processes(driver.pid) if not is_agent(process)}
        finally:
            driver.kill()
    assert len(begun) > 3 and eventually(lambda: not alive(begun)), alive(begun)
