"""A command's own short-lived folder beside others' on this machine; what killed commands left is cleared away."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout


class Scratch:
    """A new folder with a short path, gone on `close`.

    A lock beside it is held by its owner for as long as that lives: folders whose lock is free are removed.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        if len(str(parent)) > 30 and Path("/tmp").is_dir():
            parent = Path("/tmp")  # a socket's path may have 107 bytes, and Ray adds some 70
        for lock in parent.glob("foldfleet-*.lock"):
            with contextlib.suppress(Timeout, OSError), FileLock(lock, timeout=0):  # else its owner lives
                _remove(lock)
        name = f"foldfleet-{secrets.token_hex(3)}"
        self._lock = FileLock(parent / f"{name}.lock")
        self._lock.acquire()
        self.path = parent / name
        self.path.mkdir(mode=0o700)

    def close(self) -> None:
        _remove(Path(self._lock.lock_file))
        self._lock.release()


def _remove(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
