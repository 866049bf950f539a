"""The disk of the Ray cluster's head as a store: `head:///path`, for a fleet with neither a shared disk nor a cloud.

On the head itself it is that folder. Every other machine goes through one Ray actor there, a few parts in flight at a
time. Both ways claim names on the same disk by the same rules, so they mix. The one module of this room that knows Ray.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shared_store.backend import PART_BYTES, Backend, Content, Entry
from shared_store.committer import Committed, Committer
from shared_store.errors import StoreDownError, StoreError
from shared_store.head_disk import HeadDisks, Opened, folder
from shared_store.local import LocalBackend

CALL_SECONDS = 60.0  # for a call's answer; a window of parts in this time needs 0.3 MB/s
SYNC_SECONDS = 300.0  # for a slow disk to keep all of a large upload
WINDOW = 4  # parts in flight: 16 MiB fill a link of 1 Gbit/s that answers after 0.1 s
_CALLS_AT_ONCE = 8  # each may hold a part in memory
HEAD_RESOURCE = "node:__internal_head__"  # the resource that Ray gives to the head alone
_OPTIONS: dict[str, Any] = {
    "namespace": "foldfleet",
    "get_if_exists": True,
    "lifetime": "detached",  # runs and their drivers come and go
    "num_cpus": 0,
    "max_concurrency": _CALLS_AT_ONCE,
    "max_restarts": -1,
    "max_task_retries": 0,  # whoever calls has patience of its own
}
_VERSION = 1  # of what the actors are asked: one that stands from an older run must not be asked something else


def open_head(url: str) -> Backend:
    """The backend of `head:///path`, for whichever machine this process runs on.

    Where Ray is not connected, no cluster is meant, and this machine is the head. StoreError for a path that is not
    absolute, and in a process that Ray began but did not connect: it cannot tell where it runs.
    """
    root = url.removeprefix("head://")
    if not root.startswith("/"):
        raise StoreError("not a whole path", where=url, mend="give head:///PATH, with three slashes")
    if not ray.is_initialized() and "RAY_RAYLET_PID" in os.environ:
        mend = "give --fleet.address auto"
        raise StoreError("this command runs in a Ray cluster and is not connected to it", where=url, mend=mend)
    if ray.is_initialized():
        with _explained(url):
            if not _at_the_head():
                return HeadBackend(root)
    backend = LocalBackend(folder(root))
    backend.url = url  # it is told to other machines
    return backend


def committed_by_one(backend: Backend, opens: Callable[[], Backend]) -> Backend:
    """`backend` with one committer for the whole cluster: an actor beside whoever asks first, on a disk of its own."""

    def commit(key: str, data: bytes) -> bool:
        with _explained(backend.url, "the one process that commits"):
            beside_us = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
            options = {**_OPTIONS, "name": f"committer {_VERSION} {backend.url}", "scheduling_strategy": beside_us}
            actor = ray.remote(Committer).options(**options).remote(opens)
            return bool(ray.get(actor.put_if_absent.remote(key, data), timeout=CALL_SECONDS))

    return Committed(backend, commit)


class HeadBackend:
    """The folder `root` on the head's disk, through an actor of HeadDisks: the one given, else looked up or begun."""

    def __init__(self, root: str, disks: Any = None, call_seconds: float = CALL_SECONDS) -> None:
        self.url = f"head://{root}"
        self._root, self._disks, self._seconds = root, disks, call_seconds

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self._ask("put_if_absent", key, data))

    def publish(self, key: str, content: Content) -> None:
        if content.size <= PART_BYTES:
            self._ask("publish", key, b"".join(content))
            return
        token = self._ask("begin")
        with self._let_go_of(token):
            size = self._send(token, content)
            self._ask("finish", token, key, size, seconds=SYNC_SECONDS)

    def parts(self, key: str, start: int = 0) -> Iterator[memoryview] | None:
        opened = self._ask("open", key, start)
        return None if opened is None else self._receive(opened, start)

    def size(self, key: str) -> int | None:
        size: int | None = self._ask("size", key)
        return size

    def move(self, key: str, to: str) -> None:
        self._ask("move", key, to)

    def delete(self, key: str) -> None:
        self._ask("delete", key)

    def list(self, prefix: str) -> list[Entry]:
        entries: list[Entry] = self._ask("list", prefix)
        return entries

    def leftovers(self) -> Sequence[Entry]:
        entries: Sequence[Entry] = self._ask("leftovers")
        return entries

    def local_path(self, key: str) -> Path | None:
        return None

    def close(self) -> None:
        """The actor is looked up, or begun, anew."""
        self._disks = None

    def _send(self, token: str, content: Content) -> int:
        """Append all of `content`, a window of parts at a time; how many bytes it was."""
        size, flying = 0, deque[Any]()
        for part in content:
            flying.append(self._begin("append", token, size, np.frombuffer(part, np.uint8)))  # without a copy
            size += len(part)
            if len(flying) == WINDOW:
                self._answer(flying.popleft())
        for call in flying:
            self._answer(call)
        return size

    def _receive(self, opened: Opened, start: int) -> Iterator[memoryview]:
        with self._let_go_of(opened.token):
            yield opened.first.data
            flying = deque[Any]()
            for place in range(start + PART_BYTES, opened.bytes, PART_BYTES):
                flying.append(self._begin("read", opened.token, place))
                if len(flying) == WINDOW:
                    yield self._answer(flying.popleft()).data
            while flying:
                yield self._answer(flying.popleft()).data

    @contextlib.contextmanager
    def _let_go_of(self, token: str) -> Iterator[None]:
        try:
            yield
        finally:
            if token:
                with contextlib.suppress(StoreDownError):
                    self._begin("let_go", token)  # nobody waits for it: what is left is swept

    def _ask(self, method: str, *arguments: object, seconds: float | None = None) -> Any:
        return self._answer(self._begin(method, *arguments), seconds)

    def _begin(self, method: str, *arguments: object) -> Any:
        with _explained(self.url):
            disks = self._disks
            if disks is None:
                options = {**_OPTIONS, "name": f"disks {_VERSION}", "resources": {HEAD_RESOURCE: 0.001}}
                self._disks = disks = ray.remote(HeadDisks).options(**options).remote()
            return disks.call.remote(self._root, method, *arguments)

    def _answer(self, call: Any, seconds: float | None = None) -> Any:
        with _explained(self.url):
            return ray.get(call, timeout=seconds or self._seconds)


def _at_the_head() -> bool:
    """Whether this process runs on the head. Ray's client (`ray://`) runs elsewhere and speaks for it."""
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD_RESOURCE in node["Resources"]]
    return ray.get_runtime_context().get_node_id() in heads and not ray.util.client.ray.is_connected()


@contextlib.contextmanager
def _explained(url: str, who: str = "the head") -> Iterator[None]:
    """What went wrong over there as it was raised there, and one who does not answer as a store that is down."""
    mend = f"bring {who} back, or wait for it; nothing that stood is lost"
    if not ray.is_initialized():  # Ray would begin one of its own
        raise StoreDownError("this process is not connected to Ray", where=url, mend=mend)
    try:
        yield
    except RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, StoreError):
            raise
        raise type(cause)(cause.what, where=f"{url}: {cause.where}", mend=cause.mend) from error
    except RayError as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StoreDownError(f"{who} does not answer ({why})", where=url, mend=mend) from error
