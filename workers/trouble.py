"""What a person is told of a disk that cannot be written for a while: once when it begins, once when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shared_store.errors import StoreError

Tell = Callable[[str], None]
"""Takes a sentence for people."""
Waits = Callable[[], Iterator[float]]
"""Seconds to wait before each further try, endless."""
LONGEST_WAIT_SECONDS = 60.0


def growing_waits() -> Iterator[float]:
    """1, 2, 4 ... seconds, a minute at most."""
    seconds = 1.0
    while True:
        yield seconds
        seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)


class Trouble:
    """The state of one disk: `met` at every failure, `over` at every success."""

    def __init__(self, begins: str, ends: str, tell: Tell, waits: Waits) -> None:
        """`begins` and `ends` say what it means for the training."""
        self._begins, self._ends, self._tell, self._waits = begins, ends, tell, waits
        self._left: Iterator[float] | None = None
        self.error: StoreError | None = None

    def met(self, error: StoreError) -> float:
        """Seconds to wait before the next try."""
        if self._left is None:
            self._left = self._waits()
            self._tell(f"{error.what} ({error.where}): {self._begins}")
        self.error = error
        return next(self._left)

    def over(self) -> None:
        if self._left is not None:
            self._tell(self._ends)
        self._left = self.error = None
