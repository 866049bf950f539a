"""One machine looked at before hours are spent on it: versions, cards, a few real steps, disk, store, doors, clock.

It tells facts and judges nothing (`coordinator.checks` does). What may crash, a card above all, is tried in a process
of its own.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from shared_store.errors import UserError
from shared_store.probe import NotExclusive
from shared_store.probe import probe as race
from shared_store.records import sha256
from shared_store.store import Store, open_store
from workers.apart import Apart, DiedError
from workers.cards import cards
from workers.deaths import classified
from workers.examined import Card, Examined, Reached, StoreFacts, Trained
from workers.identity import machine_id
from workers.nursery import Hands
from workers.probe import machine_memory_gb, probe, system
from workers.recipe import Recipe

PACKAGES = ("foldfleet", "ray", "torch", "torchvision", "timm", "albumentations", "numpy", "opencv-python-headless")
ROOMS = ("coordinator", "jobs", "shared_store", "workers")
_CLASSES = 2
_STORE_BYTES = 8 * 2**20
_WRITERS, _ROUNDS = 2, 8  # all machines ask at once: every writer is a login of its own
_DOOR_SECONDS, _DOORS_AT_ONCE = 3.0, 16
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@dataclass(frozen=True)
class Question:
    """What a machine is asked: whether it can train these recipes, reach this store, and reach these doors."""

    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # by name
    threads: int = 1
    cache_folder: str = "~/.cache/foldfleet"
    doors: Sequence[str] = ()  # "HOST:PORT" of other machines


def examine(
    question: Question,
    opens: Callable[[], Store] | None,
    home: Path,
    *,
    clock: Callable[[], float] = time.time,
    seen_cards: Callable[[], Sequence[Card]] = cards,
    environment: Mapping[str, str] = os.environ,
) -> Examined:
    """Look at this machine. `opens`: its way to the store, if that is asked. Takes seconds, up to a minute or two."""
    asked_at, began = clock(), time.monotonic()
    built_for, architectures, trained, speed = _tried_torch(question)
    return Examined(
        host=socket.gethostname(),
        system=system(),
        machine_id=machine_id(home / ".foldfleet"),
        versions=_versions(),
        code=_code(Path(__file__).parents[1]),
        cpus=os.cpu_count() or 1,
        memory_gb=machine_memory_gb(),
        cards=tuple(seen_cards()),
        torch_cuda=built_for,
        torch_architectures=architectures,
        probe_speed=speed,
        free_disk_gb=_free_disk(question.cache_folder),
        trained=trained,
        store=None if opens is None else tried_store(opens),
        reached=_all_reached(question.doors),
        proxies=proxies_between(environment, question.doors),
        unix_seconds=asked_at,
        took_seconds=time.monotonic() - began,
    )


def examine_for(question: Question, store_url: str | None) -> Examined:
    """The same of the machine that this is called on, for who calls it from another one."""
    return examine(question, None if store_url is None else partial(open_store, store_url), Path.home())


def _tried_torch(question: Question) -> tuple[str | None, tuple[str, ...], tuple[Trained, ...], float | None]:
    """The CUDA and the architectures that it was built for, some steps on every device, and the probe's speed."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # for all its processes: as the driver's own tools count
    apart = Apart(loads=("workers.trial",))
    try:
        built_for, architectures = _told(apart, _torch_build, (None, ()))
        devices = _told(apart, _devices, ("cpu",))
        trained = tuple(
            _trained(apart, name, recipe, device, question.threads)
            for device in devices
            for name, recipe in question.recipes.items()
        )
        return built_for, architectures, trained, _told(apart, partial(_probed, devices[0], question.threads), None)
    finally:
        apart.close()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _code(folder: Path) -> str:
    """A short name for the very code that is here, whatever its version says."""
    sources = sorted(path for room in ROOMS for path in (folder / room).glob("*.py"))
    return sha256(b"".join(sha256(path.read_bytes()).encode() for path in sources))[:8]


def _free_disk(cache_folder: str) -> dict[str, float]:
    """Of the folders that fill: this machine's copies and commits, and Ray's own files."""
    found = {}
    for folder in (cache_folder, "/tmp" if os.name == "posix" else os.environ.get("TEMP", ".")):
        there = Path(folder).expanduser()
        while not there.exists():
            there = there.parent
        found[folder] = shutil.disk_usage(there).free / 1e9
    return found


