"""Processes of this machine, as tests look at them: Linux only. No test in here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE_SECONDS = 120.0


def parents() -> dict[int, int]:
    """Every living process and the one that began it, from /proc."""
    found: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # ended while we looked
        if state != "Z":
            found[int(folder.name)] = int(parent)
    return found


def children(*processes: int) -> set[int]:
    """Living processes that these began."""
    return {child for child, parent in parents().items() if parent in processes}


def child_processes(parent: int) -> set[int]:
    """All living descendants of a process."""
    known, found = parents(), set[int]()
    while grown := {child for child, above in known.items() if above in found | {parent}} - found:
        found |= grown
    return found


def alive(processes: set[int]) -> set[int]:
    return {process for process in processes if status(process) not in ("", "Z")}


def status(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_agent(process: int) -> bool:
    """Ray's two agents do no work of ours; when their node is killed they end by themselves, after a minute."""
    return b"Agent" in Path(f"/proc/{process}/cmdline").read_bytes()


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()
