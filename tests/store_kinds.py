"""Every kind of store as users have it: a folder, the head's disk under a real Ray, a real sshd, an S3 server.

No test in here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fake_ntfs import FakeNtfs
from faulty import MemoryBackend
from racing import Seen, race, race_in_threads

from shared_store.backend import Backend
from shared_store.local import LocalBackend
from shared_store.names import NtfsNames
from shared_store.retrying import Retrying
from shared_store.store import Store, open_store

KINDS = (
    "local",
    "ntfs",
    "memory",
)


class Kind(Protocol):
    """One running store; `place` names an empty part of it."""

    def open(self, place: str) -> Store: ...

    def race(self, place: str, writers: int, rounds: int) -> list[Seen]: ...


@dataclass(frozen=True)
class UrlKind:
    """A store that any process opens by its URL, given some environment."""

    base: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def open(self, place: str) -> Store:
        os.environ.update(self.environment)
        return open_store(f"{self.base}/{place}")

    def race(self, place: str, writers: int, rounds: int) -> list[Seen]:
        return race(f"{self.base}/{place}", writers, rounds, self.environment)


class HereKind:
    """A store that only this process has: threads race for it."""

    def __init__(self, backend_at: Callable[[str], Backend]) -> None:
        self._backend_at = backend_at

    def open(self, place: str) -> Store:
        return Store(Retrying(self._backend_at(place)))

    def race(self, place: str, writers: int, rounds: int) -> list[Seen]:
        return race_in_threads(self.open(place), writers, rounds)


@contextlib.contextmanager
def running(kind: str, folder: Path) -> Iterator[Kind]:
    """Start what a kind of store needs below `folder`, and end it."""
    if kind == "local":
        yield UrlKind(str(folder))
    elif kind == "ntfs":
        disk = FakeNtfs()
        names = NtfsNames(disk.rename, disk.replace, disk.remove, disk.sleep)
        yield HereKind(lambda place: LocalBackend(folder / place, names))
    elif kind == "memory":
        yield HereKind(lambda _place: MemoryBackend())
