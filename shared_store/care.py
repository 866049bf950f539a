"""A store looked after: every byte read, and held against what it should be.

What is right is decided in inventory.py. Listings say where to look; what is found missing is looked for under its
exact key.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shared_store import layout
from shared_store.backend import Entry
from shared_store.errors import DamagedBlobError, StoreError
from shared_store.inventory import Judged, Wrong, count, is_digest, is_record, judge, kind_of, newest_commits
from shared_store.records import Commit
from shared_store.store import Store
from shared_store.transfer import in_order

Progress = Callable[[int, int], object]
"""Told (bytes read, bytes in all)."""
_AT_ONCE = 4
_RIGHT, _GONE, _DAMAGED = "", "missing", "damaged: its bytes do not match its name"


@dataclass(frozen=True)
class Checked:
    """What was read, (how many, bytes) by kind, and all that is wrong."""

    counts: Mapping[str, tuple[int, int]]
    wrong: tuple[Wrong, ...]


def check(store: Store, progress: Progress, *, quarantine: bool = False) -> Checked:
    """Read every byte there is: blobs against their hashes, records against their keys and against one another.

    Changes nothing but for `quarantine`: damaged blobs are put aside. What comes and goes meanwhile is no error.
    """
    entries = [*store.list(""), *store.backend.leftovers()]
    reading = _Reading(store, sum(entry.bytes for entry in entries), progress)
    jobs = (partial(reading.take, entry.key) for entry in _records_first(entries))
    wrong = [one for found in in_order(jobs, _AT_ONCE) for one in found]
    for key in _unlisted_commits(reading.records):
        wrong += reading.take(key)
    judged = judge(reading.records)
    wrong += [*judged.wrong, *_missing_snapshots(store, judged)]
    for digest in sorted(judged.named):
        reading.state(digest)
    for task in sorted(judged.commits.keys() - judged.results.keys()):
        wrong += _commit_trouble(reading, judged.commits[task])
    for digest, state in sorted(reading.states.items()):
        wrong += _blob_trouble(digest, state, judged.named.get(digest, []))
        if quarantine and state == _DAMAGED:
            _put_aside(store, digest)
    return Checked(count(entries), tuple(sorted(wrong, key=lambda one: one.key)))


class _Reading:
    """What has been read so far: records by key, and what each blob turned out to be. Used by several threads."""

    def __init__(self, store: Store, total_bytes: int, progress: Progress) -> None:
        self.store = store
        self.records: dict[str, bytes] = {}
        self.states: dict[str, str] = {}  # what is wrong with each blob, by digest
        self._done, self._total, self._progress = 0, total_bytes, progress
        self._lock = threading.Lock()

    def take(self, key: str) -> list[Wrong]:
        """Read one key; what is wrong with it by itself, if it is no blob."""
        name = key.rpartition("/")[2]
        if kind_of(key) != "blobs":
            trouble = self._tried(key, lambda: (self._read(key), _RIGHT)[1])
            return [Wrong(key, trouble, "restore it from a copy")] if trouble else []
        if not is_digest(name):
            return [Wrong(key, "no blob is named like this", "remove it: nothing can name it")]
        self.state(name)
        return []

    def state(self, digest: str) -> str:
        """What is wrong with a blob: _RIGHT, _GONE, _DAMAGED, or why it cannot be read."""
        if digest not in self.states:
            self.states[digest] = self._tried(layout.blob(digest), lambda: self._judged(digest))
        return self.states[digest]

    def _judged(self, digest: str) -> str:
        for _ in range(2):  # what went wrong may have been the reading alone
            found = self._read(layout.blob(digest))
            if found in (digest, _GONE):
                return _RIGHT if found == digest else _GONE
        return _DAMAGED

    def _tried(self, key: str, act: Callable[[], str]) -> str:
        try:
            return act()
        except StoreError as error:
            self.store.exists(layout.probe("anything"))  # a store that is gone as a whole raises, and ends the check
            return f"it cannot be read: {error.what}"

    def _read(self, key: str) -> str:
        parts = self.store.backend.parts(key)
        if parts is None:
            return _GONE
        running, kept = hashlib.sha256(), list[bytes]()
        for part in parts:
            running.update(part)
            if is_record(key):
                kept.append(bytes(part))
            with self._lock:
                self._done += len(part)
                self._progress(min(self._done, self._total), self._total)
        if is_record(key):
            self.records[key] = b"".join(kept)
        return running.hexdigest()


def _records_first(entries: Sequence[Entry]) -> list[Entry]:
    """Commits are superseded while a long check goes on: what they name is best looked at early."""
    return sorted(entries, key=lambda entry: (not is_record(entry.key), entry.key))


def _unlisted_commits(records: Collection[str]) -> list[str]:
    """Keys that must stand as higher numbers do, though no listing showed them."""
    listed = newest_commits(records)
    keys = (layout.commit(task, number) for task, last in listed.items() for number in range(1, last + 1))
    return [key for key in keys if key not in records]


def _missing_snapshots(store: Store, judged: Judged) -> Iterator[Wrong]:
    for snapshot, namers in sorted(judged.snapshots.items()):
        if not store.exists(snapshot):
            mend = "give the run's command again with its photos: they are read anew"
            yield Wrong(snapshot, f"missing, and named by {_some(namers)}", mend)


def _commit_trouble(reading: _Reading, commits: Mapping[int, Commit]) -> Iterator[Wrong]:
    """Of a task without a result the newest commit must stand whole: it is where its fold goes on."""
    number = max(commits)
    last = commits[number]
    bad = [name for name, digest in last.blobs.items() if reading.state(digest)]
    later = reading.store.exists(layout.commit(last.task, number + 1)) or reading.store.exists(layout.result(last.task))
    if not bad or later:  # a later one has superseded it meanwhile, blobs and all
        return
    whole = (n for n in sorted(commits, reverse=True) if not any(map(reading.state, commits[n].blobs.values())))
    before = next(whole, None)
    mend = "begins anew" if before is None else f"goes on from commit {before}"
    what = f"it cannot be loaded: {' and '.join(bad)} missing or damaged"
    yield Wrong(layout.commit(last.task, number), what, f"nothing need be done: the fold {mend}")


def _blob_trouble(digest: str, state: str, namers: Sequence[str]) -> Iterator[Wrong]:
    if state == _RIGHT or (state == _GONE and not namers):
        return
    results = [key for key in namers if kind_of(key) == "results"]
    mend = "nothing names it: put it aside with --quarantine"
    if results:
        mend = f"restore it from a copy, or remove {_some(results)} and give its run's command again"
    elif namers:
        mend = "restore it from a copy, or give the run's command again with its photos: they are read anew"
    yield Wrong(layout.blob(digest), f"{state}, and named by {_some(namers)}" if namers else state, mend)


def _put_aside(store: Store, digest: str) -> None:
    try:
        store.verify(digest)
    except DamagedBlobError:
        return


def _some(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
