"""How a process ended that did not say it: by a signal, by an exit code, for want of memory."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

from workers.tasks import Failure

COUNTS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
_WINDOWS_FAULTS = 0xC0000000  # and above: access violations and the like
_MEND = "give the fold more memory: fewer folds at once with fleet.slots, or a machine with more of it"


def memory_kills(counts: Sequence[Path] = COUNTS) -> int:
    """How many processes the system has killed for want of memory, where it tells; 0 where it does not."""
    kills = 0
    for path in counts:
        with contextlib.suppress(OSError, ValueError):
            words = dict(
                line.split(maxsplit=1) for line in path.read_text(encoding="ascii").splitlines() if " " in line
            )
            kills += int(words.get("oom_kill", 0))
    return kills


def classified(exit_code: int | None, killed_for_memory: bool) -> tuple[Failure, str, str]:
    """What a process died of that gave no answer: the kind of failure, what people read of it, how to mend it.

    `exit_code`: as Python has it, minus the number of a signal. `killed_for_memory`: the system killed one meanwhile.
    """
    if exit_code == -9 and killed_for_memory:
        return Failure.OUT_OF_MEMORY, "the system killed its process, for this machine ran out of memory", _MEND
    if exit_code is None:
        return Failure.LOST, "its process is gone", ""
    if exit_code < 0:
        name = _signal_name(-exit_code)
        kind = Failure.LOST if name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT") else Failure.CRASHED  # from outside
        return kind, f"its process was ended by {name}", ""
    code = f"0x{exit_code:08X}" if exit_code >= _WINDOWS_FAULTS else str(exit_code)
    return Failure.CRASHED, f"its process ended by itself, with exit code {code}", ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
