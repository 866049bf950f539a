"""May this task run on this machine, and with how many images on the card at once? Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from coordinator.events import MachineJoined
from coordinator.retry import Ended, Needs, cards_text, less_memory, next_micro_batch, too_small
from coordinator.variants import recipe_of, section_of
from shared_store.errors import UserError
from workers.footprint import Footprint
from workers.tasks import Failure, Task, TrainTask


@dataclass(frozen=True)
class Fit:
    """A task may run, with the recipe's own micro-batch (None) or a smaller one."""

    micro_batch: int | None = None


WHOLE = Fit()
_EQUAL = 1.05  # cards of one size differ by what their drivers keep


def fit(task: Task, needs: Needs | None, pin: str | None, history: Sequence[Ended], host: MachineJoined) -> Fit | None:
    """How `task` may start on `host`, or None: kind not taken, pinned elsewhere, needs not met, out of memory before.

    A machine whose memory is not known counts as large enough until it ran out of it. What a fold takes of a card was
    reckoned, or is not known either.
    """
    if not _allowed(task, needs, pin, host):
        return None
    room = _room(needs, host)
    if room == 0:
        return None
    reckoned = None if room is None or room == _most(task) else room
    short = [end for end in history if end.outcome.failure is Failure.OUT_OF_MEMORY and _no_more(host, end)]
    if not short:
        return Fit(reckoned)
    size = next_micro_batch(task, short)
    return None if size is None else Fit(min(size, reckoned or size))


def refusal(
    task: Task, needs: Needs | None, pin: str | None, history: Sequence[Ended], hosts: Sequence[MachineJoined]
) -> str:
    """Why `task` fits none of these machines, for people, with a mend where there is one; "" where it fits one."""
    if any(fit(task, needs, pin, history, host) is not None for host in hosts):
        return ""
    left = [host for host in hosts if task.kind in host.kinds]
    if not left:
        return f"no machine here takes {task.kind} tasks"
    left = [host for host in left if pin in (None, host.machine)]
    if not left:
        return f"it may run only on {pin}, which is not here"
    met = left if needs is None else [host for host in left if _met(needs, host)]
    if not met:
        assert needs is not None
        return _unmet(needs, left)
    if (largest := largest_too_small(task, needs, pin, met)) is not None and needs is not None:
        refused = memory_refusal(task, needs, largest)
        return f"{refused.what}\n  mend:  {refused.mend}"
    return (
        f"{cards_text(task, too_small(task, history))}; no machine here has more memory\n  mend:  {less_memory(task)}"
    )


def largest_too_small(
    task: Task, needs: Needs | None, pin: str | None, hosts: Sequence[MachineJoined]
) -> MachineJoined | None:
    """The one with the most memory of all machines that may run `task` if each one's card was reckoned too small."""
    able = [host for host in hosts if _allowed(task, needs, pin, host)]
    if not able or any(_room(needs, host) != 0 for host in able):
        return None
    return max(able, key=lambda host: (host.memory_gb or 0.0, -(host.bits or 0), host.machine))


def memory_refusal(task: Task, needs: Needs, largest: MachineJoined, spared: Footprint | None = None) -> UserError:
    """The words for a task that not even the `largest` card is large enough for; `spared` as in a footprint's."""
    assert needs.footprint is not None and largest.memory_gb is not None, f"nothing was reckoned of {task.name}"
    where = f"the largest card here, of {largest.machine},"
    section = section_of(recipe_of(task.name))
    return needs.footprint.refusal(section, largest.memory_gb, largest.bits, where, spared)


def rather_not(history: Sequence[Ended]) -> frozenset[str]:
    """Machines where it crashed or hung, or was lost again before it came to a commit: there is an elsewhere first."""
    bad = {end.machine for end in history if end.outcome.failure in (Failure.CRASHED, Failure.HUNG)}
    barren = takewhile(lambda end: not end.committed, reversed(history))
    lost = Counter(end.machine for end in barren if end.outcome.failure is Failure.LOST)
    return frozenset(bad | {machine for machine, times in lost.items() if times > 1})


def tells_of_machines(history: Sequence[Ended]) -> bool:
    """Whether its ends say where not to try again, so that it fits other machines than its like."""
    return bool(rather_not(history)) or any(end.outcome.failure is Failure.OUT_OF_MEMORY for end in history)


def _allowed(task: Task, needs: Needs | None, pin: str | None, host: MachineJoined) -> bool:
    """Whether `task` may run on `host` by what people said, memory that nobody spoke of aside."""
    return task.kind in host.kinds and pin in (None, host.machine) and (needs is None or _met(needs, host))


def _room(needs: Needs | None, host: MachineJoined) -> int | None:
    """How many images at once the card of `host` has room for, 0: not for one; None: nothing is known against it.

    Memory of a machine without a card is not shared out by anybody: what it can do is tried.
    """
    if needs is None or needs.footprint is None or not host.gpu or host.memory_gb is None:
        return None
    return needs.footprint.images(host.memory_gb, host.bits) or 0


def _most(task: Task) -> int | None:
    """How many images a task has on the card at once where there is room."""
    return task.recipe["micro_batch"] or task.recipe["batch_size"] if isinstance(task, TrainTask) else None


def _met(needs: Needs, host: MachineJoined) -> bool:
    enough = host.memory_gb is None or host.memory_gb >= needs.memory_gb
    system = needs.system in ("", host.system)
    return enough and system and (not needs.label or needs.label in host.labels)


def _unmet(needs: Needs, hosts: Sequence[MachineJoined]) -> str:
    """Which of the needs no machine meets; where each is met by some machine and no machine meets all, all of them."""
    if needs.system and all(host.system != needs.system for host in hosts):
        return f"needs {needs.system}; here are {', '.join(sorted({host.system or 'unknown' for host in hosts}))}"
    if needs.label and all(needs.label not in host.labels for host in hosts):
        return f"needs a machine with the label {needs.label}; no machine here has it"
    known = [host.memory_gb for host in hosts if host.memory_gb is not None]
    if len(known) == len(hosts) and max(known) < needs.memory_gb:
        return f"needs {needs.memory_gb:g} GB; the largest card here has {max(known):g}"
    asked = [f"{needs.memory_gb:g} GB"] * (needs.memory_gb > 0) + [needs.system] * (needs.system != "")
    asked += [f"the label {needs.label}"] * (needs.label != "")
    return f"needs {' and '.join(asked)}; no machine here has all of it"


def _no_more(host: MachineJoined, end: Ended) -> bool:
    """Whether `host` has no more memory than where `end` ran out of it, as far as is known."""
    if end.machine == host.machine:
        return True
    if host.memory_gb is None or end.memory_gb is None:
        return False
    return host.memory_gb <= _EQUAL * end.memory_gb
