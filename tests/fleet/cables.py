"""The switch of a lab and the cables of its hosts, which can be pulled, slowed and replugged. No test in here."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_RELAY = Path(__file__).with_name("netrelay.c")
_TRIES, _TRY_SECONDS = 100, 0.02


def ip(*words: str, check: bool = True) -> bool:
    """Run `ip`; whether it did what it should. AssertionError with its words where it must."""
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert not (check and ran.returncode), f"ip {' '.join(words)}: {ran.stderr.strip()}"
    return ran.returncode == 0


@dataclass(frozen=True)
class Switch:
    """A bridge, at which this machine has the last address of the net: it is the person outside."""

    lab: str
    net: str  # the first three numbers of the addresses
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.lab}br"

    @property
    def operator(self) -> str:
        """This machine's address at it."""
        return f"{self.net}.254"

    def make(self) -> None:
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", f"{self.operator}/24", "dev", self.name)
        ip("link", "set", self.name, "up")

    def remove(self) -> None:
        ip("link", "del", self.name, check=False)

    def relay(self) -> Path:
        """The program that makes links slow, compiled when first needed."""
        program = self.folder / "netrelay"
        if not program.exists():
            subprocess.run(["cc", "-O2", "-o", str(program), str(_RELAY)], check=True)
        return program


class Cable:
    """Between a host's network namespace and the switch."""

    def __init__(self, switch: Switch, host: str) -> None:
        self._switch, self.namespace = switch, f"{switch.lab}-{host}"
        self._end, self._middle = f"{switch.lab}v-{host}", f"{switch.lab}m-{host}"
        self._taps = (f"{switch.lab}1-{host}", f"{switch.lab}2-{host}")
        self._relay: subprocess.Popen[bytes] | None = None

    def make(self, address: str) -> None:
        """The namespace, its link and its address. The default route leads nowhere: it makes Ray find the address."""
        ip("netns", "add", self.namespace)
        ip("link", "add", self._end, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self._end, "master", self._switch.name, "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        self.readdress(address)

    def readdress(self, address: str) -> None:
        ip("-n", self.namespace, "addr", "flush", "dev", "eth0")
        ip("-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", self.namespace, "route", "replace", "default", "via", self._switch.operator)

    def pull(self) -> None:
        """Packets vanish; nobody is told."""
        ip("link", "set", self._end, "nomaster")

    def plug(self) -> None:
        """As new: plugged in, and fast."""
        if self._relay is not None:
            self._relay.terminate()
            self._relay.wait(10)
            self._relay = None
        ip("link", "set", self._end, "master", self._switch.name)
        ip("link", "del", self._middle, check=False)

    def slow(self, rate_mbit: float, delay_ms: float, loss_percent: float) -> None:
        """Through a relay: one-way delay, loss, and a rate for each direction (0: as fast as it goes)."""
        self.plug()
        ip("link", "add", self._middle, "type", "bridge")
        ip("link", "set", self._middle, "up")
        command = [str(self._switch.relay()), *self._taps, str(delay_ms), str(loss_percent), str(rate_mbit)]
        self._relay = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
        for _ in range(_TRIES):
            inner = ip("link", "set", self._taps[0], "master", self._middle, "up", check=False)
            if inner and ip("link", "set", self._taps[1], "master", self._switch.name, "up", check=False):
                break
            time.sleep(_TRY_SECONDS)
        else:
            raise AssertionError(f"{' '.join(command)} did not begin: {self._relay.poll()}")
        ip("link", "set", self._end, "master", self._middle)

    def remove(self) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait(10)
            self._relay = None
        ip("netns", "del", self.namespace, check=False)
        ip("link", "del", self._end, check=False)
        ip("link", "del", self._middle, check=False)
