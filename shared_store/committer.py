"""One committer for a disk that cannot let one of several writers win: whoever commits goes through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shared_store.backend import Backend, Content, Entry
from shared_store.errors import StoreDownError, StoreRefusedError

Commit = Callable[[str, bytes], bool]
"""`put_if_absent` as the one committer does it."""


class Committer:
    """Looks, then publishes, one call after the other. Exclusive as long as nobody else writes these keys."""

    def __init__(self, opens: Callable[[], Backend]) -> None:
        self._backend, self._lock = opens(), threading.Lock()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._lock:
            try:
                if self._backend.size(key) is not None:
                    return False
                self._backend.publish(key, Content(data))
            except (StoreDownError, StoreRefusedError):
                self._backend.close()  # our caller comes again: then anew, with credentials read anew
                raise
            return True


class Committed:
    """A backend whose `put_if_absent` is done by `commit`; everything else goes straight to the disk."""

    def __init__(self, inner: Backend, commit: Commit) -> None:
        self.inner, self.url, self._commit = inner, inner.url, commit

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._commit(key, data)

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
