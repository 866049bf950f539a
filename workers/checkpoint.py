"""One attempt's dealings with its task's commits: where to go on from, and keeping what is done, in two tiers.

`commit` copies a state into memory and returns; threads bring it to this machine's own disk (landings.py) and from
there into the store (uploads.py), whatever the training does meanwhile. Both tiers hold commits of the same form, so
an attempt goes on from whichever is further, here or there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from shared_store.backend import Clock
from shared_store.store import Store
from workers.chain import Chain, LostRaceError, Position, position
from workers.landings import Landings, Snapshot
from workers.resume import Reading, Resumed
from workers.staging import Staging, size_of
from workers.state_file import flatten
from workers.trouble import Waits, growing_waits
from workers.uploads import Landed, Logs, Uploads
from workers.work import Work

PATIENCE_SECONDS = 60.0
"""How long an attempt that stops or fails waits for disks that take nothing."""
LANDING_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class News:
    """What became known since the last time: sentences for people, and the store's newest commit of ours."""

    notes: Sequence[str]
    commit: int | None


class Checkpoints:
    """One attempt's commits, in `tier` on this machine and in the store that all share. A context manager."""

    def __init__(
        self,
        work: Work,
        tier: Store,
        *,
        clock: Clock = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
        waits: Waits = growing_waits,
    ) -> None:
        """`clock` measures landings; `patience_seconds` bounds each waiting."""
        self._work, self._clock, self._patience_seconds = work, clock, patience_seconds
        self._notes: deque[str] = deque()
        tell = self._notes.append
        self._reading = Reading(work, tier, tell)
        self._local, self._shared = Chain(tier, work.task), Chain(work.store, work.task)
        self._pool = ThreadPoolExecutor(3, "checkpoints")
        self._staging = Staging(self._pool, pinned=work.device != "cpu")
        self._uploads = Uploads(self._local, self._shared, work.upload_share, tell, waits)
        self._landings = Landings(self._local, self._uploads, self._staging, work, clock=clock, tell=tell, waits=waits)
        self._threads: list[Future[None]] = []
        self._told_commit = 0
        self._taken: Position = (-1, -1)  # how far the newest snapshot is
        self._waited_for: Position = (-1, -1)
        self._settled = False

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, Exception) and not self._settled:  # another machine may be the one to go on
            self.settle()
        self._end()
        if error is None:
            self._raise_failures()

    # where to go on from

    def resume(self) -> Resumed | None:
        """The furthest state that can be trusted, here or in the store; None: begin anew. Comes before any commit.

        Damaged ones are passed over, with a note. Raises StoreError when the store cannot be read.
        """
        assert not self._threads, "what stands is looked up once, at the beginning"
        found = self._reading.furthest(self._local, self._shared)
        if found is not None:
            self._landings.best = found.commit.blobs.get("best")
            if found.here:
                self._uploads.offer(Landed(found.commit))
            self._start()
        return found

    def best(self) -> dict[str, Tensor]:
        """The best weights of the newest snapshot. DamagedStateError when they cannot be trusted."""
        assert self._landings.best is not None, f"{self._work.task}: no best weights were committed"
        return self._reading.weights(self._landings.best)

    # keeping what is done

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Make the memory that states like this one are copied into, in the background."""
        self._staging.prepare(size_of(flatten(state)[1]))

    def commit(
        self,
        state: Mapping[str, Any],
        at: Position,
        best: tuple[str, ...] | None = None,
        logs: Logs | None = None,
        must: bool = False,
    ) -> bool:
        """Take a snapshot of `state`, to become the next commit. `best`: where in it the best weights lie, when new.

        Returns at once, however slow the disks are: False, and nothing is taken, while a snapshot with the best weights
        waits to be written; if it `must` be taken, that is waited for.
        """
        self._raise_failures()
        self._settled = False
        taken_at = self._clock()
        tree, tensors = flatten(state)
        patience_seconds = self._patience_seconds if must else 0.0
        buffer = self._landings.buffer(size_of(tensors), best is not None, patience_seconds)
        if buffer is None:
            return False
        self._landings.hand_over(Snapshot(buffer.fill(tree, tensors), buffer, at, best, logs or {}, taken_at))
        self._taken = at
        self._start()
        return True

    def check(self, at: Position) -> None:
        """Raise what went wrong in the background; LostRaceError when another attempt is further than `at`."""
        self._raise_failures()
        rival = self._uploads.rival
        if rival is not None and position(rival) > at:
            raise LostRaceError(rival)

    def news(self) -> News:
        """What became known since the last call."""
        newest, commit = self._shared.newest, None
        if newest is not None and newest.nonce == self._work.nonce and newest.number > self._told_commit:
            commit = self._told_commit = newest.number
        return News([self._notes.popleft() for _ in range(len(self._notes))], commit)

    @property
    def landing_seconds(self) -> float:
        """What to expect of a landing, from the snapshot on, by those of late."""
        return self._landings.seconds

    @property
    def is_behind(self) -> bool:
        """Whether a snapshot waits for the one before it to be written."""
        return self._landings.is_behind

    def keep_within(self, interval_seconds: float, began: float, until: float) -> None:
        """Let a snapshot that is slow to land come down before work that no commit has exceeds the interval.

        `until`: when the next chance to wait comes; `began`: when this attempt did. Waits some seconds, and once for
        each snapshot, so that a disk that hangs does not hold up the training.
        """
        since = self._landings.taken_at
        if until - (began if since is None else since) <= interval_seconds or self._landings.error is not None:
            return
        if self._taken > self._landings.at and self._taken != self._waited_for:
            self._waited_for = self._taken
            self._landings.settle(LANDING_PATIENCE_SECONDS)

    def land(self) -> None:
        """Wait until every snapshot is a commit. StoreError when neither tier takes them for all our patience."""
        while self._threads and not self._landings.settle(self._patience_seconds):
            self._raise_failures()
            if self._landings.error is not None:
                raise self._landings.error

    @property
    def landed_at(self) -> Position:
        """How far the newest snapshot was that is a commit, here or in the store."""
        return self._landings.at

    @property
    def number(self) -> int:
        """The number of the store's newest commit, 0 before the first."""
        return 0 if self._shared.newest is None else self._shared.newest.number

    def settle(self) -> bool:
        """Bring all that was committed into the store at full speed; whether our patience was enough for it."""
        self._settled, seconds = True, self._patience_seconds
        return not self._threads or (self._landings.settle(seconds) and self._uploads.settle(seconds))

    def close(self) -> None:
        """Let the snapshots land and the uploads go; ends the threads, and raises what went wrong in them."""
        self._end()
        self._raise_failures()

    def _start(self) -> None:
        if not self._threads:
            self._threads = [self._pool.submit(self._landings.run), self._pool.submit(self._uploads.run)]

    def _raise_failures(self) -> None:
        for thread in self._threads:
            if thread.done():
                thread.result()

    def _end(self) -> None:
        self._landings.close()
        self._uploads.close()
        self._pool.shutdown()
