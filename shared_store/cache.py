"""Per-machine read-through cache of blobs: fetched once, verified, bounded in bytes.

A blob that already lies on this machine's own disk is read in place: verified once per process, not copied.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from shared_store.errors import DamagedBlobError
from shared_store.hashing import sha256_of_file
from shared_store.store import Store

_PART = ".part"


class Cache:
    """Verified local files of blobs under `folder`, at most `limit_gb` of them (newest used are kept)."""

    def __init__(self, folder: Path, limit_gb: float) -> None:
        self.folder = folder
        self.limit_bytes = int(limit_gb * 1e9)
        self._verified: dict[tuple[str, str], Path] = {}

    def path(self, store: Store, digest: str) -> Path:
        """A local file with the verified bytes of `digest`. DamagedBlobError or StoreError when there is none."""
        known = self._verified.get((store.url, digest))
        if known is not None and known.exists():
            return known
        local = store.blob_path(digest)
        if local is not None and local.exists():
            if sha256_of_file(local) != digest:
                store.verify(digest)  # explains the damage in the store's words
                raise DamagedBlobError(
                    "a blob changed while it was read", where=str(local), mend="give the same command again"
                )
            path = local
        else:
            path = self._fetched(store, digest)
        self._verified[store.url, digest] = path
        return path

    def open(self, store: Store, digest: str) -> BinaryIO:
        """The file that `path` gives, opened: it can be read (and mapped) to its end, whatever is evicted meanwhile."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # another fold needed the room
                return self.path(store, digest).open("rb")

    def _fetched(self, store: Store, digest: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / digest
        # One fetch at a time: concurrent folds download nothing twice, and together they keep to the bound.
        with FileLock(str(self.folder / "fetching.lock")):
            with contextlib.suppress(FileNotFoundError):
                if sha256_of_file(target) == digest:
                    os.utime(target)  # newest used is evicted last
                    return target
            self._make_room(store.blob_size(digest))
            temporary = self.folder / f"{digest}{_PART}"
            store.get_file(digest, temporary)
            temporary.replace(target)
        return target

    def _make_room(self, wanted_bytes: int) -> None:
        """Evict the longest unused files until `wanted_bytes` more fit; a file held open is skipped.

        Whoever holds the lock is the only one to fetch: an unfinished file is what a killed process left.
        """
        for left in self.folder.glob(f"*{_PART}"):
            left.unlink()
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process may evict at the same time
                status = path.stat()
                if len(path.name) == 64:
                    found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total + wanted_bytes <= self.limit_bytes:
                return
            try:
                path.unlink(missing_ok=True)
            except PermissionError:  # Windows refuses to remove a file that a fold still reads
                continue
            total -= size
