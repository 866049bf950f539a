"""A run is followed from its store: by its journal while it goes on, by results and commits whatever it says."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_fleet import FakeFleet, small_graph
from far import FarBackend

from coordinator.config import FleetSection
from coordinator.drive import drive
from coordinator.events import (
    Event,
    MachineCut,
    MachineJoined,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    TaskEnded,
    Tick,
)
from coordinator.followed import Followed
from coordinator.followed_view import shown
from coordinator.generation import ENDED, PATIENCE_SECONDS, Chain, Watch, this_process
from coordinator.journal import Journal
from coordinator.ledger import Ledger, State
from coordinator.placing import rules_of
from coordinator.retry import Rules
from coordinator.run_files import with_run_files_here
from coordinator.scenario import WORK
from shared_store import layout
from shared_store.commits import put_commit, put_result
from shared_store.errors import UserError
from shared_store.records import Commit, Result
from shared_store.store import Store
from workers.tasks import Outcome, Progress, Task, spec_hash

GRAPH = small_graph()
ONE, TWO, THREE = GRAPH.named("teacher/")
BEGUN = (
    Tick(0.0),
    RunBegan(tuple(GRAPH.tasks), "2026-03-04T12:00:00+00:00"),
    MachineJoined("desk", 1, ("train",)),
    MachineJoined("attic", 1, ("train",)),
    Start(ONE, "desk", 0, 1),
    Start(TWO, "attic", 0, 1),
    Progressed(Progress(TWO, 1, 1, 3, 10, 30, 0.5, 0.8, commit=1)),
)


def note(store: Store, *events: Event) -> None:
    """What a driver on this machine writes."""
    path = store.backend.local_path(layout.run_file("demo", "events.jsonl"))
    assert path is not None
    at = 0.0
    with Journal(path) as journal:
        for event in events:
            at = event.at if isinstance(event, Tick) else at
            journal.write(at, event)


def followed(store: Store) -> Followed:
    return Followed(store, "demo", GRAPH, Rules())


def finish(store: Store, task: Task, name: str) -> None:
    put_result(store, Result(name, spec_hash(task), 1, "x", {}, {"mean_ap": 0.9, "epochs": 3, "kept_epoch": 2}))


def test_a_run_is_followed_from_look_to_look(store: Store) -> None:
    note(store, *BEGUN)
    run = followed(store)
    run.look(0.0)
    assert set(run.drive.ledger.running) == {ONE, TWO}
    note(store, Tick(60.0), MachineCut("attic", "no heartbeat"))
    run.look(3.0)
    assert set(run.drive.ledger.running) == {ONE}
    assert list(run.drive.lines)[-1].endswith("teacher/fold1 goes on elsewhere, from the last commit")
    assert run.drive.time_of(60.0).isoformat() == "2026-03-04T12:01:00+00:00"  # type: ignore[union-attr]


def test_the_store_decides_what_is_done_and_how_far_the_rest_is(store: Store) -> None:
    finish(store, GRAPH.tasks[ONE], ONE)
    put_commit(store, Commit(TWO, 1, None, "spec", 1, "nonce", 2, 0, {}))
    run = followed(store)  # nobody ever drove it: there is no journal
    run.look(0.0)
    assert run.drive.ledger.entries[ONE].state is State.DONE and not run.is_driven(0.0)
    lines = shown(run, 0.0, 100, None).plain.splitlines()
    assert any(line.split()[:3] == ["teacher/fold0", "done", "3/3"] and "0.900 @2" in line for line in lines)
    assert any(line.split()[:6] == ["teacher/fold1", "waits", "to", "go", "on", "2/3"] for line in lines)


def test_a_result_that_stands_before_the_journal_tells_of_it_is_told_once(store: Store) -> None:
    note(store, *BEGUN[:4])
    finish(store, GRAPH.tasks[ONE], ONE)
    finish(store, GRAPH.tasks[TWO], TWO)
    run = followed(store)
    run.look(0.0)
    note(
        store,
        ResultFound(ONE),
        Start(TWO, "desk", 0, 1),
        Progressed(Progress(TWO, 1, 3, 3)),
        TaskEnded(Outcome(TWO, 1)),
    )
    note(store, Start(THREE, "desk", 0, 1))
    run.look(1.0)
    entries = run.drive.ledger.entries
    assert [entries[task].state for task in (ONE, TWO, THREE)] == [State.DONE, State.DONE, State.RUNNING]
    run.drive.ledger.validate()


def test_a_journal_of_another_version_is_told_as_such(store: Store) -> None:
    note(store, *BEGUN)
    path = store.backend.local_path(layout.run_file("demo", "events.jsonl"))
    assert path is not None
    with path.open("a") as file:
        file.write('{"at": 1.0, "event": "Teleported", "machine": "desk"}\n')
    with pytest.raises(UserError, match="journal is not understood"):
        followed(store).look(0.0)


def test_a_new_command_begins_anew_and_one_of_other_tasks_is_told_as_such(store: Store) -> None:
    note(store, *BEGUN, Tick(90.0), RunBegan(tuple(GRAPH.tasks)))
    run = followed(store)
    run.look(0.0)
    assert not run.drive.ledger.running and not run.foreign
    note(store, Tick(0.0), RunBegan(("teacher-of-another-recipe",)), Start("teacher-of-another-recipe", "desk", 0, 1))
    run.look(1.0)
    assert run.foreign and not run.drive.ledger.running


def test_who_drives_is_known_by_the_beat(store: Store) -> None:
    note(store, *BEGUN)
    chain, me = Chain(store, layout.coordinators("demo")), this_process("demo")
    chain.put(me)
    chain.show(me, b"1")
    run = followed(store)
    run.look(0.0)
    assert run.is_driven(1.0) and "driven by process" in shown(run, 0.0, 100, None).plain
    run.look(PATIENCE_SECONDS + 1)  # it stood still all the while
    assert not run.is_driven(PATIENCE_SECONDS + 1)
    chain.show(me, b"2")
    run.look(PATIENCE_SECONDS + 2)
    assert run.is_driven(PATIENCE_SECONDS + 2)
    chain.show(me, ENDED)
    run.look(PATIENCE_SECONDS + 3)
    assert not run.is_driven(PATIENCE_SECONDS + 3)


def test_of_a_killed_driver_one_look_says_so_once_its_beat_was_watched(store: Store) -> None:
    note(store, *BEGUN)
    chain, me = Chain(store, layout.coordinators("demo")), this_process("demo")
    chain.put(me)
    chain.show(me, b"1")
    run, now = followed(store), [0.0]
    run.look(0.0)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    run.find_driver(Watch(lambda words: None, lambda: now[0], sleep))
    assert not run.is_driven(now[0]) and "nobody drives it" in shown(run, now[0], 100, None).plain


def test_the_finish_is_told_on_the_clock_of_who_looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, me = Chain(store, layout.coordinators("demo")), this_process("demo")
    chain.put(me)
    others = (MachineJoined("driver", 1, ("search",)), MachineJoined("all", 1, WORK))
    note(store, *BEGUN, *others, Tick(60.0), Progressed(Progress(TWO, 1, 2, 3, 20, 30, 0.5, 0.8, commit=2)))
    told = []
    try:
        for zone in ("UTC", "Asia/Tokyo"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            run = followed(store)
            run.look(0.0)
            told.append(shown(run, 0.0, 100, None).plain)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "expected finish 12:0" in told[0] and "as of Wed 12:01" in told[0]
    assert "expected finish 21:0" in told[1] and "as of Wed 21:01" in told[1]


def test_from_another_machine_the_journal_is_read_from_where_it_was_read_to(store: Store, tmp_path: Path) -> None:
    far = FarBackend(tmp_path / "far")
    elsewhere = with_run_files_here(Store(far), tmp_path / "near")
    key = layout.run_file("demo", "events.jsonl")
    note(store, *BEGUN)
    path = store.backend.local_path(key)
    assert path is not None
    Store(far).publish(key, path.read_bytes())
    run = followed(elsewhere)
    run.look(0.0)
    assert set(run.drive.ledger.running) == {ONE, TWO}
    note(store, Tick(60.0), MachineCut("attic"))
    Store(far).publish(key, path.read_bytes())
    run.look(2.0)
    assert set(run.drive.ledger.running) == {ONE}


def test_where_another_machine_drives_now_this_ones_old_copy_is_not_believed(store: Store, tmp_path: Path) -> None:
    far, key = FarBackend(tmp_path / "far"), layout.run_file("demo", "events.jsonl")
    elsewhere = with_run_files_here(Store(far), tmp_path / "near")
    near, path = elsewhere.backend.local_path(key), store.backend.local_path(key)
    assert near is not None and path is not None
    note(store, *BEGUN)
    near.parent.mkdir(parents=True)
    near.write_bytes(path.read_bytes())  # this machine drove, and wrote what nobody else came to see
    chain = Chain(elsewhere, layout.coordinators("demo"))
    chain.put(this_process("demo"))
    run = followed(elsewhere)
    run.look(0.0)
    assert set(run.drive.ledger.running) == {ONE, TWO}
    path.unlink()
    note(store, *BEGUN[:5])
    Store(far).publish(key, path.read_bytes())
    chain.put(replace(this_process("demo"), generation=2, host="another"))
    run.look(2.0)
    assert set(run.drive.ledger.running) == {ONE}


def test_what_a_driver_journals_is_followed_to_the_same_ledger(store: Store, tmp_path: Path) -> None:
    fleet, settings = FakeFleet(store, {"box": 1, "attic": 1}), FleetSection(attempts=3)
    path = store.backend.local_path(layout.run_file("demo", "events.jsonl"))
    assert path is not None

    def cut_once(event: Event, ledger: Ledger) -> None:
        if isinstance(event, Start) and event.machine == "attic" and fleet.now < 5:
            fleet.cut("attic")

    with Journal(path) as journal:
        ledger = drive(
            GRAPH,
            store,
            fleet,
            settings,
            clock=fleet.clock,
            journal=journal,
            watch=cut_once,
            stop=lambda: fleet.now > 15,
        )
    run = Followed(store, "demo", GRAPH, rules_of(settings, GRAPH))
    run.look(0.0)
    run.drive.ledger.validate()
    states = {name: entry.state for name, entry in ledger.entries.items()}
    assert {name: entry.state for name, entry in run.drive.ledger.entries.items()} == states
    assert State.DONE in states.values() and State.WAITING in states.values()
