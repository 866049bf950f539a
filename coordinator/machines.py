"""Which machines a Ray cluster has: what they are when they come, when they must be given back, how they went."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from coordinator.actors import Actors, Machine, Probes
from coordinator.config import FleetSection
from coordinator.events import Fact, MachineCut, MachineDraining, MachineJoined, MachineLeft, MachineProbed
from coordinator.joining import ID, NAME, UNTIL
from coordinator.measured import Known
from coordinator.nodes import Looks
from coordinator.roster import end_node, let_go
from shared_store.errors import UserError
from workers.probe import labels, machine_memory_gb, system
from workers.tasks import Probed

log = logging.getLogger(__name__)
DRIVER = "driver"  # the machine at which the command itself runs, as the ledger has it
UNTIL_LEAD_SECONDS = 900.0  # before its time is up a machine takes no more work
_LAST_SECONDS = 60.0  # for a machine whose time was up before anybody looked
_GRACE_SECONDS = 15.0  # after its time, before what is left there is ended
_ORDERLY_DEATHS = (1, 3, 4)  # Ray's NodeDeathInfo.Reason: expected termination, and both drains by an autoscaler


class Machines:
    """The machines of the Ray that this process is connected to, by the names that the ledger knows them by."""

    def __init__(
        self,
        settings: FleetSection,
        actors: Actors,
        kinds: tuple[str, ...],
        clock: Callable[[], float],
        *,
        measured: Mapping[str, Known],
        looks: Looks | None = None,
    ) -> None:
        """`kinds`: of the tasks that a machine takes. `clock`: the ledger's, in seconds. `measured`: by machine id.
        `looks`: at Ray's nodes.
        """
        self.named: dict[str, Machine] = {}
        self._settings, self._actors, self._kinds, self._clock = settings, actors, kinds, clock
        self._measured, self._looks = measured, looks or Looks()
        self._embedded = settings.address is None
        self._joining: set[str] = set()  # machines whose probe is awaited before they are told of
        self._draining: set[str] = set()  # nodes
        self._ended: set[str] = set()  # nodes whose time was up
        self._left: dict[str, str] = {}  # nodes whose machine is here as another one, with its id
        self._probes = Probes(actors)

    def changes(self) -> list[Fact]:
        """What became of machines since the last call, and what probes have found. Nothing while the head is away."""
        facts: list[Fact] = []
        seen = self._looks.look()
        if seen is None:
            return []
        nodes = seen.nodes
        for machine in list(self.named.values()):
            node = nodes.get(machine.node, {})
            if not node.get("Alive"):
                facts += self._forget(machine, node)
                self._left = {left: of for left, of in self._left.items() if of != machine.machine_id}
        known = {machine.node for machine in self.named.values()}
        for node in sorted(nodes.values(), key=lambda node: (node["NodeManagerHostname"], node["NodeID"])):
            if node["Alive"] and node["NodeID"] not in known | self._left.keys():
                facts += self._meet(node)
        facts += [self._answered(name, probed) for name, probed in self._probes.answers()]
        return [*facts, *self._drained(dict(seen.draining))]

    def is_alive(self, machine: str) -> bool | None:
        """Whether Ray still hears of a machine; None while its head does not say."""
        seen = self._looks.look()
        return None if seen is None else bool(seen.nodes.get(self.named[machine].node, {}).get("Alive"))

    def probe(self, machine: str) -> None:
        """Begin to probe a machine that nothing runs on; what is found comes from `changes`."""
        self._probes.ask(self.named[machine], timed=True)

    def _meet(self, node: dict[str, Any]) -> list[Fact]:
        """A new machine is told of when its probe has answered; the one machine of an embedded Ray at once.

        Without a card, that is: what a card has only a process that may use it can say.
        """
        told, resources = node.get("Labels", {}), node["Resources"]  # what `foldfleet join` says of it
        facts = self._came_back(told.get(ID))
        name = told.get(NAME, node["NodeManagerHostname"])
        name = name if name not in {DRIVER, *self.named} else f"{name}-{node['NodeID'][:6]}"
        cards = int(resources.get("GPU", 0))
        slots = self._settings.slots or cards or max(1, int(resources.get("CPU", 1)) // self._settings.threads)
        share = 1.0 if slots <= cards else int(cards / slots * 10_000) / 10_000  # Ray counts in 1/10,000
        until = float(told.get(UNTIL, "inf"))
        machine = Machine(name, node["NodeID"], slots, share if cards else 0.0, told.get(ID), until)
        self.named[name] = machine
        self._actors.at(machine, 0)  # whatever the machine is given to do, it hands over what it has of other days
        if self._embedded and not cards:
            memory_gb = machine_memory_gb()
            known = Probed(True, "", system(), labels(), None if memory_gb is None else memory_gb / slots)
            return [*facts, self._joined(machine, known)]
        self._joining.add(name)
        self._probes.ask(machine, timed=not self._embedded)  # one machine compares with nothing
        return facts

    def _came_back(self, machine_id: str | None) -> list[Fact]:
        """A machine that is here under another address has left where it was, whether Ray knows yet or not."""
        before = [machine for machine in self.named.values() if machine_id and machine.machine_id == machine_id]
        facts = [fact for machine in before for fact in self._forget(machine, {"DeathReasonMessage": "it came back"})]
        self._left |= {machine.node: machine_id or "" for machine in before}
        return facts

    def _answered(self, name: str, probed: Probed) -> Fact:
        if name not in self._joining:
            return MachineProbed(name, probed.passed, probed.what, probed.speed)
        self._joining.discard(name)
        self._actors.at(self.named[name], 0)
        return self._joined(self.named[name], probed)

    def _drained(self, until: dict[str, int]) -> list[Fact]:
        """Machines that Ray is told to give back, `until` when by node, in milliseconds of the wall clock.

        A node without a time for it (0) is taken back at any moment.
        """
        if self._embedded:
            return []
        facts: list[Fact] = []
        for machine in self.named.values():
            due = machine.until - time.time() < UNTIL_LEAD_SECONDS and machine.name not in self._joining
            if due and machine.node not in until:
                self._let_go(machine)
                until[machine.node] = int(1000 * machine.until)
        for machine in self.named.values():
            over = 0 < until.get(machine.node, 0) / 1000 < time.time() - _GRACE_SECONDS
            if over and machine.node in self._draining - self._ended:
                self._end(machine)
            if machine.node in until and machine.node not in self._draining and machine.name not in self._joining:
                self._draining.add(machine.node)
                left = until[machine.node] / 1000 - time.time() if until[machine.node] else 0.0
                facts.append(MachineDraining(machine.name, round(self._clock() + max(0.0, left), 3)))
        return facts

    def _let_go(self, machine: Machine) -> None:
        """A machine that joined until some time has Ray take it back then."""
        if machine.node in self._draining:
            return  # said already
        head, why = ray.get_runtime_context().gcs_address, "the time until which it joined is up"
        try:
            let_go(head, machine.node, max(machine.until, time.time() + _LAST_SECONDS), why)
        except UserError as error:  # it is left all the same, and its owner may take it away
            log.warning("%s is not taken back: %s", machine.name, error.what)

    def _end(self, machine: Machine) -> None:
        """A machine whose time is over, with whatever is left there; a head that does not answer is asked again."""
        try:
            end_node(ray.get_runtime_context().gcs_address, machine.node)
        except UserError as error:
            log.warning("%s is not ended: %s", machine.name, error.what)
        else:
            self._ended.add(machine.node)

    def _forget(self, machine: Machine, node: dict[str, Any]) -> list[Fact]:
        """Only an end that Ray was told of is one for sure: else the machine may be cut off and work on."""
        del self.named[machine.name]
        self._actors.dismiss_all(machine.name)
        self._probes.forget(machine.name)
        if machine.name in self._joining:
            self._joining.discard(machine.name)
            return []
        why = node.get("DeathReasonMessage") or "Ray counts it as dead"
        orderly = node.get("DeathReason") in _ORDERLY_DEATHS
        return [MachineLeft(machine.name, why) if orderly else MachineCut(machine.name, why)]

    def _joined(self, machine: Machine, probed: Probed) -> MachineJoined:
        known = self._measured.get(machine.machine_id or "", Known())
        return MachineJoined(
            machine.name,
            machine.slots,
            self._kinds,
            gpu=machine.gpus > 0,
            memory_gb=probed.memory_gb,
            system=probed.system,
            labels=probed.labels,
            speed=known.speed or probed.speed,
            link_mb_per_second=known.link_mb_per_second,
            bits=probed.bits,
        )
