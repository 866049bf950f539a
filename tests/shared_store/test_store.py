"""The store's promises on every backend: verified blobs, one winner, whole files, words that help."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared_store import layout
from shared_store.backend import Backend, Content
from shared_store.errors import DamagedBlobError, StoreError, UserError
from shared_store.local import LocalBackend
from shared_store.records import sha256
from shared_store.store import Store, open_store

BACKENDS = {"local": LocalBackend}


@pytest.fixture(params=sorted(BACKENDS))
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(BACKENDS[request.param](tmp_path / "kept"))


def test_a_blob_comes_back_under_its_hash(any_store: Store) -> None:
    digest = any_store.put_blob(b"weights")
    assert digest == sha256(b"weights")
    assert any_store.put_blob(b"weights") == digest
    assert any_store.get_blob(digest) == b"weights"


def test_a_flipped_bit_is_noticed(any_store: Store) -> None:
    digest = any_store.put_blob(b"weights")
    any_store.backend.publish(layout.blob(digest), Content(b"weighus"))
    with pytest.raises(DamagedBlobError, match="do not match"):
        any_store.get_blob(digest)
    assert any_store.read(layout.damaged(digest)) == b"weighus"
    any_store.put_blob(b"weights")  # whoever makes the right bytes again can keep them
    assert any_store.get_blob(digest) == b"weights"


def test_bytes_that_only_one_reading_got_wrong_are_not_put_aside(tmp_path: Path) -> None:
    class Flaky(LocalBackend):
        wrong = 1

        def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
            parts = super().parts(key, start)
            if self.wrong and parts is not None:
                self.wrong -= 1
                return iter([b"".join(parts)[:-1]])
            return parts

    store = Store(Flaky(tmp_path))
    digest = store.put_blob(b"weights")
    assert store.get_blob(digest) == b"weights"
    assert store.list("damaged/") == []


def test_a_missing_blob_is_named(any_store: Store) -> None:
    with pytest.raises(StoreError, match=sha256(b"never kept")):
        any_store.get_blob(sha256(b"never kept"))


def test_the_first_record_stands(any_store: Store) -> None:
    assert any_store.put_if_absent("results/fold.json", b"first")
    assert not any_store.put_if_absent("results/fold.json", b"second")
    assert any_store.read("results/fold.json") == b"first"


def test_an_own_write_whose_acknowledgement_was_lost_counts_as_won(any_store: Store) -> None:
    any_store.put_if_absent("results/fold.json", b"mine, nonce 7")
    assert any_store.put_if_absent("results/fold.json", b"mine, nonce 7")


def test_published_files_are_replaced_whole(any_store: Store) -> None:
    any_store.publish("runs/demo/report.html", b"old and long")
    any_store.publish("runs/demo/report.html", b"new")
    assert any_store.read("runs/demo/report.html") == b"new"


def test_a_deleted_blob_is_gone_and_deleting_again_is_no_error(any_store: Store) -> None:
    digest = any_store.put_blob(b"superseded")
    any_store.delete_blob(digest)
    any_store.delete_blob(digest)
    assert any_store.read(layout.blob(digest)) is None


def test_listing_hints_at_what_is_there(any_store: Store) -> None:
    any_store.publish("runs/demo/config.yaml", b"a")
    any_store.publish("runs/other/config.yaml", b"b")
    assert [entry.key for entry in any_store.list("runs/demo/")] == ["runs/demo/config.yaml"]


@pytest.mark.parametrize("key", ["../x", "a/../b", "/a", "c:/a", "runs/con/x", "a//b", "runs/NUL.txt", "a/b.", "a\\b"])
def test_keys_that_could_leave_the_store_are_refused(any_store: Store, key: str) -> None:
    for act in (any_store.read, lambda k: any_store.publish(k, b""), lambda k: any_store.put_if_absent(k, b"")):
        with pytest.raises(UserError):
            act(key)


def _race(folder: str, rounds: int, writer: int, barrier: Any, wins: Any) -> None:
    store = Store(LocalBackend(Path(folder)))
    for number in range(1, rounds + 1):
        barrier.wait()
        if store.put_if_absent(f"commits/fold/{number}.json", f"writer {writer}".encode() * 1000):
            wins.put((number, writer))


def test_of_racing_processes_one_wins_and_its_record_stands(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers, rounds = 4, 20
    wins, barrier = context.Queue(), context.Barrier(writers)
    processes = [context.Process(target=_race, args=(str(tmp_path), rounds, w, barrier, wins)) for w in range(writers)]
    for process in processes:
        process.start()
    won = dict(wins.get(timeout=60) for _ in range(rounds))
    for process in processes:
        process.join()
    assert wins.empty()
    assert sorted(won) == list(range(1, rounds + 1))
    store = Store(LocalBackend(tmp_path))
    for number, writer in won.items():
        assert store.read(f"commits/fold/{number}.json") == f"writer {writer}".encode() * 1000
    assert list(tmp_path.rglob("*.part")) == []


class FullDisk(LocalBackend):
    """A local disk that has no space left once `room` bytes were written."""

    def __init__(self, root: Path, room: int) -> None:
        super().__init__(root)
        self.room = room

    def _write(self, temporary: Path, content: Content) -> None:
        data = b"".join(content)
        if len(data) > self.room:
            temporary.write_bytes(data[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        super()._write(temporary, content)


def test_a_full_disk_says_so_leaves_nothing_torn_and_keeps_what_stood(tmp_path: Path) -> None:
    backend: Backend = FullDisk(tmp_path, room=10)
    store = Store(backend)
    kept = store.put_blob(b"fits")
    with pytest.raises(StoreError, match="full"):
        store.put_blob(b"does not fit any more")
    assert store.get_blob(kept) == b"fits"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_a_place_that_cannot_be_a_store_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(StoreError, match="--store"):
        open_store(str(tmp_path / "a file")).publish("runs/main/config.yaml", b"")
    open_store(str(tmp_path / "only looked at")).read("runs/main/config.yaml")
    assert not (tmp_path / "only looked at").exists()
    with pytest.raises(StoreError, match="gopher"):
        open_store("gopher://old/place")
