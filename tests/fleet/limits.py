"""How much of this machine a lab host may use: a control group of its own, version 1 or 2. No test in here."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CONTROL = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 50_000
_TRIES, _TRY_SECONDS = 50, 0.1
_PRESSING = """
import sys, time
def kills():
    return int(dict(line.split() for line in open(sys.argv[1]))["oom_kill"])
before, taken = kills(), []
while kills() == before:
    taken.append(b"x" * 2**24)
    time.sleep(0.01)
"""


def is_version_2() -> bool:
    """Whether this machine has the newer kind of control groups, and no other."""
    return (_CONTROL / "cgroup.controllers").exists()


def can_limit() -> bool:
    """Whether this machine has control groups for processors at all."""
    return is_version_2() or (_CONTROL / "cpu").is_dir()


@dataclass(frozen=True)
class Limits:
    """The control group of one host."""

    lab: str
    host: str

    @property
    def folders(self) -> list[Path]:
        """One in version 2; in version 1 those for processors, memory and freezing."""
        if is_version_2():
            return [_CONTROL / self.lab / self.host]
        return [_CONTROL / kind / self.lab / self.host for kind in ("cpu", "memory", "freezer")]

    @property
    def memory_folder(self) -> Path | None:
        """What the host may see of it, where its memory has a folder of its own."""
        return None if is_version_2() else self.folders[1]

    def make(self) -> None:
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)

    def cpu(self, cores: float) -> None:
        folder, quota = self.folders[0], int(cores * _PERIOD_MICROSECONDS)
        if is_version_2():
            (folder / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))

    def memory(self, megabytes: int) -> None:
        path = self.folders[0] / "memory.max" if is_version_2() else self.folders[1] / "memory.limit_in_bytes"
        path.write_text(str(megabytes << 20))

    @contextlib.contextmanager
    def pressed(self, megabytes: int) -> Iterator[None]:
        """Something that the kernel spares takes memory meanwhile, until the kernel has killed another of the group."""
        self.memory(megabytes)
        kills = self.folders[0] / "memory.events" if is_version_2() else self.folders[1] / "memory.oom_control"
        words = f'{self.entering()} echo -1000 > /proc/self/oom_score_adj; exec python3 -c "$0" {kills}'
        process = subprocess.Popen(["bash", "-c", words, _PRESSING], start_new_session=True)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def frozen(self, frozen: bool) -> None:
        if is_version_2():
            (self.folders[0] / "cgroup.freeze").write_text(str(int(frozen)))
        else:
            (self.folders[2] / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def processes(self) -> list[int]:
        """Ids of the host's processes, as this machine has them."""
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in (self.folders[0] / "cgroup.procs").read_text().split()]
        return []

    def entering(self) -> str:
        """Shell words by which a process becomes one of the group."""
        return " ".join(f"echo $$ > {folder}/cgroup.procs;" for folder in self.folders)

    def remove(self) -> None:
        """Of a host whose processes are over."""
        for folder in self.folders:
            for _ in range(_TRIES):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(_TRY_SECONDS)
            with contextlib.suppress(OSError):  # another host's is there still
                folder.parent.rmdir()
