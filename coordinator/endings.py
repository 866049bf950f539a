"""How a drive of a run ended, in words for people: which task failed, where and why, its log, and what to do next."""

from __future__ import annotations

import shlex

from coordinator.config import Experiment
from coordinator.entries import Entry
from coordinator.footprints import refuse_too_large
from coordinator.generation import Hold
from coordinator.ledger import Ledger, State
from coordinator.logs import log_place
from coordinator.unfit import REFUSED
from coordinator.view import summary
from shared_store.errors import RunFailedError, StoppedError
from shared_store.store import Store
from workers.tasks import Failure, task_id

_TOLD_WHOLE = 5  # failures; of a hundred alike the first ones say it


def check_ending(experiment: Experiment, store: Store, run: str, ledger: Ledger, hold: Hold) -> None:
    """Raise what a run that did not end well deserves: RunFailedError, StoppedError; UserError where it was refused."""
    if ledger.all_done:
        return
    if ledger.finished == REFUSED:
        refuse_too_large(experiment, ledger)
    if hold.successor is not None:
        raise StoppedError(f"Taken over by {hold.successor}: finished and committed work is kept, and goes on there.")
    if ledger.stopping:
        raise StoppedError("Finished and committed work is kept: the same command goes on from there.")
    failed = [entry for entry in ledger.entries.values() if entry.state is State.FAILED]
    mendable = {Failure.BAD_INPUT, Failure.STORE}
    ends = [entry.attempts[-1].outcome for entry in failed if entry.attempts]
    exit_code = 2 if ends and all(end is not None and end.failure in mendable for end in ends) else 1
    lines = [failure_text(entry, store, run) for entry in failed[:_TOLD_WHOLE]] or [summary(ledger)]
    if len(failed) > _TOLD_WHOLE:
        lines.append(f"and {len(failed) - _TOLD_WHOLE} more: {', '.join(e.task.name for e in failed[_TOLD_WHOLE:])}")
    lines.append("Finished work is kept: once that is mended, the same command goes on from there.")
    tracebacks = [end.traceback for end in ends if end is not None and end.traceback]
    raise RunFailedError("\n".join(lines), exit_code, "\n".join(tracebacks))


def failure_text(entry: Entry, store: Store, run: str) -> str:
    """A task that was given up: why (with where and a mend, as far as they are known), its machine, log and story."""
    name = task_id(entry.task)
    lines = [entry.reason]
    if entry.attempts:
        last = entry.attempts[-1]
        lines.append(f"  on:    {last.machine}, attempt {last.number}")
    log = log_place(store, name)
    lines += [f"  log:   {log}"] if log else []
    lines.append(f"  story: foldfleet explain {entry.task.name} --store {shlex.quote(store.url)} --run {run}")
    return "\n".join(lines)
