"""This machine's own tier of commits: a store below the cache folder, apart for each store that all share.

It has the same keys and the same protocol, so a commit that landed here needs no network and is as whole as one there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from shared_store import layout
from shared_store.backend import Paced, Sleep
from shared_store.commits import read_commit
from shared_store.errors import DamagedRecordError, MissingBlobError
from shared_store.local import LocalBackend
from shared_store.records import Commit, sha256
from shared_store.store import Store


def open_tier(cache_folder: Path, store_url: str) -> Store:
    """The tier of this machine for the store at `store_url`; nothing is written yet."""
    return Store(LocalBackend(cache_folder / "checkpoints" / sha256(store_url.encode())[:16]))


def lock_of(tier: Store, name: str) -> FileLock:
    """What one process at a time holds on this machine: a task by its id, while an attempt at it lives."""
    path = tier.backend.local_path(f"locks/.{name}")  # unlisted: where locks are mandatory, nobody else may read it
    assert path is not None, "a tier lies on this machine"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(str(path))


def forget(tier: Store, task: str) -> None:
    """Remove a task's commits and their blobs from this machine."""
    with contextlib.suppress(DamagedRecordError):  # what it names is swept one day
        number = 1
        while (commit := read_commit(tier, task, number)) is not None:
            for digest in commit.blobs.values():
                tier.delete_blob(digest)
            number += 1
    discard(tier, task)


def discard(tier: Store, task: str) -> None:
    """Remove a task's commits from this machine; blobs that nobody names any more are swept one day."""
    for entry in reversed(tier.list(layout.commits(task))):
        tier.backend.delete(entry.key)


def send(tier: Store, commit: Commit, store: Store, share: float, sleep: Sleep) -> Iterator[str]:
    """Bring a local commit's blobs into `store` at `share` of the link, one by one; those that were not there yet.

    `sleep` keeps the pace. MissingBlobError when a blob lies in neither.
    """
    for digest in commit.blobs.values():
        here, there = _size(tier, digest), store.blob_size(digest)
        try:
            if here is not None and here != there:
                store.put_named_blob(digest, Paced(_path(tier, digest), share, sleep=sleep))
                yield digest
            elif here is None and not there:
                raise FileNotFoundError
        except FileNotFoundError as error:  # an older attempt here, which still lives, may have let go of it
            what, mend = "a commit's blob is gone from this machine", "nothing: the commits before it stand"
            raise MissingBlobError(what, where=f"{tier.url}: {layout.blob(digest)}", mend=mend) from error


def _size(tier: Store, digest: str) -> int | None:
    try:
        return _path(tier, digest).stat().st_size
    except OSError:  # not here, or not to be had: the store's copy counts
        return None


def _path(tier: Store, digest: str) -> Path:
    path = tier.blob_path(digest)
    assert path is not None, "a tier lies on this machine"
    return path
