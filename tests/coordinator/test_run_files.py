"""A run's files lie on this machine too when its store is elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from far import FarBackend
from finished_run import finished_run

from coordinator.events import RunBegan
from coordinator.journal import Journal, read_journal
from coordinator.outputs import publish_known
from coordinator.run_files import journal_bytes, journal_here, with_run_files_here
from shared_store.cache import Cache
from shared_store.committer import Committed, Committer
from shared_store.store import Store, open_store
from workers.bundle import load_bundle


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_of_a_run_is_here_and_there(tmp_path: Path, cache: Cache) -> None:
    store = with_run_files_here(Store(FarBackend(tmp_path / "far")), tmp_path / "near")
    made = finished_run(store, cache)
    publish_known(store, made.known(), cache)
    here = store.backend.local_path("runs/demo")
    assert here is not None
    assert files(here) == files(tmp_path / "far" / "runs" / "demo")
    assert load_bundle(here / "bundle", "cpu").classes
    assert not list((tmp_path / "near").rglob("blobs")), "what is truth stays where it is"


def test_a_bundle_that_another_machine_exported_comes_here(tmp_path: Path, cache: Cache) -> None:
    far = Store(FarBackend(tmp_path / "far"))
    made = finished_run(far, cache)
    publish_known(far, made.known(), cache)
    store = with_run_files_here(far, tmp_path / "near")
    publish_known(store, made.known(), cache)
    here = store.backend.local_path("runs/demo")
    assert here is not None
    assert files(here) == files(tmp_path / "far" / "runs" / "demo")


def test_a_file_taken_away_is_gone_on_both_sides(tmp_path: Path) -> None:
    store = with_run_files_here(Store(FarBackend(tmp_path / "far")), tmp_path / "near")
    store.publish("runs/demo/file", b"old")
    store.backend.delete("runs/demo/file")
    assert not store.exists("runs/demo/file")
    assert not list(tmp_path.rglob("file"))


def test_a_store_on_this_machine_is_left_as_it_is(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    assert with_run_files_here(store, tmp_path / "near") is store


def test_the_journal_goes_on_where_another_machine_left_it(tmp_path: Path) -> None:
    for machine in ("first", "second"):
        store = with_run_files_here(Store(FarBackend(tmp_path / "far")), tmp_path / machine)
        with journal_here(store, "demo") as journal:
            journal.write(1.0, RunBegan((machine,)))
    there = tmp_path / "far" / "runs" / "demo" / "events.jsonl"
    assert [event for _, event in read_journal(there)] == [RunBegan(("first",)), RunBegan(("second",))]


def test_a_journal_that_a_kill_left_here_is_longer_and_goes_on(tmp_path: Path) -> None:
    store = with_run_files_here(Store(FarBackend(tmp_path / "far")), tmp_path / "near")
    with journal_here(store, "demo") as journal:
        journal.write(1.0, RunBegan(("first",)))
    here = store.backend.local_path("runs/demo/events.jsonl")
    assert here is not None
    with Journal(here) as journal:  # killed before it was given back
        journal.write(2.0, RunBegan(("second",)))
    elsewhere = with_run_files_here(Store(FarBackend(tmp_path / "far")), tmp_path / "another")
    assert journal_bytes(store, "demo").count(b"\n") == 2, "what reads it here is not behind either"
    assert journal_bytes(elsewhere, "demo").count(b"\n") == 1
    with journal_here(store, "demo") as journal:
        journal.write(3.0, RunBegan(("third",)))
    there = tmp_path / "far" / "runs" / "demo" / "events.jsonl"
    assert [at for at, _ in read_journal(there)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("alone", [False, True])
def test_a_store_elsewhere_has_the_journal_while_it_is_written(tmp_path: Path, alone: bool) -> None:
    store = with_run_files_here(Store(FarBackend(tmp_path / "far")), tmp_path / "near")
    if alone:  # as for a disk where several writers would win
        inner = store.backend
        store.backend = Committed(inner, Committer(lambda: inner).put_if_absent)
    there = tmp_path / "far" / "runs" / "demo" / "events.jsonl"
    with journal_here(store, "demo", first_seconds=0.01) as journal:
        journal.write(1.0, RunBegan(("first",)))
        deadline = time.monotonic() + 30
        while not there.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [event for _, event in read_journal(there)] == [RunBegan(("first",))]
        journal.write(2.0, RunBegan(("second",)))  # still into the journal that is carried
    assert [at for at, _ in read_journal(there)] == [1.0, 2.0]
