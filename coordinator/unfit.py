"""What no machine here has the memory for: refused before anything starts, or given up after it was tried. Pure."""

from __future__ import annotations

from coordinator.entries import State
from coordinator.events import Finish, GiveUp, MachineJoined, Order
from coordinator.fit import largest_too_small, refusal
from coordinator.ledger import Ledger
from coordinator.retry import Needs
from workers.tasks import Failure, Task

REFUSED = "refused: what is to be trained needs a larger card"
UNFIT_SECONDS = 600.0  # a larger card may come back or join meanwhile


def refuse(ledger: Ledger) -> list[Order]:
    """The run ends before its first start when all machines have had the time to join."""
    if ledger.now < ledger.joined_at + ledger.rules.settle_seconds or too_large(ledger) is None:
        return []
    return [Finish(REFUSED)]


def too_large(ledger: Ledger) -> tuple[Task, Needs, MachineJoined] | None:
    """The first task that every machine here is too small for, and the largest of them, while nothing has started.

    Once something has, such a task waits for a larger card to come back.
    """
    rules, seen = ledger.rules, set[tuple[Needs, str | None]]()
    if ledger.begun or not rules.needs:
        return None
    hosts = [host.joined for _, host in sorted(ledger.slots.hosts.items())]
    for name, entry in ledger.entries.items():
        needs, pin = rules.needs.get(name), rules.pins.get(name)
        if needs is None or needs.footprint is None or entry.state is State.DONE or (needs, pin) in seen:
            continue
        seen.add((needs, pin))
        largest = largest_too_small(entry.task, needs, pin, hosts)
        if largest is not None:
            return entry.task, needs, largest
    return None


def give_up_unfit(ledger: Ledger) -> list[Order]:
    if not ledger.short_of_memory:
        return []
    hosts = [host.joined for _, host in sorted(ledger.slots.hosts.items())]
    orders: list[Order] = []
    for task in sorted(ledger.short_of_memory):
        entry, rules = ledger.entries[task], ledger.rules
        history = entry.history()
        takers = [host for host in hosts if entry.task.kind in host.kinds]
        if entry.queued is None or not takers or ledger.now < history[-1].at + UNFIT_SECONDS:
            continue
        why = refusal(entry.task, rules.needs.get(task), rules.pins.get(task), history, takers)
        if why:
            orders.append(GiveUp(task, f"{entry.task.name}: {Failure.OUT_OF_MEMORY}: {why}"))
    return orders
