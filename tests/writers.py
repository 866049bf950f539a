"""One attempt at a fold as the store sees it, by the rules of workers/checkpoint.py, and the book of what was promised.

No test in here, and no training: a state is a few bytes that name their task, number and attempt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from shared_store import layout
from shared_store.commits import digest_of, last_commit, put_commit, put_result, read_commit, read_result
from shared_store.errors import DamagedBlobError, MissingBlobError
from shared_store.records import Commit, Result, sha256
from shared_store.store import Store

LAST_NUMBER = 4
KEPT_COMMITS = 2


class BrokenPromiseError(AssertionError):
    """The store, or the protocol on it, did what it promises never to do."""


def must(holds: bool, story: str) -> None:
    if not holds:
        raise BrokenPromiseError(story)


class LostRaceError(Exception):
    """Another attempt's commit of this number stands."""


@dataclass
class Book:
    """What anybody was ever told about the store, and which harm was done to its disk."""

    told: dict[str, bytes] = field(default_factory=dict)  # records that were told to stand, by key
    newest: Counter[str] = field(default_factory=Counter)  # the highest number told, by task
    rotten: set[str] = field(default_factory=set)  # blobs that were harmed at rest, or kept for a stale size
    misread: Counter[str] = field(default_factory=Counter)  # readings of blobs that were given wrong bytes

    def saw(self, record: Commit | Result) -> None:
        key = layout.result(record.task)
        if isinstance(record, Commit):
            key = layout.commit(record.task, record.number)
            self.newest[record.task] = max(self.newest[record.task], record.number)
        data = record.to_bytes()
        known = self.told.setdefault(key, data)
        must(known == data, f"{key} was told to be {known!r}, and now to be {data!r}")

    def may_be_unusable(self, record: Commit | Result) -> bool:
        """Whether harm explains that a record's blobs do not all stand: two wrong readings put a right one aside too,

        and who passes over a commit for one of its blobs lets go of the others.
        """
        return any(digest in self.rotten or self.misread[digest] >= 2 for digest in record.blobs.values())


def state_of(task: str, number: int, nonce: str) -> bytes:
    return f"the state of {task} at {number} by {nonce}".encode()


def best_of(task: str, epoch: int, nonce: str) -> bytes:
    return f"the best weights of {task} until {epoch} by {nonce}".encode()


def model_of(task: str) -> bytes:
    """Whoever finishes a task finds the same."""
    return f"the model of {task}".encode()


class Writer:
    """One attempt: it knows its store, the book that it writes what it is told into, and nothing of attempts before."""

    def __init__(self, store: Store, book: Book, task: str, nonce: str, scratch: Path) -> None:
        self.store, self.book, self.task, self.nonce, self.scratch = store, book, task, nonce, scratch
        self.newest: Commit | None = None
        self.kept: list[Commit] = []
        self.superseded: list[Commit] = []
        self.best: str | None = None

    def work(self) -> None:
        """Bring the task to its result, or find it."""
        standing = read_result(self.store, self.task)
        while standing is None:
            try:
                self.resume()
                while self.number < LAST_NUMBER:
                    self.commit()
                blobs = {"model": self.store.put_blob(model_of(self.task))}
                standing = put_result(self.store, Result(self.task, "spec", 1, self.nonce, blobs))
            except LostRaceError:
                continue
        self.book.saw(standing)

    @property
    def number(self) -> int:
        return 0 if self.newest is None else self.newest.number

    def find_newest(self) -> Commit | None:
        at_least = self.book.newest[self.task]
        found = self.last_commit()
        if found is not None:
            self.book.saw(found)
        number = found.number if found else 0
        must(number >= at_least, f"commit {at_least} of {self.task} stands and {number} was found to be the newest")
        return found

    def last_commit(self) -> Commit | None:
        return last_commit(self.store, self.task)

    def resume(self) -> None:
        while True:
            newest = self.find_newest()
            if self.load(newest) or self.find_newest() == newest:
                return

    def load(self, newest: Commit | None) -> bool:
        """Go on from `newest`, or from the one before where it cannot be used."""
        self.newest, self.kept, self.superseded, self.best = newest, [], [], None
        commit = newest
        while commit is not None:
            parent = read_commit(self.store, self.task, commit.number - 1) if commit.number > 1 else None
            if self.is_loadable(commit):
                self.kept = [commit] if parent is None else [parent, commit]
                if parent is not None and parent.number > 1:
                    older = read_commit(self.store, self.task, parent.number - 1)
                    self.superseded += [] if older is None else [older]
                self.best = commit.blobs.get("best")
                return True
            self.superseded.append(commit)
            commit = parent
        return False

    def is_loadable(self, commit: Commit) -> bool:
        try:
            state = self.store.get_blob(commit.blobs["state"])
            must(state == state_of(commit.task, commit.step, commit.nonce), f"{state!r} is not what {commit} names")
            if "best" in commit.blobs:
                target = self.scratch / self.nonce
                self.store.get_file(commit.blobs["best"], target)
                must(sha256(target.read_bytes()) == commit.blobs["best"], f"the best weights of {commit} are wrong")
                target.unlink()
        except (DamagedBlobError, MissingBlobError) as error:
            excused = self.book.may_be_unusable(commit) or self.may_be_let_go(commit)
            must(excused, f"{commit} cannot be used, and nobody did it harm: {error}")
            return False
        return True

    def may_be_let_go(self, commit: Commit) -> bool:
        """Whether a rival may have removed the commit's blobs since it was read."""
        return self.book.newest[self.task] > commit.number + 1

    def commit(self) -> None:
        number = self.number + 1
        if number % 2 == 0:
            self.best = self.store.put_blob(best_of(self.task, number, self.nonce))
        blobs = self.put_state(number)
        parent = None if self.newest is None else digest_of(self.newest)
        mine = Commit(self.task, number, parent, "spec", 1, self.nonce, number, number, blobs)
        standing = self.put_commit(mine)
        if standing != mine:
            self.take_back(blobs)
            raise LostRaceError
        self.newest = mine
        self.kept.append(mine)
        self.superseded += self.kept[:-KEPT_COMMITS]
        self.kept = self.kept[-KEPT_COMMITS:]
        self.clean()

    def put_state(self, number: int) -> dict[str, str]:
        blobs = {"state": self.store.put_blob(state_of(self.task, number, self.nonce))}
        return blobs if self.best is None else blobs | {"best": self.best}

    def put_commit(self, mine: Commit) -> Commit:
        """What stands now, as the store tells it; both ways it goes into the book."""
        standing = put_commit(self.store, mine)
        self.book.saw(standing)
        return standing

    def take_back(self, blobs: dict[str, str]) -> None:
        before = {} if self.newest is None else self.newest.blobs
        for name, digest in blobs.items():
            if before.get(name) != digest:
                self.store.delete_blob(digest)

    def clean(self) -> None:
        named = {digest for commit in self.kept for digest in commit.blobs.values()}
        for commit in self.superseded:
            for digest in commit.blobs.values():
                if digest not in named:
                    self.store.delete_blob(digest)
        self.superseded = []


def digest_in(key: str) -> str | None:
    """The digest of the blob that a key is about, in its place or put aside."""
    room, _, name = key.partition("/")
    return name if room in ("blobs", layout.damaged("x").partition("/")[0]) else None
