"""What NVIDIA's own program says of this machine's cards: what they are, how full and warm, and who holds their memory.

It sees all of them, whatever CUDA_VISIBLE_DEVICES shows to a process. Nothing here loads torch or begins to use a card.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from workers.examined import Card, Holder

_PROGRAM = "nvidia-smi"
_CAPABILITY = "compute_cap"
_FIELDS = f"index,name,{_CAPABILITY},driver_version,memory.total,memory.used,temperature.gpu,uuid"
_FIELDS_OF_OLD_DRIVERS = _FIELDS.replace(
    _CAPABILITY, "serial"
)  # one that is asked for what it does not know says nothing
_FORMAT = "--format=csv,noheader,nounits"
_FIELDS_AFTER_THE_NAME = 6
_GB_OF_ONE_MIB = 2**20 / 1e9
_PATIENCE_SECONDS = 10.0  # it may have to load the driver first
_END_SECONDS = 1.0


Run = Callable[[Sequence[str]], str]
"""Runs a command: what it writes, or nothing where there is no such program, or it fails."""


def output_of(command: Sequence[str], seconds: float = _PATIENCE_SECONDS) -> str:
    """What a program on the PATH writes to stdout; nothing where it is missing, fails or takes longer."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would show one to whoever sits there
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=no_window,
        )
    except OSError:
        return ""
    assert process.stdout is not None
    with process.stdout:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in its driver does not even die
                process.wait(_END_SECONDS)
            return ""
    return said.decode(errors="replace") if process.returncode == 0 else ""


def cards(run: Run = output_of) -> tuple[Card, ...]:
    """Every card of this machine, in the driver's order, with the processes that use it."""
    found = _bare(run)
    holders = _holders(run) if found else {}
    return tuple(replace(card, holders=tuple(holders.get(card.uuid, ()))) for card in found)


def card_of(device: str, shown: str | None, run: Run = output_of) -> Card | None:
    """The card that torch calls `device` ("cuda:0"), without its holders. None where it has none, or it is not told of.

    `shown`: this process's CUDA_VISIBLE_DEVICES, which names cards by number or by the beginning of their UUID. Numbers
    are the driver's only where CUDA_DEVICE_ORDER is PCI_BUS_ID.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    place, found = int(number or 0), _bare(run)
    names = [str(card.index) for card in found] if shown is None else [name.strip() for name in shown.split(",")]
    if place >= len(names) or not names[place]:
        return None
    name = names[place]
    return next((card for card in found if name == str(card.index) or _begins(card.uuid, name)), None)


def _begins(uuid: str, name: str) -> bool:
    return name.startswith("GPU-") and uuid.startswith(name)


def _bare(run: Run) -> list[Card]:
    """The cards without their holders."""
    found = _listed(run, _FIELDS)
    return found or [replace(card, capability="") for card in _listed(run, _FIELDS_OF_OLD_DRIVERS)]


def _listed(run: Run, fields_asked: str) -> list[Card]:
    """Lines of another form are words for people."""
    found = []
    for line in run([_PROGRAM, f"--query-gpu={fields_asked}", _FORMAT]).splitlines():
        index, _, rest = line.partition(",")
        name, *fields = (field.strip() for field in rest.rsplit(",", _FIELDS_AFTER_THE_NAME))
        if not index.strip().isdecimal() or len(fields) != _FIELDS_AFTER_THE_NAME:
            continue
        capability, driver, total, used, temperature, uuid = fields
        sizes = _gigabytes(total), _gigabytes(used)
        found.append(Card(int(index), uuid, name, capability, driver, *sizes, _number(temperature)))
    return found


def _holders(run: Run) -> Mapping[str, list[Holder]]:
    """Who uses which card, by its UUID. A program's path may have commas."""
    found: dict[str, list[Holder]] = defaultdict(list)
    for line in run([_PROGRAM, "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", _FORMAT]).splitlines():
        uuid, _, rest = line.partition(",")
        pid, _, rest = rest.partition(",")
        program, comma, used = rest.rpartition(",")
        if comma and pid.strip().isdecimal():
            found[uuid.strip()].append(Holder(int(pid), program.strip(), _gigabytes(used)))
    return found


def _number(words: str) -> float | None:
    """What a field says; "[N/A]", "[Unknown Error]" and their like are None."""
    try:
        return float(words)
    except ValueError:
        return None


def _gigabytes(words: str) -> float | None:
    number = _number(words)
    return None if number is None else number * _GB_OF_ONE_MIB
