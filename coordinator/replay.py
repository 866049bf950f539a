"""A run played again from its journal: what would the plan have ordered, told the same facts? Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coordinator.events import ORDERS, Event, Order, RunBegan, Tick
from coordinator.graph import Graph
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.retry import Rules

Planner = Callable[[Ledger], list[Order]]


@dataclass(frozen=True)
class Difference:
    """A turn in which other orders were given than the plan gives now, from the first one on that differs."""

    at: float  # seconds on the ledger's clock
    recorded: tuple[Event, ...]
    replayed: tuple[Order, ...]


@dataclass
class _Turn:
    """What happened at one tick: the facts that came, then the orders that were given."""

    tick: Tick
    facts: list[Event] = field(default_factory=list)
    orders: list[Event] = field(default_factory=list)


def drives(events: Iterable[Event]) -> list[list[Event]]:
    """A journal's events by the command that drove the run: each with `RunBegan` behind its first tick."""
    parts: list[list[Event]] = []
    held: list[Event] = []
    for event in events:
        if isinstance(event, Tick):
            held = [event]
        elif isinstance(event, RunBegan):
            parts.append([*held, event])
            held = []
        elif parts:
            parts[-1] += [*held, event]
            held = []
    return parts


def replay(graph: Graph, rules: Rules, events: Iterable[Event], planner: Planner = plan) -> list[Difference]:
    """Where the plan gives other orders than were recorded in one drive of `graph`. None: it decides as it did.

    The ledger follows what was recorded, so that every turn is judged by what was known then. A journal that ends
    within a turn (its driver was killed) is no difference. AssertionError where what was recorded cannot follow under
    these rules, or is not of this graph.
    """
    ledger, found = Ledger(graph, rules), list[Difference]()
    turns = list(_turns(events))
    for number, turn in enumerate(turns, start=1):
        for event in (turn.tick, *turn.facts):
            ledger.apply(event)
        difference = _difference(ledger, planner, turn.orders, may_be_cut=number == len(turns))
        found += [] if difference is None else [difference]
        for order in turn.orders:
            ledger.apply(order)
    return found


def _difference(ledger: Ledger, planner: Planner, left: list[Event], *, may_be_cut: bool) -> Difference | None:
    """Follow a turn's orders, which are taken out of `left`, for as long as the plan gives the same."""
    while ledger.finished is None:
        planned = planner(ledger)
        if not planned and not left:
            return None
        if not planned or left[: len(planned)] != planned:
            if may_be_cut and left == planned[: len(left)]:
                return None
            return Difference(ledger.now, tuple(left), tuple(planned))
        for order in planned:
            ledger.apply(order)
        del left[: len(planned)]
    return Difference(ledger.now, tuple(left), ()) if left else None


def _turns(events: Iterable[Event]) -> Iterator[_Turn]:
    turn: _Turn | None = None
    for event in events:
        if isinstance(event, Tick):
            if turn is not None:
                yield turn
            turn = _Turn(event)
            continue
        assert turn is not None, f"{event} before any tick"
        (turn.orders if isinstance(event, ORDERS) else turn.facts).append(event)
    if turn is not None:
        yield turn
