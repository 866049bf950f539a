"""Does this store let exactly one of several writers win? Eight of them race for one key, a few times over.

How sure a yes is: a store that looks and then writes gives several winners in more than half of such races (55 of 100
with a base fsspec backend on a local disk), one that overwrites in nearly all. At one half, 12 races in a row all look
right once in 2^12 = 4,096 times; at 55 in 100 once in 0.45^-12 = 14,500.

All writers are on this machine. What a share does between two machines that each keep their own copies of it, nobody
learns from here.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from shared_store import layout
from shared_store.errors import NotExclusiveError
from shared_store.store import Store

WRITERS, ROUNDS = 8, 12
_BEGIN_SECONDS = 60.0  # for all writers to stand at the line


@dataclass(frozen=True)
class Exclusive:
    """Of several writers exactly one won, every time."""


@dataclass(frozen=True)
class NotExclusive:
    """Several writers can win, or the store cannot tell: `reason`, in words."""

    reason: str


def probe(opens: Callable[[], Store], writers: int = WRITERS, rounds: int = ROUNDS) -> Exclusive | NotExclusive:
    """Race `writers` stores, each opened by itself; what they wrote is removed. StoreError: the store is not there."""
    with contextlib.ExitStack() as ends, ThreadPoolExecutor(writers) as pool:
        stores = [opens() for _ in range(writers)]
        for store in stores:
            ends.callback(store.backend.close)
        key = layout.probe(secrets.token_hex(8))
        list(pool.map(lambda store: store.exists(key), stores))  # all connections stand before the first race
        for _ in range(rounds):
            reason = _race(stores, pool)
            if reason is not None:
                return NotExclusive(reason)
    return Exclusive()


def _race(stores: list[Store], pool: ThreadPoolExecutor) -> str | None:
    """One race; what was wrong with it, if anything."""
    key, line = layout.probe(secrets.token_hex(8)), threading.Barrier(len(stores))

    def write(store: Store) -> tuple[bool, bytes]:
        mine = secrets.token_hex(16).encode()
        line.wait(_BEGIN_SECONDS)
        return store.put_if_absent(key, mine), mine

    try:
        writing = [pool.submit(write, store) for store in stores]
        wait(writing)  # all of them, also where one fails: what they write is removed below
        won = [mine for wins, mine in (one.result() for one in writing) if wins]
        if len(won) != 1:
            return f"{len(won)} of {len(stores)} writers won one race"
        if any(store.read(key) != won[0] for store in stores):
            return "the writer that won is not the one whose record stands"
    except NotExclusiveError as error:
        return error.what
    finally:
        stores[0].backend.delete(key)
    return None
