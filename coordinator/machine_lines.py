"""The words for what becomes of machines, on the person's screen. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.events import (
    Drain,
    Event,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Probe,
)
from coordinator.ledger import Ledger

_LATE_SECONDS = 120.0


def machine_line(event: Event, ledger: Ledger, freed: Sequence[str] = ()) -> str:
    """What becomes of machines. The driver itself is not worth a word. `freed`: names of the tasks that ran there."""
    match event:
        case MachineJoined(machine) if "train" in event.kinds:
            late = f" {duration(ledger.now)} after the run began" if ledger.now >= _LATE_SECONDS else ""
            return f"{machine}: joined{late}, {_offer(event)}"
        case MachineLeft(machine, why):
            return f"{machine}: left{f' ({why})' if why else ''}{_goes_on(freed)}"
        case MachineCut(machine, why):
            return f"{machine}: lost, out of reach{f' ({why})' if why else ''}{_goes_on(freed)}"
        case MachineDraining(machine, until):
            return f"{machine}: taken back in {duration(max(0.0, until - ledger.now))}; nothing new starts there"
        case Drain(machine, why):
            return f"{machine}: in quarantine until it passes a probe: {why}"
        case Probe(machine):
            return f"{machine}: probed"
        case MachineProbed(machine, passed, what):
            return (
                f"{machine}: passed its probe, takes work again" if passed else f"{machine}: failed its probe: {what}"
            )
    return ""


def _goes_on(freed: Sequence[str]) -> str:
    if not freed:
        return ""
    some = ", ".join(freed[:3]) + (f" and {len(freed) - 3} more" if len(freed) > 3 else "")
    return f"; {some} {'goes' if len(freed) == 1 else 'go'} on elsewhere, from the last commit"


def _offer(machine: MachineJoined) -> str:
    """`2 slots of 11.5 GB, speed 14, linux, attic`, as far as it is known."""
    memory = f" of {machine.memory_gb:.1f} GB" if machine.memory_gb is not None else ""
    parts = [f"{machine.slots} {'slot' if machine.slots == 1 else 'slots'}{' on a GPU' * machine.gpu}{memory}"]
    parts += [f"speed {machine.speed:.3g}"] if machine.speed is not None else []
    link = machine.link_mb_per_second
    parts += [f"{link:.3g} MB/s to the store"] if link is not None else []
    return ", ".join([*parts, *([machine.system] if machine.system else []), *machine.labels])


def slower(task: str, ledger: Ledger) -> str:
    """` (attic runs at 60 % of its best speed)` where the machine of a running task was clearly faster before."""
    attempt = ledger.running.get(task)
    share = None if attempt is None else share_of_best(attempt.machine, ledger)
    return "" if attempt is None or share is None else f" ({attempt.machine} runs at {share:.0%} of its best speed)"


def share_of_best(machine: str, ledger: Ledger) -> float | None:
    """How fast a machine is now beside its best, where it has clearly become slower.

    None also where slots share its cores: there each is slower whenever another one works.
    """
    host = ledger.slots.hosts.get(machine)
    if host is None or (host.joined.slots > 1 and not host.joined.gpu):
        return None
    return ledger.estimates.throttled(machine)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
