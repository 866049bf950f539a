"""The door into a fleet's cluster: what is asked before `ray start`, that command's line, and the wait for the head."""

from __future__ import annotations

import datetime
import json
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import yaml

from shared_store.errors import UserError

_REDIS, REDIS_PASSWORD = "RAY_REDIS_ADDRESS", "RAY_REDIS_PASSWORD"  # variables of a head that keeps its books there
ID, NAME, UNTIL = "foldfleet-id", "foldfleet-name", "foldfleet-until"  # labels of a node
ANSWER_SECONDS = 5.0
ASK_SECONDS = 30.0
ALIVE_SECONDS = 60.0
START_SECONDS = 120.0
OBJECT_STORE_BYTES = 256 * 2**20  # reports and outcomes are small; data goes through the store
# Ray reads its variables when it is imported, and a head that is dead holds it for 40 seconds: so in a child.
_ASK = """
import json, sys
from ray._raylet import GcsClient
from ray._common.usage.usage_lib import get_cluster_metadata
gcs = GcsClient(address=sys.argv[1])
told = get_cluster_metadata(gcs) or {}
nodes = {n.node_id.hex(): dict(n.labels) for n in gcs.get_all_node_info().values() if n.state == 0}
print(json.dumps({"ray": told.get("ray_version"), "python": told.get("python_version"), "alive": nodes}))
"""


