"""sha256 of bytes on their way: a thread hashes one part while the next is read or written, so it costs little time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from shared_store.backend import PART_BYTES, Content

_AHEAD = 2  # parts that may wait to be hashed: what bounds the memory


class Sha256:
    """A running sha256. Parts up to the first are hashed in place, more of them in a thread, which `close` ends."""

    def __init__(self, ahead: int | None = _AHEAD) -> None:
        self._ahead = ahead
        self._hash = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()
        self._seen = 0

    def feed(self, part: bytes | memoryview) -> None:
        """Take in the next part, which must not change."""
        self._seen += len(part)
        if self._thread is None and self._seen <= PART_BYTES:
            self._hash.update(part)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sha256")
        self._waiting.append(self._thread.submit(self._hash.update, part))
        if self._ahead is not None and len(self._waiting) > self._ahead:
            self._waiting.popleft().result()

    def hexdigest(self) -> str:
        """The sha256 of all that was fed."""
        while self._waiting:
            self._waiting.popleft().result()
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread; safe to repeat."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None


class Hashed(Content):
    """Content that is hashed while it is read, and while whoever read it syncs the disk.

    Bytes that are in memory anyway may wait in any number: hashing takes as long as writing and syncing together.
    """

    def __init__(self, content: Content) -> None:
        super().__init__(())
        self.path, self._content = content.path, content
        self._running = Sha256()

    @property
    def size(self) -> int:
        return self._content.size

    def digest(self) -> str:
        """The sha256 of the newest reading, which was a whole one; waits for it."""
        return self._running.hexdigest()

    def __iter__(self) -> Iterator[memoryview]:
        self._running.close()
        running = self._running = Sha256(_AHEAD if self.path is not None else None)
        try:
            for part in self._content:
                running.feed(part)
                yield part
        except BaseException:
            running.close()
            raise


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
