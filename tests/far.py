"""A store on another machine, as far as anyone here can tell. No test in here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shared_store.local import LocalBackend


class FarBackend(LocalBackend):
    """A disk elsewhere: nothing can be read in place; `reads` has the keys that were fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def local_path(self, key: str) -> Path | None:
        return None

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        self.reads.append(key)
        return super().parts(key, start)
