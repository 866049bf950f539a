"""The commit protocol over a store: a task's commits 1, 2, 3 ... and its one result.

State is found by reading exact keys. A writer that loses the race for a number is told the record
that stands; it loads that one and goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared_store import layout
from shared_store.records import Commit, Result, sha256
from shared_store.store import Store

T = TypeVar("T")


def put_commit(store: Store, commit: Commit) -> Commit:
    """Put `commit` under its number and return the record that stands there: it, or the winner's."""
    key = layout.commit(commit.task, commit.number)
    if store.put_if_absent(key, commit.to_bytes()):
        return commit
    standing = read_commit(store, commit.task, commit.number)
    assert standing is not None, f"{key} lost its race to nothing"
    return standing


def read_commit(store: Store, task: str, number: int) -> Commit | None:
    """DamagedRecordError when it is not the record that was put."""
    return store.read_record(layout.commit(task, number), Commit)


def last_commit(store: Store, task: str) -> Commit | None:
    """The newest commit."""
    return newest(lambda number: read_commit(store, task, number))


def newest(read: Callable[[int], T | None]) -> T | None:
    """The last of what `read` finds under 1, 2, 3 ... without gaps: by doubling and halving, in O(log n) reads."""
    known: T | None = None
    low, high = 0, 1
    while (found := read(high)) is not None:
        known, low, high = found, high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        found = read(middle)
        if found is None:
            high = middle
        else:
            known, low = found, middle
    return known


def digest_of(commit: Commit) -> str:
    """What the next commit names as its parent."""
    return sha256(commit.to_bytes())


def put_result(store: Store, result: Result) -> Result:
    """Put a task's one result and return the record that stands."""
    key = layout.result(result.task)
    if store.put_if_absent(key, result.to_bytes()):
        return result
    standing = read_result(store, result.task)
    assert standing is not None, f"{key} lost its race to nothing"
    return standing


def read_result(store: Store, task: str) -> Result | None:
    """DamagedRecordError when it is not the record that was put."""
    return store.read_record(layout.result(task), Result)
