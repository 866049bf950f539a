"""The store: blobs named by their sha256 and verified on every read, records that are put once.

The interface is small on purpose; every kind of disk below it is a `Backend`.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from shared_store import layout
from shared_store.backend import PART_BYTES, Backend, Content, Entry
from shared_store.errors import DamagedBlobError, DamagedRecordError, MissingBlobError, StoreError
from shared_store.hashing import Hashed, Sha256
from shared_store.local import LocalBackend
from shared_store.records import Record
from shared_store.retrying import Retrying

R = TypeVar("R", bound=Record)
T = TypeVar("T")
Take = Callable[[bytes | memoryview], object]
"""Given the parts of a blob in order."""


class Store:
    """Blobs, records and published files over one backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.url = backend.url

    def put_blob(self, content: bytes | Content) -> str:
        """Keep `content` and return its sha256. Safe to repeat; a blob already there is not sent again."""
        content = Content(content) if isinstance(content, bytes) else content
        if self.backend.local_path("") is not None and content.path is None and content.size > PART_BYTES:
            return self._put_while_hashing(content)
        hashed = Hashed(content)
        for _ in hashed:
            pass
        self.put_named_blob(hashed.digest(), content)
        return hashed.digest()

    def put_named_blob(self, digest: str, content: Content) -> None:
        """Keep `content`, whose sha256 is known to be `digest`; nothing is sent when it stands there whole."""
        key = layout.blob(digest)
        if self.backend.size(key) != content.size:
            self.backend.publish(key, content)

    def get_blob(self, digest: str) -> bytes:
        """The bytes named `digest`, verified. MissingBlobError, or DamagedBlobError when they differ.

        Bytes that do not match twice are put aside, so that whoever makes the right ones again can keep them.
        """
        return self._verified(digest, self._in_memory)

    def get_file(self, digest: str, target: Path) -> None:
        """Write the bytes named `digest` into the new file `target`, verified; otherwise like `get_blob`.

        On any error `target` is gone.
        """
        try:
            self._verified(digest, lambda digest: self._in_file(digest, target))
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def verify(self, digest: str) -> None:
        """Read every byte of a blob and keep none: MissingBlobError or DamagedBlobError when it is not right."""
        self._verified(digest, lambda digest: (self._hashed(layout.blob(digest), lambda _part: None), None))

    def blob_size(self, digest: str) -> int:
        """How many bytes stand under `digest`, unverified; 0 when there are none."""
        return self.backend.size(layout.blob(digest)) or 0

    def has_blob(self, digest: str) -> bool:
        """Whether bytes stand under `digest`, unverified."""
        return self.backend.size(layout.blob(digest)) is not None

    def delete_blob(self, digest: str) -> None:
        self.backend.delete(layout.blob(digest))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a record once. True when `data` is what stands, also after a lost acknowledgement."""
        layout.checked_key(key)
        return self.backend.put_if_absent(key, data) or self.read(key) == data

    def read(self, key: str) -> bytes | None:
        parts = self.backend.parts(layout.checked_key(key))
        return None if parts is None else b"".join(parts)

    def read_record(self, key: str, kind: type[R]) -> R | None:
        """The record under `key`, every byte verified; None when there is none.

        DamagedRecordError when it cannot be used. It stays in place: others may have read it, so that no machine may
        give another one its name.
        """
        damage = None
        for _ in range(2):  # what went wrong may have been the reading alone
            data = self.read(key)
            try:
                return None if data is None else kind.from_bytes(data)
            except ValueError as error:
                damage = error
        mend = "restore it from a copy, or remove it and give the same command again"
        where = f"{self.url}: {key}"
        raise DamagedRecordError(f"a record cannot be used ({damage})", where=where, mend=mend) from damage

    def publish(self, key: str, data: bytes) -> None:
        """Overwrite a file that people read, as a whole. Never for truth."""
        self.backend.publish(layout.checked_key(key), Content(data))

    def exists(self, key: str) -> bool:
        """Whether something stands under `key`."""
        return self.backend.size(layout.checked_key(key)) is not None

    def list(self, prefix: str) -> list[Entry]:
        """What lies below `prefix`: a hint, never the truth."""
        return self.backend.list(prefix)

    def blob_path(self, digest: str) -> Path | None:
        """Where a blob lies on this machine's own disk (unverified), or None when it lies elsewhere."""
        return self.backend.local_path(layout.blob(digest))

    def _put_while_hashing(self, content: Content) -> str:
        """A disk of our own gives a finished file its name at once: hash while writing, name it afterwards."""
        incoming, hashed = layout.incoming(secrets.token_hex(8)), Hashed(content)
        self.backend.publish(incoming, hashed)
        digest = hashed.digest()
        if self.backend.size(layout.blob(digest)) == content.size:
            self.backend.delete(incoming)
        else:
            self.backend.move(incoming, layout.blob(digest))
        return digest

    def _verified(self, digest: str, get: Callable[[str], tuple[str, T]]) -> T:
        """What `get` brings with the right hash, tried twice; then the blob is put aside."""
        while True:
            for _ in range(2):  # what went wrong may have been the reading alone
                found, value = get(digest)
                if found == digest:
                    return value
            if self._put_aside(digest):
                raise DamagedBlobError(
                    f"a blob's bytes do not match its hash; they are put aside as {layout.damaged(digest)}",
                    where=f"{self.url}: {layout.blob(digest)}",
                    mend=_RUN_AGAIN,
                )

    def _put_aside(self, digest: str) -> bool:
        """Put a damaged blob aside. False when it is back: another had made it anew while the bad bytes were read."""
        blob, aside = layout.blob(digest), layout.damaged(digest)
        self.backend.move(blob, aside)
        try:
            if self._hashed(aside, lambda _part: None) != digest:
                return True
        except MissingBlobError:  # one who put it aside at the same time has put it back
            return False
        self.backend.move(aside, blob)
        return False

    def _in_memory(self, digest: str) -> tuple[str, bytes]:
        buffer = io.BytesIO()
        return self._hashed(layout.blob(digest), buffer.write), buffer.getvalue()

    def _in_file(self, digest: str, target: Path) -> tuple[str, None]:
        with target.open("wb") as file:
            return self._hashed(layout.blob(digest), file.write), None

    def _hashed(self, key: str, take: Take) -> str:
        """Hand a blob's parts to `take`; the sha256 of them all."""
        parts = self.backend.parts(key)
        if parts is None:
            raise MissingBlobError("a blob is missing", where=f"{self.url}: {key}", mend=_RUN_AGAIN)
        running = Sha256()
        try:
            for part in parts:
                running.feed(part)
                take(part)
            return running.hexdigest()
        finally:
            running.close()


