"""What every kind of store promises, tried on each as users have it: a folder, the head's disk, SFTP, S3.

A real bucket: FOLDFLEET_TEST_S3=s3://bucket/prefix (and the usual AWS settings) takes the place of the S3 server here.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from racing import check
from store_kinds import KINDS, Kind, running

from shared_store import layout
from shared_store.backend import PART_BYTES, Content, Paced
from shared_store.commits import last_commit, put_commit, put_result, read_result
from shared_store.errors import DamagedBlobError, MissingBlobError, StoreError, UserError
from shared_store.records import Commit, Result, sha256
from shared_store.store import Store, open_store

WRITERS, ROUNDS = 8, 100
LARGE = os.urandom(3 * PART_BYTES + 1)
_places = itertools.count()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as kind:
        yield kind


@pytest.fixture
def store(kind: Kind) -> Iterator[Store]:
    """An empty part of the store."""
    store = kind.open(f"place{next(_places)}")
    yield store
    store.backend.close()


def keys(store: Store, prefix: str) -> list[str]:
    return [entry.key for entry in store.list(prefix)]


@pytest.mark.parametrize("data", [b"", b"weights", LARGE], ids=["empty", "small", "large"])
def test_a_blob_comes_back_under_its_hash(store: Store, tmp_path: Path, data: bytes) -> None:
    digest = store.put_blob(data)
    assert digest == sha256(data)
    assert store.put_blob(data) == digest
    assert store.get_blob(digest) == data
    assert store.blob_size(digest) == len(data)
    store.get_file(digest, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data
    store.verify(digest)
    assert keys(store, "") == [layout.blob(digest)]


def test_a_file_travels_in_parts_and_at_a_share_of_the_link(store: Store, tmp_path: Path) -> None:
    file, waits = tmp_path / "file", list[float]()
    file.write_bytes(LARGE)
    ticks = itertools.count(0.0, 1.0)
    content = Paced(file, share=0.25, clock=lambda: next(ticks), sleep=waits.append)
    if store.blob_path("0" * 64) is None:  # where it lies here, nothing travels
        store.put_named_blob(sha256(LARGE), content)
        assert waits == [3.0] * 4, "a second a part, at a quarter of the link"
    assert store.put_blob(Content(file)) == sha256(LARGE)
    assert store.get_blob(sha256(LARGE)) == LARGE


def test_reading_begins_where_it_is_asked_to(store: Store) -> None:
    store.backend.publish("runs/demo/file", Content(LARGE))
    for start in (0, 1, PART_BYTES, len(LARGE) - 1, len(LARGE)):
        parts = store.backend.parts("runs/demo/file", start)
        assert parts is not None
        assert b"".join(parts) == LARGE[start:]
    assert store.backend.parts("runs/demo/none") is None
    assert store.backend.size("runs/demo/none") is None


def test_a_flipped_bit_is_noticed_and_the_right_bytes_can_be_kept_again(store: Store) -> None:
    digest = store.put_blob(b"weights")
    store.backend.publish(layout.blob(digest), Content(b"weighus"))
    with pytest.raises(DamagedBlobError, match="do not match"):
        store.get_blob(digest)
    assert store.read(layout.damaged(digest)) == b"weighus"
    assert not store.has_blob(digest)
    store.put_blob(b"weights")
    assert store.get_blob(digest) == b"weights"


def test_a_blob_cut_short_is_sent_again(store: Store) -> None:
    digest = store.put_blob(b"weights")
    store.backend.publish(layout.blob(digest), Content(b"weig"))
    store.put_blob(b"weights")
    assert store.get_blob(digest) == b"weights"


def test_a_missing_blob_is_named(store: Store, tmp_path: Path) -> None:
    digest = sha256(b"never kept")
    with pytest.raises(MissingBlobError, match=digest):
        store.get_blob(digest)
    with pytest.raises(MissingBlobError, match=digest):
        store.get_file(digest, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_the_first_record_stands(store: Store) -> None:
    assert store.put_if_absent("results/fold.json", b"first")
    assert not store.put_if_absent("results/fold.json", b"second")
    assert store.read("results/fold.json") == b"first"
    assert store.put_if_absent("results/fold.json", b"first"), "an own write whose acknowledgement was lost is won"
    assert store.read("results/other.json") is None


def test_commits_and_results_stand(store: Store) -> None:
    digest = store.put_blob(b"state")
    for number in (1, 2, 3):
        commit = Commit("fold", number, None, "spec", 1, "nonce", number, number, {"state": digest})
        assert put_commit(store, commit) == commit
    rival = Commit("fold", 3, None, "spec", 2, "rival", 3, 3, {"state": digest})
    assert put_commit(store, rival).nonce == "nonce"
    assert last_commit(store, "fold") == commit
    assert put_result(store, Result("fold", "spec", 1, "nonce")) == read_result(store, "fold")


def test_published_files_are_replaced_whole(store: Store) -> None:
    store.publish("runs/demo/my report.html", b"old and long")
    store.publish("runs/demo/my report.html", b"new")
    assert store.read("runs/demo/my report.html") == b"new"


def test_what_is_deleted_or_moved_is_gone_and_doing_it_again_is_no_error(store: Store) -> None:
    digest = store.put_blob(b"superseded")
    for _ in range(2):
        store.delete_blob(digest)
        assert store.read(layout.blob(digest)) is None
    store.publish("runs/demo/a", b"a")
    store.publish("runs/demo/b", b"b")
    for _ in range(2):
        store.backend.move("runs/demo/a", "runs/demo/b")
        assert store.read("runs/demo/a") is None
        assert store.read("runs/demo/b") == b"a"


def test_a_listing_hints_at_what_is_there(store: Store) -> None:
    assert store.list("runs/") == []
    store.publish("runs/demo/config.yaml", b"1")
    store.publish("runs/demo/folds/0/train.log", b"22")
    store.publish("runs/other/config.yaml", b"333")
    assert keys(store, "runs/demo/") == ["runs/demo/config.yaml", "runs/demo/folds/0/train.log"]
    assert keys(store, "runs/d") == ["runs/demo/config.yaml", "runs/demo/folds/0/train.log"]
    assert [entry.bytes for entry in store.list("")] == [1, 2, 3]
    times = [entry.modified for entry in store.list("")]
    assert max(times) - min(times) < 600, "seconds on one clock"


@pytest.mark.parametrize("key", ["../x", "a/../b", "/a", "c:/a", "runs/con/x", "a//b", "runs/NUL.txt", "a/b.", "a\\b"])
def test_keys_that_could_leave_the_store_are_refused(store: Store, key: str) -> None:
    for act in (store.read, store.exists, lambda k: store.publish(k, b""), lambda k: store.put_if_absent(k, b"")):
        with pytest.raises(UserError):
            act(key)


def test_several_threads_share_one_store(store: Store) -> None:
    def work(number: int) -> bool:
        data = bytes([number]) * (PART_BYTES + number)
        return store.get_blob(store.put_blob(data)) == data and store.put_if_absent("results/one.json", data[:9])

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 1


def test_a_closed_store_opens_itself_again(store: Store) -> None:
    store.publish("runs/demo/file", b"kept")
    store.backend.close()
    assert store.read("runs/demo/file") == b"kept"


def test_an_interrupted_write_leaves_what_stood(store: Store, tmp_path: Path) -> None:
    class BrokenError(Exception):
        pass

    class Broken(Content):
        def __iter__(self) -> Iterator[memoryview]:
            for part in super().__iter__():
                yield part
                raise BrokenError

    store.publish("runs/demo/file", b"stood")
    for source in (LARGE, LARGE[: PART_BYTES // 2]):
        with pytest.raises(BrokenError):
            store.backend.publish("runs/demo/file", Broken(source))
        assert store.read("runs/demo/file") == b"stood"
    assert keys(store, "") == ["runs/demo/file"]


def test_of_racing_processes_one_wins_each_round_and_the_others_read_its_record(kind: Kind) -> None:
    check(kind.race(f"race{next(_places)}", WRITERS, ROUNDS), WRITERS, ROUNDS)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StoreError, match="sftp://"):
        open_store("gopher://old/place")
