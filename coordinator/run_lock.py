"""The lock of a run on this machine: it tells at once what another machine has to find out by watching.

The system lets go of a lock when its process ends, however that ends. Beside the lock lie the nonces of all who ever
held it here, so that a lock that is free proves each of those gone. It proves nothing about anyone else: another
machine (on a share the file may be one and the lock each machine's own), another user with a cache of their own, a
process that took over and never had the lock.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from shared_store.errors import StoreError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class RunLock:
    """Tried once on entering, let go of on leaving. StoreError when the folder cannot be written."""

    def __init__(self, path: Path, host: str | None = None) -> None:
        self.path, self._host = path, host or socket.gethostname()
        self.is_mine = False
        self.is_taken = False  # neither, on a disk without locks
        self._lock = FileLock(path, timeout=0)
        self._holders = path.with_name(f"{path.name}.holders")

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self.is_mine = True
        except Timeout:
            self.is_taken = True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise self._explained(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_mine:
            self._lock.release()

    def note(self, nonce: str) -> None:
        """Remember that `nonce` holds this lock, if it does. To be called before anyone can read the nonce elsewhere:
        then a process killed at any moment is known to be gone.
        """
        if not self.is_mine:
            return
        try:
            with self._holders.open("a", encoding="utf-8") as file:
                file.write(f"{nonce} {self._host}\n")
        except OSError as error:
            raise self._explained(error) from error

    def proves_gone(self, nonce: str) -> bool:
        """Whether `nonce` held this lock on this machine, and it is ours now."""
        try:
            return self.is_mine and f"{nonce} {self._host}" in self._holders.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False

    def _explained(self, error: OSError) -> StoreError:
        mend = "give --store a folder that you may write to, or bring its disk back; nothing that stood is lost"
        return StoreError(f"the run cannot be locked ({error.strerror})", where=str(self.path), mend=mend)