_RUN_AGAIN = "restore it from a copy, or remove the records that name it and give the same command again"


def open_store(
    url: str, single_committer: bool = False, tell: Callable[[str], object] = lambda _sentence: None
) -> Store:
    """Open the store at a path or URL. UserError for a kind that is not known. `tell` hears of calls tried again.

    `single_committer`: the disk there cannot let one of several writers win; one process of the Ray cluster that this
    process belongs to commits for all.
    """
    return Store(Retrying(open_shared(url, single_committer), tell=tell))


def open_shared(url: str, single_committer: bool) -> Backend:
    """The disk at a path or URL, without patience: see `open_store`."""
    backend = open_backend(url)
    if single_committer:
        from shared_store.head import committed_by_one  # Ray takes seconds to load

        backend = committed_by_one(backend, partial(open_backend, url))
    return backend


def whole_path(place: str) -> Path:
    """A folder as it is called from anywhere. Links stay as given, for other machines may mount them; `..` does not."""
    path = Path(place).expanduser().absolute()
    return path.resolve() if ".." in path.parts else path


def open_backend(url: str) -> Backend:
    """The disk at a path or URL, without patience. UserError for a kind that is not known."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalBackend(whole_path(url))
    if scheme == "file":
        return LocalBackend(Path(rest))
    if scheme == "head":
        from shared_store.head import open_head

        return open_head(url)
    if scheme == "s3":
        with _extra("s3", url):
            from shared_store.s3 import S3Backend
        return S3Backend(url)
    if scheme == "sftp":
        with _extra("sftp", url):
            from shared_store.sftp import SftpBackend
        return SftpBackend(url)
    mend = "give a folder's path, or a URL: file://, head://, sftp:// or s3://"
    raise StoreError(f"no store of the kind {scheme}://", where=url, mend=mend)


@contextlib.contextmanager
def _extra(name: str, url: str) -> Iterator[None]:
    """Say how to install what a kind of store needs beyond the rest."""
    try:
        yield
    except ModuleNotFoundError as error:
        mend = f"pip install 'foldfleet[{name}]'"
        raise StoreError(f"{error.name} is not installed, which this store needs", where=url, mend=mend) from error
