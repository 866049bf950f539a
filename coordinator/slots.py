"""Which machines are here, and which of their slots are free, taken or kept for a fold that moves. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from coordinator.events import MachineJoined
from workers.tasks import Outcome

Place = tuple[str, int]
"""(machine, slot)"""


@dataclass
class Quarantine:
    """A machine takes nothing until it passes a probe."""

    why: str
    since: float  # seconds on the ledger's clock: the beginning, or the last probe
    probes: int = 0


@dataclass
class Host:
    """A machine that is here: what it offered when it joined, and what became of it since."""

    joined: MachineJoined
    draining_until: float | None = None  # seconds on the ledger's clock: it will be taken back then
    probing: bool = False

    @property
    def places(self) -> list[Place]:
        return [(self.joined.machine, slot) for slot in range(self.joined.slots)]


@dataclass
class Fastest:
    """Free slots in the order of their speeds, as of a state of the slots."""

    changes: int = -1
    places: list[Place] = field(default_factory=list)


@dataclass
class Extremes:
    """Running tasks of a large fleet that are looked at for all, as of so many commits of the run."""

    commits: int | None = None
    partners: list[str] = field(default_factory=list)
    climbers: list[str] = field(default_factory=list)


class Slots:
    """Every slot of every machine that is here. `free`: vacant, kept for nobody, on a machine that takes work."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.free: set[Place] = set()
        self.changes = 0  # how often what is free may have changed
        self.taken: dict[Place, str] = {}  # the task that runs there
        self.kept: dict[Place, str] = {}  # the task that moves there
        self.targets: dict[str, Place] = {}  # the same by task
        self.draining: set[str] = set()  # machines that are here and will be taken back
        self.quarantine: dict[str, Quarantine] = {}  # machines, here or not, that must pass a probe first
        self.failed: dict[str, list[Outcome]] = defaultdict(list)  # by machine: ends in a row that count against it

    def open(self, machine: str) -> bool:
        """Whether new work may start on a machine."""
        host = self.hosts.get(machine)
        return host is not None and host.draining_until is None and machine not in self.quarantine

    def vacant(self, place: Place) -> bool:
        """Whether nothing runs in a slot of a machine that is here."""
        host = self.hosts.get(place[0])
        return host is not None and place[1] < host.joined.slots and place not in self.taken

    def startable(self, place: Place, task: str) -> bool:
        """Whether `task` may begin in a slot: it is free, or kept for it and vacant."""
        return place in self.free or (self.kept.get(place) == task and self.vacant(place))

    def join(self, machine: MachineJoined) -> None:
        self.changes += 1
        assert machine.machine not in self.hosts, f"{machine.machine} joined twice"
        self.hosts[machine.machine] = Host(machine)
        self._refresh(machine.machine)

    def leave(self, machine: str) -> list[str]:
        """Forget a machine; the tasks that ran there, which the caller closes."""
        self.changes += 1
        host = self.hosts.pop(machine)
        self.draining.discard(machine)
        for place in host.places:
            self.free.discard(place)
            if (moving := self.kept.get(place)) is not None:
                self.release(moving)
        return [self.taken[place] for place in host.places if place in self.taken]

    def take(self, place: Place, task: str) -> None:
        """`task` begins in a slot that is `startable` for it."""
        self.changes += 1
        assert self.startable(place, task), f"{place} is not free for {task}"
        self.release(task)
        self.free.discard(place)
        self.taken[place] = task

    def vacate(self, place: Place) -> None:
        self.changes += 1
        del self.taken[place]
        self._refresh(place[0])

    def keep(self, place: Place, task: str) -> None:
        """Keep a slot for a task that moves there. Whoever runs in it now was asked to end."""
        self.changes += 1
        assert self.open(place[0]) and place not in self.kept, f"{place} cannot be kept for {task}"
        self.release(task)
        self.free.discard(place)
        self.kept[place], self.targets[task] = task, place

    def release(self, task: str) -> None:
        """Keep no slot for a task any more, if one was."""
        self.changes += 1
        place = self.targets.pop(task, None)
        if place is not None:
            del self.kept[place]
            self._refresh(place[0])

    def drain(self, machine: str, until: float) -> None:
        self.changes += 1
        self.hosts[machine].draining_until = until
        self.draining.add(machine)
        self._close(machine)

    def shut(self, machine: str, why: str, now: float) -> None:
        """Into quarantine."""
        self.changes += 1
        self.quarantine[machine] = Quarantine(why, now)
        self._close(machine)

    def probed(self, machine: str, passed: bool, now: float) -> None:
        """A probe's answer: out of quarantine, or not yet. A machine that left meanwhile is probed anew."""
        self.changes += 1
        if machine not in self.hosts:
            return
        self.hosts[machine].probing = False
        if passed:
            self.quarantine.pop(machine, None)
            self.failed.pop(machine, None)
            self._refresh(machine)
        elif machine in self.quarantine:
            shut = self.quarantine[machine]
            shut.since, shut.probes = now, shut.probes + 1

    def validate(self) -> None:
        """AssertionError where the indices do not say what the machines say."""
        places = {place for host in self.hosts.values() for place in host.places}
        vacant = {place for place in places if place not in self.taken}
        wanted = {place for place in vacant if self.open(place[0]) and place not in self.kept}
        assert self.free == wanted, f"free {sorted(self.free)}, should be {sorted(wanted)}"
        assert set(self.taken) <= places and set(self.kept) <= places, f"slots of nowhere: {self.taken} {self.kept}"
        assert {task: place for place, task in self.kept.items()} == self.targets, (self.kept, self.targets)
        assert all(self.open(machine) for machine, _ in self.kept), f"kept where nothing starts: {self.kept}"

    def _close(self, machine: str) -> None:
        if machine in self.hosts:
            for place in self.hosts[machine].places:
                self.free.discard(place)
                if (moving := self.kept.get(place)) is not None:
                    self.release(moving)

    def _refresh(self, machine: str) -> None:
        """Slots of an open machine that nobody has are free."""
        if self.open(machine):
            self.free.update(p for p in self.hosts[machine].places if p not in self.taken and p not in self.kept)
