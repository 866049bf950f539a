"""Every kind of store as users have it: a folder, the head's disk under a real Ray, a real sshd, an S3 server.

No test in here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from racing import Seen, race

from shared_store.store import Store, open_store

KINDS = ("local",)


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


@contextlib.contextmanager
def running(kind: str, folder: Path) -> Iterator[Kind]:
    """Start what a kind of store needs below `folder`, and end it."""
    if kind == "local":
        yield UrlKind(str(folder))
