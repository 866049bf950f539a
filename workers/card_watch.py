"""How full and how warm a slot's card is, asked now and then in a thread: nobody waits for the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from workers.examined import Card

EVERY_SECONDS = 10.0
_KNOWN_SECONDS = 60.0  # a driver that does not answer any more says nothing of its card


class CardWatch:
    """The newest that is known of one card."""

    def __init__(self, look: Callable[[], Card | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._thread: threading.Thread | None = None
        self._asked_at = -EVERY_SECONDS
        self._known: tuple[float, Card] | None = None

    def newest(self) -> Card | None:
        """The card as it was some 10 seconds ago; None where nothing, or nothing new, is known of it."""
        now = self._clock()
        idle = self._thread is None or not self._thread.is_alive()
        if idle and now - self._asked_at >= EVERY_SECONDS:
            self._asked_at = now
            self._thread = threading.Thread(target=self._ask, name="card", daemon=True)
            self._thread.start()
        known = self._known
        return known[1] if known is not None and now - known[0] < _KNOWN_SECONDS else None

    def _ask(self) -> None:
        card = self._look()
        if card is not None:
            self._known = (self._clock(), card)
