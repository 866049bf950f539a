"""Machines of a cluster come when their probe has answered, and go as Ray says: for sure, or only out of reach."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.actors import Machine
from coordinator.config import FleetSection
from coordinator.events import Fact, MachineCut, MachineDraining, MachineJoined, MachineLeft
from coordinator.machines import Machines
from coordinator.measured import Known
from coordinator.nodes import Looks, Seen
from shared_store.errors import UserError
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
        monkeypatch.setattr("coordinator.machines.Probes", lambda _actors: self)
        monkeypatch.setattr("coordinator.machines.ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="head"))
        monkeypatch.setattr("coordinator.machines.let_go", lambda *given: self.let_go.append(given))
        monkeypatch.setattr("coordinator.machines.end_node", self.end_node)
        self.let_go: list[tuple[Any, ...]] = []
        self.ended: list[tuple[Any, ...]] = []
        self.unheard = 0  # times that the head does not answer who has it end a node
        actors: Any = self
        measured = {"m1": Known(speed=7.5, link_mb_per_second=12.0), "m2": Known(link_mb_per_second=4.0)}
        looks = Looks(lambda: Seen(dict(self.nodes), dict(self.draining)))
        settings, kinds = FleetSection(address="auto"), ("train",)
        self.machines = Machines(settings, actors, kinds, lambda: 50.0, measured=measured, looks=looks)

    def begin(self, host: str, node: str, **labels: str) -> None:
        """`labels`: what `foldfleet join` says of the machine: id, name, until."""
        told = {f"foldfleet-{label}": value for label, value in labels.items()}
        node_told = {"NodeID": node, "NodeManagerHostname": host, "Labels": told, "Resources": {"CPU": 2.0}}
        self.nodes[node] = {**node_told, "Alive": True}

    def end(self, node: str, reason: int) -> None:
        self.nodes[node] |= {"Alive": False, "DeathReason": reason, "DeathReasonMessage": "so it was"}

    def end_node(self, *given: Any) -> None:
        self.ended.append(given)
        if self.unheard > 0:
            self.unheard -= 1
            raise UserError("the head does not do what is asked", where="head", mend="try again in a minute")

    def at(self, _machine: Machine, _slot: int) -> None: ...

    def dismiss_all(self, machine: str) -> None:
        self.dismissed.append(machine)

    def ask(self, machine: Machine, *, timed: bool) -> None:
        assert timed
        self.asked.append(machine.name)

    def forget(self, machine: str) -> None:
        self.asked = [one for one in self.asked if one != machine]

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


def test_what_the_doctor_measured_comes_before_the_probe_where_it_did(cluster: Cluster) -> None:
    cluster.begin("desk", "n1", id="m1", name="desk")
    cluster.begin("attic", "n2", id="m2", name="attic")
    cluster.machines.changes()
    cluster.found = [
        ("desk", Probed(True, "", "linux", (), 8.0, 3.5)),
        ("attic", Probed(True, "", "linux", (), 8.0, 2.5)),
    ]
    joined = [fact for fact in cluster.machines.changes() if isinstance(fact, MachineJoined)]
    assert [(one.machine, one.speed, one.link_mb_per_second) for one in joined] == [
        ("desk", 7.5, 12.0),
        ("attic", 2.5, 4.0),
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


def met(cluster: Cluster) -> list[Fact]:
    """All that is told until nothing more is; every probe passes."""
    facts = cluster.machines.changes()
    cluster.found = [(name, Probed(True)) for name in cluster.asked]
    cluster.asked.clear()
    return [*facts, *cluster.machines.changes()]


def test_a_machine_has_the_name_that_it_joined_with(cluster: Cluster) -> None:
    cluster.begin("localhost", "n1", id="1", name="attic")
    cluster.begin("localhost", "n2", id="2", name="desk")
    assert sorted(fact.machine for fact in met(cluster) if isinstance(fact, MachineJoined)) == ["attic", "desk"]


def test_a_machine_that_is_called_as_the_driver_gets_another_name(cluster: Cluster) -> None:
    cluster.begin("driver", "abcdef012345")
    cluster.machines.changes()
    assert cluster.asked == ["driver-abcdef"]


def test_a_machine_that_is_back_under_another_address_is_the_same_one(cluster: Cluster) -> None:
    cluster.begin("attic", "n1", id="1", name="attic")
    met(cluster)
    cluster.begin("attic", "n2", id="1", name="attic")  # Ray has not missed the first node yet
    assert met(cluster) == [MachineCut("attic", "it came back"), MachineJoined("attic", 2, ("train",))]
    assert cluster.machines.named["attic"].node == "n2" and met(cluster) == []
    cluster.end("n1", UNEXPECTED)
    assert met(cluster) == [] and cluster.machines.named["attic"].node == "n2"


def test_of_two_nodes_of_one_machine_the_one_that_lives_stays(cluster: Cluster) -> None:
    cluster.begin("attic", "n1", id="1", name="attic")
    cluster.begin("attic", "n2", id="1", name="attic")  # which is the older one nobody says
    met(cluster)
    kept = cluster.machines.named["attic"].node
    cluster.end(kept, UNEXPECTED)
    met(cluster)
    assert {kept, cluster.machines.named["attic"].node} == {"n1", "n2"}


def test_a_machine_that_joined_until_some_time_is_let_go_then(cluster: Cluster) -> None:
    tonight, soon = int(time.time() + 7200), int(time.time() + 300)
    cluster.begin("desk", "n1", id="1", name="desk", until=str(tonight))
    cluster.begin("attic", "n2", id="2", name="attic", until=str(soon))
    leaving = [fact for fact in met(cluster) if isinstance(fact, MachineDraining)]
    assert [fact.machine for fact in leaving] == ["attic"] and 290 < leaving[0].until - 50 <= 300
    assert [given[:3] for given in cluster.let_go] == [("head", "n2", float(soon))]
    assert cluster.machines.changes() == [] and len(cluster.let_go) == 1


def test_a_machine_whose_time_was_up_before_anybody_looked_is_given_a_minute(cluster: Cluster) -> None:
    cluster.begin("attic", "n1", id="1", name="attic", until=str(int(time.time() - 3600)))
    facts = met(cluster)
    assert isinstance(facts[-1], MachineDraining)
    assert cluster.let_go[0][2] > time.time() + 30


def test_what_is_left_on_a_machine_whose_time_is_up_is_ended_once(cluster: Cluster) -> None:
    cluster.begin("desk", "n1", id="1", name="desk")
    cluster.begin("attic", "n2", id="2", name="attic")
    cluster.draining = {"n1": int(1000 * time.time()) - 5_000, "n2": int(1000 * time.time()) - 60_000}
    met(cluster)
    assert cluster.machines.changes() == [] and cluster.machines.changes() == []
    assert cluster.ended == [("head", "n2")]


def test_a_head_that_does_not_hear_whom_to_end_is_asked_again(cluster: Cluster) -> None:
    cluster.begin("attic", "n1", id="1", name="attic")
    cluster.draining = {"n1": int(1000 * time.time()) - 60_000}
    cluster.unheard = 1
    met(cluster)
    for _ in range(3):
        cluster.machines.changes()
    assert cluster.ended == [("head", "n1")] * 2
