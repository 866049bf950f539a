"""The head's own disk, served to other machines in calls that each move at most one part. No Ray in here.

One HeadDisks stands on the head (head.py makes it a Ray actor) and is called from several threads. Transfers under way
are open files, each under a token: a reader sees the file as it was when it was opened, and an upload gets its name
when all of it is there. Whoever began a transfer may be gone: what nobody touched for an hour is let go of.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared_store.backend import PART_BYTES, Clock, Content, Entry
from shared_store.errors import StoreDownError
from shared_store.local import PART, LocalBackend, explained, write_all

Part = npt.NDArray[np.uint8]
"""Bytes as Ray moves them without a copy."""
ABANDONED_SECONDS = 3600.0
_UPLOADS = "incoming"


@dataclass(frozen=True)
class Opened:
    """A file that is being read: its first part and, where there is more, the token for the rest."""

    bytes: int
    first: Part
    token: str


@dataclass
class _Transfer:
    """An open file, used by one thread at a time. `path`: the unfinished file of an upload."""

    file: io.FileIO
    used: float
    path: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


def folder(root: str) -> Path:
    """Where the path of a `head://` URL lies on this machine's disk."""
    return Path(root[1:] if sys.platform == "win32" else root)  # /C:/store


class HeadDisk:
    """A folder on this machine for others to use."""

    def __init__(self, root: str, clock: Clock = time.monotonic) -> None:
        self._backend, self._clock = LocalBackend(folder(root)), clock
        self._transfers: dict[str, _Transfer] = {}
        self._lock = threading.Lock()
        self._sweep_former_uploads()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._backend.put_if_absent(key, data)

    def publish(self, key: str, data: bytes) -> None:
        """Replace `key` by what fits into one call."""
        self._backend.publish(key, Content(data))

    def size(self, key: str) -> int | None:
        return self._backend.size(key)

    def move(self, key: str, to: str) -> None:
        self._backend.move(key, to)

    def delete(self, key: str) -> None:
        self._backend.delete(key)

    def list(self, prefix: str) -> Sequence[Entry]:
        return self._backend.list(prefix)

    def leftovers(self) -> Sequence[Entry]:
        return self._backend.leftovers()

    def open(self, key: str, start: int) -> Opened | None:
        """Begin to read `key` at `start`; None when there is no such key. A file with more has to be let go of."""
        path = self._backend.root / key
        with explained(path):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                return None
            size = os.fstat(file.fileno()).st_size
            first = _read(file, start)
        if start + len(first) >= size:
            file.close()
            return Opened(size, first, "")
        return Opened(size, first, self._keep(_Transfer(file, self._clock())))

    def read(self, token: str, start: int) -> Part:
        """The part of an opened file that begins at `start`."""
        with self._using(token) as transfer:
            return _read(transfer.file, start)

    def begin(self) -> str:
        """The token of a new upload."""
        self._sweep()
        token = secrets.token_hex(8)
        path = self._path(token)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            return self._keep(_Transfer(path.open("xb", buffering=0), self._clock(), path), token)

    def append(self, token: str, start: int, part: Part) -> None:
        """Write a part of an upload at its place; safe to repeat, in any order."""
        with self._using(token) as transfer:
            transfer.file.seek(start)
            write_all(transfer.file, part.data)

    def finish(self, token: str, key: str, size: int) -> None:
        """Give an upload of `size` bytes the name `key`, replacing what stands there. It survives a power cut then.

        StoreDownError when it is not all there (it was let go of): to be sent again.
        """
        with self._using(token) as transfer:
            os.fsync(transfer.file.fileno())
            here = os.fstat(transfer.file.fileno()).st_size
            transfer.file.close()  # Windows renames no open file
            if here == size:
                self._backend.move(f"{_UPLOADS}/{self._path(token).name}", key)
        self.let_go(token)
        if here != size or self._backend.size(key) != size:
            raise self._gone()

    def let_go(self, token: str) -> None:
        """End a transfer; an unfinished upload is gone. One that is not known is no error."""
        with self._lock:
            transfer = self._transfers.pop(token, None)
        if transfer is None:
            return
        with transfer.lock:
            transfer.file.close()
            if transfer.path is not None:
                self._backend.names.remove(transfer.path)

    def _keep(self, transfer: _Transfer, token: str | None = None) -> str:
        token = token or secrets.token_hex(8)
        with self._lock:
            self._transfers[token] = transfer
        return token

    @contextlib.contextmanager
    def _using(self, token: str) -> Iterator[_Transfer]:
        """A transfer for this thread alone. StoreDownError when it is over: its caller begins a new one."""
        with self._lock:
            transfer = self._transfers.get(token)
            if transfer is None:
                raise self._gone()
            transfer.used = self._clock()
        with transfer.lock, explained(self._backend.root):
            if transfer.file.closed:
                raise self._gone()
            yield transfer

    def _gone(self) -> StoreDownError:
        mend = "give the same command again; nothing that stood is lost"
        return StoreDownError("the head let go of a transfer", where=str(self._backend.root), mend=mend)

    def _path(self, token: str) -> Path:
        return self._backend.root / _UPLOADS / f".head-{token}{PART}"

    def _sweep(self) -> None:
        with self._lock:
            last = self._clock() - ABANDONED_SECONDS
            abandoned = [token for token, transfer in self._transfers.items() if transfer.used < last]
        for token in abandoned:
            self.let_go(token)

    def _sweep_former_uploads(self) -> None:
        """What an actor that was killed left. Were one of them still alive, it would be sent again."""
        for path in (self._backend.root / _UPLOADS).glob(f".head-*{PART}"):
            with contextlib.suppress(OSError):  # gone since it was seen, or open in a process that is still ending
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()


class HeadDisks:
    """Every folder of this machine that somebody asks for."""

    def __init__(self) -> None:
        self._disks: dict[str, HeadDisk] = {}
        self._lock = threading.Lock()

    def call(self, root: str, method: str, *arguments: Any) -> Any:
        """What a method of the HeadDisk of `root` returns."""
        with self._lock:
            disk = self._disks.get(root) or self._disks.setdefault(root, HeadDisk(root))
        return getattr(disk, method)(*arguments)


def _read(file: io.FileIO, start: int) -> Part:
    """PART_BYTES from `start` on, or all there is."""
    size = os.fstat(file.fileno()).st_size
    part = np.empty(max(0, min(PART_BYTES, size - start)), np.uint8)
    file.seek(start)
    got = 0
    while got < len(part) and (count := file.readinto(part.data[got:])):
        got += count
    return part[:got]
