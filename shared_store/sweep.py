"""What nobody needs in a store: found, and removed.

What is needless is decided in inventory.py. Nothing goes that anything names, that is young on the store's own clock,
or that a record which is not understood might name.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial

from shared_store import layout
from shared_store.backend import Entry
from shared_store.commits import newest, read_commit
from shared_store.errors import DamagedRecordError, StoreError
from shared_store.inventory import (
    Sweep,
    commits_to_keep,
    digests_in,
    is_record,
    judge,
    may_name_blobs,
    newest_commits,
    plan_sweep,
)
from shared_store.store import Store
from shared_store.transfer import in_order

Progress = Callable[[int, int], object]
"""Told (done, in all): files read, or files removed."""
_AT_ONCE = 8


def find_needless(store: Store, grace_seconds: float, progress: Progress) -> Sweep:
    """What nobody needs, older than `grace_seconds` on the store's own clock. Removes nothing.

    DamagedRecordError when a record cannot be used: it may name what would go.
    """
    now = clock_of(store)
    entries = [*store.list(""), *store.backend.leftovers()]  # first: names that come later are of what comes later
    return plan_sweep(entries, _named(store, entries, progress), now, grace_seconds)


def remove(store: Store, goes: Sequence[Entry], go_on: Callable[[], bool], progress: Progress) -> int:
    """Remove entries, as long as `go_on()`; how many went. Safe to be killed in, and to be done again."""

    def remove_one(key: str) -> None:
        if go_on():
            store.backend.delete(key)

    jobs = (partial(remove_one, entry.key) for entry in goes if go_on())
    done = 0
    for done, _ in enumerate(in_order(jobs, _AT_ONCE), start=1):
        progress(done, len(goes))
    return done


def clock_of(store: Store) -> float:
    """What time it is on the clock by which the store stamps its entries: ours may be a day off."""
    key = layout.probe(f"clock-{secrets.token_hex(8)}")
    store.publish(key, b"now\n")
    try:
        found = [entry.modified for entry in store.list(key)]
    finally:
        store.backend.delete(key)
    if not found:
        mend = "try again in a minute; nothing was removed"
        raise StoreError("a listing does not show what was just written", where=f"{store.url}: {key}", mend=mend)
    return found[0]


def _named(store: Store, entries: Sequence[Entry], progress: Progress) -> set[str]:
    """Every digest that keeps a blob: in any record or text, and in the newest commits of tasks without a result."""
    files = [entry.key for entry in entries if may_name_blobs(entry.key)]
    tasks = newest_commits(entry.key for entry in entries)
    standing = {entry.key for entry in entries}
    jobs = [partial(_named_in, store, key) for key in files]
    jobs += [partial(_named_by, store, task, listed, standing) for task, listed in tasks.items()]
    named: set[str] = set()
    for done, digests in enumerate(in_order(jobs, _AT_ONCE), start=1):
        named |= digests
        progress(done, len(jobs))
    return named


def _named_in(store: Store, key: str) -> set[str]:
    if not is_record(key):
        return digests_in(store.backend.parts(key) or ())
    data = store.read(key)
    if data is None:
        return set()
    for wrong in judge({key: data}).wrong:
        mend = f"see what is wrong and mend it: foldfleet store check {store.url}"
        raise DamagedRecordError(
            "a record that may name what would go cannot be used", where=f"{key}: {wrong.what}", mend=mend
        )
    return digests_in([data])


def _named_by(store: Store, task: str, listed: int, standing: set[str]) -> set[str]:
    if store.exists(layout.result(task)):
        return set()
    found = newest(lambda number: number if store.exists(layout.commit(task, number)) else None) or 0
    read = (read_commit(store, task, number) for number in range(max(found, listed), 0, -1))
    commits = (commit for commit in read if commit is not None)
    kept = commits_to_keep(commits, lambda digest: layout.blob(digest) in standing)
    return {digest for commit in kept for digest in commit.blobs.values()}
