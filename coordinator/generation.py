"""Who drives a run: a chain of records, each put once, and the beat by which the newest holder shows that it lives.

A second process that wants the run reads the newest record. Its beat says "ended": the next generation is taken at
once. Else the beat is watched on our own monotonic clock: a holder whose counter moves lives, and we are refused; one
that stays still is gone. No clocks are ever compared, and `since` is for people.

Whoever finds a newer generation than its own has been taken over, and stops. All this saves work and decides nothing
else: what two drivers finish at a time is the same, and is put once.

Those who remove what nobody needs form a chain of their own (CLEANERS) by the same rules. Driver and cleaner each take
their generation first and look for the other then, so that of two that begin together at least one sees the other.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.run_lock import RunLock
from shared_store import layout
from shared_store.backend import Clock, Sleep
from shared_store.commits import newest
from shared_store.errors import NotExclusiveError, StoreError, UserError
from shared_store.records import Holder
from shared_store.store import Store

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 4 * BEAT_SECONDS  # a beat that stood still for so long has stopped
_LOOK_SECONDS, _CLOSE_SECONDS = 1.0, 15.0  # to look again; to say "ended" where the store answers slowly
ENDED = b"ended"
Say = Callable[[str], object]


class AliveError(Exception):
    """Another process, `holder`, holds what we asked for."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.holder = holder


@dataclass(frozen=True)
class Chain:
    """The generations of those who held one thing, by exact keys."""

    store: Store
    holders: str  # layout.coordinators(run) or layout.CLEANERS

    def read(self, number: int) -> Holder | None:
        """DamagedRecordError when it is not the record that was put."""
        return self.store.read_record(layout.generation(self.holders, number), Holder)

    def newest(self) -> Holder | None:
        return newest(self.read)

    def put(self, holder: Holder) -> bool:
        """Try to become the holder of its generation; whether it is."""
        key, data = layout.generation(self.holders, holder.generation), holder.to_bytes()
        try:
            return self.store.put_if_absent(key, data)
        except NotExclusiveError:  # where two may win a race, both drive: that costs work, and nothing rests on it
            if self.store.exists(key):
                return False
            self.store.publish(key, data)
            return True

    def beat(self, holder: Holder) -> bytes | None:
        return self.store.read(layout.beat(self.holders, holder.generation))

    def show(self, holder: Holder, beat: bytes) -> None:
        self.store.publish(layout.beat(self.holders, holder.generation), beat)


