"""Writers that race, fail, are killed and come back, on a disk that does whatever disks do: what was promised holds.

Hypothesis decides whose next call to the store is let through and what it meets. `make faults` runs 2,000 sequences;
the ordinary suite a short form. FOLDFLEET_FAULT_SEQUENCES and FOLDFLEET_FAULT_SEED choose others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import pytest
from fault_machine import Batch, Races, batches, search
from faulty import FaultyBackend
from writers import BrokenPromiseError, LostRaceError, Writer, state_of

from shared_store import layout
from shared_store.backend import Content
from shared_store.commits import read_commit
from shared_store.records import Commit, sha256
from shared_store.store import Store

T = TypeVar("T")


@pytest.mark.timeout(1800)  # shrinking a failure takes a while
def test_whatever_happens_no_commit_is_torn_lost_doubled_or_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for batch in batches():
        with capsys.disabled():
            sys.stdout.write(f"\n{batch} ")
            sys.stdout.flush()
        search(Races, batch, shrink=True)


class ChecksThenWrites(FaultyBackend):
    """Puts if absent by looking first: another may write in between."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.size(key) is not None:
            return False
        self.publish(key, Content(data))
        return True


class BelievesItsStore(Writer):
    """Reads nothing back when the store says that another won: an acknowledgement may have been lost."""

    def put_commit(self, mine: Commit) -> Commit:
        if self.store.backend.put_if_absent(layout.commit(mine.task, mine.number), mine.to_bytes()):
            return super().put_commit(mine)
        self.take_back(dict(mine.blobs))
        raise LostRaceError


class VerifiesNothing(Store):
    def _verified(self, digest: str, get: Callable[[str], tuple[str, T]]) -> T:
        return get(digest)[1]


class CleansFirst(Writer):
    """Lets go of old blobs before the new commit stands."""

    def put_commit(self, mine: Commit) -> Commit:
        self.superseded += self.kept[:-1]
        self.kept = self.kept[-1:]
        self.clean()
        return super().put_commit(mine)


class CommitsFirst(Writer):
    """Keeps the state only once the commit that names it stands."""

    def put_state(self, number: int) -> dict[str, str]:
        return {"state": sha256(state_of(self.task, number, self.nonce))}

    def put_commit(self, mine: Commit) -> Commit:
        standing = super().put_commit(mine)
        self.store.put_blob(state_of(self.task, mine.number, self.nonce))
        return standing


class BelievesListings(Writer):
    """Takes the last commit of a listing for the newest."""

    def last_commit(self) -> Commit | None:
        count = len(self.store.list(f"commits/{self.task}/"))
        return read_commit(self.store, self.task, count) if count else None


@pytest.mark.parametrize(
    "worse",
    [
        {"faulty": ChecksThenWrites},
        {"writer": BelievesItsStore},
        {"store": VerifiesNothing},
        {"writer": CleansFirst},
        {"writer": CommitsFirst},
        {"writer": BelievesListings},
    ],
    ids=lambda worse: next(iter(worse.values())).__name__,
)
def test_the_search_finds_what_is_wrong_with(worse: dict[str, type]) -> None:
    with pytest.raises(BrokenPromiseError):
        search(type("Worse", (Races,), worse), Batch(1000, 0))
