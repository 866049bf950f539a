"""Real hosts on one Linux machine: what a fleet is tested on. No test in here.

A host is a set of namespaces: its own network address, process ids (killing its first process is a power cut), a
copy-on-write view of this machine's files with a home, /tmp and /dev/shm of its own, limits of processor and memory,
and an SSH server as its first process. It needs root, and nothing that this machine would keep.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.cables import Cable, Switch
from fleet.limits import Limits, can_limit

ROOT = Path(__file__).parents[2]  # the checkout, which no host sees
ENVIRONMENT = Path(sys.prefix)  # the virtual environment, which all see and none can change
_BOOT = Path(__file__).with_name("boot.sh")
_BOOT_SECONDS = 20.0
_COMMANDS = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "cc")
_NETS = range(77, 100)
_OF_THE_LAB = ("sshd", "/usr/sbin/sshd", "unshare")  # what a host is made of
_NUMBERS = itertools.count()  # of this process's labs


@dataclass(frozen=True)
class HostKind:
    """What a host has: the last number of its address, cores, memory, shared memory."""

    number: int
    cpu: float
    memory_mb: int = 2500
    shared_memory_mb: int = 512


def missing() -> list[str]:
    """What this machine lacks to be a lab, by name."""
    lacks = [f"the command {command}" for command in _COMMANDS if not shutil.which(command)]
    if not Path("/usr/sbin/sshd").exists():
        lacks.append("sshd")
    if sys.platform == "win32" or os.geteuid():
        lacks.append("root")
    if not can_limit():
        lacks.append("control groups for processors")
    if not Path("/dev/net/tun").exists():
        lacks.append("/dev/net/tun")
    return lacks


class Host:
    """One host: its first process, its cable, its limits."""

    def __init__(self, name: str, kind: HostKind, switch: Switch, folder: Path) -> None:
        self.name, self.kind, self._switch, self.folder = name, kind, switch, folder
        self.address = f"{switch.net}.{kind.number}"
        self.cores = kind.cpu  # that it has now
        self.limits, self.cable = Limits(switch.lab, name), Cable(switch, name)
        self._process: subprocess.Popen[bytes] | None = None
        self._first: int | None = None  # id of its first process, as this machine has it

    def make(self) -> None:
        """Everything but the power."""
        self.folder.mkdir(parents=True)
        self.limits.make()
        self.cable.make(self.address)

    def boot(self, environment: Mapping[str, str], probe: Sequence[str]) -> None:
        """Power on, same disk; it is there when `probe`, a command over SSH, works."""
        self.limits.cpu(max(1.0, self.cores))  # a slow machine need not be slow to boot
        self.limits.memory(self.kind.memory_mb)
        within = f"{self.limits.entering()} exec nsenter --net=/run/netns/{self.cable.namespace} unshare --mount --uts"
        within += f" --ipc --pid --fork --kill-child=KILL bash {_BOOT}"
        of_host = {
            "FOLDER": str(self.folder),
            "NAME": self.name,
            "MEMORY_FOLDER": str(self.limits.memory_folder or ""),
            "SHM_MB": str(self.kind.shared_memory_mb),
        }
        with (self.folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", within],
                env={**os.environ, **environment, **of_host},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        self._await(probe)
        self.limits.cpu(self.cores)

    def kill(self) -> None:
        """Every process of it is killed at once by the kernel."""
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first, signal.SIGKILL)
        if self._process is not None:
            if self._first is None:
                self._process.kill()
            self._process.wait(30)
        deadline = time.monotonic() + _BOOT_SECONDS
        while self.limits.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._process = self._first = None

    def slow(self, cores: float) -> None:
        """It has so much of a core, now and after its next boot."""
        self.cores = cores
        self.limits.cpu(cores)

    def within(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in this host through its namespaces."""
        assert self._first is not None, f"{self.name} is off"
        environment = [f"PATH={ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root"]
        enters = ["nsenter", "-t", str(self._first), "-m", "-u", "-i", "-n", "-p", "--wdns=/root", "--", "env", "-i"]
        quoted = f'{self.limits.entering()} exec "$@"'
        return ["bash", "-c", quoted, "bash", *enters, *environment, "LANG=C.UTF-8", *command]

    def remove(self) -> None:
        self.kill()
        self.cable.remove()
        self.limits.remove()

    def _await(self, probe: Sequence[str]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            found = children.read_text().split() if self._process.poll() is None else []
            if (
                found
                and subprocess.run(probe, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0
            ):
                self._first = int(found[0])
                return
            assert self._process.poll() is None, f"{self.name} did not boot:\n{self.console()}"
            time.sleep(0.05)
        raise AssertionError(f"{self.name} does not answer over SSH:\n{self.console()}")

    def console(self) -> str:
        """The end of what it said while booting."""
        return (self.folder / "console.log").read_text()[-2000:]


class Lab:
    """Hosts at one switch, by name."""

    def __init__(self, folder: Path, kinds: Mapping[str, HostKind]) -> None:
        self.folder, self.key = folder, folder / "id_ed25519"
        name = f"ff{os.getpid() % 46_656:x}{next(_NUMBERS):x}"[:7]
        self.switch = Switch(name, _free_net(), folder)
        self.hosts = {host: Host(host, kind, self.switch, folder / host) for host, kind in kinds.items()}

    def make(self) -> None:
        """The switch, the key and all hosts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.switch.make()
        for host in self.hosts.values():
            host.make()
        for name in self.hosts:
            self.boot(name)

    def address(self, host: str) -> str:
        return self.hosts[host].address

    def home(self, host: str) -> Path:
        """The host's home folder, as this machine sees it."""
        return self.hosts[host].folder / "home"

    def boot(self, host: str, number: int | None = None) -> None:
        """Power on, plugged in; `number`: with another address than before."""
        one = self.hosts[host]
        one.cable.plug()
        if number is not None:
            one.address = f"{self.switch.net}.{number}"
            one.cable.readdress(one.address)
        names = self.folder / "hosts"
        names.write_text("127.0.0.1 localhost\n" + "".join(f"{it.address} {it.name}\n" for it in self.hosts.values()))
        environment = {
            "HIDDEN": str(ROOT),
            "BOUND": ":".join(dict.fromkeys([sys.base_prefix, str(ENVIRONMENT)])),
            "PUBLIC_KEY": f"{self.key}.pub",
            "HOSTS_FILE": str(names),
        }
        one.boot(environment, self.ssh_line(host, "true"))

    def kill(self, host: str, *, silent: bool = False) -> None:
        """A power cut. The kernel still closes connections, unless `silent` pulls the cable first."""
        if silent:
            self.hosts[host].cable.pull()
        self.hosts[host].kill()

    def cut(self, host: str) -> None:
        self.hosts[host].cable.pull()

    def heal(self, host: str) -> None:
        """Plugged in, and as fast as it was."""
        self.hosts[host].cable.plug()

    @contextlib.contextmanager
    def cores(self, cores: Mapping[str, float]) -> Iterator[None]:
        """Hosts with so much of a core each, for a while."""
        try:
            for host, share in cores.items():
                self.hosts[host].slow(share)
            yield
        finally:
            for host in cores:
                self.hosts[host].slow(self.hosts[host].kind.cpu)

    def freeze(self, host: str) -> None:
        self.hosts[host].limits.frozen(True)

    def thaw(self, host: str) -> None:
        self.hosts[host].limits.frozen(False)

    def slow_link(self, host: str, rate_mbit: float, delay_ms: float, loss_percent: float) -> None:
        self.hosts[host].cable.slow(rate_mbit, delay_ms, loss_percent)

    def run(self, host: str, *command: str, check: bool = True, seconds: float = 120.0) -> str:
        """What a command prints in a host, run through its namespaces."""
        line = self.hosts[host].within(command)
        ran = subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)
        assert not (check and ran.returncode), (
            f"{host}: {' '.join(command)}: {ran.returncode}: {ran.stdout}{ran.stderr}"
        )
        return ran.stdout

    def pressed(self, host: str) -> contextlib.AbstractContextManager[None]:
        """Memory runs out, so that Ray or the kernel kills what it may kill first."""
        return self.hosts[host].limits.pressed(self.hosts[host].kind.memory_mb)

    def processes(self, host: str) -> list[str]:
        """Command lines of all of its processes, but for its SSH server."""
        lines = []
        for process in self.hosts[host].limits.processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                lines += [] if line.startswith(_OF_THE_LAB) else [line]
        return lines

    def small_disk(self, host: str, folder: str, megabytes: int) -> None:
        """A disk of its own for a folder of the host."""
        self.run(host, "mkdir", "-p", folder)
        self.run(host, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)

    def fill(self, host: str, folder: str) -> None:
        """Not one byte more goes there."""
        self.run(host, "dd", "if=/dev/zero", f"of={folder}/filling", "bs=1M", check=False)

    def ssh_line(self, host: str, command: str) -> list[str]:
        """The command line that runs a command in a host over SSH."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=3"]
        words = [word for option in [*options, "BatchMode=yes"] for word in ("-o", option)]
        return ["ssh", "-i", str(self.key), *words, f"root@{self.address(host)}", command]

    def remove(self) -> None:
        """No process, link, group or mount of the lab is left; its folders stay."""
        for host in self.hosts.values():
            host.remove()
        self.switch.remove()


@contextlib.contextmanager
def running_lab(folder: Path, kinds: Mapping[str, HostKind]) -> Iterator[Lab]:
    """A lab for a while."""
    lab = Lab(folder, kinds)
    try:
        lab.make()
        yield lab
    finally:
        lab.remove()


def _free_net() -> str:
    """The first three numbers of addresses that nobody on this machine uses."""
    taken = subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    return next(net for net in (f"10.{number}.0" for number in _NETS) if f" {net}." not in taken)


def links() -> set[str]:
    """Names of this machine's network links."""
    shown = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {line.split(":")[1].strip().split("@")[0] for line in shown.splitlines()}
