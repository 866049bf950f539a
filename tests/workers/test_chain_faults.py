"""The chain of commits as the workers use it, on a disk that does whatever disks do: see tests/fault_machine.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fault_machine import TASKS, Races, batches, search
from hypothesis.stateful import invariant
from writers import Book, LostRaceError, Writer, best_of, must, state_of

from shared_store import layout
from shared_store.backend import Content
from shared_store.commits import last_commit, read_commit
from shared_store.errors import StoreError
from shared_store.records import Commit, sha256
from shared_store.store import Store
from workers import chain


class ChainWriter(Writer):
    """An attempt whose commits are a `Chain`'s: it goes on training while the store is down, and past its rivals."""

    def __init__(self, store: Store, book: Book, task: str, nonce: str, scratch: Path) -> None:
        super().__init__(store, book, task, nonce, scratch)
        self.chain = chain.Chain(store, task)
        self.step = 0
        self.contents: dict[str, bytes] = {}  # what lies on this machine

    @property
    def number(self) -> int:
        return self.step

    def last_commit(self) -> Commit | None:
        return self.chain.look()

    def load(self, newest: Commit | None) -> bool:
        self.step, self.best, commit = 0, None, newest
        while commit is not None:
            if self.is_loadable(commit):
                self.chain.trust(commit)
                self.step, self.best = commit.step, commit.blobs.get("best")
                if self.best is not None:
                    self.contents[self.best] = self.store.get_blob(self.best)
                return True
            commit = self.chain.before(commit)
        return False

    def may_be_let_go(self, commit: Commit) -> bool:
        """A rival that does not know of it lets go of the best weights that it names, until its own writer looks."""
        return self.book.newest[self.task] > commit.number + 1 or not self.is_gone(commit.blobs["state"])

    def is_gone(self, digest: str) -> bool:
        return not self.store.has_blob(digest)

    def commit(self) -> None:
        self.step += 1
        if self.step % 2 == 0:
            self.best = self.keep(best_of(self.task, self.step, self.nonce))
        blobs = {"state": self.keep(state_of(self.task, self.step, self.nonce))}
        blobs |= {} if self.best is None else {"best": self.best}
        draft = Commit(self.task, 1, None, "spec", 1, self.nonce, 0, self.step, blobs)
        try:
            self.book.saw(self.chain.add(draft, lambda: self.send(draft)))
        except chain.LostRaceError as lost:
            self.book.saw(lost.standing)
            raise LostRaceError from lost
        except StoreError:
            if self.step % 2:  # every second attempt at it gives up, the others go on training
                raise

    def keep(self, data: bytes) -> str:
        self.contents[sha256(data)] = data
        return sha256(data)

    def send(self, draft: Commit) -> set[str]:
        brought = set()
        for digest in draft.blobs.values():
            if self.store.blob_size(digest) != len(self.contents[digest]):
                self.store.put_named_blob(digest, Content(self.contents[digest]))
                brought.add(digest)
        return brought


class ChainRaces(Races):
    """Of two attempts that alternate, one may let go of best weights that the other's commit names, until it looks:

    one of the newest two commits can always be gone on from.
    """

    writer = ChainWriter

    @invariant()
    def the_newest_two_commits_and_the_result_name_blobs_that_stand(self) -> None:
        for task in TASKS:
            newest = last_commit(self.calm, task)
            before = read_commit(self.calm, task, newest.number - 1) if newest and newest.number > 1 else None
            records = [record for record in (newest, before) if record is not None]
            if records and not any(self.book.may_be_unusable(record) for record in records):
                must(any(map(self.is_whole, records)), f"neither of {records} can be gone on from")
            for record in records:
                state = record.blobs["state"]
                must(self.stands(state) or self.book.may_be_unusable(record), f"the state of {record} is gone")

    def is_whole(self, commit: Commit) -> bool:
        return all(map(self.stands, commit.blobs.values()))

    def stands(self, digest: str) -> bool:
        data = self.disk.kept.get(layout.blob(digest))
        return data is not None and sha256(data) == digest


@pytest.mark.timeout(1800)  # shrinking a failure takes a while
def test_whatever_happens_a_chain_keeps_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    for batch in batches():
        with capsys.disabled():
            sys.stdout.write(f"\n{batch} ")
            sys.stdout.flush()
        search(ChainRaces, batch, shrink=True)
