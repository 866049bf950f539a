"""When a run will end, reckoned while it goes on, from what the ledger has measured. Pure: clock and chance are given.

A play of `forecast.py` runs the real plan and costs seconds in a large fleet. Here only what is left is placed: what is
ready on the fastest free slot that it fits, and at the end on an idle faster machine what would end there sooner, move
included. How many epochs folds still train and what an epoch takes is drawn anew for every play.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from coordinator.entries import OPEN, State
from coordinator.estimate import Interval
from coordinator.events import Event, MachineCut, MachineJoined, MachineLeft
from coordinator.fit import fit
from coordinator.forecast import interval_of
from coordinator.forecast_basis import SHORT_SECONDS
from coordinator.ledger import Ledger
from workers.tasks import TrainTask

Chance = Callable[[], float]
_PLAYS = 20  # the newest ones that count
_FEWEST = 5  # at once, where that is quick
_AT_ONCE_SECONDS = 0.005
_COST = 300  # a play is paid for by so many times its own seconds of waiting
_REST_SECONDS = 1.0


class Finish:
    """The expected finish in seconds on the ledger's clock, kept up by plays: 0.3 % of the time at most."""

    def __init__(self, clock: Callable[[], float], chance: Chance) -> None:
        self._clock, self._chance = clock, chance
        self._ends: deque[float] = deque(maxlen=_PLAYS)
        self._due = 0.0

    def tell(self, event: Event) -> None:
        """What was expected of other machines counts no more."""
        if isinstance(event, MachineJoined | MachineLeft | MachineCut):
            self._ends.clear()

    def look(self, ledger: Ledger) -> Interval | None:
        """Play if it is time to; None while nothing is measured, or something has nowhere to run."""
        began = self._clock()
        if began >= self._due:
            self._play(ledger)
            while 0 < len(self._ends) < _FEWEST and self._clock() - began < _AT_ONCE_SECONDS:
                self._play(ledger)
            took = self._clock() - began
            self._due = began + max(_REST_SECONDS, _COST * took)
        return interval_of(self._ends) if self._ends else None

    def _play(self, ledger: Ledger) -> None:
        left = seconds_left(ledger, self._chance)
        if left is None:
            self._ends.clear()
        else:
            self._ends.append(ledger.now + left)


def seconds_left(ledger: Ledger, chance: Chance) -> float | None:
    """Seconds until the last open task ends, in one play; None while no epoch is timed, or a task fits no machine."""
    if not ledger.estimates.timed:
        return None
    return _Play(ledger, chance).played()


def _drawn(interval: Interval, chance: float) -> float:
    """Below the middle as often as above it, evenly on both sides."""
    low, middle, high = interval
    return low + (middle - low) * 2 * chance if chance < 0.5 else middle + (high - middle) * (2 * chance - 1)


