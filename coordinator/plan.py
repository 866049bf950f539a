"""What to do now: named rules over the ledger, the first that has something to say is heard. Pure, deterministic.

    finish             nothing runs and nothing can be done any more
    refuse             before anything has started: what is too large for every card that is here ends the run
    give_up_hopeless   a failure that retry.py will not try again ends its task
    give_up_unfit      what ran out of memory, and would on every machine that is here, is given up after a while
    stop_running       after a stop request every running attempt is told once, and nothing below is asked
    shut_out           a machine with three failures in a row takes nothing until it passes a probe
    probe_shut_out     a machine in quarantine is probed, later and later
    kill_hung          an attempt without a sign of life is ended
    leave_draining     what runs on a machine that will be taken back leaves it in time
    arrive             a fold that moves begins in the slot that is kept for it
    start_ready        the longest chain behind it goes first, onto the fastest free slot that it fits
    climb              with nothing waiting, a fold moves to an idle machine where it ends sooner, move included
    swap               with nothing waiting, the longer of two folds takes the faster of their machines
    yield_slot         at a commit a fold makes room for a waiting one that has much more before it

Whoever carries orders out asks again until no rule speaks: each sees what the orders before it changed. A task that
fits no present machine waits: one that it fits may join or return.

The level of a task is what remains of it and of the longest chain behind it; folds with the higher level on the faster
machines is the level algorithm for uniform machines (Horvath, Lam, Sethi 1977), which is optimal where moving is free.
Here it is not: `climb`, `swap` and `yield_slot` ask for a gain of some moves. How many was tuned in bench/placement.py.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.candidates import (
    SMALL_FLEET,
    Waiting,
    better_swap,
    climbers,
    fastest,
    fitting,
    gains,
    settled,
    waiting_kinds,
)
from coordinator.events import Drain, Finish, GiveUp, Kill, Migrate, Order, Probe, Start, Stop
from coordinator.ledger import Ledger
from coordinator.retry import quarantine
from coordinator.unfit import give_up_unfit, refuse, too_large
from workers.tasks import TrainTask

YIELD_EPOCHS, YIELD_MOVES = 10.0, 12.0
SWAP_EPOCHS, SWAP_MOVES = 2.0, 4.0
CLIMB_MOVES = 0.5
FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS = 60.0, 3600.0
LEAVE_SECONDS = 60.0  # before a machine is taken back, and twice the time of a move on top

_TRAIN = frozenset((TrainTask.kind,))

Rule = Callable[[Ledger], list[Order]]


def plan(ledger: Ledger) -> list[Order]:
    """What the first rule with something to say orders. Apply it and ask again, until nothing comes."""
    if ledger.finished is not None:
        return []
    for rule in BEFORE_A_STOP if ledger.stopping else RULES:
        orders = rule(ledger)
        if orders:
            return orders
    return []


def finish(ledger: Ledger) -> list[Order]:
    if ledger.running or ledger.finished is not None:
        return []
    if ledger.open == 0:
        return [Finish("all done" if ledger.all_done else "what is left has failed")]
    return [Finish("stopped")] if ledger.stopping and not ledger.board.hopeless else []


def give_up_hopeless(ledger: Ledger) -> list[Order]:
    return [GiveUp(task, why) for task, why in sorted(ledger.board.hopeless.items())]


def stop_running(ledger: Ledger) -> list[Order]:
    return [Stop(task, run.number) for task, run in sorted(ledger.running.items()) if not run.told_to_stop]


def shut_out(ledger: Ledger) -> list[Order]:
    shut = ledger.slots.quarantine
    found = {machine: quarantine(ends) for machine, ends in ledger.slots.failed.items() if machine not in shut}
    return [Drain(machine, why) for machine, why in sorted(found.items()) if why is not None]


def probe_shut_out(ledger: Ledger) -> list[Order]:
    orders: list[Order] = []
    for machine, shut in sorted(ledger.slots.quarantine.items()):
        host = ledger.slots.hosts.get(machine)
        idle = host is not None and not host.probing and not any(place in ledger.slots.taken for place in host.places)
        delay = min(FIRST_PROBE_SECONDS * 2.0 ** min(shut.probes, 16), LONGEST_PROBE_SECONDS)
        if idle and ledger.now >= shut.since + delay:
            orders.append(Probe(machine))
    return orders


def kill_hung(ledger: Ledger) -> list[Order]:
    orders: list[Order] = []
    for task in ledger.heard:
        attempt = ledger.running[task]
        silent = ledger.now - attempt.heard
        if silent <= ledger.rules.hang_seconds:
            break  # the others were heard of later
        orders.append(Kill(task, attempt.number, f"no sign of life for {silent / 60:.0f} minutes"))
    return orders


def leave_draining(ledger: Ledger) -> list[Order]:
    """To a free slot at once where there is one, else at the last moment; what ends in time stays."""
    for machine in sorted(ledger.slots.draining):
        host = ledger.slots.hosts[machine]
        assert host.draining_until is not None
        left = host.draining_until - ledger.now
        for task in (ledger.slots.taken[place] for place in host.places if place in ledger.slots.taken):
            attempt, kind = ledger.running[task], ledger.entries[task].task.kind
            if attempt.told_to_stop or ledger.estimates.remaining_seconds(task, machine).high < left:
                continue
            open_places = fastest(ledger, frozenset((kind,)))
            free = next((place for place in open_places if fitting(ledger, task, place[0]) is not None), None)
            if free is not None:
                return [Migrate(task, attempt.number, *free)]
            if left <= LEAVE_SECONDS + 2 * ledger.estimates.move_seconds(machine):
                return [Stop(task, attempt.number, f"{machine} will be taken back")]
    return []


def arrive(ledger: Ledger) -> list[Order]:
    orders: list[Order] = []
    for task, place in sorted(ledger.slots.targets.items()):
        entry = ledger.entries[task]
        if entry.queued is None or not ledger.slots.vacant(place):
            continue
        how = fitting(ledger, task, place[0], avoiding=False)  # it was chosen when there was nowhere better
        assert how is not None, f"moves to {place}, which it does not fit\n{ledger.story(task)}"
        orders.append(Start(task, *place, len(entry.attempts) + 1, how.micro_batch))
    return orders


def start_ready(ledger: Ledger) -> list[Order]:
    if not ledger.slots.free or not ledger.board.waiting or too_large(ledger) is not None:
        return []  # a larger card may be about to join
    orders: list[Order] = []
    queue = Waiting(ledger)
    for machine, slot in fastest(ledger, waiting_kinds(ledger)):
        found = queue.best(machine)
        if found is not None:
            attempt = len(ledger.entries[found.task].attempts) + 1
            orders.append(Start(found.task, machine, slot, attempt, found.fit.micro_batch))
            queue.take(found.task)
    return orders


def climb(ledger: Ledger) -> list[Order]:
    free = fastest(ledger, _TRAIN) if ledger.freed or ledger.committed else []
    if not free:
        return []
    estimates, best, order = ledger.estimates, 0.0, None
    fast = estimates.speed(free[0][0])
    for task in climbers(ledger) if ledger.freed else sorted(ledger.committed):
        if estimates.speed(ledger.running[task].machine) >= fast or estimates.level(task) <= best:
            continue
        attempt = settled(ledger, task)
        if attempt is None:
            continue
        for machine, slot in free:
            if estimates.speed(machine) <= estimates.speed(attempt.machine):
                break
            if not gains(ledger, task, machine, CLIMB_MOVES):
                if len(free) > SMALL_FLEET:
                    break  # the others are slower
            elif fitting(ledger, task, machine) is not None:
                best, order = estimates.level(task), Migrate(task, attempt.number, machine, slot)
                break
    return [] if order is None else [order]


def swap(ledger: Ledger) -> list[Order]:
    if ledger.board.waiting or not ledger.committed:
        return []
    for task in sorted(ledger.committed):
        pair = better_swap(ledger, task, SWAP_EPOCHS, SWAP_MOVES, CLIMB_MOVES)
        if pair is not None:
            one, other = (ledger.running[name] for name in pair)
            return [
                Migrate(pair[0], one.number, other.machine, other.slot),
                Migrate(pair[1], other.number, one.machine, one.slot),
            ]
    return []


def yield_slot(ledger: Ledger) -> list[Order]:
    if not ledger.board.waiting:
        return []
    estimates = ledger.estimates
    most = max(-queue[0][0] for queue in ledger.board.waiting.values())
    for task in sorted(ledger.committed):
        attempt = settled(ledger, task)
        if attempt is None or not ledger.slots.open(attempt.machine):
            continue
        machine = attempt.machine
        least = YIELD_EPOCHS * estimates.epoch_seconds(task, machine).middle
        least += YIELD_MOVES * estimates.move_seconds(machine)
        if estimates.seconds(most - estimates.level(task), machine) <= least:
            continue  # whether or not the most urgent fits here
        queue = Waiting(ledger)
        found = queue.best(machine)
        for _ in ledger.leaving:  # each makes room for one
            if found is not None:
                queue.take(found.task)
                found = queue.best(machine)
        if found is not None and estimates.seconds(found.level - estimates.level(task), machine) > least:
            return [Stop(task, attempt.number, f"{ledger.entries[found.task].task.name} has more before it")]
    return []


BEFORE_A_STOP: tuple[Rule, ...] = (finish, give_up_hopeless, stop_running, kill_hung)
RULES: tuple[Rule, ...] = (
    finish,
    refuse,
    give_up_hopeless,
    give_up_unfit,
    shut_out,
    probe_shut_out,
    kill_hung,
    leave_draining,
    arrive,
    start_ready,
    climb,
    swap,
    yield_slot,
)
