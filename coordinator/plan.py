"""What to do now: named rules over the ledger, each a function from ledger to orders. Pure, deterministic.

    give_up_hopeless   a failure that retry.py will not try again ends its task
    stop_running       after a stop request every running attempt is told once
    start_ready        the task with the longest chain behind it goes first, onto a free slot that takes its kind
    finish             nothing runs and nothing can be done any more

A task that no present machine takes waits: a machine that takes it may join or return.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import merge

from coordinator.events import Finish, GiveUp, Order, Start, Stop
from coordinator.ledger import Ledger
from coordinator.retry import Verdict, judge

Verdicts = Mapping[str, Verdict]


def plan(ledger: Ledger) -> list[Order]:
    """The orders for this turn, at `ledger.now`. They are applied to the ledger when they go out."""
    verdicts = {
        task: judge(ledger.entries[task].task, ledger.entries[task].history(), ledger.rules.budgets)
        for task in sorted(ledger.ended)
    }
    orders: list[Order] = [*give_up_hopeless(verdicts)]
    orders += stop_running(ledger) if ledger.stopping else start_ready(ledger, verdicts)
    return orders or finish(ledger)


def give_up_hopeless(verdicts: Verdicts) -> list[Order]:
    return [GiveUp(task, verdict.why) for task, verdict in verdicts.items() if not verdict.again]


def stop_running(ledger: Ledger) -> list[Order]:
    return [Stop(task, run.number) for task, run in sorted(ledger.running.items()) if not run.told_to_stop]


def start_ready(ledger: Ledger, verdicts: Verdicts) -> list[Order]:
    """Fill free slots, the first slot of every machine before any second one."""
    queues = _queues(ledger, verdicts)
    heads = {kind: rank for kind, queue in queues.items() if (rank := next(queue, None)) is not None}
    orders: list[Order] = []
    for machine, slot in sorted(ledger.slots.free, key=lambda place: (place[1], place[0])) if heads else ():
        takes = ledger.slots.hosts[machine].joined.kinds
        kinds = [kind for kind, rank in heads.items() if ledger.entries[ledger.by_rank[rank]].task.kind in takes]
        if not kinds:
            continue
        kind = min(kinds, key=heads.__getitem__)
        task = ledger.by_rank[heads.pop(kind)]
        orders.append(Start(task, machine, slot, len(ledger.entries[task].attempts) + 1))
        following = next(queues[kind], None)
        if following is not None:
            heads[kind] = following
    return orders


def finish(ledger: Ledger) -> list[Order]:
    if ledger.running or ledger.finished:
        return []
    if ledger.open == 0:
        return [Finish("all done" if ledger.all_done else "what is left has failed")]
    return [Finish("stopped")] if ledger.stopping else []


def _queues(ledger: Ledger, verdicts: Verdicts) -> dict[str, Iterator[int]]:
    """Ranks that may start, by kind of work, most urgent first: the ready, and the failed whose delay is over."""
    again: dict[str, list[int]] = defaultdict(list)
    for task, verdict in verdicts.items():
        if verdict.again and verdict.not_before <= ledger.now:
            again[ledger.estimates.keys[task]].append(ledger.entries[task].rank)
    kinds = {kind for kind, ranks in ledger.ready.items() if ranks} | set(again)
    return {kind: merge(ledger.ready[kind], sorted(again[kind])) for kind in sorted(kinds)}
