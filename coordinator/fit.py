"""May this task run on this machine, and with how many images on the card at once? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.events import MachineJoined
from coordinator.retry import Ended, Needs, smaller_micro_batch
from workers.tasks import Failure, Task, TrainTask


@dataclass(frozen=True)
class Fit:
    """A task may run, with the recipe's own micro-batch (None) or a smaller one."""

    micro_batch: int | None = None


WHOLE = Fit()


def fit(
    task: Task, needs: Needs | None, pin: str | None, history: Sequence[Ended], host: MachineJoined
) -> Fit | None:
    """How `task` may start on `host`, or None: kind not taken, pinned elsewhere, needs not met, out of memory before.

    A machine whose memory is not known counts as large enough until it ran out of it.
    """
    if task.kind not in host.kinds or (pin is not None and pin != host.machine):
        return None
    if needs is not None and not _met(needs, host):
        return None
    short = [end for end in history if end.outcome.failure is Failure.OUT_OF_MEMORY and _no_more(host, end)]
    return WHOLE if not short else _smaller(task, short)


def rather_not(history: Sequence[Ended]) -> frozenset[str]:
    """Machines where it crashed or hung: it goes elsewhere while there is an elsewhere."""
    bad = (Failure.CRASHED, Failure.HUNG)
    return frozenset(end.machine for end in history if end.outcome.failure in bad)


def _met(needs: Needs, host: MachineJoined) -> bool:
    enough = host.memory_gb is None or host.memory_gb >= needs.memory_gb
    system = needs.system in ("", host.system)
    return enough and system and (not needs.label or needs.label in host.labels)


def _no_more(host: MachineJoined, end: Ended) -> bool:
    """Whether `host` has no more memory than where `end` ran out of it, as far as is known."""
    if end.machine == host.machine:
        return True
    return host.memory_gb is not None and end.memory_gb is not None and host.memory_gb <= end.memory_gb


def _smaller(task: Task, short: Sequence[Ended]) -> Fit | None:
    """The largest micro-batch below all that did not fit. A number that the person set is never lowered."""
    if not isinstance(task, TrainTask) or task.recipe["micro_batch"] is not None:
        return None
    batch = task.recipe["batch_size"]
    least = min(batch if end.micro_batch is None else end.micro_batch for end in short)
    size = smaller_micro_batch(batch, least)
    return None if size is None else Fit(size)
