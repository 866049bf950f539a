"""sha256 of bytes on their way: a thread hashes one part while the next is read or written, so it costs little time."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from shared_store.backend import PART_BYTES, Content

_AHEAD = 2  # parts that may wait to be hashed: what bounds the memory


class Sha256:
    """A running sha256. Parts up to the first are hashed in place, more of them in a thread; `digest` waits for it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._parts: queue.Queue[bytes | memoryview | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None
        self._seen = 0

    def feed(self, part: bytes | memoryview) -> None:
        """Take in the next part, which must not change."""
        self._seen += len(part)
        if self._thread is None and self._seen <= PART_BYTES:
            self._hash.update(part)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)
            self._thread.start()
        self._parts.put(part)

    def hexdigest(self) -> str:
        """The sha256 of all that was fed."""
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread; safe to repeat."""
        if self._thread is not None:
            self._parts.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (part := self._parts.get()) is not None:
            self._hash.update(part)


class Hashed(Content):
    """Content that is hashed while it is read; `digest` is that of the newest whole reading."""

    def __init__(self, content: Content) -> None:
        super().__init__(())
        self.path, self._content, self.digest = content.path, content, ""

    @property
    def size(self) -> int:
        return self._content.size

    def __iter__(self) -> Iterator[memoryview]:
        with contextlib.closing(Sha256()) as running:
            for part in self._content:
                running.feed(part)
                yield part
            self.digest = running.hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
