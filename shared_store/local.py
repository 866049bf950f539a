"""A folder as a store: the local disk, and a share that is mounted like one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared_store.backend import PART_BYTES, Content, Entry
from shared_store.errors import StoreDownError, StoreError, StoreFullError
from shared_store.names import Names, NtfsNames, PosixNames

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DOWN = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN}
PART = ".part"


class LocalBackend:
    """A folder on this machine."""

    def __init__(self, root: Path, names: Names | None = None) -> None:
        self.root = root  # made by the first write: who only looks leaves nothing
        self.url = str(root)
        self.names = names or (NtfsNames() if sys.platform == "win32" else PosixNames())

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with explained(target):
            if target.exists():
                return False
            with self._written(target, Content(data)) as temporary:
                if not self.names.claim(temporary, target):
                    return False
            self.names.sync(target.parent)
            return True

    def publish(self, key: str, content: Content) -> None:
        target = self._path(key)
        with explained(target):
            with self._written(target, content) as temporary:
                self.names.replace(temporary, target)
            self.names.sync(target.parent)

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        path = self._path(key)
        with explained(path):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                return None
        return self._read(path, file, start)

    def _read(self, path: Path, file: io.FileIO, start: int) -> Iterator[bytes]:
        with explained(path), file:
            file.seek(start)
            while part := file.read(PART_BYTES):
                yield part

    def size(self, key: str) -> int | None:
        with explained(self._path(key)):
            try:
                return self._path(key).stat().st_size
            except FileNotFoundError:
                return None

    def move(self, key: str, to: str) -> None:
        source, target = self._path(key), self._path(to)
        with explained(target):
            self._make(target.parent)
            with contextlib.suppress(FileNotFoundError):
                self.names.replace(source, target)
                self.names.sync(target.parent)

    def delete(self, key: str) -> None:
        with explained(self._path(key)):
            self.names.remove(self._path(key))

    def list(self, prefix: str) -> list[Entry]:
        return [entry for entry in self._files(hidden=False) if entry.key.startswith(prefix)]

    def leftovers(self) -> Sequence[Entry]:
        return [entry for entry in self._files(hidden=True) if entry.key.endswith(PART)]

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _files(self, hidden: bool) -> Sequence[Entry]:
        found = []
        with explained(self.root):
            for path in self.root.rglob("*"):
                if path.name.startswith(".") is hidden:
                    with contextlib.suppress(FileNotFoundError):  # gone since it was seen
                        status = path.stat()
                        if stat.S_ISREG(status.st_mode):
                            key = path.relative_to(self.root).as_posix()
                            found.append(Entry(key, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.key)

    def _path(self, key: str) -> Path:
        return self.root.joinpath(*key.split("/"))

    def _make(self, folder: Path) -> None:
        """Make a folder and those above it; their names survive a power cut too."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            self.names.sync(folder.parent)

    @contextlib.contextmanager
    def _written(self, target: Path, content: Content) -> Iterator[Path]:
        """A synced temporary beside `target` that is gone afterwards, whatever happens."""
        self._make(target.parent)
        temporary = target.parent / f".{secrets.token_hex(8)}{PART}"
        try:
            self._write(temporary, content)
            yield temporary
        finally:
            self.names.remove(temporary)

    def _write(self, temporary: Path, content: Content) -> None:
        """A file that is here already, finished and never to change, is given a second name instead of a copy."""
        if content.path is not None and _linked(content.path, temporary):
            return
        with temporary.open("xb", buffering=0) as file:
            for part in content:
                write_all(file, part)
            os.fsync(file.fileno())


def write_all(file: io.FileIO, part: memoryview) -> None:
    while part:
        part = part[file.write(part) :]


def _linked(source: Path, temporary: Path) -> bool:
    """Give `source` a second name, synced and of an age counted from now; False where only a copy will do."""
    try:
        os.link(source, temporary)
        os.utime(temporary)
        with temporary.open("r+b" if sys.platform == "win32" else "rb") as file:  # Windows syncs what it may write to
            os.fsync(file.fileno())
    except OSError:  # another disk, one without links, another's file: if that is not all, the copy will tell
        temporary.unlink(missing_ok=True)
        return False
    return True


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's word for a full or closed disk into one that says how to mend it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            mend = "free some space there (or give --store another disk), then give the same command again"
            raise StoreFullError("the store's disk is full", where=str(path), mend=mend) from error
        kind = StoreDownError if error.errno in _DOWN else StoreError
        mend = "give --store a folder that you may write to, or bring its disk back; nothing that stood is lost"
        raise kind(f"the store cannot be used ({error.strerror})", where=str(path), mend=mend) from error
