"""Patience with a store that does not answer for a moment: every call again, after growing, random waits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from shared_store.backend import Backend, Clock, Content, Entry, Sleep
from shared_store.errors import StoreDownError, StoreRefusedError

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
FIRST_PATIENCE_SECONDS = 10.0
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.25, 15.0
_TOLD_AT = 3  # tries, after less than two seconds


class Retrying:
    """A backend whose calls are made again while they end in StoreDownError, for `patience_seconds` in all.

    Waits double up to 15 seconds, each drawn between half of itself and the whole ("equal jitter": Brooker,
    "Exponential Backoff And Jitter", 2015), so that a fleet does not come back all at once. A refusal is tried once
    more on a new connection, with credentials read anew. Reading goes on from where it was cut off.

    Patience is `first_patience_seconds` until the first answer: a store that never answered may well be misspelt.
    A call that is tried for longer than a moment is told once.
    """

    def __init__(
        self,
        backend: Backend,
        patience_seconds: float = PATIENCE_SECONDS,
        *,
        first_patience_seconds: float = FIRST_PATIENCE_SECONDS,
        tell: Callable[[str], object] = lambda _sentence: None,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.inner, self.url = backend, backend.url
        self._patience, self._clock, self._sleep, self._draw = first_patience_seconds, clock, sleep, draw
        self._known_patience, self._tell = patience_seconds, tell

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._patiently(lambda: self.inner.put_if_absent(key, data))

    def publish(self, key: str, content: Content) -> None:
        self._patiently(lambda: self.inner.publish(key, content))

    def parts(self, key: str, start: int = 0) -> Iterator[bytes | memoryview] | None:
        first = self._patiently(lambda: self.inner.parts(key, start))
        return None if first is None else self._read_on(key, start, first)

    def size(self, key: str) -> int | None:
        return self._patiently(lambda: self.inner.size(key))

    def move(self, key: str, to: str) -> None:
        self._patiently(lambda: self.inner.move(key, to))

    def delete(self, key: str) -> None:
        self._patiently(lambda: self.inner.delete(key))

    def list(self, prefix: str) -> list[Entry]:
        return self._patiently(lambda: self.inner.list(prefix))

    def leftovers(self) -> Sequence[Entry]:
        return self._patiently(self.inner.leftovers)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)

    def close(self) -> None:
        self.inner.close()

    def _patiently(self, act: Callable[[], T]) -> T:
        trial = _Trial(self._patience, self._clock, self._draw)
        while True:
            try:
                found = act()
                self._patience = self._known_patience
                return found
            except (StoreDownError, StoreRefusedError) as error:
                self._open_anew(trial, error)

    def _read_on(self, key: str, start: int, parts: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        place, trial = start, _Trial(self._patience, self._clock, self._draw)
        while True:
            try:
                for part in parts:
                    place += len(part)
                    yield part
                    trial = _Trial(self._patience, self._clock, self._draw)  # a long transfer may meet many troubles
                return
            except (StoreDownError, StoreRefusedError) as error:
                self._open_anew(trial, error)
                again = self._patiently(partial(self.inner.parts, key, place))
                if again is None:
                    raise  # removed meanwhile: what was read so far is of no use
                parts = again

    def _open_anew(self, trial: _Trial, error: StoreDownError | StoreRefusedError) -> None:
        seconds = trial.seconds_after(error)
        if trial.tries == _TOLD_AT:
            self._tell(f"{error.what} ({error.where}): trying again for up to {self._patience:.0f} s")
        self._sleep(seconds)
        self.inner.close()


class _Trial:
    """The tries of one call: how long to wait before the next, or no more."""

    def __init__(self, patience_seconds: float, clock: Clock, draw: Callable[[], float]) -> None:
        self._clock, self._draw = clock, draw
        self._until = clock() + patience_seconds
        self._longest = _FIRST_WAIT_SECONDS
        self._refused = False
        self.tries = 0

    def seconds_after(self, error: StoreDownError | StoreRefusedError) -> float:
        """Seconds to wait after `error`, which is raised again when the tries are at their end."""
        refused = isinstance(error, StoreRefusedError)
        if self._clock() >= self._until or (refused and self._refused):
            raise error
        self._refused = self._refused or refused
        self.tries += 1
        seconds = self._longest * (1 + self._draw()) / 2
        self._longest = min(2 * self._longest, _LONGEST_WAIT_SECONDS)
        return seconds
