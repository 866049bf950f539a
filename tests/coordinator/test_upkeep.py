"""Holding a run, checking and cleaning on stores as users have them: a folder (POSIX, NTFS), SFTP, S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_kinds import running

from coordinator.generation import Chain, Watch, cleaning, driving
from shared_store import layout
from shared_store.backend import Content
from shared_store.care import check
from shared_store.commits import digest_of, put_commit, put_result
from shared_store.records import Commit, Result
from shared_store.store import Store
from shared_store.sweep import find_needless, remove

KINDS_HERE = ("local", "ntfs", "sftp", "s3")  # the head's disk is a folder too, and Ray takes long to begin


@pytest.fixture(scope="module", params=KINDS_HERE)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as kind:
        store = kind.open("upkeep")
        yield store
        store.backend.close()


def never(_seconds: float) -> None:
    raise AssertionError("there is nothing to wait for")


def nothing(_done: int, _all: int) -> None:
    """Nobody watches."""


def test_a_run_is_held_by_one_after_another(store: Store, tmp_path: Path) -> None:
    watch = Watch(print, sleep=never)
    for generation in (1, 2, 3):
        with driving(store, "demo", tmp_path / "lock", watch, take_over=False) as hold:
            assert hold.mine.generation == generation
    with (
        driving(store, "demo", tmp_path / "lock", watch, take_over=False) as first,
        driving(store, "demo", tmp_path / "another lock", watch, take_over=True) as second,
    ):
        first.beat()
        assert first.successor == second.mine
        assert Chain(store, layout.coordinators("demo")).newest() == second.mine


def test_harm_is_found_and_what_nobody_needs_goes(store: Store) -> None:
    parent, states = None, list[str]()
    for number in range(1, 6):
        states.append(store.put_blob(f"state {number}".encode()))
        commit = Commit("fold", number, parent, "spec", 1, "nonce", 1, number, {"state": states[-1]})
        put_commit(store, commit)
        parent = digest_of(commit)
    model = store.put_blob(b"weights" * 1000)
    put_result(store, Result("done", "spec", 1, "nonce", {"model": model}))
    store.backend.publish(layout.incoming("half"), Content(b"half"))
    assert check(store, nothing).wrong == ()

    with cleaning(store, Watch(print, sleep=never)):
        goes = find_needless(store, 0.0, nothing).goes
        expected = [layout.incoming("half"), *(layout.blob(state) for state in states[:2])]
        assert [entry.key for entry in goes] == sorted(expected)
        assert remove(store, goes, lambda: True, nothing) == 3
    assert find_needless(store, 0.0, nothing).goes == ()
    assert check(store, nothing).wrong == ()

    store.backend.publish(layout.blob(model), Content(b"Weights" * 1000))
    assert [one.key for one in check(store, nothing, quarantine=True).wrong] == [layout.blob(model)]
    assert store.exists(layout.damaged(model))
    assert not store.has_blob(model)
