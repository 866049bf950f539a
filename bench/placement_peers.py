"""How others place folds: the author's hand schedule, a plain queue, a queue with resume, HEFT. For bench.placement."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.candidates import fastest, fitting, waiting_kinds
from coordinator.events import Order, Start
from coordinator.ledger import Ledger
from coordinator.plan import finish, give_up_hopeless
from coordinator.simulated_store import SimulatedCommit, SimulatedStore
from workers.tasks import TrainTask


class ForgetfulStore(SimulatedStore):
    """Keeps results only: who begins a fold begins it from its first epoch."""

    def put_commit(self, task: str, number: int, commit: SimulatedCommit) -> SimulatedCommit:
        return commit

    def last(self, task: str) -> tuple[int, SimulatedCommit | None]:
        return 0, None


def queue(ledger: Ledger) -> list[Order]:
    """First come, first served, by whichever machine is free; nothing ever moves."""
    return finish(ledger) or give_up_hopeless(ledger) or _first_come(ledger)


class Assigned:
    """Every fold has its machine from the start, as `assign` deals them; where that is away, its folds wait."""

    def __init__(self, assign: Callable[[Ledger], dict[str, str]]) -> None:
        self._assign = assign
        self._machines: dict[str, str] | None = None

    def __call__(self, ledger: Ledger) -> list[Order]:
        if self._machines is None and len(ledger.slots.hosts) > 1:
            self._machines = self._assign(ledger)
        return finish(ledger) or give_up_hopeless(ledger) or _first_come(ledger, self._machines)


def hand_schedule(ledger: Ledger) -> dict[str, str]:
    """The author's: folds dealt over the machines once, in turn, the fastest first, and the same for both rounds."""
    machines = _by_speed(ledger)
    trained = [name for name, task in ledger.graph.tasks.items() if isinstance(task, TrainTask)]
    return {name: machines[i % 5 % len(machines)] for i, name in enumerate(trained)}


def heft(ledger: Ledger) -> dict[str, str]:
    """HEFT (Topcuoglu, Hariri, Wu 2002): by upward rank, each task where it ends earliest, by expected times."""
    machines, estimates = _by_speed(ledger), ledger.estimates
    free, ends, chosen = dict.fromkeys(machines, 0.0), dict[str, float](), dict[str, str]()
    for name in ledger.board.by_rank:
        task = ledger.graph.tasks[name]
        begin = max((ends.get(item, 0.0) for item in task.inputs), default=0.0)
        if not isinstance(task, TrainTask):
            ends[name] = begin
            continue
        left = estimates.remaining_epochs(name).middle * 600.0
        best = min(machines, key=lambda m: (max(free[m], begin) + left / estimates.speed(m), m))
        chosen[name], ends[name] = best, max(free[best], begin) + left / estimates.speed(best)
        free[best] = ends[name]
    return chosen


def _by_speed(ledger: Ledger) -> list[str]:
    hosts = [name for name, host in ledger.slots.hosts.items() if TrainTask.kind in host.joined.kinds]
    return sorted(hosts, key=lambda name: (-ledger.estimates.speed(name), name))


def _first_come(ledger: Ledger, assigned: Mapping[str, str] | None = None) -> list[Order]:
    if not ledger.slots.free or not ledger.board.waiting:
        return []
    places = {name: place for place, name in enumerate(ledger.graph.tasks)}
    waits = [ledger.board.by_rank[rank] for queued in ledger.board.waiting.values() for _, rank in queued]
    free = list(fastest(ledger, waiting_kinds(ledger)))
    orders: list[Order] = []
    for task in sorted(waits, key=places.__getitem__):
        want = None if assigned is None else assigned.get(task)
        takes = (place for place in free if want in (None, place[0]) and fitting(ledger, task, place[0]) is not None)
        place = next(takes, None)
        if place is not None:
            free.remove(place)
            orders.append(Start(task, *place, len(ledger.entries[task].attempts) + 1))
    return orders
