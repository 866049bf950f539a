"""The journal: every fact and order of a run as one line of `events.jsonl`. It explains and never restores.

It has all that the ledger took in, in turns that begin with a tick: `replay.py` gives the same orders again by it.

A line that a power cut tore is dropped when the file is opened again, and passed over by readers.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.events import Event, Tick, from_json, to_json
from shared_store.errors import StoreError
from shared_store.records import canonical_json


class Journal:
    """Appends to `path`, each line handed to the system as it is written. StoreError when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)  # nothing left to flush, and to fail, on close
            self._file.truncate(_whole_bytes(path))
        except OSError as error:
            raise self._explained(error) from error

    def write(self, at: float, event: Event) -> None:
        """Note that `event` was taken in or given out at `at` seconds."""
        line = canonical_json({**to_json(event), "at": round(at, 3)})
        try:
            if self._file.write(line + b"\n") <= len(line):  # a disk that is almost full may take a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _explained(self, error: OSError) -> StoreError:
        mend = "free some space there, or give --store a folder that you may write to"
        return StoreError(f"the journal cannot be written ({error.strerror})", where=str(self.path), mend=mend)


def read_journal(path: Path) -> list[tuple[float, Event]]:
    """(seconds, event) of every whole line. ValueError names a line that is whole and not understood."""
    return parse_journal(path.read_bytes())


def parse_journal(data: bytes) -> list[tuple[float, Event]]:
    """The same of a journal's bytes."""
    return list(_events(data[: _whole(data)].splitlines()))


def _events(lines: Iterable[bytes]) -> Iterator[tuple[float, Event]]:
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
            at = value.pop("at")
            yield at, Tick(at) if value["event"] == Tick.__name__ else from_json(value)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of the journal is not understood: {line[:200]!r}") from error


def _whole_bytes(path: Path) -> int:
    """Length of the file up to its last line end."""
    return _whole(path.read_bytes())


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1
