"""A folder as a store: the local disk, and a share that is mounted like one.

Two families of disk differ in how a name is taken: POSIX's `rename` overwrites, so that a name is claimed by `link`;
NTFS's `rename` refuses a name that is taken, and everything there may be held up for a moment by a program that looks
into a file (an indexer, a virus scanner).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from shared_store.backend import PART_BYTES, Content, Entry, Sleep
from shared_store.errors import StoreDownError, StoreError, StoreFullError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DOWN = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN}
PART = ".part"


class Names(Protocol):
    """How files get their names on one family of disk."""

    def claim(self, temporary: Path, target: Path) -> bool:
        """Give a finished file the name `target` unless that is taken; of many at once one gets True."""

    def replace(self, temporary: Path, target: Path) -> None:
        """Give a finished file the name `target`, whatever had it."""

    def remove(self, path: Path) -> None:
        """Take a file's name away; none is no error."""

    def sync(self, folder: Path) -> None:
        """Make new names in `folder` survive a power cut."""


class PosixNames:
    """Linux, macOS: `link` claims, `rename` replaces, a folder is synced like a file."""

    def claim(self, temporary: Path, target: Path) -> bool:
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        return True

    def replace(self, temporary: Path, target: Path) -> None:
        temporary.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some shares sync files only
                raise
        finally:
            os.close(descriptor)


class NtfsNames:
    """Windows: `rename` claims, for it refuses a taken name; what another program holds open is asked for again."""

    def __init__(
        self,
        rename: Callable[[Path, Path], object] = os.rename,
        replace: Callable[[Path, Path], object] = os.replace,
        remove: Callable[[Path], object] = os.unlink,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._rename, self._replace, self._remove, self._sleep = rename, replace, remove, sleep

    def claim(self, temporary: Path, target: Path) -> bool:
        try:
            self._patiently(lambda: self._rename(temporary, target))
        except FileExistsError:
            return False
        return True

    def replace(self, temporary: Path, target: Path) -> None:
        self._patiently(lambda: self._replace(temporary, target))

    def remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self._remove(path))

    def sync(self, folder: Path) -> None:
        """NTFS journals its names; there is no call for it."""

    def _patiently(self, act: Callable[[], object]) -> None:
        """A sharing violation (PermissionError) passes within moments: 8 tries in about 2.5 seconds."""
        for seconds in (0.01, 0.02, 0.05, 0.1, 0.3, 0.7, 1.3):
            try:
                act()
            except PermissionError:
                self._sleep(seconds)
            else:
                return
        act()


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
