"""The person outside: a home of their own, the project's cluster.yaml filled in, their commands. No test in here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from fleet.lab import ENVIRONMENT, ROOT, Lab

_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
# Hosts have no internet: they use this machine's packages, and the project's code as it came to them.
SETUP_COMMANDS = (
    "test -x ~/foldfleet-env/bin/python || {python} -m venv --without-pip ~/foldfleet-env",
    "printf '%s\\n' ~/foldfleet {environment}/{site} > ~/foldfleet-env/{site}/lab.pth",
    "printf '#!/bin/sh\\nexec ~/foldfleet-env/bin/python -m jobs.cli \"$@\"\\n' > ~/foldfleet-env/bin/foldfleet",
    "printf '#!/bin/sh\\nexec ~/foldfleet-env/bin/python -m ray.scripts.scripts \"$@\"\\n' > ~/foldfleet-env/bin/ray",
    "chmod +x ~/foldfleet-env/bin/ray ~/foldfleet-env/bin/foldfleet",
    "grep -q foldfleet-env ~/.bashrc || echo 'export PATH=~/foldfleet-env/bin:$PATH' >> ~/.bashrc",
)
_PIP = ("python3 -m venv", "pip install", "export PATH")  # lines of cluster.yaml that those stand for


class Operator:
    """Who begins fleets and runs from this machine, with SSH alone."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.home, self.cluster = folder / "home", folder / "cluster.yaml"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": str(self.home),
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_UP_enable_autoscaler_v2": "0",
            "FOLDFLEET_SSH_CONFIG": str(self.home / ".ssh" / "config"),
            "PATH": f"{ENVIRONMENT}/bin:{os.environ['PATH']}",
        }
        # OpenSSH asks the password file for the home, not HOME: host keys are kept where this says.
        settings = f"UserKnownHostsFile {self.home}/.ssh/known_hosts\nIdentitiesOnly yes\n"
        (self.home / ".ssh" / "config").write_text(settings)
        (folder / "ray").mkdir()

    def write_cluster_file(
        self, head: str, workers: Sequence[str], join_options: str = "", head_options: str = ""
    ) -> None:
        """The project's own cluster.yaml, with the lab's machines filled in; options of `foldfleet join` there."""
        given = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
        given["provider"] |= {"head_ip": self.lab.address(head), "worker_ips": list(map(self.lab.address, workers))}
        given["auth"] |= {"ssh_user": "root", "ssh_private_key": str(self.lab.key)}
        given["min_workers"] = given["max_workers"] = len(workers)
        kept = [line for line in given["setup_commands"] if not any(words in line for words in _PIP)]
        names = {"python": sys.executable, "environment": ENVIRONMENT, "site": _SITE}
        given["setup_commands"] = [*kept, *(_filled(line, names) for line in SETUP_COMMANDS)]
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            given[key] = [line.replace("foldfleet join", f"foldfleet join {join_options}") for line in given[key]]
            given[key] = [line.replace("--head", f"--head {head_options}") for line in given[key]]
        self.cluster.write_text(yaml.safe_dump(given, width=1000), encoding="utf-8")

    def run(self, command: Sequence[str], seconds: float = 400.0, **more: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, in the project's folder."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def begin(self, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """A command in the background; what it prints goes to a file."""
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def begin_on(self, host: str, command: str, log: str) -> subprocess.Popen[bytes]:
        """The same for a command that somebody types at a host."""
        return self.begin(self._typed(host, command), log)

    def said(self, log: str) -> str:
        return (self.folder / log).read_text(encoding="utf-8", errors="replace")

    def up(self) -> str:
        """`foldfleet up`: every machine is there afterwards."""
        ran = self.run(["foldfleet", "up", str(self.cluster), "--wait-seconds", "180"])
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def down(self) -> None:
        ran = self.run(["foldfleet", "down", str(self.cluster)])
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def on(self, host: str, command: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command that somebody types at a host, in a login shell."""
        return subprocess.run(
            self._typed(host, command),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def _typed(self, host: str, command: str) -> list[str]:
        return self.lab.ssh_line(host, f"bash --login -c 'source ~/.bashrc; {command}'")

    def send(self, source: Path, host: str, target: str) -> None:
        """A folder's content, to a folder of the host."""
        shutil.copytree(source, self.lab.home(host) / target, dirs_exist_ok=True)

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """End a command of ours that may still run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _filled(line: str, names: Mapping[str, object]) -> str:
    for name, value in names.items():
        line = line.replace(f"{{{name}}}", str(value))
    return line
