"""Snapshots of a training on their way to this machine's own disk, in a thread of their own.

One snapshot is written, one waits; a newer one takes the place of the one that waits, except that the best weights so
far are not given up for a snapshot without better ones. Where the machine's disk takes nothing, a snapshot goes
straight into the store; where that fails as well, the newest is tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared_store.backend import Clock
from shared_store.errors import StoreError
from shared_store.records import Commit
from shared_store.store import Store
from workers.chain import Chain, LostRaceError, Position
from workers.staging import Buffer, Staged, Staging
from workers.trouble import Tell, Trouble, Waits
from workers.uploads import Landed, Logs, Uploads
from workers.work import Work

_REMEMBERED = 0.8  # of a landing's time, at the next one: a disk that was slow once may be so again


@dataclass(frozen=True)
class Snapshot:
    """A training at one step, in memory. `best`: where in it the best weights so far lie, when they are new."""

    staged: Staged
    buffer: Buffer
    at: Position
    best: tuple[str, ...] | None
    logs: Logs
    taken_at: float

    def supersedes(self, other: Snapshot) -> bool:
        return self.best is not None or other.best is None


class Landings:
    """Makes commits in `local` of the snapshots that it is given, and offers them to `uploads`."""

    def __init__(
        self,
        local: Chain,
        uploads: Uploads,
        staging: Staging,
        work: Work,
        *,
        clock: Clock,
        tell: Tell,
        waits: Waits,
    ) -> None:
        self._local, self._uploads, self._staging, self._work, self._clock = local, uploads, staging, work, clock
        self.best: str | None = None  # digest of the best weights of the newest snapshot that landed
        self.seconds = 0.0  # to expect of a landing, from the snapshot on: what the slowest of late ones took
        self.at: Position = (-1, -1)  # of the newest snapshot that landed
        self.taken_at: float | None = None  # when that one was taken
        self._waiting: Snapshot | None = None
        self._writing: Snapshot | None = None
        self._turn = threading.Condition()
        self._closed = self._ended = False
        here = "commits go straight into the store, training goes on"
        self._disk = Trouble(here, "this machine's disk takes commits again", tell, waits)
        nowhere = "commits are kept nowhere for now, neither on this machine nor in the store; training goes on"
        self._both = Trouble(nowhere, "commits are kept again", tell, waits)

    def buffer(self, size: int, best: bool, patience_seconds: float) -> Buffer | None:
        """Memory for a snapshot of `size` bytes; None when what waits may not be given up within the patience."""
        with self._turn:
            if self._waiting is not None and self._waiting.best is not None and not best:
                self._turn.wait_for(lambda: self._ended or self._waiting is None, patience_seconds)
                if self._waiting is not None:
                    return None
            if self._waiting is not None:
                self._staging.give(self._waiting.buffer)
                self._waiting = None
        return self._staging.take(size)

    def hand_over(self, snapshot: Snapshot) -> None:
        """Let a snapshot land, whose memory came from `buffer`."""
        with self._turn:
            assert self._waiting is None
            self._waiting = snapshot
            self._turn.notify_all()

    @property
    def is_behind(self) -> bool:
        """Whether a snapshot waits while another is written."""
        return self._waiting is not None

    def settle(self, seconds: float) -> bool:
        """Wait until all snapshots landed, `seconds` at most; whether they have."""
        with self._turn:
            self._turn.wait_for(lambda: self._ended or self._is_idle(), seconds)
            return self._is_idle()

    def close(self) -> None:
        """Let what was handed over land if it can, and end the thread."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    @property
    def error(self) -> StoreError | None:
        """Why nothing lands now."""
        return self._both.error

    def run(self) -> None:
        """Write until closed: the body of the thread."""
        try:
            while (snapshot := self._next()) is not None:
                try:
                    self._land(snapshot)
                except StoreError as error:
                    if self._failed_for_good(self._both.met(error)):
                        return
                    continue
                self._both.over()
                self._done(snapshot)
        finally:
            with self._turn:
                self._ended = True
                self._turn.notify_all()

    def _is_idle(self) -> bool:
        return self._writing is None and self._waiting is None

    def _next(self) -> Snapshot | None:
        """The snapshot to write next: the newest, or the one that failed and may not be given up for it."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or self._waiting is not None or self._writing is not None)
            newer, failed = self._waiting, self._writing
            if newer is not None and (failed is None or newer.supersedes(failed)):
                if failed is not None:
                    self._staging.give(failed.buffer)
                self._waiting, self._writing = None, newer
                self._turn.notify_all()
            return self._writing

    def _done(self, snapshot: Snapshot) -> None:
        self._staging.give(snapshot.buffer)
        with self._turn:
            self._writing = None
            self._turn.notify_all()

    def _failed_for_good(self, seconds: float) -> bool:
        with self._turn:
            if not self._closed:
                self._turn.wait(seconds)
            return self._closed

    def _land(self, snapshot: Snapshot) -> None:
        """Make a commit of a snapshot here, or in the store. StoreError when neither takes it."""
        try:
            commit = self._here(snapshot)
        except LostRaceError as lost:  # another attempt at the task lives on this machine
            self._uploads.rival = lost.standing
        except StoreError as error:
            self._disk.met(error)
            brought = set[str]()
            draft = self._draft(snapshot, self._put(self._uploads.store, snapshot, brought))
            self._uploads.add(draft, brought, snapshot.logs)
        else:
            self._disk.over()
            self._uploads.offer(Landed(commit, snapshot.logs))
        self.at, self.taken_at = snapshot.at, snapshot.taken_at
        self.seconds = max(self._clock() - snapshot.taken_at, _REMEMBERED * self.seconds)

    def _here(self, snapshot: Snapshot) -> Commit:
        store, brought = self._local.store, set[str]()
        try:
            draft = self._draft(snapshot, self._put(store, snapshot, brought))
            return self._local.add(draft, lambda: brought)
        except StoreError:
            if self._local.reached != snapshot.at:  # what no commit names only takes room
                for digest in brought:
                    store.delete_blob(digest)
            raise

    def _put(self, store: Store, snapshot: Snapshot, brought: set[str]) -> dict[str, str]:
        """The blobs of a snapshot, kept in `store`, by their names in the commit. New best weights become the best."""
        work, (epoch, step) = self._work, snapshot.at
        about: dict[str, Any] = {"task": work.task, "nonce": work.nonce, "epoch": epoch, "step": step}
        blobs = {"state": store.put_blob(snapshot.staged.content(about))}
        brought.add(blobs["state"])
        best = self.best
        if snapshot.best is not None:
            about = {"task": work.task, "nonce": work.nonce, "best_epoch": epoch}
            best = store.put_blob(snapshot.staged.content(about, snapshot.best))
            brought.add(best)
        self.best = best
        return blobs | ({} if best is None else {"best": best})

    def _draft(self, snapshot: Snapshot, blobs: Mapping[str, str]) -> Commit:
        work, (epoch, step) = self._work, snapshot.at
        return Commit(work.task, 1, None, work.spec, work.attempt, work.nonce, epoch, step, blobs)
