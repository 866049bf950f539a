"""A Ray cluster of a head and one other machine, both on this one, and a store on the head's disk. No test in here.

Whoever is at the other node reaches the head's disk through its actor alone, as on a machine elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from racing import Seen, one_round
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.access import EMBEDDED_ENVIRONMENT
from coordinator.scratch import Scratch
from shared_store.head import HeadBackend
from shared_store.retrying import Retrying
from shared_store.store import Store, open_store

T = TypeVar("T")
_OBJECT_STORE_BYTES = 256 * 2**20
_SECONDS = 120.0


@ray.remote(num_cpus=0)
class _Barrier:
    """Lets go of all callers at once, again and again."""

    def __init__(self, parties: int) -> None:
        self._parties, self._here, self._open = parties, 0, asyncio.Event()

    async def wait(self) -> None:
        mine = self._open
        self._here += 1
        if self._here == self._parties:
            self._here, self._open = 0, asyncio.Event()
            mine.set()
        await mine.wait()


def _write(opens: Callable[[int], Store], barrier: Any, writer: int, rounds: int) -> list[Seen]:
    store, found = opens(writer), []
    store.read("commits/raced/none.json")  # the connection stands before the first round
    for number in range(1, rounds + 1):
        ray.get(barrier.wait.remote(), timeout=_SECONDS)
        found.append(one_round(store, writer, number))
    return found


@dataclass(frozen=True)
class RunningHead:
    """A cluster that this process is connected to, at its head. `folder` is where stores lie on the head's disk."""

    folder: Path
    address: str
    other_node: str

    def open(self, place: str) -> Store:
        """A store seen as from another machine, though this process is at the head."""
        return Store(Retrying(HeadBackend(str(self.folder / place))))

    def race(self, place: str, writers: int, rounds: int) -> list[Seen]:
        """All that `writers` processes at the other node saw, each with the store open by its URL."""
        url = f"head://{self.folder / place}"
        return self.race_with(lambda _writer: open_store(url), writers, rounds)

    def race_with(self, opens: Callable[[int], Store], writers: int, rounds: int) -> list[Seen]:
        """The same with stores that are opened in another way, each by its writer."""
        barrier = _Barrier.options(max_concurrency=writers).remote(writers)
        calls = [self.begin(_write, opens, barrier, writer, rounds) for writer in range(writers)]
        return [one for seen in ray.get(calls, timeout=200) for one in seen]

    def begin(self, act: Callable[..., T], *arguments: object) -> Any:
        """Call `act` in a process at the other node; Ray's reference to what it returns."""
        there = NodeAffinitySchedulingStrategy(self.other_node, soft=False)
        return ray.remote(act).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*arguments)

    def elsewhere(self, act: Callable[..., T], *arguments: object) -> T:
        """What `act` returns when it is called in a process at the other node."""
        found: T = ray.get(self.begin(act, *arguments), timeout=_SECONDS)
        return found


@contextlib.contextmanager
def running_head(folder: Path) -> Iterator[RunningHead]:
    """Begin a cluster for a store below `folder`, connect to it, and end it."""
    for name, value in EMBEDDED_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.closing(Scratch()) as scratch, contextlib.ExitStack() as ends:
        cluster = Cluster()
        ends.callback(cluster.shutdown)
        node: dict[str, Any] = {"temp_dir": str(scratch.path), "object_store_memory": _OBJECT_STORE_BYTES}
        cluster.add_node(include_dashboard=False, **node)
        ends.callback(ray.shutdown)
        here = {
            "env_vars": {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])}
        }
        quiet: dict[str, Any] = {"namespace": "foldfleet", "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(cluster.address, runtime_env=here, **quiet)
        other = cluster.add_node(num_cpus=8, **node)  # as many idle processes are kept
        yield RunningHead(folder, cluster.address, other.node_id)


def peak_bytes() -> int:
    """The most memory that this process ever had, what it shares with Ray's object store included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def open_files(word: str) -> list[str]:
    """The files that this process has open and that have `word` in their paths."""
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was seen
            names.append(str(descriptor.readlink()))
    return [name for name in names if word in name]


class Fake:
    """In the place of the head's actor: raises `error`, or does not answer."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def call(self, *_arguments: object) -> None:
        if self._error is not None:
            raise self._error
        time.sleep(60)
