"""A store is checked to the byte: what is whole passes, each kind of harm is found and named, nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path

import pytest
from far import FarBackend
from finished_run import finished_run

from coordinator.outputs import publish_known
from shared_store import layout
from shared_store.backend import Content, Entry
from shared_store.cache import Cache
from shared_store.care import check
from shared_store.commits import digest_of, put_commit, put_result
from shared_store.errors import StoreDownError, StoreError
from shared_store.records import Commit, Holder, Record, Result, Snapshot, sha256
from shared_store.store import Store, open_store


def nothing(_done: int, _all: int) -> None:
    """Nobody watches."""


def wrong(store: Store, *, quarantine: bool = False) -> dict[str, str]:
    """What a check finds wrong, by key."""
    return {one.key: one.what for one in check(store, nothing, quarantine=quarantine).wrong}


def mends(store: Store) -> dict[str, str]:
    return {one.key: one.mend for one in check(store, nothing).wrong}


def committed(store: Store, task: str, count: int) -> list[Commit]:
    """A fold's commits in a chain; as the protocol leaves them, the newest two keep their blobs."""
    commits: list[Commit] = []
    for number in range(1, count + 1):
        digest = store.put_blob(f"state {number} of {task}".encode() * 50)
        parent = digest_of(commits[-1]) if commits else None
        commits.append(Commit(task, number, parent, "spec", 1, "nonce", number, number, {"state": digest}))
        put_commit(store, commits[-1])
    for commit in commits[:-2]:
        store.delete_blob(commit.blobs["state"])
    return commits


@pytest.fixture
def whole(store: Store) -> Store:
    """A small store with everything in it: a finished fold, one under way, a snapshot, a driver, a run's files."""
    commits = committed(store, "fold", 4)
    blobs = {"model": store.put_blob(b"weights" * 100), "metrics": store.put_blob(b"epoch,loss\n")}
    put_result(store, Result("fold", "spec", 1, "nonce", blobs))
    for commit in commits:
        store.delete_blob(commit.blobs["state"])
    committed(store, "other", 5)
    shards = [store.put_blob(b"photo" * 1000), store.put_blob(b"photos" * 1000)]
    snapshot = Snapshot("0" * 32, store.put_blob(b"manifest"), shards, 2, 11000)
    store.put_if_absent(layout.snapshot("0" * 32), snapshot.to_bytes())
    holder = Holder(1, "demo", "box", 4711, "since", "nonce")
    store.put_if_absent(layout.generation(layout.coordinators("demo"), 1), holder.to_bytes())
    store.publish(layout.beat(layout.coordinators("demo"), 1), b"17")
    store.publish("runs/demo/config.yaml", b"folds: {count: 5}\n")
    return store


def files(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()}


def flip(store: Store, key: str, place: int = 3) -> None:
    """A single bit of a file, as a disk that forgets would."""
    data = bytearray(store.read(key) or b"")
    data[place] ^= 1
    store.backend.publish(key, Content(bytes(data)))


def test_a_whole_store_is_right_and_every_byte_of_it_was_read(whole: Store) -> None:
    before, told = files(whole), list[tuple[int, int]]()
    checked = check(whole, lambda done, total: told.append((done, total)))
    assert checked.wrong == ()
    assert files(whole) == before
    total = sum(map(len, before.values()))
    assert told[-1] == (total, total)
    assert sorted(told) == told
    assert checked.counts["blobs"] == (7, sum(len(data) for path, data in before.items() if "/blobs/" in path))
    assert list(checked.counts) == ["blobs", "results", "commits", "snapshots", "coordinators", "runs"]


def test_a_real_run_is_right(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache)
    publish_known(store, made.known(), cache)
    assert check(store, nothing).wrong == ()


def test_a_flipped_bit_is_found_named_and_left_where_it_is_until_quarantine_is_asked_for(whole: Store) -> None:
    digest = sha256(b"weights" * 100)
    flip(whole, layout.blob(digest))
    before = files(whole)
    assert wrong(whole) == {
        layout.blob(digest): "damaged: its bytes do not match its name, and named by results/fold.json"
    }
    assert "remove results/fold.json" in mends(whole)[layout.blob(digest)]
    assert files(whole) == before
    assert layout.blob(digest) in wrong(whole, quarantine=True)
    assert not whole.has_blob(digest) and whole.exists(layout.damaged(digest))
    assert wrong(whole) == {layout.blob(digest): "missing, and named by results/fold.json"}
    whole.put_blob(b"weights" * 100)
    assert wrong(whole) == {}


