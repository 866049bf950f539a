"""The store: blobs named by their sha256 and verified on every read, records that are put once.

The interface is small on purpose; every kind of disk below it is a `Backend`.
"""

from __future__ import annotations

from pathlib import Path

from shared_store import layout
from shared_store.backends import Backend, LocalBackend
from shared_store.errors import DamagedBlobError, MissingBlobError, StoreError
from shared_store.records import sha256


class Store:
    """Blobs, records and published files over one backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.url = backend.url

    def put_blob(self, data: bytes) -> str:
        """Keep `data` and return its sha256. Safe to repeat; a blob already there is not sent again."""
        digest = sha256(data)
        key = layout.blob(digest)
        if not self.backend.exists(key):
            self.backend.publish(key, data)
        return digest

    def get_blob(self, digest: str) -> bytes:
        """The bytes named `digest`, verified. MissingBlobError, or DamagedBlobError when they differ.

        Bytes that do not match twice are put aside, so that whoever makes the right ones again can keep them.
        """
        where = f"{self.url}: {layout.blob(digest)}"
        data = self.backend.read(layout.blob(digest))
        if data is None:
            raise MissingBlobError("a blob is missing", where=where, mend=_RUN_AGAIN)
        if sha256(data) != digest:
            again = self.backend.read(layout.blob(digest))  # what went wrong may have been the reading alone
            if again is not None and sha256(again) == digest:
                return again
            self.backend.publish(layout.damaged(digest), data)
            self.backend.delete(layout.blob(digest))
            raise DamagedBlobError(
                f"a blob's bytes do not match its hash; they are put aside as {layout.damaged(digest)}",
                where=where,
                mend=_RUN_AGAIN,
            )
        return data

    def has_blob(self, digest: str) -> bool:
        """Whether bytes stand under `digest`, unverified."""
        return self.backend.exists(layout.blob(digest))

    def delete_blob(self, digest: str) -> None:
        self.backend.delete(layout.blob(digest))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a record once. True when `data` is what stands, also after a lost acknowledgement."""
        layout.checked_key(key)
        return self.backend.put_if_absent(key, data) or self.backend.read(key) == data

    def read(self, key: str) -> bytes | None:
        return self.backend.read(layout.checked_key(key))

    def publish(self, key: str, data: bytes) -> None:
        """Overwrite a file that people read, as a whole. Never for truth."""
        self.backend.publish(layout.checked_key(key), data)

    def list(self, prefix: str) -> list[str]:
        """Keys below `prefix`: a hint, never the truth."""
        return self.backend.list(prefix)

    def blob_path(self, digest: str) -> Path | None:
        """Where a blob lies on this machine's own disk (unverified), or None when it lies elsewhere."""
        return self.backend.local_path(layout.blob(digest))


_RUN_AGAIN = "restore it from a copy, or remove the records that name it and give the same command again"


def open_store(url: str) -> Store:
    """Open the store at a path or `file://` URL. UserError for a kind that is not known."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Store(LocalBackend(Path(url).expanduser().absolute()))
    if scheme == "file":
        return Store(LocalBackend(Path(rest)))
    raise StoreError(f"no store of the kind {scheme}://", where=url, mend="give a folder's path or a file:// URL")