@dataclass(frozen=True)
class Told:
    """What a head says: its versions, and the labels of each node that is alive, by its id."""

    ray: str | None
    python: str | None
    alive: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Door:
    """How one machine enters: `head` is HOST:PORT, or None where it becomes the head itself."""

    head: str | None
    machine: str
    name: str
    node_ip: str
    until: float | None = None
    cpus: int | None = None
    gpus: int | None = None
    port: int = 6379
    dashboard_host: str = "127.0.0.1"
    autoscaling_config: str | None = None
    redis_password: str | None = None
    keep: bool = False  # a machine that is in the fleet stays as it is; else what Ray runs there is ended first

    def line(self) -> list[str]:
        """The arguments of `ray`."""
        labels = {ID: self.machine, NAME: self.name}
        if self.until is not None:
            labels[UNTIL] = str(int(self.until))
        words = ["start", f"--node-ip-address={self.node_ip}", "--disable-usage-stats"]
        words += [f"--labels={','.join(f'{key}={value}' for key, value in labels.items())}"]
        words += ["--resources={}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        words += [f"--num-{kind}={n}" for kind, n in (("cpus", self.cpus), ("gpus", self.gpus)) if n is not None]
        if self.head is not None:
            return [*words, f"--address={self.head}"]
        words += ["--head", f"--port={self.port}", f"--dashboard-host={self.dashboard_host}"]
        words += [f"--redis-password={self.redis_password}"] if self.redis_password else []
        return words + ([f"--autoscaling-config={self.autoscaling_config}"] if self.autoscaling_config else [])


class Ray(Protocol):
    """What joining needs of Ray and of the machine."""

    def start(self, words: list[str]) -> None: ...

    def stop(self) -> None: ...

    def runs(self, node: str) -> bool: ...

    def ask(self, head: str) -> Told: ...


@dataclass(frozen=True)
class RayCommands:
    """Ray itself, in child processes that have `environment`."""

    environment: Mapping[str, str]

    def start(self, words: list[str]) -> None:
        line = [sys.executable, "-m", "ray.scripts.scripts", *words]
        _run(line, self.environment, START_SECONDS, "ray start did not succeed", "this machine")

    def stop(self) -> None:
        line = [sys.executable, "-m", "ray.scripts.scripts", "stop"]
        _run(line, self.environment, START_SECONDS, "ray stop did not succeed", "this machine")

    def runs(self, node: str) -> bool:
        """Whether a node's process is one of this machine's. Linux."""
        lines = (_read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
        return any(b"raylet/raylet" in line and node.encode() in line for line in lines)

    def ask(self, head: str) -> Told:
        line = [sys.executable, "-c", _ASK, head]
        said = _run(line, self.environment, ASK_SECONDS, "the head refuses", head)
        told = json.loads(said.splitlines()[-1])
        return Told(told["ray"], told["python"], told["alive"])


def enter(
    door: Door,
    ray: Ray,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Check the versions, begin Ray here and wait until the head counts this machine among the living."""
    before: set[str] = set()  # the same machine may still be counted alive under an address it no longer has
    if door.head is not None:
        told = ray.ask(door.head)
        _same_versions(told, door.head)
        before = set(told.alive)
        if door.keep:
            if any(told.alive[node].get(ID) == door.machine and ray.runs(node) for node in before):
                tell(f"{door.name} is in the fleet already, and goes on")
                return
            ray.stop()
    tell("starting Ray ...")
    ray.start(door.line())
    head = door.head or f"{door.node_ip}:{door.port}"
    ends = clock() + ALIVE_SECONDS
    while not _sees(ray.ask(head), door.machine, before):
        if clock() > ends:
            mend = "read raylet.out in /tmp/ray/session_latest/logs here; open the ports between them in both firewalls"
            raise UserError(f"the head does not see {door.name} after {ALIVE_SECONDS:.0f} s", where=head, mend=mend)
        tell(f"waiting until {head} sees {door.name} ...")
        sleep(2.0)


def _sees(told: Told, machine: str, before: set[str]) -> bool:
    return any(told.alive[node].get(ID) == machine for node in set(told.alive) - before)


def checked_name(name: str) -> str:
    """It, where a machine can be called so. UserError."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", name):
        raise UserError(f"{name} cannot be a name", where="--name", mend="letters, digits, dots and dashes, 63 at most")
    return name


def own_address(head: str) -> str:
    """The address from which this machine reaches HOST:PORT. UserError at once where nothing answers there."""
    begin = "begin it there with `foldfleet join --head`; open that port to this machine"
    return answering(head, "no head answers", f"write HOST:PORT of the head; {begin}")


def answering(address: str, what: str, mend: str) -> str:
    """The address from which this machine reaches HOST:PORT. UserError with these words where nothing answers there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            return str(connection.getsockname()[0])
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{what}: {error}", where=address, mend=mend) from error


def with_redis(address: str, environment: dict[str, str]) -> str | None:
    """Have a head that is begun with `environment` keep its books in a Redis; that one's password. UserError."""
    answering(address, "no Redis answers", "begin it there, bound to that address, with a password")
    environment[_REDIS] = address
    return environment.get(REDIS_PASSWORD)


def outward_address() -> str:
    """The address of this machine towards others; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
            towards.connect(("192.0.2.1", 9))
            return str(towards.getsockname()[0])
    except OSError as error:
        raise UserError(
            f"this machine's address is not known: {error}", where="join --head", mend="give it with --node-ip"
        ) from error


def address_in(launchers_file: str) -> str | None:
    """The head's address in the file that Ray's launcher left there; the machines of cluster.yaml come to that one."""
    try:
        given = yaml.safe_load(Path(launchers_file).expanduser().read_text(encoding="utf-8"))
        return str(given["provider"]["head_ip"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def deadline(text: str, now: datetime.datetime) -> float:
    """Unix seconds of the next time that a clock shows `18:00`."""
    try:
        at = datetime.datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise UserError(f"{text} is no time of day", where="--until", mend="write it like 18:00") from error
    then = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    return (then if then > now else then + datetime.timedelta(days=1)).timestamp()


def _same_versions(told: Told, head: str) -> None:
    for what, theirs, ours in (("Ray", told.ray, version("ray")), ("Python", told.python, platform.python_version())):
        if theirs != ours:
            mend = f"install {what} {theirs} here: all machines of a fleet have the same"
            raise UserError(f"this machine has {what} {ours}, the head {theirs}", where=head, mend=mend)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # that process has just ended
        return b""


def _run(line: list[str], environment: Mapping[str, str], seconds: float, story: str, where: str) -> str:
    mend = "see the last lines above; the token of head and machine (~/.ray/auth_token) must be the same"
    try:
        ended = subprocess.run(
            line, check=False, env=dict(environment), capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{story}: no answer in {seconds:.0f} s", where=where, mend=mend) from error
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-12:])
        raise UserError(f"{story}:\n{last}", where=where, mend=mend)
    return ended.stdout
