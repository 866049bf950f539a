"""What lies on this machine and not in the store, handed over: commits that attempts made and could not bring there.

A machine that was cut off, or whose store was full, may hold the furthest state of a fold. It goes into the store as
the fold's next commit; an attempt that goes on elsewhere from an earlier state hears of it at its own next commit.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from filelock import Timeout

from shared_store import layout
from shared_store.backend import Sleep
from shared_store.commits import read_result
from shared_store.errors import DamagedBlobError, DamagedRecordError, StoreError
from shared_store.records import Commit
from shared_store.store import Store
from shared_store.sweep import find_needless, remove
from workers.chain import Chain, LostRaceError, position
from workers.tier import discard, forget, lock_of, send
from workers.trouble import Tell, Trouble, Waits, growing_waits

FIRST_SECONDS = 5.0  # an attempt that begins here takes its task's commits to itself
_GRACE_SECONDS = 24 * 3600.0  # what a kill left half written is not somebody's work any more
_BACKLOG = "backlog"


def hand_over_backlog(
    tier: Store,
    opens: Callable[[], Store],
    share: float,
    tell: Tell,
    *,
    first_seconds: float = FIRST_SECONDS,
    waits: Waits = growing_waits,
    sleep: Sleep = time.sleep,
) -> None:
    """Hand over all of this machine's backlog, however long the store is away, unless another process does.

    What is done, or further in the store, goes from this machine. `share`: of the link.
    """
    if not any(_tasks(tier)):
        return
    sleep(first_seconds)
    trouble = Trouble("what this machine has to hand over waits", "the store takes commits again", tell, waits)
    with contextlib.suppress(Timeout), lock_of(tier, _BACKLOG).acquire(blocking=False):
        while True:
            try:
                store = opens()
                with contextlib.closing(store.backend):
                    _Backlog(tier, store, share, tell, sleep).hand_over()
            except StoreError as error:
                sleep(trouble.met(error))
                continue
            trouble.over()
            return


@dataclass(frozen=True)
class _Backlog:
    """One going through of a machine's tier against the store."""

    tier: Store
    store: Store
    share: float
    tell: Tell
    sleep: Sleep

    def hand_over(self) -> None:
        for task in _tasks(self.tier):
            try:
                self._hand_over(task)
            except DamagedRecordError as error:  # in the store, and this task's alone
                self.tell(f"{task} is not handed over by {socket.gethostname()}: {error.what} ({error.where})")
        try:
            needless = find_needless(self.tier, _GRACE_SECONDS, lambda _done, _in_all: None)
        except DamagedRecordError as error:  # it may name what would go
            self.tell(f"nothing is cleaned up on {socket.gethostname()}: {error.what} ({error.where})")
            return
        remove(self.tier, needless.goes, lambda: True, lambda _done, _in_all: None)

    def _hand_over(self, task: str) -> None:
        shared, commit = Chain(self.store, task), None
        with contextlib.suppress(Timeout), lock_of(self.tier, task).acquire(blocking=False):
            commit = self._further(shared)
        # An attempt may begin here while this takes its time: it holds the task, and nothing of its goes.
        if commit is not None:
            place = f"epoch {commit.epoch}, step {commit.step}"
            self.tell(f"{socket.gethostname()} hands over what it has of {task}: {place}")
            with contextlib.suppress(LostRaceError):  # another attempt came as far meanwhile
                shared.add(commit, lambda: set(send(self.tier, commit, self.store, self.share, self.sleep)))

    def _further(self, shared: Chain) -> Commit | None:
        """The furthest local commit where the store is not as far; what is done or behind goes from here.

        One that is as far stays: a fold that goes on here need not fetch it.
        """
        if read_result(self.store, shared.task) is not None:
            forget(self.tier, shared.task)
            return None
        shared.look()
        local = self._furthest_first(shared.task)
        usable = (c for c in local if position(c) <= shared.reached or self._is_whole(c))
        commit = next(usable, None)
        if commit is not None and position(commit) < shared.reached:
            forget(self.tier, shared.task)
        return commit if position(commit) > shared.reached else None

    def _furthest_first(self, task: str) -> Iterator[Commit]:
        local = Chain(self.tier, task)
        try:
            commit = local.look()
            while commit is not None:
                yield commit
                commit = local.before(commit)
        except DamagedRecordError:
            discard(self.tier, task)

    def _is_whole(self, commit: Commit) -> bool:
        """Whether every blob of a commit is right here, or in the store: what lay about may have rotted."""
        for digest in commit.blobs.values():
            if self.tier.has_blob(digest):
                try:
                    self.tier.verify(digest)
                except DamagedBlobError:
                    return False
            elif not self.store.has_blob(digest):
                return False
        return True


def _tasks(tier: Store) -> list[str]:
    """The tasks that have commits here."""
    return sorted({entry.key.split("/")[1] for entry in tier.list(layout.COMMITS)})
