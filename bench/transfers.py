"""Processes that put files into far stores and get them back, with the seconds and the memory it takes them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared_store.backend import Content
from shared_store.hashing import sha256_of_file
from shared_store.store import Store, open_store

_SAMPLE_SECONDS = 0.005


class Client(ABC):
    """Another process with a store of its own open."""

    def put(self, what: str, source: Path) -> float:
        """Seconds to put a file as a blob whose name is known."""
        return self._ask("put", what, str(source))

    def get(self, what: str, source: Path, target: Path) -> float:
        """Seconds to get the blob of `source` into the file `target`, verified; both are gone afterwards."""
        return self._ask("get", what, str(source), str(target))

    def memory_mb(self, what: str) -> float:
        """The most that a transfer named `what` added to the memory of any process that took part."""
        return self._ask("memory_mb", what)

    @abstractmethod
    def _ask(self, method: str, *words: str) -> float:
        """What a method of the other process's Transfers returns."""


class Transfers:
    """What runs in the client's process."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self.store: Store = open_store(url)
        self.peaks: dict[str, float] = {}
        self.watched = [os.getpid()]

    def put(self, what: str, source: str) -> float:
        digest = sha256_of_file(Path(source))
        return self._measured(what, lambda: self.store.put_named_blob(digest, Content(Path(source))))

    def get(self, what: str, source: str, target: str) -> float:
        digest = sha256_of_file(Path(source))
        took = self._measured(what, lambda: self.store.get_file(digest, Path(target)))
        Path(target).unlink()
        self.store.delete_blob(digest)
        return took

    def memory_mb(self, what: str) -> float:
        return self.peaks[what]

    def watch(self, pid: int) -> None:
        """Count the memory of one more process on this machine."""
        self.watched.append(pid)

    def _measured(self, what: str, act: Callable[[], None]) -> float:
        before, done = [memory_mb(pid) for pid in self.watched], threading.Event()
        peaks = list(before)

        def look() -> None:
            while not done.wait(_SAMPLE_SECONDS):
                for place, pid in enumerate(self.watched):
                    peaks[place] = max(peaks[place], memory_mb(pid))

        watcher = threading.Thread(target=look)
        watcher.start()
        began = time.perf_counter()
        act()
        took = time.perf_counter() - began
        done.set()
        watcher.join()
        added = max(peak - start for peak, start in zip(peaks, before, strict=True))
        self.peaks[what] = max(self.peaks.get(what, 0.0), added)
        return took


def memory_mb(pid: int) -> float:
    """Megabytes of anonymous and shared memory that a process holds now (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) * 1024 / 1e6


class _SpawnedClient(Client):
    """A client in a spawned process, asked over a pipe."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def _ask(self, method: str, *words: str) -> float:
        self._pipe.send((method, *words))
        return float(self._pipe.recv())


def _serve(url: str, environment: dict[str, str], pipe: Any) -> None:
    transfers = Transfers(url, environment)
    while words := pipe.recv():
        pipe.send(getattr(transfers, words[0])(*words[1:]))


@contextlib.contextmanager
def local_client(url: str, environment: dict[str, str]) -> Iterator[Client]:
    """A client of a store that any process opens by its URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(url, environment, theirs))
    process.start()
    theirs.close()
    try:
        yield _SpawnedClient(ours)
    finally:
        ours.send(())
        process.join(30)


class _FarClient(Client):
    """A client that is an actor on another Ray node than the head's."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def watch(self, pid: int) -> None:
        self._ray.get(self._actor.watch.remote(pid), timeout=60)

    def _ask(self, method: str, *words: str) -> float:
        return float(self._ray.get(getattr(self._actor, method).remote(*words), timeout=600))


@contextlib.contextmanager
def head_client(folder: Path) -> Iterator[Client]:
    """A client of the store in `folder` on the head's disk, at another node of a Ray cluster that both are part of."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # of this process alone
    import ray
    from head_store import running_head
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with running_head(folder) as head:
        there = NodeAffinitySchedulingStrategy(head.other_node, soft=False)
        actor = ray.remote(Transfers).options(num_cpus=0, scheduling_strategy=there).remote(f"head://{folder}", {})
        client = _FarClient(ray, actor)
        client.put("first", Path(__file__))  # the head's actor is there afterwards
        for pid in _processes("ray::HeadDisk"):
            client.watch(pid)
        yield client


def _processes(name: str) -> list[int]:
    """Ids of the processes that call themselves `name` (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if path.read_bytes().startswith(name.encode()):
                found.append(int(path.parent.name))
    return found
