"""Work that stops before every call to the store and goes on when it is told to. No test in here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from faulty import Fault


class KilledError(BaseException):
    """What a killed process does: nothing more."""


class Stepped:
    """Some work in a thread of its own, of which one call at a time is let through; `choose` is its FaultyBackend's.

    Only one thread of a test runs at any moment, so that the order in which calls are let through is all there is.
    """

    def __init__(self) -> None:
        self.waiting: tuple[str, str] | None = None  # the call that asks to be let through: what, and its key
        self._fault: Fault | None = None
        self._free = 0  # calls that need not ask
        self._thread = ThreadPoolExecutor(1, "stepped")
        self._may_go, self._stands = threading.Lock(), threading.Lock()  # each is released by the other side
        self._may_go.acquire()
        self._stands.acquire()

    def begin(self, work: Callable[[], object]) -> None:
        """Start `work`, up to its first call."""
        self._work = self._thread.submit(work)
        self._work.add_done_callback(self._end)
        self._stands.acquire()

    @property
    def ended(self) -> bool:
        return self.waiting is None

    @property
    def error(self) -> BaseException | None:
        """What the work ended with."""
        return self._work.exception()

    def go_on(self, fault: Fault, calls: int = 1) -> None:
        """Let the waiting call through with `fault`, and `calls` - 1 more undisturbed, up to the next or the end."""
        self._free = calls - 1
        self._proceed(fault)

    def kill(self) -> None:
        """End the work where it waits; safe to repeat."""
        if not self.ended:
            self._proceed(None)
        self._thread.shutdown()

    def choose(self, action: str, key: str) -> Fault:
        if self._free:
            self._free -= 1
            return Fault.NONE
        self.waiting = (action, key)
        self._stands.release()
        self._may_go.acquire()
        if self._fault is None:
            raise KilledError
        return self._fault

    def _proceed(self, fault: Fault | None) -> None:
        self._fault = fault
        self._may_go.release()
        self._stands.acquire()

    def _end(self, _work: Future[object]) -> None:
        self.waiting = None
        self._stands.release()
