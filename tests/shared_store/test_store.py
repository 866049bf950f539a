"""What the store itself adds to its disk: second looks, words that help. What all disks promise: test_contract.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared_store import layout
from shared_store.backend import Backend, Content
from shared_store.errors import DamagedBlobError, StoreError
from shared_store.local import LocalBackend
from shared_store.store import Store, open_store


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


class Meeting(LocalBackend):
    """A disk that calls `meanwhile` before it moves a key to another: what others do at that very moment."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def move(self, key: str, to: str) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        super().move(key, to)


def test_a_blob_made_anew_while_its_damaged_bytes_were_read_is_not_put_aside(tmp_path: Path) -> None:
    backend = Meeting(tmp_path)
    store, other = Store(backend), open_store(str(tmp_path))
    digest = store.put_blob(b"weights")
    backend.publish(layout.blob(digest), Content(b"weighus"))

    def quarantine_and_make_anew() -> None:
        with pytest.raises(DamagedBlobError):
            other.get_blob(digest)
        other.put_blob(b"weights")

    backend.meanwhile = quarantine_and_make_anew
    assert store.get_blob(digest) == b"weights"
    assert [entry.key for entry in store.list("")] == [layout.blob(digest)]


def test_of_two_who_put_the_same_blob_aside_one_may_find_it_back_already(tmp_path: Path) -> None:
    backend = Meeting(tmp_path)
    store, other = Store(backend), Meeting(tmp_path)
    digest = store.put_blob(b"weights")
    backend.publish(layout.blob(digest), Content(b"weighus"))

    def the_other_does_the_same_but_a_right_one_came_between() -> None:
        other.meanwhile = lambda: backend.publish(layout.blob(digest), Content(b"weights"))
        assert Store(other).get_blob(digest) == b"weights"

    backend.meanwhile = the_other_does_the_same_but_a_right_one_came_between
    assert store.get_blob(digest) == b"weights"
    assert [entry.key for entry in store.list("")] == [layout.blob(digest)]


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
