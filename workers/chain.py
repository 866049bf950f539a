"""A task's commits in one store, be it this machine's own or the one that all share: adding, and letting go.

A commit names a `state` blob of its own (task and attempt's nonce are in the bytes, so no two attempts share one) and,
for `keep: best`, the `best` weights so far, which later commits may name again. What a commit counts is how far it is,
(epoch, step), for any state of a task is a right one to go on from: commits of several attempts may alternate.

The newest two commits that are known to be whole keep their blobs; older ones go once a newer commit stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from shared_store.commits import digest_of, last_commit, put_commit, read_commit
from shared_store.records import Commit
from shared_store.store import Store

KEPT_COMMITS = 2
_LEFT_BEHIND = 8  # commits before the newest whose blobs attempts may have left when they were killed
Position = tuple[int, int]
"""(epoch, step): how far a training is. An epoch counts once it is validated, a step over all epochs."""


class LostRaceError(Exception):
    """Another attempt's commit stands, and is as far as ours or further: go on from it."""

    def __init__(self, standing: Commit) -> None:
        super().__init__(standing.number, standing.attempt)
        self.standing = standing


def position(commit: Commit | None) -> Position:
    """How far a commit is; None, no commit, is before all."""
    return (-1, -1) if commit is None else (commit.epoch, commit.step)


class Chain:
    """The commits of `task` in `store`. Calls that write come from one thread at a time."""

    def __init__(self, store: Store, task: str) -> None:
        self.store, self.task = store, task
        self.newest: Commit | None = None  # that we know of
        self.reached: Position = position(None)  # how far the furthest is that we count on
        self.held: Commit | None = None  # its blobs are read by somebody: nothing from it on goes
        self._whole: list[Commit] = []  # ours, or read to the last byte; oldest first
        self._cleaned = 0  # all blobs of the commits up to this one are gone

    def look(self) -> Commit | None:
        """Read what stands now: the newest commit."""
        self.newest = last_commit(self.store, self.task)
        self.reached = position(self.newest)
        self._whole = []
        self._cleaned = max(self._cleaned, (self.newest.number if self.newest else 0) - _LEFT_BEHIND, 0)
        return self.newest

    def before(self, commit: Commit) -> Commit | None:
        """The commit before `commit`."""
        return read_commit(self.store, self.task, commit.number - 1) if commit.number > 1 else None

    def trust(self, commit: Commit) -> None:
        """`commit` was read whole: it may count as one of the two that are kept."""
        self._whole = [commit]

    def add(self, draft: Commit, send: Callable[[], set[str]]) -> Commit:
        """Make `draft` the next commit, whatever number and parent that gives it; then let go of what it supersedes.

        `send` brings its blobs where they are not there already, and says which it brought. LostRaceError when a
        rival's commit that is as far stands; StoreError leaves the commits before as they were.
        """
        brought = send()
        known = self.newest.number if self.newest is not None else 1
        while True:
            if self.newest is not None and self.reached >= position(draft):
                self._let_go(brought, known)
                raise LostRaceError(self.newest)
            number, parent = 1, None
            if self.newest is not None:
                number, parent = self.newest.number + 1, digest_of(self.newest)
            mine = dataclasses.replace(draft, number=number, parent=parent)
            if put_commit(self.store, mine) == mine:
                break
            self.newest = last_commit(self.store, self.task)
            assert self.newest is not None, f"{self.task}: commit {number} lost its race to nothing"
            self.reached = max(self.reached, position(self.newest))
        self.newest, self.reached = mine, position(mine)
        self._whole.append(mine)
        send()  # meanwhile a rival may have let go of best weights that its own newest commits do not name
        self.clean()
        return mine

    def _let_go(self, brought: set[str], known: int) -> None:
        """Remove what we brought for nothing, unless a rival that brought the same made commits of it since `known`."""
        assert self.newest is not None
        since = (read_commit(self.store, self.task, number) for number in range(known, self.newest.number + 1))
        for digest in brought - _digests(commit for commit in since if commit is not None):
            self.store.delete_blob(digest)

    def clean(self) -> None:
        """Remove blobs that only commits before the newest two whole ones name."""
        self._whole = self._whole[-KEPT_COMMITS:]
        if len(self._whole) < KEPT_COMMITS:
            return
        end = min([self._whole[0].number] + ([] if self.held is None else [self.held.number]))
        if self._cleaned + 1 >= end:
            return
        assert self.newest is not None
        rival = read_commit(self.store, self.task, self.newest.number + 1)
        kept = _digests([*self._whole, *([] if rival is None else [rival])])
        for number in range(self._cleaned + 1, end):
            older = read_commit(self.store, self.task, number)
            for digest in _digests([] if older is None else [older]) - kept:
                self.store.delete_blob(digest)
            self._cleaned = number


def _digests(commits: Iterable[Commit]) -> set[str]:
    return {digest for commit in commits for digest in commit.blobs.values()}
