"""The report, rewritten while the run goes on: in a thread, now and then, only after something happened that it shows.

A store that does not answer stops nothing: the person is told once. What else goes wrong is raised when the drive is
over, so that a page never ends a training.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from coordinator.events import Event, Progressed, Tick
from coordinator.ledger import Ledger
from shared_store.errors import StoreError

LEAST_SECONDS = 60.0  # between two reports
_SHARE = 0.01  # of a core, at most: a report of very many folds takes seconds


class Rewriting:
    """Calls `write` while it is entered. A `drive.Watch`: told of every event, it knows when there is news."""

    def __init__(
        self, write: Callable[[], None], say: Callable[[str], None], least_seconds: float = LEAST_SECONDS
    ) -> None:
        self._write, self._say, self._least_seconds = write, say, least_seconds
        self._news, self._over = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._keep_writing, name="report", daemon=True)

    def __call__(self, event: Event, _: Ledger) -> None:
        if isinstance(event, Tick) or (isinstance(event, Progressed) and event.progress.says_nothing):
            return
        self._news.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A report under way is finished first. A bug that it met is raised; it is told where something else is."""
        self._over.set()
        self._news.set()
        self._thread.join()
        if self._error is not None and error is not None:
            self._say(f"the report could not be rewritten: {self._error!r}")
        elif self._error is not None:
            raise self._error

    def _keep_writing(self) -> None:
        told, wait = False, 0.0
        while not self._over.wait(wait):
            self._news.wait()
            if self._over.is_set():
                return
            self._news.clear()
            began = time.monotonic()
            try:
                self._write()
            except StoreError as problem:
                if not told:
                    self._say(f"the report is not rewritten for now, and everything else goes on: {problem}")
                told = True
            except Exception as problem:  # noqa: BLE001 - kept for whoever leaves the block
                self._error = problem
                return
            wait = max(self._least_seconds, (time.monotonic() - began) / _SHARE)
