"""Several coordinators, one after another or two at once, over machines that they may or may not reach. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from coordinator.events import (
    Event,
    Fact,
    MachineCut,
    MachineDraining,
    MachineLeft,
    MachineProbed,
    ResultFound,
    RunBegan,
    StopRequested,
)
from coordinator.faults import Change, Faults, Relief
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.scenario import Ending, MachineModel, Outage, Scenario
from coordinator.simulate import Coordinator, Planner, Watch
from coordinator.simulated_attempts import Listener, Run
from coordinator.simulated_commits import Witness
from coordinator.simulated_faults import FaultyFleet
from coordinator.simulated_fleet import joined
from coordinator.simulated_store import SimulatedStore
from coordinator.simulated_time import Calendar


class Driver(Coordinator):
    """One coordinator: the machines on its side, and those that it was told of."""

    def __init__(self, number: int, ledger: Ledger, planner: Planner, fleet: FaultyFleet, watch: Watch) -> None:
        super().__init__(ledger, planner, fleet, watch)
        self.number = number
        self.over = False
        self.side: set[str] = set()
        self.told: dict[str, int] = {}  # machines that joined, and the how-manieth joining it was
        self.joinings = 0


class Fleet(FaultyFleet):
    """Machines that tell each coordinator what it can know."""

    def __init__(
        self, scenario: Scenario, faults: Faults, calendar: Calendar, store: SimulatedStore, witness: Witness
    ) -> None:
        super().__init__(scenario, faults, calendar, store, witness)
        self.drivers: list[Driver] = []
        self.held: dict[str, list[tuple[Run, Fact]]] = {}

    def reaches(self, owner: Listener, machine: str) -> bool:
        assert isinstance(owner, Driver)
        return not owner.over and machine in owner.side and self.here[machine].up

    def come(self, model: MachineModel) -> None:
        here = self.here[model.name]
        if here.up:
            return
        here.up = True
        for run in list(here.runs.values()):  # it was only cut off
            if self.chance.happens(0.5):
                self.lose(run)
        for driver in self.drivers:
            self.meet(driver, model)
        for run, fact in self.held.pop(model.name, []):
            if self.chance.happens(0.5):
                self.happened["news kept until a machine was back"] += 1
                self.calendar.at(self.now + self.chance.between(0.0, 60.0), self.hear, run, fact)

    def meet(self, driver: Driver, model: MachineModel) -> None:
        """A coordinator finds a machine, if it can."""
        if not self.reaches(driver, model.name):
            return
        if driver.told.pop(model.name, None) is not None:
            driver.tell(MachineLeft(model.name, "it is here anew"))
        driver.joinings += 1
        driver.told[model.name] = driver.joinings
        driver.tell(joined(model))

    def announce(self, model: MachineModel, outage: Outage) -> None:
        for driver in self.drivers:
            if self.reaches(driver, model.name) and model.name in driver.told:
                self.happened["preemptions announced"] += 1
                driver.tell(MachineDraining(model.name, self.faults.clock_at(self.now) + outage.down - self.now))

    def go(self, model: MachineModel, outage: Outage) -> None:
        here = self.here[model.name]
        if not here.up:
            return
        here.up = False
        self.happened[outage.ending.value] += 1
        if outage.ending is Ending.CUT:
            self.happened["orphans"] += len(here.runs)
        else:
            for run in list(here.runs.values()):
                self.lose(run)
        gone = MachineCut if outage.ending is Ending.CUT else MachineLeft
        for driver in self.drivers:
            self.miss(driver, gone(model.name, outage.ending.value))

    def miss(self, driver: Driver, fact: MachineCut | MachineLeft) -> None:
        """A coordinator notices, after a while, that a machine is not there."""
        if (joining := driver.told.get(fact.machine)) is not None:
            noticed = self.chance.happens(0.5) * self.chance.between(0.0, self.faults.unnoticed)
            self.calendar.at(self.now + noticed, self._missed, driver, fact, joining)

    def _missed(self, driver: Driver, fact: MachineCut | MachineLeft, joining: int) -> None:
        if not driver.over and driver.told.get(fact.machine) == joining:
            del driver.told[fact.machine]
            driver.tell(fact)

    def probed(self, machine: str, owner: Listener) -> None:
        assert isinstance(owner, Driver)
        if self.reaches(owner, machine) and machine in owner.told:
            well = not self.faults.is_bad(machine, self.now)
            self.happened["probes passed" if well else "probes failed"] += 1
            owner.tell(MachineProbed(machine, well, "" if well else "driver error"))

    def kill(self, run: Run) -> None:
        if self.reaches(run.owner, run.machine.name):
            self.lose(run)
        else:
            self.happened["kills that were not heard"] += 1

    def hold(self, run: Run, fact: Fact) -> None:
        self.held.setdefault(run.machine.name, []).append((run, fact))

    def hear(self, run: Run, fact: Fact) -> None:
        assert isinstance(run.owner, Driver)
        if not run.owner.over:
            super().hear(run, fact)

    def retire(self, driver: Driver) -> None:
        """A coordinator is gone, and what it ran wherever it reaches; its machines are free for the newest."""
        if driver.over:
            return
        for run in [run for run in self.runs.values() if run.owner is driver]:
            if self.reaches(driver, run.machine.name):
                self.lose(run)
            else:
                self.happened["orphans of a coordinator that is gone"] += 1
        driver.over = True
        self.drivers.remove(driver)
        for newest in self.drivers[-1:]:
            newest.side |= driver.side
            for name in sorted(driver.side - set(newest.told)):
                self.meet(newest, self.here[name].model)


WatchOf = Callable[[int, float, Event, Ledger], None]
"""(number of the coordinator, time, event, its ledger)"""


class FaultySimulation:
    """One scenario with all its faults. `planner`, `ledger` and `store` stand in for the real ones as mutants."""

    def __init__(
        self,
        scenario: Scenario,
        faults: Faults,
        witness: Witness,
        watch: WatchOf,
        *,
        planner: Planner = plan,
        ledger: type[Ledger] = Ledger,
        store: SimulatedStore,
    ) -> None:
        self.scenario, self.faults, self.watch, self.planner = scenario, faults, watch, planner
        self._ledger = ledger
        self.calendar, self.store = Calendar(), store
        self.fleet = Fleet(scenario, faults, self.calendar, self.store, witness)
        self.begun = 0
        self.finished: str | None = None
        self._gap = 60.0  # until another coordinator follows one that was stopped
        self._begin({model.name for model in scenario.machines})
        for change in faults.changes:
            self.calendar.at(change.at, self._change, change)
        self.calendar.at(faults.tick_seconds, self._tick)

    def play(self) -> None:
        """To the end of the run, then of what still runs somewhere; or to the horizon, with `finished` None."""
        while self.finished is None and self.calendar.following <= self.scenario.horizon:
            self.calendar.advance()
            for driver in list(self.fleet.drivers):
                self._turn(driver)
        while self.fleet.runs and self.finished is not None and self.calendar.following <= self.scenario.horizon:
            self.calendar.advance()

    def _turn(self, driver: Driver) -> None:
        driver.turn(self.faults.clock_at(self.calendar.now))
        if driver.ledger.finished is None:
            return
        newest = driver.number == self.begun
        self.fleet.retire(driver)
        if driver.ledger.stopping and not driver.ledger.all_done:
            self.calendar.at(self.calendar.now + self._gap, self._begin, driver.side)
        elif newest:
            self.finished = driver.ledger.finished

    def _tick(self) -> None:
        """Time goes on, though nothing happens."""
        if self.finished is None:
            self.calendar.at(self.calendar.now + self.faults.tick_seconds, self._tick)

    def _begin(self, side: set[str]) -> None:
        """A coordinator begins: it reads the results that stand, and finds its machines."""
        if self.finished is not None:
            return
        if self.faults.is_store_down(self.calendar.now):
            self.calendar.at(self.calendar.now + self.faults.tick_seconds, self._begin, side)
            return
        self.begun += 1
        ledger = self._ledger(self.scenario.graph, self.scenario.rules)
        driver = Driver(self.begun, ledger, self.planner, self.fleet, partial(self.watch, self.begun))
        everywhere = {model.name for model in self.scenario.machines}
        driver.side = set(side) if self.fleet.drivers else everywhere
        driver.tell(RunBegan(tuple(self.scenario.graph.tasks)))
        for task in self.scenario.graph.tasks:
            if task in self.store.results:
                driver.tell(ResultFound(task))
        self.fleet.drivers.append(driver)
        for model in self.scenario.machines:
            self.fleet.meet(driver, model)

    def _change(self, change: Change) -> None:
        if not self.fleet.drivers or self.finished is not None:
            return
        driver, later = self.fleet.drivers[-1], self.calendar.now + change.gap
        self.fleet.happened[f"coordinator: {change.how.value}"] += 1
        match change.how:
            case Relief.CRASH:
                self.calendar.at(later, self._begin, driver.side)
                self.fleet.retire(driver)
            case Relief.STOP:
                self._gap = change.gap
                if not driver.ledger.stopping:
                    driver.tell(StopRequested())
            case Relief.CUT:
                self._part(driver, change)

    def _part(self, driver: Driver, change: Change) -> None:
        """Some machines are out of the first one's reach, and in the second's; some in that of both."""
        ours, theirs = set[str](), set[str]()
        for model in self.scenario.machines:
            side = "both" if "train" not in model.kinds else self.fleet.chance.pick(("first", "second", "both"))
            if side != "second":
                ours.add(model.name)
            if side != "first":
                theirs.add(model.name)
        for name in sorted(driver.side - ours):
            self.fleet.happened["orphans"] += sum(run.owner is driver for run in self.fleet.here[name].runs.values())
            self.fleet.miss(driver, MachineCut(name, "cut off"))
        driver.side = ours
        self.calendar.at(self.calendar.now + change.gap, self._begin, theirs)
        self.calendar.at(self.calendar.now + change.gap + change.stays, self.fleet.retire, driver)
