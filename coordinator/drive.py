"""The loop that drives a run: take in facts, apply them, plan, carry out the orders. It decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.config import FleetSection
from coordinator.events import Event, Progressed, ResultFound, RunBegan, Start, Stop, StopRequested, Tick
from coordinator.fleet import Fleet
from coordinator.graph import Graph
from coordinator.journal import Journal
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.retry import Budgets, Rules
from shared_store.commits import read_result
from shared_store.store import Store

Watch = Callable[[Event, Ledger], None]
"""Told every fact and order right after the ledger took it in."""


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
) -> Ledger:
    """Bring every task of `graph` to its result, as far as that can be done, and return the final ledger.

    Tasks whose result stands in the store are not run. `clock` gives seconds; `stop` is asked every turn, and
    once it is true running tasks commit and end: `ledger.stopping` then, and `ledger.all_done` is false.
    Exceptions (a second Ctrl-C) pass through: the caller closes the fleet in any case.
    """
    ledger = Ledger(graph, Rules(Budgets(crashes=settings.attempts)))
    turn = _Turn(ledger, journal, watch)
    turn.take(Tick(clock()))
    turn.take(RunBegan(tuple(graph.tasks)))
    for task in graph.tasks:
        if read_result(store, task) is not None:
            turn.take(ResultFound(task))
    while ledger.finished is None:
        for order in plan(ledger):
            turn.take(order)
            match order:
                case Start():
                    fleet.start(order, graph.tasks[order.task])
                case Stop():
                    fleet.stop(order)
        if ledger.finished is None:
            facts = [*fleet.discover(), *fleet.poll()]
            turn.take(Tick(clock()))
            for fact in facts:
                turn.take(fact)
            if stop() and not ledger.stopping:
                turn.take(StopRequested())
    return ledger


@dataclass
class _Turn:
    """Every event goes the same way: into the ledger, into the journal, to whoever watches."""

    ledger: Ledger
    journal: Journal
    watch: Watch

    def take(self, event: Event) -> None:
        self.ledger.apply(event)
        if _worth_a_line(event):
            self.journal.write(self.ledger.now, event)
        self.watch(event, self.ledger)


def _worth_a_line(event: Event) -> bool:
    """Ticks and reports that only move numbers on would bury the rest; the view has them."""
    if isinstance(event, Progressed):
        return event.progress.commit is not None or event.progress.note != ""
    return not isinstance(event, Tick)
