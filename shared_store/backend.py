"""The port that every kind of disk implements, and how bytes travel through it: in parts, never a file whole.

A backend moves bytes under checked keys and promises three things:
  put_if_absent  of many writers of one key exactly one wins, and no reader ever sees half of it;
  publish        replaces a key's bytes as a whole, or not at all;
  parts          all bytes in order from any place on, or None where there is no such key.

What goes wrong is raised in three kinds: StoreDownError (it may work in a moment), StoreRefusedError (who we are was
not accepted), StoreFullError; any other StoreError is for a person to mend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PART_BYTES = 4 * 2**20
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Entry:
    """One key of a listing. `modified` is in seconds on the clock of the disk that keeps it: compare entries alone."""

    key: str
    bytes: int
    modified: float


class Content:
    """Bytes in memory (one buffer or many) or in a file that does not change. Iterating reads them anew, in parts."""

    def __init__(self, source: bytes | Sequence[bytes | memoryview] | Path) -> None:
        self.path = source if isinstance(source, Path) else None  # the file on this machine, where there is one
        buffers = () if isinstance(source, Path) else [source] if isinstance(source, bytes) else source
        self._buffers = [memoryview(buffer).cast("B") for buffer in buffers if memoryview(buffer).nbytes]

    @property
    def size(self) -> int:
        """How many bytes there are."""
        if self.path is not None:
            return self.path.stat().st_size
        return sum(buffer.nbytes for buffer in self._buffers)

    def __iter__(self) -> Iterator[memoryview]:
        """Parts of at most PART_BYTES; whoever takes one may keep it."""
        if self.path is not None:
            with self.path.open("rb", buffering=0) as file:
                while part := file.read(PART_BYTES):
                    yield memoryview(part)
            return
        for buffer in self._buffers:
            for start in range(0, buffer.nbytes, PART_BYTES):
                yield buffer[start : start + PART_BYTES]


class Paced(Content):
    """A file's bytes at no more than `share` of the link: after each part it waits in proportion to what that took.

    What a part took is measured between its handing over and the next one's being asked for, so no link speed need be
    known, and a link that others use as well is left to them in the same measure.
    """

    def __init__(self, source: Path, share: float, clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> None:
        super().__init__(source)
        self._share, self._clock, self._sleep = share, clock, sleep

    def __iter__(self) -> Iterator[memoryview]:
        for part in super().__iter__():
            handed_over = self._clock()
            yield part
            self._sleep((self._clock() - handed_over) * (1 / self._share - 1))


class Backend(Protocol):
    """What the store stands on. Keys arrive checked; calls may come from several threads at once."""

    url: str

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write `data` under `key` unless something stands there; True when this write won.

        False also when an earlier try of this very call had won and its acknowledgement was lost: the store reads back.
        """

    def publish(self, key: str, content: Content) -> None:
        """Replace whatever stands under `key`, as a whole; safe to repeat."""

    def parts(self, key: str, start: int = 0) -> Iterator[bytes | memoryview] | None:
        """The bytes from `start` on, in parts of about PART_BYTES; None when there is no such key."""

    def size(self, key: str) -> int | None:
        """How many bytes stand under `key`; None when there is no such key."""

    def move(self, key: str, to: str) -> None:
        """Give `key` the name `to`, replacing what stands there; a missing key is no error."""

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is no error."""

    def list(self, prefix: str) -> list[Entry]:
        """What lies below `prefix`, sorted by key: a hint for people and clean-ups, never the truth."""

    def leftovers(self) -> Sequence[Entry]:
        """What writers that were killed left unfinished and no listing shows; `delete` removes each by its key."""

    def local_path(self, key: str) -> Path | None:
        """Where the bytes lie on this machine's own disk, for reading in place; None elsewhere."""

    def close(self) -> None:
        """Let go of connections. The next call opens them anew, with credentials read anew."""


class Passing:
    """A backend that passes every call on to `inner`: what is to be otherwise is overridden."""

    def __init__(self, inner: Backend) -> None:
        self.inner, self.url = inner, inner.url

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self.inner.put_if_absent(key, data)

    def publish(self, key: str, content: Content) -> None:
        self.inner.publish(key, content)

    def parts(self, key: str, start: int = 0) -> Iterator[bytes | memoryview] | None:
        return self.inner.parts(key, start)

    def size(self, key: str) -> int | None:
        return self.inner.size(key)

    def move(self, key: str, to: str) -> None:
        self.inner.move(key, to)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def list(self, prefix: str) -> list[Entry]:
        return self.inner.list(prefix)

    def leftovers(self) -> Sequence[Entry]:
        return self.inner.leftovers()

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)

    def close(self) -> None:
        self.inner.close()
