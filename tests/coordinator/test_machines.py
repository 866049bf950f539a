"""Machines of a cluster come when their probe has answered, and go as Ray says: for sure, or only out of reach."""

from __future__ import annotations

import time
from typing import Any

import pytest

from coordinator.actors import Machine
from coordinator.config import FleetSection
from coordinator.events import MachineCut, MachineDraining, MachineJoined, MachineLeft
from coordinator.machines import Machines
from workers.tasks import Probed

EXPECTED, UNEXPECTED, PREEMPTED = 1, 2, 3  # ray's NodeDeathInfo.Reason


class Cluster:
    """What Ray says of its nodes, and the processes and probes there: it stands in for all three."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.draining: dict[str, int] = {}
        self.found: list[tuple[str, Probed]] = []
        self.asked: list[str] = []
        self.dismissed: list[str] = []
        monkeypatch.setattr("coordinator.machines.ray.nodes", lambda: list(self.nodes.values()))
        monkeypatch.setattr("coordinator.machines.ray_state.get_draining_nodes", lambda: self.draining)
        monkeypatch.setattr("coordinator.machines.Probes", lambda _actors: self)
        actors: Any = self
        self.machines = Machines(FleetSection(address="auto"), actors, ("train",), lambda: 50.0)

    def begin(self, name: str, node: str) -> None:
        resources = {"CPU": 2.0}
        self.nodes[node] = {"NodeID": node, "NodeManagerHostname": name, "Alive": True, "Resources": resources}

    def end(self, node: str, reason: int) -> None:
        self.nodes[node] |= {"Alive": False, "DeathReason": reason, "DeathReasonMessage": "so it was"}

    def at(self, _machine: Machine, _slot: int) -> None: ...

    def dismiss_all(self, machine: str) -> None:
        self.dismissed.append(machine)

    def ask(self, machine: Machine, *, timed: bool) -> None:
        assert timed
        self.asked.append(machine.name)

    def forget(self, machine: str) -> None:
        self.asked.remove(machine)

    def answers(self) -> list[tuple[str, Probed]]:
        found, self.found = self.found, []
        return found


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_a_machine_joins_with_what_its_probe_found_or_without_numbers(cluster: Cluster) -> None:
    cluster.begin("desk", "n1")
    cluster.begin("attic", "n2")
    assert cluster.machines.changes() == [] and cluster.asked == ["attic", "desk"]
    cluster.found = [("desk", Probed(True, "", "linux", ("loud",), 8.0, 3.5)), ("attic", Probed(False, "no answer"))]
    assert cluster.machines.changes() == [
        MachineJoined("desk", 2, ("train",), False, 8.0, "linux", ("loud",), 3.5),
        MachineJoined("attic", 2, ("train",)),
    ]


@pytest.mark.parametrize(
    ("reason", "fact"), [(EXPECTED, MachineLeft), (PREEMPTED, MachineLeft), (UNEXPECTED, MachineCut)]
)
def test_only_an_end_that_ray_was_told_of_is_one_for_sure(
    cluster: Cluster, reason: int, fact: type[MachineLeft] | type[MachineCut]
) -> None:
    cluster.begin("desk", "n1")
    cluster.begin("attic", "n2")
    cluster.machines.changes()
    cluster.found = [("desk", Probed(True))]
    cluster.machines.changes()
    cluster.end("n1", reason)
    cluster.end("n2", reason)  # nobody was told that it is here
    assert cluster.machines.changes() == [fact("desk", "so it was")]
    assert sorted(cluster.dismissed) == ["attic", "desk"] and not cluster.machines.named
    cluster.begin("desk", "n3")
    cluster.machines.changes()
    assert list(cluster.machines.named) == ["desk"]


def test_a_machine_that_ray_takes_back_is_told_of_once_with_when(cluster: Cluster) -> None:
    cluster.begin("desk", "n1")
    cluster.draining = {"n1": int(1000 * (time.time() + 3600))}
    cluster.machines.changes()
    cluster.found = [("desk", Probed(True))]
    joined, draining = cluster.machines.changes()
    assert isinstance(joined, MachineJoined) and isinstance(draining, MachineDraining)
    assert 3000 < draining.until - 50 <= 3600
    assert cluster.machines.changes() == []
