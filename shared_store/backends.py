"""How each kind of disk does "put if absent" and safe publish. The local disk is the first.

A backend moves bytes under checked keys and promises three things:
  put_if_absent  of many writers of one key exactly one wins, and no reader ever sees half of it;
  publish        replaces a key's bytes as a whole (for blobs and for files people read);
  read           all bytes or None.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from shared_store.errors import StoreError


class Backend(Protocol):
    """The port every kind of disk implements; keys arrive checked."""

    url: str

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write `data` under `key` unless something stands there; True when this write won."""

    def publish(self, key: str, data: bytes) -> None:
        """Replace whatever stands under `key`, as a whole."""

    def read(self, key: str) -> bytes | None: ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is no error."""

    def list(self, prefix: str) -> list[str]:
        """Keys below `prefix`, sorted: a hint for people and clean-ups, never the truth."""

    def local_path(self, key: str) -> Path | None:
        """Where the bytes lie on this machine's own disk, for reading in place; None elsewhere."""


class LocalBackend:
    """A folder on this machine. Races are settled by `link` (POSIX) or a refusing `rename` (Windows)."""

    def __init__(self, root: Path) -> None:
        self.root = root  # made by the first write: who only looks leaves nothing
        self.url = str(root)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with _explained(target):
            if target.exists():
                return False
            with self._written(target, data) as temporary:
                try:
                    if sys.platform == "win32":
                        temporary.rename(target)  # NTFS refuses a target that exists
                    else:
                        os.link(temporary, target)
                except FileExistsError:
                    return False
            _sync_folder(target.parent)
            return True

    def publish(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with _explained(target):
            with self._written(target, data) as temporary:
                temporary.replace(target)
            _sync_folder(target.parent)

    def read(self, key: str) -> bytes | None:
        path = self._path(key)
        with _explained(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def exists(self, key: str) -> bool:
        with _explained(self._path(key)):
            return self._path(key).exists()

    def delete(self, key: str) -> None:
        with _explained(self._path(key)):
            self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> list[str]:
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = (path.relative_to(self.root).as_posix() for path in files)
        return sorted(key for key in keys if key.startswith(prefix))

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        return self.root.joinpath(*key.split("/"))

    @contextlib.contextmanager
    def _written(self, target: Path, data: bytes) -> Iterator[Path]:
        """A synced temporary beside `target` that is gone afterwards, whatever happens."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{secrets.token_hex(8)}.part"
        try:
            self._write(temporary, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, temporary: Path, data: bytes) -> None:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut; Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the system's word for a full or closed disk into one that says how to mend it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = "free some space there (or give --store another disk), then give the same command again"
            raise StoreError("the store's disk is full", where=str(path), mend=mend) from error
        mend = "give --store a folder that you may write to, or bring its disk back; nothing that stood is lost"
        raise StoreError(f"the store cannot be used ({error.strerror})", where=str(path), mend=mend) from error
