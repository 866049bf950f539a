"""The store: a 212 MB checkpoint through each kind of store, beside a plain copy, torch.save and scp, in one run.

    PYTHONPATH=tests python -m bench.store [--rounds 7] [--megabytes 212]

All ways are interleaved, round by round; medians are printed, and ratios (medians of the rounds' own) are what count.
The tests' own sshd serves scp and the SFTP store. The head store is used by a process on another Ray node than
the head's, so that every byte goes through its actor. scp is the peer of both: the same link, here the loopback.

  hash    what naming a blob by its sha256 adds to writing it, for it is hashed beside the writing
  memory  the most that a transfer adds to the process that makes it (anonymous and shared pages)
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from sshd import SshServer, running_sshd

from bench.transfers import Client, head_client, local_client
from shared_store.backend import Content
from shared_store.local import LocalBackend
from shared_store.store import Store

Way = Callable[[], float]
"""Moves the bytes once; the seconds it took."""
RATIOS = [  # (what, beside what, at least)
    ("sftp put", "scp put", 0.75),
    ("sftp get", "scp get", 0.75),
    ("head put", "scp put", 0.70),
    ("head get", "scp get", 0.70),
]
MEMORY_LIMIT_MB = 64
HASH_LIMIT = 0.10
WARM_UP_BYTES = 9 * 2**20  # more than two parts: every buffer and thread of a transfer is there afterwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=212)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-store-")))
        source = folder / "state"
        source.write_bytes(os.urandom(given.megabytes * 1_000_000))
        server = stack.enter_context(running_sshd(folder / "sshd"))
        clients = {
            "sftp": stack.enter_context(local_client(server.url(folder / "sftp"), dict(server.environment))),
            "head": stack.enter_context(head_client(folder / "head")),
        }
        for client in clients.values():
            warm_up(client, folder)
        ways = {**local_ways(folder, source), **scp_ways(server, folder, source)}
        for name, client in clients.items():
            ways |= store_ways(name, client, folder, source)
        seconds = interleaved(ways, given.rounds)
        report(seconds, given.megabytes)
        for name, client in clients.items():
            for act in ("put", "get"):
                added = client.memory_mb(f"{name} {act}")
                print(f"memory {name} {act:4} {added:7.0f} MB                  {verdict(added <= MEMORY_LIMIT_MB)}")


def interleaved(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for place in range(rounds + 1):
        for name, way in ways.items():
            took = way()
            if place:
                seconds[name].append(took)
    return seconds


def local_ways(folder: Path, source: Path) -> dict[str, Way]:
    """A plain copy, torch.save, and the local store with and without hashing; every file is synced."""
    data, backend = source.read_bytes(), LocalBackend(folder / "local")
    store, digests = Store(backend), list[str]()
    state = {"weights": torch.frombuffer(bytearray(data), dtype=torch.uint8)}
    copied, saved, got = folder / "copied", folder / "saved", folder / "got"

    def copy() -> None:
        shutil.copyfile(source, copied)
        sync(copied)

    def save() -> None:
        torch.save(state, saved)
        sync(saved)

    def put() -> None:
        digests.append(store.put_blob(data))

    def drop() -> None:
        got.unlink()
        store.delete_blob(digests.pop())

    def write() -> None:
        backend.publish("blobs/unnamed", Content(data))

    return {
        "copy": timed(copy, copied.unlink),
        "torch.save": timed(save, saved.unlink),
        "write": timed(write, lambda: backend.delete("blobs/unnamed")),
        "local put": timed(put, lambda: None),
        "local get": timed(lambda: store.get_file(digests[-1], got), drop),
    }


def scp_ways(server: SshServer, folder: Path, source: Path) -> dict[str, Way]:
    """scp to the server and back."""
    there, back = folder / "by-scp", folder / "scp-back"
    host = f"{server.user}@127.0.0.1"
    options = ["scp", "-q", "-F", str(server.config), "-P", str(server.port)]

    def run(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([*options, *arguments], check=True)

    def drop() -> None:
        back.unlink()
        there.unlink()

    return {
        "scp put": timed(run(str(source), f"{host}:{there}"), lambda: None),
        "scp get": timed(run(f"{host}:{there}", str(back)), drop),
    }


def store_ways(name: str, client: Client, folder: Path, source: Path) -> dict[str, Way]:
    """A file into a far store and back, each in the process that is its client."""
    got = folder / f"{name}-got"
    return {
        f"{name} put": lambda: client.put(f"{name} put", source),
        f"{name} get": lambda: client.get(f"{name} get", source, got),
    }


def warm_up(client: Client, folder: Path) -> None:
    small = folder / "small"
    small.write_bytes(os.urandom(WARM_UP_BYTES))
    client.put("warm up", small)
    client.get("warm up", small, folder / "small-got")


def timed(act: Callable[[], object], clean: Callable[[], object]) -> Way:
    def way() -> float:
        began = time.perf_counter()
        act()
        took = time.perf_counter() - began
        clean()
        return took

    return way


def sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def report(seconds: dict[str, list[float]], megabytes: int) -> None:
    for name, took in seconds.items():
        middle = statistics.median(took)
        print(f"{name:12} {middle:7.3f} s  {megabytes / middle:7.0f} MB/s")
    added = statistics.median(a / b - 1 for a, b in zip(seconds["local put"], seconds["write"], strict=True))
    print(f"hash adds         {added:+7.1%} to the write     at most {HASH_LIMIT:.0%}  {verdict(added <= HASH_LIMIT)}")
    for one, other, least in RATIOS:
        ratio = statistics.median(b / a for a, b in zip(seconds[one], seconds[other], strict=True))
        print(f"{one} / {other}  {ratio:7.2f} of its speed  at least {least:.2f}  {verdict(ratio >= least)}")


def verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


if __name__ == "__main__":
    main()
