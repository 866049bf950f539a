"""What a move costs, from asking a fold to leave until it reports from elsewhere: guessed, then measured. Pure.

A fold that was lost is asked nothing: its move begins where it starts anew.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque

_START_SECONDS = 30.0  # a process, its modules, its photos
_STATE_MB = 212.0  # EfficientNet-B4 with its optimizer; others are measured soon enough
_KEPT = 5


class Moves:
    """Moves between machines, by the machine that a fold came to. A fold that goes on where it was is no move."""

    def __init__(self) -> None:
        self._links: dict[str, float] = {}
        self._last: dict[str, str] = {}  # where a task made its last step
        self._took: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._typical: dict[str, float] = {}  # the medians of those
        self._all: deque[float] = deque(maxlen=_KEPT * 3)
        self._fleet: float | None = None

    def linked(self, machine: str, mb_per_second: float | None) -> None:
        """How fast a machine's link to the store is."""
        if mb_per_second is not None and mb_per_second > 0:
            self._links[machine] = mb_per_second

    def ran(self, task: str, machine: str) -> None:
        """`task` makes steps on `machine`."""
        self._last[task] = machine

    def took(self, task: str, machine: str, seconds: float) -> None:
        """`task` resumed on `machine` after so many seconds."""
        if self._last.get(task, machine) != machine:
            self._took[machine].append(max(0.0, seconds))
            self._typical[machine] = statistics.median(self._took[machine])
            self._all.append(max(0.0, seconds))
            self._fleet = statistics.median(self._all)

    def seconds(self, machine: str) -> float:
        """What a move to `machine` takes: as measured there, else in the fleet, else by its link."""
        typical = self._typical.get(machine)
        if typical is not None:
            return typical
        if self._fleet is not None:
            return self._fleet
        link = self._links.get(machine)
        return _START_SECONDS + (0.0 if link is None else _STATE_MB / link)
