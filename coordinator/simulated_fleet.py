"""Modelled machines: they come and go as the scenario says, and do what they are ordered to. Pure."""

from __future__ import annotations

from coordinator.events import (
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Order,
    Probe,
    Start,
    Stop,
)
from coordinator.scenario import Ending, MachineModel, Outage, Scenario
from coordinator.simulated_attempts import Attempts, Listener
from coordinator.simulated_store import SimulatedStore
from coordinator.simulated_time import Calendar

_PROBE_SECONDS = 1.0


class SimulatedFleet(Attempts):
    """All machines of a scenario. Whoever `owners` names is told of them."""

    def __init__(self, scenario: Scenario, calendar: Calendar, store: SimulatedStore) -> None:
        super().__init__(scenario, calendar, store)
        self.owners: list[Listener] = []
        self.moves = 0
        for model in scenario.machines:
            calendar.at(0.0, self.come, model)
            for outage in model.outages:
                if outage.ending is Ending.PREEMPTION:
                    calendar.at(max(0.0, outage.down - outage.notice), self.announce, model, outage)
                calendar.at(outage.down, self.go, model, outage)
                calendar.at(outage.up, self.come, model)

    def carry_out(self, order: Order, owner: Listener) -> None:
        """Do what `owner` orders. An attempt that is over already is no error."""
        match order:
            case Start():
                self.begin(order, owner)
            case Stop(task, attempt) | Migrate(task, attempt):
                self.moves += isinstance(order, Migrate)
                if (run := self.runs.get((id(owner), task, attempt))) is not None:
                    self.calendar.at(self.now, self.stop, run)
            case Kill(task, attempt):
                if (run := self.runs.get((id(owner), task, attempt))) is not None:
                    self.kill(run)
            case Probe(machine):
                self.calendar.at(self.now + _PROBE_SECONDS, self.probed, machine, owner)

    def come(self, model: MachineModel) -> None:
        self.here[model.name].up = True
        for owner in self.owners:
            owner.tell(joined(model))

    def announce(self, model: MachineModel, outage: Outage) -> None:
        if self.here[model.name].up:
            for owner in self.owners:
                owner.tell(MachineDraining(model.name, outage.down))

    def go(self, model: MachineModel, outage: Outage) -> None:
        here = self.here[model.name]
        if not here.up:
            return
        here.up = False
        for run in list(here.runs.values()):
            self.lose(run)
        gone = MachineCut if outage.ending is Ending.CUT else MachineLeft
        for owner in self.owners:
            owner.tell(gone(model.name, outage.ending.value))

    def probed(self, machine: str, owner: Listener) -> None:
        if self.here[machine].up:
            owner.tell(MachineProbed(machine, True))


def joined(model: MachineModel) -> MachineJoined:
    """What a machine says of itself."""
    memory = model.memory_gb if model.told_memory_gb is None else model.told_memory_gb
    link = model.link_mb_per_second
    return MachineJoined(
        model.name, model.slots, model.kinds, model.gpu, memory, model.system, model.labels, model.told_speed, link,
        model.bits,
    )  # fmt: skip
