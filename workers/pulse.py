"""Whether a thread works: by the processor time that it uses, for a thread that waits for ever uses none."""

from __future__ import annotations

import sys
import time

_LEAST_SECONDS = 0.01  # of processor time since the last beat
_LEAST_SHARE = 0.05  # where only the whole process's time is known: its other threads use a little all the time


class Pulse:
    """Of one thread of this process."""

    def __init__(self, thread: int) -> None:
        """`thread`: its `threading.get_ident()`."""
        self._thread = thread
        self._used, self._at = self._used_seconds(), time.monotonic()

    def beats(self) -> bool:
        """Whether it has worked since this was last so. ProcessLookupError or OSError when the thread is over."""
        used, now = self._used_seconds(), time.monotonic()
        least = _LEAST_SECONDS if sys.platform == "linux" else _LEAST_SHARE * (now - self._at)
        if used - self._used < max(least, _LEAST_SECONDS):
            return False
        self._used, self._at = used, now
        return True

    def _used_seconds(self) -> float:
        if sys.platform == "linux":
            return time.clock_gettime(time.pthread_getcpuclockid(self._thread))
        return time.process_time()
