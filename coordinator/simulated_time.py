"""Time in a simulation: from one thing that happens to the next. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable


class Calendar:
    """What will happen, in the order of time, and of asking where two are at one time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._counter = 0

    @property
    def following(self) -> float:
        """When the next thing happens; infinite when nothing will."""
        return self._heap[0][0] if self._heap else math.inf

    def at(self, time: float, what: Callable[..., None], *arguments: object) -> None:
        """Let something happen at `time` seconds, after what was asked for before at the same time."""
        self._counter += 1
        heapq.heappush(self._heap, (time, self._counter, what, arguments))

    def advance(self) -> None:
        """On to the next instant: all that happens then happens."""
        self.now = self.following
        while self._heap and self._heap[0][0] == self.now:
            _, _, what, arguments = heapq.heappop(self._heap)
            self.events += 1
            what(*arguments)
