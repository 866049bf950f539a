"""Writers that race, fail, are killed and come back, on a disk that does whatever disks do. No test in here.

Hypothesis decides whose next call to the store is let through and what it meets.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from faulty import FITTING, Fault, FaultyBackend, MemoryBackend, rot
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from stepped import Stepped
from writers import Book, Writer, digest_in, model_of, must

from shared_store import layout
from shared_store.commits import last_commit, read_commit, read_result
from shared_store.errors import DamagedBlobError, MissingBlobError, StoreError
from shared_store.records import sha256
from shared_store.retrying import Retrying
from shared_store.store import Store

TASKS = ("fold0", "fold1")
WRITERS = 3
SHORT, MANY = 80, 500
AHEAD = 12  # calls to look ahead for one of a kind
WHOM = st.integers(0, WRITERS - 1)


class Races(RuleBasedStateMachine):
    """Some writers on one disk. What they stand on can be replaced by something that keeps its promise less well."""

    writer: type[Writer] = Writer
    store: type[Store] = Store
    faulty: type[FaultyBackend] = FaultyBackend

    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryBackend(part_bytes=40)
        self.calm = Store(self.disk)
        self.book = Book()
        self.scratch = tempfile.TemporaryDirectory(prefix="foldfleet-")
        self.attempts = itertools.count(1)
        self.begun = [self.begin(place) for place in range(WRITERS)]

    def begin(self, place: int) -> Stepped:
        """A new attempt at a task that has no result yet; nobody remembers anything of an attempt before."""
        stepped, now = Stepped(), itertools.count(0.0, 0.1)
        backend = Retrying(
            self.faulty(self.disk, stepped.choose),
            0.4,
            clock=lambda: next(now),
            sleep=lambda _seconds: None,
            draw=lambda: 1.0,
        )
        nonce = f"attempt {next(self.attempts)}"
        turned = [TASKS[(place + turn) % len(TASKS)] for turn in range(len(TASKS))]
        task = next((task for task in turned if layout.result(task) not in self.book.told), turned[0])
        stepped.begin(self.writer(self.store(backend), self.book, task, nonce, Path(self.scratch.name)).work)
        return stepped

    @rule(whom=WHOM, calls=st.integers(1, 15))
    def goes_on(self, whom: int, calls: int) -> None:
        self.let_through(whom, Fault.NONE, calls)

    @rule(whom=WHOM, data=st.data())
    def meets_a_fault(self, whom: int, data: st.DataObject) -> None:
        action, _ = self.begun[whom].waiting or ("size", "")
        self.let_through(whom, data.draw(st.sampled_from(FITTING[action])))

    @rule(whom=WHOM, action=st.sampled_from(["put_if_absent", "publish", "delete", "list"]), data=st.data())
    def comes_to_a_call_and_meets_a_fault(self, whom: int, action: str, data: st.DataObject) -> None:
        for _ in range(AHEAD):
            waiting = self.begun[whom].waiting
            if waiting is not None and waiting[0] == action:
                self.let_through(whom, data.draw(st.sampled_from(FITTING[action])))
                return
            self.let_through(whom, Fault.NONE)

    @rule(whom=WHOM)
    def is_killed(self, whom: int) -> None:
        self.begun[whom].kill()
        self.begun[whom] = self.begin(whom)

    @precondition(lambda self: any(key.startswith("blobs/") for key in self.disk.kept))
    @rule(data=st.data())
    def a_blob_rots(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key in self.disk.kept if key.startswith("blobs/"))))
        rot(self.disk, key)
        self.book.rotten.add(digest_in(key) or "")

    def let_through(self, whom: int, fault: Fault, calls: int = 1) -> None:
        stepped = self.begun[whom]
        if not stepped.ended:
            action, key = stepped.waiting or ("", "")
            if fault is Fault.ROTTEN and digest_in(key) is None:
                fault = Fault.NONE  # a record that rots is for a person: test_commits.py
            self.note_harm(fault, action, key)
            stepped.go_on(fault, calls)
        if stepped.ended:
            if stepped.error is not None and not isinstance(stepped.error, StoreError):
                raise stepped.error
            stepped.kill()
            self.begun[whom] = self.begin(whom)

    def note_harm(self, fault: Fault, action: str, key: str) -> None:
        digest = digest_in(key)
        if digest is None:
            return
        if fault is Fault.ROTTEN or (fault is Fault.STALE_SIZE and action == "size"):
            self.book.rotten.add(digest)
        if fault in (Fault.FLIPPED, Fault.TRUNCATED) and action == "parts":
            self.book.misread[digest] += 1

    @invariant()
    def what_was_told_stands(self) -> None:
        for key, record in self.book.told.items():
            standing = self.disk.kept.get(key)
            must(standing == record, f"{key} was told to be {record!r}, and is {standing!r}")

    @invariant()
    def numbers_have_no_gap_and_a_reader_finds_the_last(self) -> None:
        for task in TASKS:
            there = [key for key in self.disk.kept if key.startswith(f"commits/{task}/")]
            must(sorted(there) == sorted(layout.commit(task, n + 1) for n in range(len(there))), f"a gap in {there}")
            found = last_commit(self.calm, task)
            must((found.number if found else 0) == len(there), f"of {there}, {found} is not the last")

    @invariant()
    def the_newest_two_commits_and_the_result_name_blobs_that_stand(self) -> None:
        for task in TASKS:
            newest = last_commit(self.calm, task)
            before = read_commit(self.calm, task, newest.number - 1) if newest and newest.number > 1 else None
            for record in (newest, before, read_result(self.calm, task)):
                if record is not None and not self.book.may_be_unusable(record):
                    for digest in record.blobs.values():
                        data = self.disk.kept.get(layout.blob(digest))
                        must(data is not None and sha256(data) == digest, f"{record} names {digest}: {data!r}")

    def teardown(self) -> None:
        """In calm, every task still comes to its result."""
        for stepped in self.begun:
            stepped.kill()
        try:
            for task in TASKS:
                Writer(self.calm, self.book, task, "last", Path(self.scratch.name)).work()
                self.finds_or_makes_anew(model_of(task))
        finally:
            self.scratch.cleanup()

    def finds_or_makes_anew(self, model: bytes) -> None:
        try:
            found = self.calm.get_blob(sha256(model))
        except (DamagedBlobError, MissingBlobError):
            found = self.calm.get_blob(self.calm.put_blob(model))
        must(found == model, f"{found!r} is no {model!r}")


@dataclass(frozen=True)
class Batch:
    """So many random sequences of rules."""

    sequences: int
    seed: int

    def __str__(self) -> str:
        return f"{self.sequences} sequences of FOLDFLEET_FAULT_SEED={self.seed}"


def batches() -> list[Batch]:
    """As many sequences as FOLDFLEET_FAULT_SEQUENCES says, from FOLDFLEET_FAULT_SEED on."""
    sequences = int(os.environ.get("FOLDFLEET_FAULT_SEQUENCES", SHORT))
    first = int(os.environ.get("FOLDFLEET_FAULT_SEED", 0 if os.environ.get("CI") else random.randrange(10**6)))
    return [Batch(min(MANY, sequences - n * MANY), first + n) for n in range(-(-sequences // MANY))]


def search(machine: type[Races], batch: Batch, *, shrink: bool = False) -> None:
    """Run a batch; BrokenPromiseError for a sequence after which a promise does not hold, the shortest to `shrink`."""
    chosen = settings(
        max_examples=batch.sequences,
        stateful_step_count=40,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(batch.seed)(machine), settings=chosen)
