"""How fast machines are, and how much work an epoch of each recipe is: a model of two factors. Pure.

    seconds of an epoch = work of the recipe / speed of the machine

Of each recipe on each machine the median of its newest epochs counts, so that one odd epoch changes little. Work and
speed are medians of those in turn, which is Tukey's median polish (Exploratory Data Analysis, 1977) in logarithms:

    work of a recipe = median over machines of seconds * speed
    speed of a machine = median over recipes of work / seconds

One factor may grow as the other shrinks. So the measured machines are kept as fast, in the middle, as their probes
said, and what was measured can be compared with machines that only a probe knows.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

_KEPT = 9  # newest epochs of a recipe on a machine: their median forgets a slow hour
_RECENT = 3  # epochs that say whether a machine is slower now than it was
_THROTTLED = 0.75
_PAIRS_A_TIME = 4  # all is reckoned anew once for so many pairs one epoch was timed: that stays cheap in large fleets


class Interval(NamedTuple):
    """A number that is not known exactly: what it is likely to be, and between what it mostly lies."""

    low: float
    middle: float
    high: float


class Speeds:
    """Seconds of epochs by kind of work and machine, and what follows for pairs that never met.

    `work`: seconds of an epoch at speed 1, by kind of work, as far as they were timed. Kinds that train teach the
    speed of machines; the seconds of labels and predictions are mostly those of a disk.
    """

    def __init__(self) -> None:
        self._probed: dict[str, float] = {}
        self._usual = 1.0  # speed of a machine of which nothing is known
        self._learned: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self._times: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._typical: dict[tuple[str, str], Interval] = {}
        self._warm: set[tuple[str, str]] = set()  # pairs that were timed twice
        self._best: dict[tuple[str, str], float] = {}
        self._by_kind: dict[str, dict[str, float]] = defaultdict(dict)  # middles, by machine
        self._by_machine: dict[str, dict[str, float]] = defaultdict(dict)  # of what trains, by kind of work
        self._since_polished = 0

    def probed(self, machine: str, speed: float) -> None:
        """What a probe says of a machine, above 0."""
        self._probed[machine] = speed
        self._usual = statistics.median(self._probed.values())

    def timed(self, kind: str, machine: str, seconds: float, trains: bool) -> bool:
        """An epoch took so long, more than 0; whether the work of any kind may now be another."""
        pair, is_new = (kind, machine), kind not in self.work
        times = self._times[pair]
        if times and pair not in self._warm:
            self._warm.add(pair)
            if seconds < times[0]:
                times.clear()  # the first one warmed the machine up
        times.append(seconds)
        self._typical[pair] = _spread(times)
        middle = self._by_kind[kind][machine] = self._typical[pair].middle
        if is_new:
            self.work[kind] = middle * self.speed(machine)
        if trains:
            if len(times) >= _RECENT:
                self._best[pair] = min(middle, self._best.get(pair, middle))
            self._by_machine[machine][kind] = middle
            self._learn(machine)
        self._since_polished += 1
        if _PAIRS_A_TIME * self._since_polished < len(self._times):
            return is_new
        self._polish()
        return True

    def guessed(self, kind: str, machine: str, seconds: float) -> None:
        """What there is of an epoch lets it be so long; what was timed comes before it."""
        if (kind, machine) not in self._times:
            self._typical[kind, machine] = Interval(seconds / 2, seconds, seconds * 2)

    def speed(self, machine: str) -> float:
        """Of one slot, relative to the others; of what nothing is known is as fast as the middle of the others."""
        return self._learned.get(machine) or self._probed.get(machine, self._usual)

    def seconds(self, kind: str, machine: str, unknown: float) -> Interval:
        """Of an epoch. `unknown`: its work, where none was timed yet."""
        typical = self._typical.get((kind, machine))
        if typical is not None:
            return typical
        middle = self.work.get(kind, unknown) / self.speed(machine)
        return Interval(middle / 2, middle, middle * 2)

    def throttled(self, machine: str) -> float | None:
        """How fast a machine is now, as a share of what it was at its best; None unless it is clearly slower."""
        pairs = [(kind, machine) for kind in self._by_machine.get(machine, ())]
        shares = [
            self._best[pair] / statistics.median(list(self._times[pair])[-_RECENT:])
            for pair in pairs
            if len(self._times[pair]) >= 2 * _RECENT
        ]
        return min((share for share in shares if share < _THROTTLED), default=None)

    def _learn(self, machine: str) -> None:
        times = self._by_machine[machine]
        self._learned[machine] = statistics.median(self.work[kind] / middle for kind, middle in times.items())

    def _polish(self) -> None:
        self._since_polished = 0
        for kind, times in self._by_kind.items():
            self.work[kind] = statistics.median(middle * self.speed(machine) for machine, middle in times.items())
        for machine in self._by_machine:
            self._learn(machine)
        compared = [machine for machine in self._learned if machine in self._probed] or list(self._learned)
        if compared:
            scale = statistics.median(self._learned[name] / self._probed.get(name, self._usual) for name in compared)
            self._learned = {machine: speed / scale for machine, speed in self._learned.items()}
            self.work = {kind: work / scale for kind, work in self.work.items()}


def _spread(times: Iterable[float]) -> Interval:
    """The middle of some times and their spread, which leaves the two extremes out where there are five or more."""
    ordered = sorted(times)
    kept = ordered[1:-1] if len(ordered) >= 5 else ordered
    return Interval(kept[0], statistics.median(ordered), kept[-1])
