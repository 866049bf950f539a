"""One thing that was looked at on one machine: whether it is well, what was found, what to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """From what nobody need read to what stops a run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """`found`: in a few words. `mend`: what to do; empty where all is well."""

    machine: str
    check: str
    state: State
    found: str
    mend: str = ""


def well(machine: str, check: str, found: str) -> Finding:
    return Finding(machine, check, State.OK, found)


def warned(machine: str, check: str, found: str, mend: str) -> Finding:
    return Finding(machine, check, State.WARN, found, mend)


def failed(machine: str, check: str, found: str, mend: str) -> Finding:
    return Finding(machine, check, State.FAIL, found, mend)
