"""All tasks of a run by what is shown of them: how many of each stage are done, which are urgent. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.display import Stage
from coordinator.entries import State
from coordinator.ledger import Ledger
from workers.tasks import TrainTask

_URGENT = (State.FAILED, State.ENDED)


@dataclass(frozen=True)
class Tally:
    """Counted at one moment; `urgent` and `others` are ids."""

    stages: tuple[Stage, ...]
    urgent: tuple[str, ...]  # failed, or waiting to be tried again
    others: tuple[str, ...]  # folds that neither run nor are urgent
    folds: int
    folds_done: int


def tally(ledger: Ledger) -> Tally:
    """Count the ledger's tasks by stage and state, in the order of the graph."""
    found: dict[str, list[int]] = {}
    for entry in ledger.entries.values():
        counts = found.setdefault(entry.task.name.partition("/")[0], [0, 0])
        counts[0] += entry.state is State.DONE
        counts[1] += 1
    folds = {name: entry.state for name, entry in ledger.entries.items() if isinstance(entry.task, TrainTask)}
    return Tally(
        tuple(Stage(name, done, count) for name, (done, count) in found.items()),
        tuple(name for name, entry in ledger.entries.items() if entry.state in _URGENT),
        tuple(name for name, state in folds.items() if state not in (State.RUNNING, *_URGENT)),
        len(folds),
        sum(state is State.DONE for state in folds.values()),
    )
