"""The race that finds out who may commit: it believes disks that keep their word and sees through those that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from careless import Forgets, LooksThenWrites, Overwrites, without_links
from racing import check, race_in_threads

from shared_store.committer import Committed, Committer
from shared_store.errors import StoreDownError, StoreError
from shared_store.local import LocalBackend
from shared_store.probe import Exclusive, NotExclusive, probe
from shared_store.retrying import Retrying
from shared_store.store import Store, open_store


def test_a_local_disk_lets_one_win_and_nothing_is_left(tmp_path: Path) -> None:
    assert probe(lambda: open_store(str(tmp_path / "store"))) == Exclusive()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (LooksThenWrites, "writers won one race"),
        (Overwrites, "8 of 8 writers won one race"),
        (Forgets, "not the one whose record stands"),
        (without_links, "cannot give a name to one of several writers"),
    ],
)
def test_a_disk_that_lets_several_win_or_cannot_tell_is_found_out(
    tmp_path: Path, kind: Callable[[Path], LocalBackend], reason: str
) -> None:
    found = probe(lambda: Store(Retrying(kind(tmp_path / "store"))))
    assert isinstance(found, NotExclusive)
    assert reason in found.reason
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_lost_acknowledgement_is_no_broken_promise(tmp_path: Path) -> None:
    class Deaf(LocalBackend):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            super().put_if_absent(key, data)
            return False

    assert probe(lambda: Store(Deaf(tmp_path / "store"))) == Exclusive()


def test_a_store_that_is_not_there_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be used"):
        probe(lambda: open_store(str(tmp_path / "a file")))


@pytest.mark.parametrize("kind", [LooksThenWrites, Overwrites, without_links])
def test_with_one_committer_one_wins_whatever_the_disk_does(
    tmp_path: Path, kind: Callable[[Path], LocalBackend]
) -> None:
    disk = kind(tmp_path / "store")
    store = Store(Retrying(Committed(disk, Committer(lambda: disk).put_if_absent)))
    check(race_in_threads(store, writers=8, rounds=10), writers=8, rounds=10)
    assert store.put_if_absent("results/one.json", b"first")
    assert store.put_if_absent("results/one.json", b"first"), "an own write whose acknowledgement was lost"
    assert not store.put_if_absent("results/one.json", b"second")
    assert store.get_blob(store.put_blob(b"blob")) == b"blob"


def test_a_committer_opens_its_disk_anew_after_trouble(tmp_path: Path) -> None:
    class Tired(LocalBackend):
        tired = True

        def size(self, key: str) -> int | None:
            if self.tired:
                raise StoreDownError("no answer", where=key, mend="wait")
            return super().size(key)

        def close(self) -> None:
            self.tired = False

    committer = Committer(lambda: Tired(tmp_path / "store"))
    with pytest.raises(StoreDownError):
        committer.put_if_absent("results/one.json", b"first")
    assert committer.put_if_absent("results/one.json", b"first")
