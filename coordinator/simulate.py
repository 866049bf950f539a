"""A run played out: modelled machines and a modelled store around the real ledger and plan. Pure.

What happens at one instant makes one turn of the coordinator, as in drive.py: tick, facts, and orders until the plan
is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.events import Event, Fact, Order, RunBegan, Tick
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.scenario import Scenario
from coordinator.simulated_fleet import SimulatedFleet
from coordinator.simulated_store import SimulatedStore
from coordinator.simulated_time import Calendar

Planner = Callable[[Ledger], list[Order]]
Watch = Callable[[float, Event, Ledger], None]


@dataclass
class Played:
    """What became of a simulation. Seconds are simulated ones."""

    makespan: float
    finished: bool
    ledger: Ledger
    store: SimulatedStore
    events: int = 0
    starts: int = 0
    moves: int = 0
    lost_epochs: float = 0.0


class Coordinator:
    """The real ledger and plan with an inbox; what they order, the fleet carries out."""

    def __init__(self, ledger: Ledger, planner: Planner, fleet: SimulatedFleet, watch: Watch | None = None) -> None:
        self.ledger, self.planner, self.fleet, self.watch = ledger, planner, fleet, watch
        self.inbox: list[Fact] = []

    def tell(self, fact: Fact) -> None:
        """It hears of something with its next turn."""
        self.inbox.append(fact)

    def turn(self, clock: float) -> None:
        """Take in what was told, and order until there is nothing more to order. `clock` is in seconds."""
        self.take(Tick(clock))
        facts, self.inbox = self.inbox, []
        for fact in facts:
            self.take(fact)
        while orders := self.planner(self.ledger):
            for order in orders:
                self.take(order)
                self.fleet.carry_out(order, self)

    def take(self, event: Event) -> None:
        """The ledger takes in a fact or an order."""
        self.ledger.apply(event)
        if self.watch is not None:
            self.watch(self.fleet.now, event, self.ledger)


class Simulation:
    """One scenario, played once. `planner`, `ledger` and `store` stand in for the real ones in comparisons.

    What is told or put into the store before `play` is what the run begins with.
    """

    def __init__(
        self,
        scenario: Scenario,
        planner: Planner = plan,
        ledger: type[Ledger] = Ledger,
        store: type[SimulatedStore] = SimulatedStore,
        watch: Watch | None = None,
    ) -> None:
        self.scenario = scenario
        self.calendar = Calendar()
        self.store = store()
        self.fleet = SimulatedFleet(scenario, self.calendar, self.store)
        self.ledger = ledger(scenario.graph, scenario.rules)
        self.coordinator = Coordinator(self.ledger, planner, self.fleet, watch)
        self.fleet.owners.append(self.coordinator)

    def tell(self, fact: Fact) -> None:
        """The coordinator hears of something with its next turn."""
        self.coordinator.tell(fact)

    def play(self) -> Played:
        """To the end of the run, or of the scenario's horizon."""
        self.coordinator.inbox.insert(0, RunBegan(tuple(self.scenario.graph.tasks)))
        while self.ledger.finished is None and self.calendar.following <= self.scenario.horizon:
            self.calendar.advance()
            self.coordinator.turn(self.calendar.now)
        calendar, fleet = self.calendar, self.fleet
        finished = self.ledger.finished is not None
        played = Played(calendar.now, finished, self.ledger, self.store, calendar.events)
        played.starts, played.moves, played.lost_epochs = fleet.starts, fleet.moves, fleet.lost_epochs
        return played
