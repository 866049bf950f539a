"""How files get their names on the families of disk: the one thing in which they differ for a store.

POSIX's `rename` overwrites, so that a name is claimed by `link`; NTFS's `rename` refuses a name that is taken, and
everything there may be held up for a moment by a program that looks into a file (an indexer, a virus scanner).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from shared_store.backend import Sleep
from shared_store.errors import NotExclusiveError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class Names(Protocol):
    """How files get their names on one family of disk."""

    def claim(self, temporary: Path, target: Path) -> bool:
        """Give a finished file the name `target` unless that is taken; of many at once one gets True."""

    def replace(self, temporary: Path, target: Path) -> None:
        """Give a finished file the name `target`, whatever had it."""

    def remove(self, path: Path) -> None:
        """Take a file's name away; none is no error."""

    def sync(self, folder: Path) -> None:
        """Make new names in `folder` survive a power cut."""


class PosixNames:
    """Linux, macOS: `link` claims, `rename` replaces, a folder is synced like a file."""

    def __init__(self, link: Callable[[Path, Path], object] = os.link) -> None:
        self._link = link

    def claim(self, temporary: Path, target: Path) -> bool:
        """NotExclusiveError where the disk has no links: exFAT, many SMB shares."""
        try:
            self._link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            mend = "one process alone can commit there; for more of them give --store another disk"
            what = f"this disk cannot give a name to one of several writers ({error.strerror})"
            raise NotExclusiveError(what, where=str(target), mend=mend) from error
        return True

    def replace(self, temporary: Path, target: Path) -> None:
        temporary.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some shares sync files only
                raise
        finally:
            os.close(descriptor)


class NtfsNames:
    """Windows: `rename` claims, for it refuses a taken name; what another program holds open is asked for again."""

    def __init__(
        self,
        rename: Callable[[Path, Path], object] = os.rename,
        replace: Callable[[Path, Path], object] = os.replace,
        remove: Callable[[Path], object] = os.unlink,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._rename, self._replace, self._remove, self._sleep = rename, replace, remove, sleep

    def claim(self, temporary: Path, target: Path) -> bool:
        try:
            self._patiently(lambda: self._rename(temporary, target))
        except FileExistsError:
            return False
        return True

    def replace(self, temporary: Path, target: Path) -> None:
        self._patiently(lambda: self._replace(temporary, target))

    def remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self._remove(path))

    def sync(self, folder: Path) -> None:
        """NTFS journals its names; there is no call for it."""

    def _patiently(self, act: Callable[[], object]) -> None:
        """A sharing violation (PermissionError) passes within moments: 8 tries in about 2.5 seconds."""
        for seconds in (0.01, 0.02, 0.05, 0.1, 0.3, 0.7, 1.3):
            try:
                act()
            except PermissionError:
                self._sleep(seconds)
            else:
                return
        act()
