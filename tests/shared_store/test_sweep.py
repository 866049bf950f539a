"""What nobody needs goes, and nothing else: on stores drawn at random, of all ages, killed half way, by any clock."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from far import FarBackend
from faulty import MemoryBackend
from hypothesis import given
from hypothesis import strategies as st

from shared_store import layout
from shared_store.backend import Content, Entry
from shared_store.commits import digest_of, put_commit, put_result
from shared_store.errors import DamagedRecordError, StoreError
from shared_store.inventory import Sweep
from shared_store.records import Commit, Result, Snapshot, sha256
from shared_store.store import Store
from shared_store.sweep import clock_of, find_needless, remove

DAY = 24 * 3600.0
OLD, YOUNG = 3 * DAY, 0.5 * DAY


def nothing(_done: int, _all: int) -> None:
    """Nobody watches."""


class AgedBackend(MemoryBackend):
    """A disk with a clock of its own, far from ours; what is written now has the age that is set."""

    def __init__(self, clock: float = 5e8) -> None:
        super().__init__()
        self.clock, self.age = clock, 0.0
        self.times: dict[str, float] = {}
        self.unfinished: dict[str, float] = {}
        self.hidden: set[str] = set()  # from listings

    def _keep(self, key: str, data: bytes) -> None:
        super()._keep(key, data)
        self.times[key] = self.clock - self.age

    def list(self, prefix: str) -> list[Entry]:
        entries = [entry for entry in super().list(prefix) if entry.key not in self.hidden]
        return [replace(entry, modified=self.times[entry.key]) for entry in entries]

    def leftovers(self) -> Sequence[Entry]:
        return [Entry(key, 4, time) for key, time in self.unfinished.items()]

    def delete(self, key: str) -> None:
        super().delete(key)
        self.unfinished.pop(key, None)


@dataclass(frozen=True)
class Fold:
    """How a task is drawn: how many commits, which of their blobs are lost, whether it is finished."""

    commits: int
    lost: frozenset[int]
    is_done: bool


FOLDS = st.builds(Fold, st.integers(0, 9), st.frozensets(st.integers(1, 9), max_size=9), st.booleans())


class Drawn:
    """A store made by the protocol's rules from what was drawn, and what must stay or go, known without the code."""

    def __init__(self, folds: Sequence[Fold], others: Sequence[tuple[str, bool]], ages: Mapping[int, float]) -> None:
        self.backend = AgedBackend()
        self.store = Store(self.backend)
        self.needed: set[str] = set()
        self.generous: set[str] = set()  # may stay as well: one commit more than the protocol keeps
        self._ages, self._count = ages, 0
        for number, fold in enumerate(folds):
            self._fold(f"task{number}", fold)
        for number, (kind, is_text) in enumerate(others):
            self._other(f"thing{number}", kind, is_text)
        self.backend.age = 0.0

    def blob(self) -> str:
        self._count += 1
        self.backend.age = self._ages.get(self._count, OLD)
        return self.store.put_blob(f"blob {self._count}".encode())

    def _fold(self, task: str, fold: Fold) -> None:
        parent, best, commits = None, self.blob(), list[Commit]()
        for number in range(1, fold.commits + 1):
            blobs = {"state": self.blob()} | ({"best": best} if number > 1 else {})
            commits.append(Commit(task, number, parent, "spec", 1, "nonce", 1, number, blobs))
            put_commit(self.store, commits[-1])
            parent = digest_of(commits[-1])
        if fold.is_done:
            model = self.blob()
            put_result(self.store, Result(task, "spec", 1, "nonce", {"model": model, "best": best}))
            self.needed |= {model, best}
            return
        loadable = [commit for commit in reversed(commits) if commit.number not in fold.lost]
        for commit in loadable[:2]:
            self.needed |= set(commit.blobs.values())
        for commit in commits:
            self.generous |= set(commit.blobs.values())
            if commit.number in fold.lost:
                self.store.delete_blob(commit.blobs["state"])

    def _other(self, name: str, kind: str, is_text: bool) -> None:
        digest = self.blob()
        if kind == "snapshot":
            shard = self.blob()
            self.store.put_if_absent(layout.snapshot(name), Snapshot(name, digest, [shard], 1, 1).to_bytes())
            self.needed |= {digest, shard}
        elif kind == "run":
            text = f'{{"composed":"{{\\"folds\\":\\"{digest}\\"}}"}}' if is_text else f"weights: {digest}\n"
            self.store.publish(layout.run_file(name, "data.json" if is_text else "config.yaml"), text.encode())
            self.needed.add(digest)
        elif kind == "log":
            self.store.publish(layout.log(name, "train.log"), digest.encode())
        elif kind == "incoming":
            self.backend.publish(layout.incoming(name), Content(b"half"))
        elif kind == "unfinished":
            self.backend.unfinished[f"blobs/.{name}.part"] = self.backend.clock - self.backend.age

    @property
    def blobs(self) -> set[str]:
        return {entry.key.removeprefix("blobs/") for entry in self.backend.list("blobs/")}


