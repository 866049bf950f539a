"""Every kind of store as users have it: a folder, the head's disk under a real Ray, a real sshd, an S3 server.

No test in here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fake_ntfs import FakeNtfs
from faulty import MemoryBackend
from head_store import running_head
from racing import Seen, race, race_in_threads
from s3_server import running_s3
from sshd import running_sshd

from shared_store.backend import Backend
from shared_store.local import LocalBackend
from shared_store.names import NtfsNames
from shared_store.retrying import Retrying
from shared_store.store import Store, open_store

KINDS = ("local", "ntfs", "memory", "sftp", "s3", "head")
REAL_BUCKET = "FOLDFLEET_TEST_S3"


class Kind(Protocol):
    """One running store; `place` names an empty part of it."""

    def open(self, place: str) -> Store: ...

    def race(self, place: str, writers: int, rounds: int) -> list[Seen]: ...


@dataclass(frozen=True)
class UrlKind:
    """A store that any process opens by its URL, given some environment."""

    base: str
    environment: Mapping[str, str] = field(default_factory=dict)  # what this and other processes need to open it

    def open(self, place: str) -> Store:
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
    with contextlib.ExitStack() as ends:
        match kind:
            case "local":
                yield UrlKind(str(folder))
            case "ntfs":
                disk = FakeNtfs()
                names = NtfsNames(disk.rename, disk.replace, disk.remove, disk.sleep)
                yield HereKind(lambda place: LocalBackend(folder / place, names))
            case "memory":
                yield HereKind(lambda _place: MemoryBackend())
            case "sftp":
                server = ends.enter_context(running_sshd(folder / "sshd"))
                ends.enter_context(_environment(server.environment))
                yield UrlKind(server.url(folder / "kept"), server.environment)
            case "s3":
                yield _s3(folder, ends)
            case "head":
                yield ends.enter_context(running_head(folder))
            case _:
                raise AssertionError(kind)


def _s3(folder: Path, ends: contextlib.ExitStack) -> Kind:
    """The bucket that a person names, else a server here."""
    bucket = os.environ.get(REAL_BUCKET)
    if bucket:
        return UrlKind(f"{bucket.rstrip('/')}/{secrets.token_hex(4)}")
    server = ends.enter_context(running_s3(folder))
    ends.enter_context(_environment(server.environment))
    return UrlKind(server.url("kept"), server.environment)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """`values` in this process's environment, which is as before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
