"""Local commits on their way into the store that all share, in a thread of their own.

Only the newest local commit goes; those that were superseded while another was on its way are passed over. Uploads keep
to a share of the link until somebody is in a hurry. Whatever goes wrong with the store is told once and tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared_store import layout
from shared_store.errors import StoreError
from shared_store.records import Commit
from shared_store.store import Store
from workers.chain import Chain, LostRaceError, position
from workers.tier import send
from workers.trouble import Tell, Trouble, Waits

Logs = Mapping[str, bytes]
"""What people read of a task, by file name."""


class _AbandonedError(Exception):
    """Nobody needs this upload any more."""


@dataclass(frozen=True)
class Landed:
    """A commit that lies on this machine, and what people may read of it."""

    commit: Commit
    logs: Logs = field(default_factory=dict)


class Uploads:
    """Brings what landed in `local` into `shared`, the same task's commits in the store."""

    def __init__(self, local: Chain, shared: Chain, share: float, tell: Tell, waits: Waits) -> None:
        self._local, self._shared, self._share = local, shared, share
        self.rival: Commit | None = None  # the newest commit by another attempt that was as far as ours
        self._landed: Landed | None = None
        self._turn = threading.Condition()
        self._closed = self._ended = False
        self._hurry = threading.Event()
        self._adding = threading.Lock()  # both tiers' threads add to the store's chain
        begins = "training goes on, commits stay on this machine until the store takes them"
        self._trouble = Trouble(begins, "the store takes commits again", tell, waits)

    def offer(self, landed: Landed) -> None:
        """Take `landed` for the newest local commit."""
        with self._turn:
            self._landed = landed
            self._turn.notify_all()

    @property
    def store(self) -> Store:
        """The store that all share."""
        return self._shared.store

    def add(self, draft: Commit, brought: set[str], logs: Logs) -> None:
        """Make `draft`, whose blobs `brought` are in the store already, its next commit past this machine's disk.

        StoreError; a lost race is left in `rival`.
        """
        with self._adding:
            try:
                self._shared.add(draft, lambda: brought | self._send(draft))
            except LostRaceError as lost:
                self.rival = lost.standing
                return
            publish_logs(self.store, self._shared.task, logs)

    def run(self) -> None:
        """Upload until closed: the body of the thread."""
        try:
            while (landed := self._next()) is not None:
                self._rest(self._tried(landed))
        except _AbandonedError:
            pass
        finally:
            with self._turn:
                self._ended = True
                self._turn.notify_all()

    def _tried(self, landed: Landed) -> float:
        """Try to upload a commit; seconds to wait before the next try."""
        try:
            with self._adding:
                self._upload(landed)
        except LostRaceError as lost:
            self.rival = lost.standing
        except StoreError as error:
            return self._trouble.met(error)
        self._trouble.over()
        return 0.0

    def settle(self, seconds: float) -> bool:
        """Hurry, and wait until all that landed is in the store, `seconds` at most; whether it is."""
        self._hurry.set()
        with self._turn:
            self._turn.notify_all()  # whoever waits before another try
            self._turn.wait_for(lambda: self._ended or not self._due(), seconds)
            return not self._due()

    def close(self) -> None:
        """Let go of what is on its way, and end the thread."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._hurry.set()

    @property
    def error(self) -> StoreError | None:
        """What keeps commits out of the store now."""
        return self._trouble.error

    def _due(self) -> bool:
        return self._landed is not None and position(self._landed.commit) > self._shared.reached

    def _next(self) -> Landed | None:
        """The newest local commit that the store has not, once there is one; None when closed."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or self._due())
            if self._closed:
                return None
            assert self._landed is not None
            self._local.held = self._landed.commit
            return self._landed

    def _upload(self, landed: Landed) -> None:
        self._shared.add(landed.commit, lambda: self._send(landed.commit))
        publish_logs(self.store, self._shared.task, landed.logs)

    def _send(self, commit: Commit) -> set[str]:
        brought = set[str]()
        try:
            for digest in send(self._local.store, commit, self.store, self._share, self._keep_pace):
                brought.add(digest)
        except _AbandonedError:
            named = set() if self._shared.newest is None else set(self._shared.newest.blobs.values())
            for digest in brought - named:
                self.store.delete_blob(digest)
            raise
        return brought

    def _keep_pace(self, seconds: float) -> None:
        self._hurry.wait(seconds)
        if self._closed:
            raise _AbandonedError

    def _rest(self, seconds: float) -> None:
        """Tell whoever waits how the upload went, and wait before the next unless somebody is in a hurry."""
        with self._turn:
            self._local.held = None
            self._turn.notify_all()
            if seconds and not self._closed:
                self._turn.wait(seconds)


def publish_logs(store: Store, task: str, logs: Logs) -> None:
    """Show what people read of a task."""
    for file, data in logs.items():
        store.publish(layout.log(task, file), data)
