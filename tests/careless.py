"""Disks that let several writers win, each in a way that is found in the wild. No test in here."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from shared_store.backend import Content
from shared_store.local import LocalBackend
from shared_store.names import PosixNames


class LooksThenWrites(LocalBackend):
    """What many libraries call "create": several writers see that nothing is there."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.size(key) is not None:
            return False
        time.sleep(0.0005)  # a disk elsewhere is no faster
        self.publish(key, Content(data))
        return True


class Overwrites(LocalBackend):
    """A server whose rename replaces."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.publish(key, Content(data))
        return True


class Forgets(LocalBackend):
    """One writer is told that it won, and another's record stands."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        wins = super().put_if_absent(key, data)
        if wins:
            self.publish(key, Content(b"another's"))
        return wins


def without_links(root: Path) -> LocalBackend:
    """A disk like exFAT: it cannot tell."""

    def link(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    return LocalBackend(root, PosixNames(link))