def this_process(run: str) -> Holder:
    """Who we are, with a nonce of our own; the generation is still to be found."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return Holder(1, run, socket.gethostname(), os.getpid(), since, secrets.token_hex(8))


@dataclass(frozen=True)
class Watch:
    """How we find out who lives: on our own monotonic clock, telling the person what we wait for."""

    say: Say
    clock: Clock = time.monotonic
    sleep: Sleep = time.sleep

    def living(self, chains: Collection[Chain]) -> list[Holder]:
        """Newest holders that live: none once every beat has ended or stood still, else the first ones seen to move.

        Takes no time where all have ended, up to PATIENCE_SECONDS where one was killed.
        """
        newest_of = {chain: holder for chain in chains if (holder := chain.newest()) is not None}
        beats = {chain: chain.beat(holder) for chain, holder in newest_of.items()}
        watched = [chain for chain in newest_of if beats[chain] != ENDED]
        for chain in watched:
            holder = newest_of[chain]
            what = f"the run {holder.run} was last driven" if holder.run else "the store was last cleaned"
            self.say(f"{what} by {holder}; it may still be: watching for up to {PATIENCE_SECONDS:.0f} s")
        left = PATIENCE_SECONDS
        while watched and left > 0:
            self.sleep(_LOOK_SECONDS)
            left -= _LOOK_SECONDS
            asked = self.clock()
            now = {chain: chain.beat(newest_of[chain]) for chain in watched}
            found = [newest_of[chain] for chain in watched if now[chain] not in (beats[chain], ENDED)]
            if found:
                return found
            watched = [chain for chain in watched if now[chain] != ENDED]
            if self.clock() - asked > BEAT_SECONDS:
                left = PATIENCE_SECONDS  # the store was away: nobody could show anything
        return []


def take(
    chain: Chain,
    me: Holder,
    watch: Watch,
    *,
    take_over: bool = False,
    proves_gone: Callable[[str], bool] = lambda _nonce: False,
) -> Holder:
    """Become the next generation, unless the newest one lives: `me` with its number. AliveError says who does.

    `take_over` does not ask. `proves_gone(nonce)` may know without watching.
    """
    while True:
        standing = chain.newest()
        if standing is not None and not take_over and not proves_gone(standing.nonce):
            alive = watch.living([chain])
            if alive:
                raise AliveError(alive[0])
        mine = dataclasses.replace(me, generation=1 if standing is None else standing.generation + 1)
        if chain.put(mine):
            return mine


class Hold:
    """A generation that is ours. Within the context its beat goes on; `successor` tells who took over, if anyone."""

    def __init__(self, chain: Chain, mine: Holder, say: Say) -> None:
        self.chain, self.mine = chain, mine
        self.successor: Holder | None = None
        self._say = say
        self._count, self._away = 0, False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="beat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(_CLOSE_SECONDS)

    def beat(self, ended: bool = False) -> None:
        """Look for a successor; without one, show that we live, or that we ended. A store that is down is told once."""
        try:
            self.successor = self.chain.read(self.mine.generation + 1)
            if self.successor is None:
                self._count += 1
                self.chain.show(self.mine, ENDED if ended else str(self._count).encode())
        except StoreError as error:
            if not self._away:
                self._say(f"the store does not answer; what runs goes on, and the store is tried again.\n{error}")
            self._away = True
            return
        if self._away:
            self._say("the store answers again")
        self._away = False

    def _work(self) -> None:
        while self.successor is None:
            ended = self._ending.is_set()
            self.beat(ended)
            if ended:
                return
            self._ending.wait(0 if self.successor is not None else BEAT_SECONDS)
        self._say(f"taken over by {self.successor}: what runs commits its last step and ends")


@contextmanager
def driving(store: Store, run: str, lock: Path, watch: Watch, *, take_over: bool) -> Iterator[Hold]:
    """Hold a run: one process at a time drives it. UserError says who does, and since when."""
    chain, me = Chain(store, layout.coordinators(run)), this_process(run)
    with RunLock(lock) as here:
        if here.is_taken and not take_over:
            raise _held(run, chain.newest())  # without a look at its beat: it may be frozen, and the lock is enough
        here.note(me.nonce)
        try:
            mine = take(chain, me, watch, take_over=take_over, proves_gone=here.proves_gone)
        except AliveError as error:
            raise _held(run, error.holder) from error
        with Hold(chain, mine, watch.say) as hold:
            _refuse_beside_cleaner(store, watch)
            yield hold


def _held(run: str, holder: Holder | None) -> UserError:
    mend = "wait until it ends, stop it with Ctrl-C where it runs, give another --run, or end it from here: --take-over"
    return UserError(f"the run {run} is already being driven", where=str(holder or "this machine"), mend=mend)


def _refuse_beside_cleaner(store: Store, watch: Watch) -> None:
    """UserError while someone removes what nobody needs; one that was killed meanwhile is succeeded, and ended."""
    chain = Chain(store, layout.CLEANERS)
    if (last := chain.newest()) is None or chain.beat(last) == ENDED:
        return
    try:
        mine = take(chain, this_process(""), watch)
    except AliveError as error:
        raise _busy("it is being cleaned", error.holder) from error
    chain.show(mine, ENDED)


@contextmanager
def cleaning(store: Store, watch: Watch) -> Iterator[Hold]:
    """Hold the store for removing what nobody needs: one process at a time, while nobody drives a run.

    UserError says who does.
    """
    chain = Chain(store, layout.CLEANERS)
    try:
        mine = take(chain, this_process(""), watch)
    except AliveError as error:
        raise _busy("it is being cleaned already", error.holder) from error
    with Hold(chain, mine, watch.say) as hold:
        chains = {entry.key.rpartition("/")[0] for entry in store.list(f"{layout.COORDINATORS}/")}
        alive = watch.living([Chain(store, chain) for chain in sorted(chains)])
        if alive:
            raise _busy(f"the run {alive[0].run} is being driven", alive[0])
        yield hold


def _busy(why: str, holder: Holder) -> UserError:
    return UserError(f"the store is not idle: {why}", where=str(holder), mend="wait until that ends, then try again")