DRAWN = st.builds(
    Drawn,
    st.lists(FOLDS, max_size=4),
    st.lists(
        st.tuples(st.sampled_from(["snapshot", "run", "log", "incoming", "unfinished"]), st.booleans()), max_size=6
    ),
    st.dictionaries(st.integers(1, 40), st.sampled_from([0.0, YOUNG, DAY - 1, DAY, OLD])),
)


def sweep(store: Store, grace_seconds: float = DAY) -> Sweep:
    """Find and remove."""
    found = find_needless(store, grace_seconds, nothing)
    assert remove(store, found.goes, lambda: True, nothing) == len(found.goes)
    return found


@given(DRAWN)
def test_nothing_that_is_named_goes_and_nothing_old_that_is_not_stays(drawn: Drawn) -> None:
    before = drawn.backend.list("")
    blobs, kept = drawn.blobs, dict(drawn.backend.kept)
    found = sweep(drawn.store)
    gone = blobs - drawn.blobs
    age = {entry.key: drawn.backend.clock - entry.modified for entry in before}
    assert not gone & drawn.needed
    assert all(age[layout.blob(digest)] >= DAY for digest in gone)
    old = {digest for digest in blobs if age[layout.blob(digest)] >= DAY}
    assert old - gone <= drawn.needed | drawn.generous
    records = {key: data for key, data in kept.items() if key.partition("/")[0] not in ("blobs", "incoming")}
    assert records.items() <= drawn.backend.kept.items(), "records and people's files are never touched"
    assert not [key for key, when in drawn.backend.unfinished.items() if drawn.backend.clock - when >= DAY]
    assert set(drawn.backend.kept) == set(kept) - {entry.key for entry in found.goes}
    assert sweep(drawn.store).goes == ()


@given(DRAWN)
def test_a_commit_more_than_a_fold_keeps_stays_and_no_more(drawn: Drawn) -> None:
    """Of whole commits exactly the newest three keep their states, once all is old."""
    drawn.backend.times = dict.fromkeys(drawn.backend.times, 0.0)
    sweep(drawn.store)
    standing = drawn.blobs
    for prefix in {key.rpartition("/")[0] for key in drawn.backend.kept if key.startswith("commits/")}:
        if f"results/{prefix.partition('/')[2]}.json" in drawn.backend.kept:
            continue
        keys = sorted((k for k in drawn.backend.kept if k.startswith(f"{prefix}/")), key=lambda key: (len(key), key))
        commits = [Commit.from_bytes(drawn.backend.kept[key]) for key in reversed(keys)]
        keeps = [commit.number for commit in commits if commit.blobs["state"] in standing]
        assert len(keeps) <= 3


@given(DRAWN, st.integers(0, 20))
def test_a_kill_in_the_middle_leaves_a_right_store_and_the_next_one_ends_it(drawn: Drawn, after: int) -> None:
    class Killed(BaseException):
        pass

    goes = find_needless(drawn.store, DAY, nothing).goes
    asked, lock = 0, threading.Lock()

    def go_on() -> bool:
        nonlocal asked
        with lock:
            asked += 1
        if asked > after:
            raise Killed
        return True

    with contextlib.suppress(Killed):
        remove(drawn.store, goes, go_on, nothing)
    assert drawn.needed <= drawn.blobs
    sweep(drawn.store)
    assert drawn.needed <= drawn.blobs
    assert sweep(drawn.store).goes == ()


