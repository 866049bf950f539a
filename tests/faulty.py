"""A store in memory, and one whose every call may go wrong in the ways that disks and networks do. No test in here."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TypeVar

from shared_store.backend import PART_BYTES, Backend, Content, Entry
from shared_store.errors import StoreDownError, StoreError, StoreFullError, StoreRefusedError


class MemoryBackend:
    """A disk in this process's memory; `modified` counts writes. Parts are of `part_bytes`."""

    def __init__(self, part_bytes: int = PART_BYTES) -> None:
        self.url = "memory"
        self.kept: dict[str, bytes] = {}
        self.part_bytes = part_bytes
        self._written: dict[str, float] = {}
        self._ticks = itertools.count(1.0)
        self._one_at_a_time = threading.Lock()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._one_at_a_time:
            if key in self.kept:
                return False
            self._keep(key, data)
            return True

    def publish(self, key: str, content: Content) -> None:
        data = b"".join(content)
        with self._one_at_a_time:
            self._keep(key, data)

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        data = self.kept.get(key)
        if data is None:
            return None
        return iter([data[place : place + self.part_bytes] for place in range(start, len(data), self.part_bytes)])

    def size(self, key: str) -> int | None:
        data = self.kept.get(key)
        return None if data is None else len(data)

    def move(self, key: str, to: str) -> None:
        with self._one_at_a_time:
            data = self.kept.pop(key, None)
            if data is not None:
                self._keep(to, data)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def list(self, prefix: str) -> list[Entry]:
        with self._one_at_a_time:
            there = sorted(self.kept.items())
        return [Entry(key, len(data), self._written[key]) for key, data in there if key.startswith(prefix)]

    def leftovers(self) -> Sequence[Entry]:
        return []

    def local_path(self, key: str) -> Path | None:
        return None

    def close(self) -> None:
        """There is nothing to let go of."""

    def _keep(self, key: str, data: bytes) -> None:
        self.kept[key] = data
        self._written[key] = next(self._ticks)


class Fault(Enum):
    """What one call meets. A fault that does not fit the call is none."""

    NONE = auto()
    ERROR_BEFORE = auto()  # it did nothing
    ERROR_AFTER = auto()  # it did all of it, and the acknowledgement was lost
    REFUSED = auto()
    FULL = auto()
    CUT = auto()  # a reading that breaks off with an error
    TRUNCATED = auto()  # a reading that ends early and says nothing
    FLIPPED = auto()  # a reading with one wrong bit
    ROTTEN = auto()  # one bit of what stands is wrong from now on
    STALE_LIST = auto()  # the listing of an earlier time
    STALE_SIZE = auto()  # the size of an earlier time


_ANY = (Fault.ERROR_BEFORE, Fault.ERROR_AFTER, Fault.REFUSED)
FITTING = {
    "put_if_absent": (*_ANY, Fault.FULL),
    "publish": (*_ANY, Fault.FULL),
    "move": _ANY,
    "delete": _ANY,
    "parts": (*_ANY, Fault.CUT, Fault.TRUNCATED, Fault.FLIPPED, Fault.ROTTEN),
    "size": (*_ANY, Fault.STALE_SIZE),
    "list": (*_ANY, Fault.STALE_LIST),
    "leftovers": _ANY,
}
"""What each call may meet."""
_ERRORS = {
    Fault.ERROR_BEFORE: StoreDownError,
    Fault.ERROR_AFTER: StoreDownError,
    Fault.CUT: StoreDownError,
    Fault.REFUSED: StoreRefusedError,
    Fault.FULL: StoreFullError,
}
T = TypeVar("T")
Choose = Callable[[str, str], Fault]
"""The fault that a call meets: given what it does (`put_if_absent`, `publish`, `parts` ...) and its key."""


def flipped(data: bytes) -> bytes:
    """`data` with one wrong bit; empty data has none that could be wrong."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


def by_chance(seed: int, rates: Mapping[Fault, float]) -> Choose:
    """Faults drawn from `seed`, each at its rate."""
    draw = random.Random(seed)

    def choose(_action: str, _key: str) -> Fault:
        (fault,) = draw.choices([*rates, Fault.NONE], [*rates.values(), 1 - sum(rates.values())])
        return fault

    return choose


@dataclass
class FaultyBackend:
    """`inner`, whose every call first asks `choose` what it meets.

    The earlier time of what is stale is that of the first such call here; for that one, when nothing was there yet.
    """

    inner: Backend
    choose: Choose

    def __post_init__(self) -> None:
        self.url = f"faulty {self.inner.url}"
        self.closed = 0
        self._sizes: dict[str, int | None] = {}
        self._lists: dict[str, list[Entry]] = {}

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._acted("put_if_absent", key, lambda: self.inner.put_if_absent(key, data))[0]

    def publish(self, key: str, content: Content) -> None:
        self._acted("publish", key, lambda: self.inner.publish(key, content))

    def move(self, key: str, to: str) -> None:
        self._acted("move", key, lambda: self.inner.move(key, to))

    def delete(self, key: str) -> None:
        self._acted("delete", key, lambda: self.inner.delete(key))

    def parts(self, key: str, start: int = 0) -> Iterator[bytes | memoryview] | None:
        parts, fault = self._acted("parts", key, lambda: self.inner.parts(key, start))
        return None if parts is None else _read(parts, fault)

    def size(self, key: str) -> int | None:
        size, fault = self._acted("size", key, lambda: self.inner.size(key))
        earlier = self._sizes.get(key)
        self._sizes.setdefault(key, size)
        return earlier if fault is Fault.STALE_SIZE else size

    def list(self, prefix: str) -> list[Entry]:
        entries, fault = self._acted("list", prefix, lambda: self.inner.list(prefix))
        earlier = self._lists.get(prefix, [])
        self._lists.setdefault(prefix, entries)
        return earlier if fault is Fault.STALE_LIST else entries

    def leftovers(self) -> Sequence[Entry]:
        return self._acted("leftovers", "", self.inner.leftovers)[0]

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)

    def close(self) -> None:
        self.closed += 1

    def _acted(self, action: str, key: str, act: Callable[[], T]) -> tuple[T, Fault]:
        fault = self.choose(action, key)
        if fault not in FITTING[action]:
            fault = Fault.NONE
        if fault in (Fault.ERROR_BEFORE, Fault.REFUSED, Fault.FULL):
            raise _error(fault)
        if fault is Fault.ROTTEN:
            rot(self.inner, key)
        done = act()
        if fault is Fault.ERROR_AFTER:
            raise _error(fault)
        return done, fault


def rot(backend: Backend, key: str) -> None:
    """Make one bit of what stands under `key` wrong."""
    parts = backend.parts(key)
    if parts is not None:
        backend.publish(key, Content(flipped(b"".join(parts))))


def _read(parts: Iterator[bytes | memoryview], fault: Fault) -> Iterator[bytes | memoryview]:
    """The parts as `fault` lets them through."""
    for number, part in enumerate(parts):
        if fault is Fault.FLIPPED and number == 0:
            yield flipped(bytes(part))
        elif fault in (Fault.CUT, Fault.TRUNCATED):
            yield part[: len(part) // 2]
            break
        else:
            yield part
    if fault is Fault.CUT:
        raise _error(fault)


def _error(fault: Fault) -> StoreError:
    return _ERRORS[fault](f"made to fail: {fault.name}", where="memory", mend="it is a test's")
