"""A real OpenSSH server on this machine, and what a client needs to know it and to be known by it. No test in here."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
MaxStartups 200
MaxSessions 200
LogLevel VERBOSE
Subsystem sftp internal-sftp {options}
"""
_CLIENT = """\
IdentityFile {folder}/client_key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
"""


class SshServer:
    """sshd listening on 127.0.0.1 alone; all that it and its clients need lies in `folder`.

    `environment` makes any process know it: put it into os.environ. `config` is for `ssh -F` and `scp -F`.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.user, self.port = folder, getpass.getuser(), free_port()
        self.config, self.known_hosts = folder / "ssh_config", folder / "known_hosts"
        self._options = " ".join(options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        return {"FOLDFLEET_SSH_CONFIG": str(self.config)}

    def url(self, path: Path | str, port: int | None = None) -> str:
        """The URL of an absolute path there (`/~/...` is below the home); `port` when it is reached by another one."""
        return f"sftp://{self.user}@127.0.0.1:{port or self.port}{quote(str(path))}"

    def prepare(self) -> None:
        """Make keys, and have client and server know each other's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "client_key"):
            make_key(self.folder / name)
        shutil.copy(self.folder / "client_key.pub", self.folder / "authorized_keys")
        self.trust(f"[127.0.0.1]:{self.port}")
        self.config.write_text(_CLIENT.format(folder=self.folder), encoding="utf-8")
        server = _SERVER.format(folder=self.folder, port=self.port, options=self._options)
        (self.folder / "sshd_config").write_text(server, encoding="utf-8")

    def trust(self, host: str) -> None:
        """Have the client know the server's key under one more name (`[host]:port`)."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text(encoding="utf-8").split()
        with self.known_hosts.open("a", encoding="utf-8") as file:
            file.write(f"{host} {kind} {key}\n")

    def start(self) -> None:
        """Start it, once more after `stop` too; it answers when this returns."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, run by root, locks itself up before a login
        log = self.folder / "sshd.log"
        command = [_program("sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        until = time.monotonic() + 20
        while not _answers(self.port):
            alive = self._process.poll() is None
            assert alive, f"sshd does not start:\n{log.read_text(encoding='utf-8')}"
            assert time.monotonic() < until, "sshd does not answer"
            time.sleep(0.02)

    def stop(self, connections: bool = False) -> None:
        """End the listening process; with `connections`, what serves each of them too, at once."""
        assert self._process is not None
        children = _descendants(self._process.pid) if connections else []
        self._process.kill()
        self._process.wait(20)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


@contextlib.contextmanager
def running_sshd(folder: Path, options: Sequence[str] = ()) -> Iterator[SshServer]:
    """An OpenSSH server below `folder`; `options` go to its SFTP server (`-R`, `-P posix-rename`)."""
    server = SshServer(folder, options)
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.stop(connections=True)


def make_key(path: Path, kind: str = "ed25519") -> None:
    """A new key pair: `path` and `path`.pub."""
    command = [_program("ssh-keygen"), "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=20)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        missing = f"{name} is missing: install openssh-server and openssh-client"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    return found


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(5)
        return connection.recv(4) == b"SSH-"
    return False


def _descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they did."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], check=True, capture_output=True, text=True, timeout=20)
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.stdout.splitlines())}
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found
