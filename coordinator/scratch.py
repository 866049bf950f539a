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

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or _short_parent()
        for lock in parent.glob("foldfleet-*.lock"):
            with contextlib.suppress(Timeout, OSError):  # its owner lives, or it is somebody else's
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        name = f"foldfleet-{secrets.token_hex(3)}"
        self._lock = FileLock(parent / f"{name}.lock")
        self._lock.acquire()
        self.path = parent / name
        self.path.mkdir(mode=0o700)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)


def _short_parent() -> Path:
    """The system's folder for temporary files, unless its path is long: a socket's may have 107 bytes, Ray adds 70."""
    parent = Path(tempfile.gettempdir())
    return Path("/tmp") if len(str(parent)) > 30 and Path("/tmp").is_dir() else parent
