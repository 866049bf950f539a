"""The rules by which NTFS names files, on a disk that has others. No test in here."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

FOREVER = float("inf")


class FakeNtfs:
    """`rename` refuses a name that is taken; what another program holds open is neither renamed, replaced nor removed.

    `hold` a file for some seconds; only `sleep` lets them pass. `slept` has every wait.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._held: dict[str, float] = {}
        self._one_at_a_time = threading.Lock()

    def hold(self, name: str, seconds: float) -> None:
        """Another program looks into every file of this name (`*`: into all files) for so long."""
        self._held[name] = seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._held = {name: left - seconds for name, left in self._held.items()}

    def rename(self, source: Path, target: Path) -> None:
        with self._one_at_a_time:
            self._refuse_held(source)
            if target.exists():
                raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
            source.rename(target)

    def replace(self, source: Path, target: Path) -> None:
        with self._one_at_a_time:
            self._refuse_held(source)
            self._refuse_held(target)
            source.replace(target)

    def remove(self, path: Path) -> None:
        with self._one_at_a_time:
            self._refuse_held(path)
            path.unlink()

    def _refuse_held(self, path: Path) -> None:
        if path.exists() and max(self._held.get(path.name, 0), self._held.get("*", 0)) > 0:
            raise PermissionError(errno.EACCES, "The process cannot access the file: another one uses it", str(path))
