"""What may go where: the questions that the rules of plan.py ask of the ledger. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from coordinator.entries import Attempt
from coordinator.fit import Fit, fit, rather_not
from coordinator.ledger import Ledger
from coordinator.slots import Extremes, Fastest, Place
from workers.tasks import TrainTask

SMALL_FLEET = 64  # running tasks: of no more than these, all are looked at
_BAND = 0.05  # machines whose speeds differ by less are about as fast
_SHARE = 16  # extremes are looked for anew after the commits of one in so many running tasks
_CLIMBERS = 4  # of each band


@dataclass(frozen=True)
class Candidate:
    """A waiting task that fits a machine: how urgent it is, in the graph's units of cost, and how it would run."""

    level: float
    task: str
    fit: Fit


class Waiting:
    """What waits for a slot, most urgent first, by machine. Tasks that move to a slot kept for them do not count."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._gone: set[str] = set(ledger.slots.targets)
        self._next: dict[Hashable, int] = dict.fromkeys(ledger.board.waiting, 0)

    def best(self, machine: str) -> Candidate | None:
        """The most urgent task that fits `machine`; one that was there before goes first where the two are close."""
        first = next(self._fitting(machine), None)
        at_home = self._ledger.board.at_home.get(machine)
        if first is None or not at_home:
            return first
        estimates = self._ledger.estimates
        near = first.level - estimates.move_seconds(machine) / estimates.seconds(1.0, machine)
        own = [self._candidate(task, machine) for task in sorted(at_home - self._gone)]
        return max((c for c in own if c is not None and c.level >= near), key=lambda c: c.level, default=first)

    def take(self, task: str) -> None:
        """`task` is given a slot and waits no more."""
        self._gone.add(task)

    def _fitting(self, machine: str) -> Iterator[Candidate]:
        """The head of every queue whose tasks fit, most urgent first."""
        heads = []
        for key, queue in self._ledger.board.waiting.items():
            place = self._next[key]
            while place < len(queue) and self._name(queue[place]) in self._gone:
                place += 1
            self._next[key] = place
            if place < len(queue):
                heads.append(queue[place])
        for head in sorted(heads):
            if (candidate := self._candidate(self._name(head), machine)) is not None:
                yield candidate

    def _candidate(self, task: str, machine: str) -> Candidate | None:
        how = fitting(self._ledger, task, machine)
        queued = self._ledger.entries[task].queued
        assert queued is not None, f"does not wait\n{self._ledger.story(task)}"
        return None if how is None else Candidate(-queued[0], task, how)

    def _name(self, queued: tuple[float, int]) -> str:
        return self._ledger.board.by_rank[queued[1]]


def fitting(ledger: Ledger, task: str, machine: str, avoiding: bool = True) -> Fit | None:
    """Whether and how `task` may run on a machine that is here; where it crashed only if it fits no other, or does not
    go on `avoiding` that.
    """
    entry, hosts = ledger.entries[task], ledger.slots.hosts
    needs, pin, history = ledger.rules.needs.get(task), ledger.rules.pins.get(task), entry.history()
    how = fit(entry.task, needs, pin, history, hosts[machine].joined)
    avoided = rather_not(history) if avoiding and how is not None and history else frozenset()
    if machine in avoided:
        others = (name for name in hosts if name not in avoided and ledger.slots.open(name))
        if any(fit(entry.task, needs, pin, history, hosts[name].joined) is not None for name in others):
            return None
    return how


def settled(ledger: Ledger, task: str) -> Attempt | None:
    """The running attempt of a fold, if it came to its first numbers and may be asked to go elsewhere.

    What does not train stays where it is: nothing of it is kept.
    """
    attempt, entry = ledger.running[task], ledger.entries[task]
    if attempt.told_to_stop or entry.progress is None or entry.progress.attempt != attempt.number:
        return None
    return attempt if isinstance(entry.task, TrainTask) else None


def waiting_kinds(ledger: Ledger) -> frozenset[str]:
    """The kinds of what waits for a slot."""
    heads = (queue[0][1] for queue in ledger.board.waiting.values())
    return frozenset(ledger.entries[ledger.board.by_rank[rank]].task.kind for rank in heads)


def fastest(ledger: Ledger, kinds: frozenset[str]) -> list[Place]:
    """Free slots that take one of `kinds`, fastest machine first; first slots before second ones of an equal.

    Kept until the next slot is taken or comes free: speeds that are measured meanwhile count from then on.
    """
    known = ledger.fastest.setdefault(kinds, Fastest())
    if known.changes != ledger.slots.changes:
        speed, hosts = ledger.estimates.speed, ledger.slots.hosts
        free = (place for place in ledger.slots.free if not kinds.isdisjoint(hosts[place[0]].joined.kinds))
        known.places = sorted(free, key=lambda place: (-speed(place[0]), place[1], place[0]))
        known.changes = ledger.slots.changes
    return known.places


def partners(ledger: Ledger) -> Iterable[str]:
    """Running tasks that a task may change places with: all of a small fleet's.

    Of a large one, those with the most and the least before them among machines of about one speed.
    """
    if len(ledger.running) <= SMALL_FLEET:
        return ledger.running
    return [task for task in _extremes(ledger).partners if task in ledger.running]


def climbers(ledger: Ledger) -> Iterable[str]:
    """Running tasks that may move to a slot that came free: all of a small fleet's.

    Of a large one, the few with the most before them among machines of about one speed, and those that have just
    committed: so each is asked once an epoch at least.
    """
    if len(ledger.running) <= SMALL_FLEET:
        return sorted(ledger.running)
    known = ledger.committed.union(_extremes(ledger).climbers)
    return sorted(task for task in known if task in ledger.running)


def _extremes(ledger: Ledger) -> Extremes:
    """Looked for again once a share of all that runs has committed."""
    known = ledger.extremes
    if known.commits is None or ledger.commits - known.commits > len(ledger.running) // _SHARE:
        bands: dict[int, list[tuple[float, str]]] = defaultdict(list)
        for task, attempt in ledger.running.items():
            band = round(math.log(ledger.estimates.speed(attempt.machine)) / _BAND)
            bands[band].append((-ledger.estimates.level(task), task))
        longest = [sorted(bands[band]) for band in sorted(bands)]
        known = ledger.extremes = Extremes(
            ledger.commits,
            partners=[task for tasks in longest for _, task in sorted({tasks[0], tasks[-1]})],
            climbers=[task for tasks in longest for _, task in tasks[:_CLIMBERS]],
        )
    return known


def gains(ledger: Ledger, task: str, machine: str, moves: float) -> bool:
    """Whether a running `task` would end sooner on `machine`, by more than so many moves, after its own."""
    estimates, move = ledger.estimates, ledger.estimates.move_seconds(machine)
    here = estimates.epoch_seconds(task, ledger.running[task].machine).middle
    there = estimates.epoch_seconds(task, machine).middle
    return estimates.remaining_epochs(task).middle * (here - there) - move > moves * move


def better_swap(
    ledger: Ledger, task: str, least_epochs: float, least_moves: float, own_moves: float
) -> tuple[str, str] | None:
    """(the task on the faster machine, the one on the slower) that `task` should change places with, or None.

    The one on the slower machine must have so much more before it, counted in its epochs and in moves, as seconds on
    the faster machine, and gain `own_moves` itself. Who moved lately stays at least as long as that, and longer each
    time: an odd epoch must not send two folds to and fro. Of several the one with the most to gain: levels apart times
    speeds apart.
    """
    estimates, attempt, best = ledger.estimates, settled(ledger, task), None
    if attempt is None:
        return None
    level, speed = estimates.level(task), estimates.speed(attempt.machine)
    for other in partners(ledger):
        running = ledger.running[other]
        other_speed = estimates.speed(running.machine)
        apart = (estimates.level(other) - level) * (speed - other_speed)  # above 0: the longer is on the slower one
        if apart <= 0 or (best is not None and apart <= best[0]) or settled(ledger, other) is None:
            continue
        (fast, slow), (to, origin) = (
            ((task, other), (attempt, running)) if speed > other_speed else ((other, task), (running, attempt))
        )
        least = least_epochs * estimates.epoch_seconds(slow, to.machine).middle
        least += least_moves * max(estimates.move_seconds(to.machine), estimates.move_seconds(origin.machine))
        gain = estimates.seconds(abs(estimates.level(other) - level), to.machine)
        if gain <= least or not gains(ledger, slow, to.machine, own_moves):
            continue
        stayed = all(_stayed(ledger, name, least) for name in (slow, fast))
        if stayed and _fit_each_other(ledger, slow, to, fast, origin):
            best = (apart, fast, slow)
    return None if best is None else best[1:]


def _stayed(ledger: Ledger, task: str, seconds: float) -> bool:
    """Whether a fold has been where it is for `seconds` times the moves in a row that brought it there."""
    moves = sum(1 for _ in takewhile(lambda attempt: attempt.moved, reversed(ledger.entries[task].attempts)))
    return ledger.now - ledger.running[task].started >= moves * seconds


def _fit_each_other(ledger: Ledger, slow: str, to: Attempt, fast: str, origin: Attempt) -> bool:
    slots = ledger.slots
    free = all((run.machine, run.slot) not in slots.kept and slots.open(run.machine) for run in (to, origin))
    return free and fitting(ledger, slow, to.machine) is not None and fitting(ledger, fast, origin.machine) is not None
