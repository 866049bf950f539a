"""The loop that drives a run: take in facts, apply them, plan, carry out the orders. It decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coordinator.config import FleetSection
from coordinator.events import (
    Event,
    Kill,
    Migrate,
    Order,
    Probe,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    StopRequested,
    Tick,
)
from coordinator.fleet import Fleet
from coordinator.graph import Graph
from coordinator.journal import Journal
from coordinator.ledger import Ledger
from coordinator.placing import rules_of
from coordinator.plan import plan
from shared_store.commits import read_result
from shared_store.store import Store
from workers.footprint import Footprint
from workers.tasks import Progress

Watch = Callable[[Event, Ledger], None]
"""Told every fact and order, right after the ledger took it in; and every report that only moves numbers on."""


REPORT_SECONDS = 60.0  # between reports of an attempt that tell the ledger numbers alone
_REPORTS_BEFORE_IT_HANGS = 4


def drive(
    graph: Graph,
    store: Store,
    fleet: Fleet,
    settings: FleetSection,
    *,
    clock: Callable[[], float],
    journal: Journal,
    watch: Watch,
    stop: Callable[[], bool],
    footprints: Mapping[str, Footprint] | None = None,
    began: str = "",
) -> Ledger:
    """Bring every task of `graph` to its result, as far as that can be done, and return the final ledger.

    Tasks whose result stands in the store are not run. `footprints`: what folds take of a card, by recipe, where
    that was reckoned; `began`: the time of day, for the journal. `clock` gives seconds; `stop` is asked every turn, and
    once it is true running tasks commit and end: `ledger.stopping` then, and `ledger.all_done` is false.
    Exceptions (a second Ctrl-C) pass through: the caller closes the fleet in any case.
    """
    ledger = Ledger(graph, rules_of(settings, graph, footprints))
    turn = _Turn(ledger, journal, watch)
    turn.take(_tick(clock))
    turn.take(RunBegan(tuple(graph.tasks), began))
    for task in graph.tasks:
        if read_result(store, task) is not None:
            turn.take(ResultFound(task))
    while ledger.finished is None:
        while orders := plan(ledger):
            for order in orders:
                turn.take(order)
                _carry_out(order, fleet, graph)
        if ledger.finished is None:
            facts = [*fleet.discover(), *fleet.poll()]
            turn.take(_tick(clock))
            for fact in facts:
                turn.take(fact)
            if stop() and not ledger.stopping:
                turn.take(StopRequested())
    return ledger


def watched_by(*watches: Watch) -> Watch:
    """One watch of several: each is told, in this order."""

    def tell(event: Event, ledger: Ledger) -> None:
        for watch in watches:
            watch(event, ledger)

    return tell


def _carry_out(order: Order, fleet: Fleet, graph: Graph) -> None:
    """The other orders ask nothing of any machine."""
    match order:
        case Start():
            fleet.start(order, graph.tasks[order.task])
        case Stop() | Migrate():
            fleet.stop(order)
        case Kill():
            fleet.kill(order)
        case Probe():
            fleet.probe(order)


def _tick(clock: Callable[[], float]) -> Tick:
    return Tick(round(clock(), 3))  # as the journal has it, so that a replay sees the very same time


@dataclass
class _Turn:
    """Every event goes the same way: into the ledger, into the journal, to whoever watches.

    The journal has all that the ledger took in, but for turns in which there was nothing but the time.
    """

    ledger: Ledger
    journal: Journal
    watch: Watch
    tick: Tick | None = None  # not in the journal yet

    def take(self, event: Event) -> None:
        if isinstance(event, Progressed) and not self._counts(event.progress):
            self.watch(event, self.ledger)
            return
        self.ledger.apply(event)
        if isinstance(event, Tick):
            self.tick = event
        else:
            if self.tick is not None:
                self.journal.write(self.ledger.now, self.tick)
                self.tick = None
            self.journal.write(self.ledger.now, event)
        self.watch(event, self.ledger)

    def _counts(self, progress: Progress) -> bool:
        """Whether the ledger hears of a report. Of those that only move numbers on it hears one now and then: two a
        second from every fold would bury all else in the journal.
        """
        if progress.note or progress.commit is not None:
            return True
        running, known = self.ledger.running.get(progress.task), self.ledger.entries[progress.task].progress
        if running is None or running.number != progress.attempt:
            return False
        new = known is None or known.attempt != progress.attempt
        if known is not None:
            new = new or (progress.epoch, progress.best_epoch) != (known.epoch, known.best_epoch)
        if progress.says_nothing:
            new = False
        often = min(REPORT_SECONDS, self.ledger.rules.hang_seconds / _REPORTS_BEFORE_IT_HANGS)
        return new or self.ledger.now - running.heard >= often