@dataclass
class _Play:
    ledger: Ledger
    chance: Chance
    now: float = 0.0
    free: dict[str, int] = field(default_factory=dict)  # slots, of machines that have a free one
    left: dict[str, float] = field(default_factory=dict)  # epochs, by open task
    missing: dict[str, int] = field(default_factory=dict)
    ready: dict[Hashable, list[tuple[int, str]]] = field(default_factory=dict)  # by what they fit, then by rank
    running: dict[str, tuple[str, float, float]] = field(default_factory=dict)  # machine, begin of epochs, end
    ends: list[tuple[float, str]] = field(default_factory=list)
    _places: dict[Hashable, dict[str, int]] = field(default_factory=dict)
    _seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    def played(self) -> float | None:
        self._begin()
        while self.left:
            while self._place():
                pass
            if not any(self.ready.values()):
                self._climb()
            if not self.ends:
                return None  # something fits no machine that is here
            self._end(*heapq.heappop(self.ends))
        return self.now

    def _begin(self) -> None:
        slots = self.ledger.slots
        for machine, _ in slots.free | set(slots.kept):
            self.free[machine] = self.free.get(machine, 0) + 1
        for name, entry in self.ledger.entries.items():
            if entry.state in OPEN:
                trains = isinstance(entry.task, TrainTask)
                epochs = self.ledger.estimates.remaining_epochs(name) if trains else Interval(1.0, 1.0, 1.0)
                self.left[name], self.missing[name] = _drawn(epochs, self.chance()), entry.missing
                if entry.missing == 0 and entry.state is not State.RUNNING:
                    self._wait(name)
        for name, attempt in self.ledger.running.items():
            self._start(name, attempt.machine, self.now)

    def _wait(self, task: str) -> None:
        heapq.heappush(self.ready.setdefault(self._key(task), []), (self.ledger.entries[task].rank, task))

    def _start(self, task: str, machine: str, begins: float) -> None:
        ends = begins + self.left[task] * self._each(task, machine)
        self.running[task] = (machine, begins, ends)
        heapq.heappush(self.ends, (ends, task))

    def _taken(self, machine: str) -> None:
        self.free[machine] -= 1
        if not self.free[machine]:
            del self.free[machine]

    def _place(self) -> bool:
        """Put the most urgent task that fits a free slot into the fastest one; False when there is none."""
        found = [
            (queue[0], machine)
            for queue in self.ready.values()
            if queue and (machine := self._fastest(queue[0][1])) is not None
        ]
        if not found:
            return False
        (_, task), machine = min(found)
        heapq.heappop(self.ready[self._key(task)])
        attempts = self.ledger.entries[task].attempts
        moved = bool(attempts) and attempts[-1].machine != machine
        self._taken(machine)
        self._start(task, machine, self.now + (self.ledger.estimates.move_seconds(machine) if moved else 0.0))
        return True

    def _climb(self) -> None:
        """Nothing waits: the last fold to end goes to a free slot where it would end sooner."""
        if not self.free or not self.running:
            return
        task = max(self.running, key=lambda name: self.running[name][2])
        machine, begins, ends = self.running[task]
        if not isinstance(self.ledger.entries[task].task, TrainTask) or begins > self.now:
            return
        to = self._fastest(task)
        if to is None or to == machine:
            return
        left = (ends - self.now) / self._each(task, machine)
        then = self.now + self.ledger.estimates.move_seconds(to)
        if then + left * self._each(task, to) < ends:
            self.free[machine] = self.free.get(machine, 0) + 1
            self.left[task] = left
            self._taken(to)
            self._start(task, to, then)

    def _end(self, at: float, task: str) -> None:
        if task not in self.running or self.running[task][2] != at:
            return  # it has moved meanwhile
        machine, _, _ = self.running.pop(task)
        self.now = max(self.now, at)
        del self.left[task]
        if self.ledger.slots.open(machine):
            self.free[machine] = self.free.get(machine, 0) + 1
        for follower in self.ledger.graph.followers[task]:
            if follower in self.missing:
                self.missing[follower] -= 1
                if self.missing[follower] == 0:
                    self._wait(follower)

    def _fastest(self, task: str) -> str | None:
        """The free machine that is the fastest for a task."""
        places = self._order(task)
        return min((name for name in self.free if name in places), key=places.__getitem__, default=None)

    def _key(self, task: str) -> Hashable:
        """Tasks of one key fit the same machines."""
        rules = self.ledger.rules
        short = tuple(end.machine for end in self.ledger.entries[task].history())
        return self.ledger.estimates.keys[task], rules.needs.get(task), rules.pins.get(task), short

    def _order(self, task: str) -> dict[str, int]:
        """The places of the open machines that a task fits, the fastest for it first."""
        key = self._key(task)
        if key not in self._places:
            ledger, entry = self.ledger, self.ledger.entries[task]
            needs, pin, past = ledger.rules.needs.get(task), ledger.rules.pins.get(task), entry.history()
            fits = [
                name
                for name, host in ledger.slots.hosts.items()
                if ledger.slots.open(name) and fit(entry.task, needs, pin, past, host.joined) is not None
            ]
            ordered = sorted(fits, key=lambda name: self._each(task, name))
            self._places[key] = {name: place for place, name in enumerate(ordered)}
        return self._places[key]

    def _each(self, task: str, machine: str) -> float:
        """Seconds of an epoch, or of the whole where nothing is trained."""
        key = (self.ledger.estimates.keys[task], machine)
        if key not in self._seconds:
            trains = isinstance(self.ledger.entries[task].task, TrainTask)
            known = trains or self.ledger.estimates.measured(task)
            seconds = self.ledger.estimates.epoch_seconds(task, machine)
            self._seconds[key] = max(1e-3, _drawn(seconds, self.chance())) if known else SHORT_SECONDS
        return self._seconds[key]
