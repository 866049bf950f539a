"""One committer for a disk that cannot let one of several writers win: whoever commits goes through it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shared_store.backend import Backend, Content, Passing
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


class Committed(Passing):
    """A backend whose `put_if_absent` is done by `commit`; everything else goes straight to the disk."""

    def __init__(self, inner: Backend, commit: Commit) -> None:
        super().__init__(inner)
        self._commit = commit

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._commit(key, data)