def test_who_was_taken_over_removes_no_more() -> None:
    drawn = Drawn([], [("log", True)] * 5, {})
    goes = find_needless(drawn.store, DAY, nothing).goes
    assert len(goes) == 5
    assert remove(drawn.store, goes, lambda: len(drawn.blobs) > 3, nothing) <= 4
    assert 0 < len(drawn.blobs) <= 3


@pytest.mark.parametrize("skew", [-DAY, 0.0, DAY, 400 * DAY])
def test_age_is_told_by_the_stores_own_clock(tmp_path: Path, skew: float) -> None:
    """Files whose times come from a server with another idea of today: theirs against the marker's alone count."""

    class Server(FarBackend):
        def list(self, prefix: str) -> list[Entry]:
            return [replace(entry, modified=entry.modified + skew) for entry in super().list(prefix)]

    store = Store(Server(tmp_path))
    old, young = store.put_blob(b"old"), store.put_blob(b"young")
    path = tmp_path / layout.blob(old)
    os.utime(path, (time.time(), time.time() - 2 * DAY))
    assert abs(clock_of(store) - (time.time() + skew)) < 60
    assert [entry.key for entry in sweep(store).goes] == [layout.blob(old)]
    assert store.has_blob(young)
    assert store.list("probes/") == [], "the marker is gone"


def test_a_listing_that_does_not_show_the_marker_removes_nothing(tmp_path: Path) -> None:
    class Blind(FarBackend):
        def list(self, prefix: str) -> list[Entry]:
            return [entry for entry in super().list(prefix) if not entry.key.startswith("probes/")]

    store = Store(Blind(tmp_path))
    store.put_blob(b"nobody's")
    with pytest.raises(StoreError, match="does not show"):
        find_needless(store, 0.0, nothing)
    assert not list(tmp_path.rglob("clock-*"))


@pytest.mark.parametrize("key", ["results/task1.json", "commits/task0/3.json", "snapshots/thing0.json"])
def test_where_a_record_cannot_be_read_nothing_goes(key: str) -> None:
    drawn = Drawn([Fold(3, frozenset(), False), Fold(2, frozenset(), True)], [("snapshot", True), ("log", True)], {})
    data = drawn.backend.kept[key]
    drawn.backend.publish(key, Content(data[:-9]))
    with pytest.raises(DamagedRecordError):
        find_needless(drawn.store, DAY, nothing)


def test_a_commit_that_no_listing_shows_keeps_its_blobs() -> None:
    drawn = Drawn([Fold(5, frozenset(), False)], [], {})
    newest = Commit.from_bytes(drawn.backend.kept["commits/task0/5.json"])

    drawn.backend.hidden = {"commits/task0/5.json", "commits/task0/4.json"}
    sweep(drawn.store)
    assert newest.blobs["state"] in drawn.blobs


def test_what_was_put_aside_goes_once_nothing_is_lost_by_it() -> None:
    drawn = Drawn([Fold(0, frozenset(), True)], [], {})
    model = Result.from_bytes(drawn.backend.kept["results/task0.json"]).blobs["model"]
    drawn.backend.age = OLD
    for digest in (model, sha256(b"nobody's")):
        drawn.backend.publish(layout.damaged(digest), Content(b"damaged"))
    drawn.store.delete_blob(model)
    drawn.backend.age = 0.0
    assert [entry.key for entry in sweep(drawn.store).goes] == [layout.damaged(sha256(b"nobody's"))]
    drawn.store.put_blob(b"blob 2")
    assert [entry.key for entry in sweep(drawn.store).goes] == [layout.damaged(model)]


def test_what_killed_writers_left_on_a_real_disk_goes_when_it_is_old(tmp_path: Path) -> None:
    store = Store(FarBackend(tmp_path))
    store.publish("runs/demo/config.yaml", b"1")
    left = ["blobs/.00.part", "runs/demo/.11.part", "incoming/half", "probes/22"]
    for key in [*left, "blobs/.young.part", "runs/demo/lock"]:
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(b"left")
        if "young" not in key:
            os.utime(tmp_path / key, (0, 0))
    assert sorted(entry.key for entry in sweep(store).goes) == sorted(left)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "blobs/.young.part",
        "runs/demo/lock",
        "runs/demo/config.yaml",
    }