def _told(apart: Apart, act: Callable[[Hands], Any], otherwise: Any) -> Any:
    """What a process of its own says; `otherwise` where it fails or dies, which the training then tells of."""
    try:
        return apart.call(act, lambda _kind, _value: None)
    except (DiedError, RuntimeError):
        return otherwise


def _trained(apart: Apart, name: str, recipe: Recipe, device: str, threads: int) -> Trained:
    act = partial(_tries, name, recipe, device, threads)
    try:
        trained: Trained = apart.call(act, lambda _kind, _value: None)
    except DiedError as died:
        failure = classified(died.exit_code, died.killed_for_memory)[1]
    except RuntimeError as error:
        failure = str(error)
    else:
        return trained
    return Trained(recipe=name, device=device, bits=32, failure=failure.strip() or "it ended without a word")


def _tries(name: str, recipe: Recipe, device: str, threads: int, _hands: Hands) -> Trained:
    import torch

    from workers.loop import auto_bits
    from workers.trial import try_recipe

    tried = try_recipe(recipe, _CLASSES, device, threads)
    bits = auto_bits(torch.device(device))
    seconds, image_seconds = tried.step_seconds, tried.image_seconds
    return Trained(recipe=name, device=device, bits=bits, step_seconds=seconds, image_seconds=image_seconds)


def _torch_build(_hands: Hands) -> tuple[str | None, tuple[str, ...]]:
    """What torch was built for. Its own list is empty where no card can be used, which is when it is wanted most."""
    import torch

    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None
    return torch.version.cuda, tuple(flags.split()) if flags else ()


def _devices(_hands: Hands) -> tuple[str, ...]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def _probed(device: str, threads: int, _hands: Hands) -> float | None:
    return probe(device, threads, slots=1, share=1.0, timed=True).speed


def tried_store(opens: Callable[[], Store]) -> StoreFacts:
    """Bytes there and back, verified, and a race of two writers; nothing of it stays."""
    content = secrets.token_bytes(_STORE_BYTES)
    try:
        store = opens()
        began = time.perf_counter()
        digest = store.put_blob(content)
        written = time.perf_counter()
        try:
            store.get_blob(digest)
            read = time.perf_counter()
        finally:
            store.delete_blob(digest)
        result = race(opens, _WRITERS, _ROUNDS)
    except UserError as error:
        return StoreFacts(failure=f"{error.what} ({error.where})", mend=error.mend)
    except OSError as error:
        return StoreFacts(failure=f"{type(error).__name__}: {error}", mend="look at the store's address and disk")
    reason = result.reason if isinstance(result, NotExclusive) else ""
    megabytes = _STORE_BYTES / 1e6
    return StoreFacts(
        write_mb_per_second=megabytes / (written - began),
        read_mb_per_second=megabytes / (read - written),
        not_exclusive=reason,
    )


def _all_reached(doors: Sequence[str]) -> tuple[Reached, ...]:
    """Many at once: each that a firewall drops takes all of its seconds."""
    with ThreadPoolExecutor(max_workers=_DOORS_AT_ONCE) as threads:
        return tuple(threads.map(_reached, doors))


def _reached(door: str) -> Reached:
    host, _, port = door.rpartition(":")
    began = time.perf_counter()
    try:
        socket.create_connection((host, int(port)), timeout=_DOOR_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        return Reached(door=door, failure=str(error) or type(error).__name__)
    return Reached(door=door, seconds=time.perf_counter() - began)


def proxies_between(environment: Mapping[str, str], doors: Sequence[str]) -> dict[str, str]:
    """Variables by which connections between the machines would go through a proxy."""
    lower = {name.lower(): value for name, value in environment.items()}
    exempt = {word.strip().lstrip(".") for word in lower.get("no_proxy", "").split(",")} - {""}
    hosts = {door.rpartition(":")[0] for door in doors}
    if "*" in exempt or (hosts and all(any(host.endswith(word) for word in exempt) for host in hosts)):
        return {}
    return {name: lower[name] for name in _PROXIES if lower.get(name)}
