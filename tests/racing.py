"""Writers that race for the same keys, each in a process of its own, and what they saw. No test in here."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from shared_store.store import Store, open_store


@dataclass(frozen=True)
class Seen:
    """What one writer saw of one round: whether it was told that it won, and the record that stands."""

    number: int
    writer: int
    won: bool
    standing: bytes | None


def record(writer: int, number: int) -> bytes:
    """What a writer puts: long enough to be torn, and its own."""
    return f"writer {writer}, round {number}; ".encode() * 200


def one_round(store: Store, writer: int, number: int) -> Seen:
    key = f"commits/raced/{number}.json"
    won = store.put_if_absent(key, record(writer, number))
    return Seen(number, writer, won, store.read(key))


def race(url: str, writers: int, rounds: int, environment: Mapping[str, str]) -> list[Seen]:
    """All that `writers` processes saw in `rounds` rounds, each begun by all of them at once."""
    context = multiprocessing.get_context("spawn")
    seen, barrier = context.Queue(), context.Barrier(writers)
    processes = [
        context.Process(target=_write, args=(url, dict(environment), (writer, rounds), barrier, seen))
        for writer in range(writers)
    ]
    for process in processes:
        process.start()
    found = [one for _ in range(writers) for one in seen.get(timeout=200)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return found


def _write(url: str, environment: dict[str, str], turn: tuple[int, int], barrier: Any, seen: Any) -> None:
    os.environ.update(environment)
    writer, rounds = turn
    store = open_store(url)
    store.read("commits/raced/none.json")  # the connection stands before the first round
    found = []
    for number in range(1, rounds + 1):
        barrier.wait(120)
        found.append(one_round(store, writer, number))
    store.backend.close()
    seen.put(found)


def race_in_threads(store: Store, writers: int, rounds: int) -> list[Seen]:
    """The same with threads, for a store that only this process has."""
    barrier = threading.Barrier(writers)

    def write(writer: int) -> list[Seen]:
        found = []
        for number in range(1, rounds + 1):
            barrier.wait(120)
            found.append(one_round(store, writer, number))
        return found

    with ThreadPoolExecutor(writers) as pool:
        return [one for found in pool.map(write, range(writers)) for one in found]


def check(seen: list[Seen], writers: int, rounds: int) -> None:
    """Exactly one writer won each round, and all of them read its record."""
    assert len(seen) == writers * rounds
    for number in range(1, rounds + 1):
        those = [one for one in seen if one.number == number]
        winners = [one.writer for one in those if one.won]
        assert len(winners) == 1, f"round {number} was won by {winners}"
        assert {one.standing for one in those} == {record(winners[0], number)}, f"round {number}"
