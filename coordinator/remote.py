"""Commands on other machines over SSH, as Ray's launcher reaches them, but with their host keys pinned."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.fleet_file import FleetFile

_CONNECT_SECONDS = 10
_SHELL_NOISE = ("cannot set terminal process group", "no job control in this shell")


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code (255: SSH itself failed; 124: out of time) and its words."""

    code: int
    output: str
    errors: str

    @property
    def unheard(self) -> bool:
        """Whether it says nothing of what was asked: SSH failed, or time was up."""
        return self.code in (124, 255)

    @property
    def why(self) -> str:
        """The last thing that it said, for people."""
        said = [*self.output.splitlines(), *self.errors.splitlines()]
        return next((line.strip() for line in reversed(said) if line.strip()), f"exit code {self.code}")


Ask = Callable[[str, str, float], Answer]
"""A machine's address, a shell command, seconds."""


def marked(mark: str, text: str) -> str:
    """One line for programs, found again among whatever a login shell prints."""
    return f"{mark}: {text}"


def what_it_says(mark: str, output: str) -> str | None:
    """The text of the last line with that mark; None where there is none."""
    lines = [line for line in output.splitlines() if line.startswith(f"{mark}: ")]
    return lines[-1].removeprefix(f"{mark}: ") if lines else None


@dataclass(frozen=True)
class Remote:
    """One user's machines, reached with one key.

    A host key that is seen for the first time goes into ~/.ssh/known_hosts; another one at the same address is refused.
    """

    user: str
    key: Path
    settings: str | None = None  # another file than ~/.ssh/config

    def run(self, address: str, command: str, seconds: float) -> Answer:
        """Run a shell command as a login there would, with the PATH that the launcher's set-up left."""
        within = f"source ~/.bashrc; {command}"  # as Ray's launcher does it
        line = ["ssh", *(("-F", self.settings) if self.settings else ()), "-i", str(self.key)]
        line += ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
        line += ["-o", "StrictHostKeyChecking=accept-new", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        line += ["-o", "LogLevel=ERROR", f"{self.user}@{address}", f"bash --login -i -c {shlex.quote(within)}"]
        try:
            ran = subprocess.run(
                line, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"no answer within {seconds:.0f} s")
        except FileNotFoundError:
            return Answer(255, "", "there is no ssh command on this machine")
        errors = [line for line in ran.stderr.splitlines() if not any(noise in line for noise in _SHELL_NOISE)]
        return Answer(ran.returncode, ran.stdout, os.linesep.join(errors))


def remote_of(fleet: FleetFile) -> Remote:
    """How a fleet's machines are reached. FOLDFLEET_SSH_CONFIG names another file than ~/.ssh/config."""
    return Remote(fleet.auth.ssh_user, fleet.key, os.environ.get("FOLDFLEET_SSH_CONFIG"))