def test_a_damaged_blob_that_nothing_names_is_wrong_as_well(whole: Store) -> None:
    key = layout.blob(whole.put_blob(b"nobody's"))
    flip(whole, key)
    assert wrong(whole) == {key: "damaged: its bytes do not match its name"}


@pytest.mark.parametrize("key", [f"snapshots/{'0' * 32}.json", "results/fold.json"])
def test_a_missing_blob_is_found_with_who_names_it(whole: Store, key: str) -> None:
    named = [digest for digest in map(str, digests(json.loads(whole.read(key) or b""))) if whole.has_blob(digest)]
    assert len(named) >= 2
    for digest in named:
        whole.delete_blob(digest)
    assert wrong(whole) == {layout.blob(digest): f"missing, and named by {key}" for digest in named}


def digests(value: object) -> list[object]:
    """The leaves of a JSON value."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in digests(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in digests(inner)]
    return [value] if isinstance(value, str) and len(value) == 64 else []


RECORDS = [
    "results/fold.json",
    "commits/other/5.json",
    "commits/other/2.json",
    "commits/fold/4.json",
    f"snapshots/{'0' * 32}.json",
    "coordinators/demo/1.json",
]


@pytest.mark.parametrize("key", RECORDS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_record_is_found(whole: Store, key: str, share: float) -> None:
    data = whole.read(key) or b""
    whole.publish(key, data[: int(share * len(data))])
    assert "not the record that belongs there" in wrong(whole)[key]


@pytest.mark.parametrize("key", RECORDS)
def test_a_flipped_bit_in_a_record_is_found_wherever_it_is(whole: Store, key: str) -> None:
    data = whole.read(key) or b""
    for place in range(0, len(data), 23):
        flip(whole, key, place)
        assert "not the record that belongs there" in wrong(whole)[key], place
        whole.publish(key, data)
    assert wrong(whole) == {}


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("results/fold.json", "results/forged.json"),
        ("commits/other/5.json", "commits/other/6.json"),
        ("commits/other/1.json", "commits/new/1.json"),
        (f"snapshots/{'0' * 32}.json", f"snapshots/{'1' * 32}.json"),
        ("coordinators/demo/1.json", "coordinators/demo/2.json"),
        ("coordinators/demo/1.json", "coordinators/forged/1.json"),
        ("results/fold.json", "commits/other/6.json"),
    ],
)
def test_a_record_under_a_forged_key_is_found(whole: Store, key: str, other: str) -> None:
    whole.publish(other, whole.read(key) or b"")
    found = wrong(whole)
    assert list(found) == [other]
    assert "not the record that belongs there" in found[other]


def test_a_commit_that_does_not_name_the_one_before_it_is_found(whole: Store) -> None:
    last = Commit("other", 6, "0" * 64, "spec", 2, "nonce", 6, 6, {"state": sha256(b"state 5 of other" * 50)})
    put_commit(whole, last)
    assert wrong(whole) == {"commits/other/6.json": "it does not name the commit before it as its parent"}


def test_a_number_that_no_commit_has_is_found(whole: Store) -> None:
    whole.backend.delete("commits/other/3.json")
    assert wrong(whole) == {"commits/other/3.json": "missing, though commit 5 stands"}


def test_of_an_unfinished_task_the_newest_commit_must_load_and_it_is_told_where_the_fold_goes_on(whole: Store) -> None:
    newest, before = (sha256(f"state {number} of other".encode() * 50) for number in (5, 4))
    flip(whole, layout.blob(newest))
    assert set(wrong(whole)) == {layout.blob(newest), "commits/other/5.json"}
    assert "goes on from commit 4" in mends(whole)["commits/other/5.json"]
    whole.delete_blob(newest)
    assert wrong(whole) == {"commits/other/5.json": "it cannot be loaded: state missing or damaged"}
    whole.delete_blob(before)
    assert "begins anew" in mends(whole)["commits/other/5.json"]


def test_a_fold_that_goes_on_while_it_is_checked_is_right(whole: Store) -> None:
    """Its newest commit is superseded between the reading of the record and that of its blob."""
    last = sha256(b"state 5 of other" * 50)
    digest = whole.put_blob(b"state 6")

    class Moving(FarBackend):
        def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
            if key == layout.blob(last) and whole.has_blob(last):
                put_commit(whole, Commit("other", 6, None, "spec", 1, "nonce", 6, 6, {"state": digest}))
                whole.delete_blob(last)
            return super().parts(key, start)

    assert wrong(Store(Moving(Path(whole.url)))) == {}


def test_a_listing_that_is_behind_raises_no_false_alarm(whole: Store) -> None:
    hidden = {"commits/other/3.json", layout.blob(sha256(b"manifest")), layout.snapshot("0" * 32)}

    class Behind(FarBackend):
        def list(self, prefix: str) -> list[Entry]:
            return [entry for entry in super().list(prefix) if entry.key not in hidden]

    whole.publish(layout.snapshot("prepared-1"), as_record("Prepared", {"snapshot_id": "0" * 32}))
    assert wrong(Store(Behind(Path(whole.url)))) == {}


def test_what_was_prepared_names_its_snapshot_and_fold_table(whole: Store) -> None:
    composed = {"snapshot_id": "2" * 32, "folds": sha256(b"no such table"), "composites": 0}
    key = layout.snapshot("composites-1")
    whole.publish(key, as_record("Composed", composed))
    assert wrong(whole) == {
        layout.snapshot("2" * 32): f"missing, and named by {key}",
        layout.blob(sha256(b"no such table")): f"missing, and named by {key}",
    }


def as_record(kind: str, fields: dict[str, object]) -> bytes:
    """A record of a kind that another room defines."""
    made = make_dataclass(kind, fields, bases=(Record,), frozen=True)
    data: bytes = made(**fields).to_bytes()
    return data


def test_leftovers_and_what_was_put_aside_are_counted_and_are_no_harm(whole: Store) -> None:
    root = Path(whole.url)
    for key in ("incoming/half", "damaged/" + "0" * 64, "probes/old", "blobs/.0123.part", "runs/demo/.4567.part"):
        (root / key).parent.mkdir(exist_ok=True)
        (root / key).write_bytes(b"left")
    checked = check(whole, nothing)
    assert checked.wrong == ()
    assert {kind: checked.counts[kind][0] for kind in ("incoming", "damaged", "probes", "unfinished")} == {
        "incoming": 1,
        "damaged": 1,
        "probes": 1,
        "unfinished": 2,
    }


def test_a_file_among_the_blobs_that_is_none_is_named(whole: Store) -> None:
    whole.backend.publish("blobs/readme.txt", Content(b"hello"))
    assert wrong(whole) == {"blobs/readme.txt": "no blob is named like this"}


def test_one_file_that_cannot_be_read_is_named_and_a_store_that_went_away_ends_the_check(whole: Store) -> None:
    key = layout.blob(sha256(b"manifest"))

    class Broken(FarBackend):
        gone = False

        def parts(self, at: str, start: int = 0) -> Iterator[bytes] | None:
            if at == key:
                raise StoreDownError("the store cannot be used (Input/output error)", where=at, mend="mend the disk")
            return super().parts(at, start)

        def size(self, at: str) -> int | None:
            if self.gone:
                raise StoreDownError("the store does not answer", where=at, mend="wait")
            return super().size(at)

    backend = Broken(Path(whole.url))
    snapshot = layout.snapshot("0" * 32)
    what = f"it cannot be read: the store cannot be used (Input/output error), and named by {snapshot}"
    assert wrong(Store(backend)) == {key: what}
    backend.gone = True
    with pytest.raises(StoreError, match="does not answer"):
        check(Store(backend), nothing)


def test_an_empty_store_is_right(tmp_path: Path) -> None:
    assert check(open_store(str(tmp_path / "none")), nothing).counts == {}
    assert not (tmp_path / "none").exists()
