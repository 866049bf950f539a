"""A machine's backlog: what is further than the store goes there, what is done or behind goes from the machine."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest
from fold_support import WatchedBackend

from shared_store.commits import last_commit, put_result
from shared_store.errors import StoreDownError, StoreError
from shared_store.local import LocalBackend
from shared_store.records import Commit, Result
from shared_store.store import Store
from workers.chain import Chain, position
from workers.offer import hand_over_backlog
from workers.tier import lock_of, open_tier

SPEC = "5" * 64


class Machine:
    """A tier beside a store, with commits of any task in either."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.tier = store, open_tier(root, store.url)
        self.told: list[str] = []
        self.slept: list[float] = []

    def commit(self, store: Store, task: str, step: int, nonce: str = "here") -> Commit:
        chain = Chain(store, task)
        chain.look()
        blobs = {name: store.put_blob(f"{name} {task} {step} {nonce}".encode()) for name in ("state", "best")}
        return chain.add(Commit(task, 1, None, SPEC, 1, nonce, 0, step, blobs), set)

    def hand_over(self, opens: Callable[[], Store] | None = None) -> None:
        hand_over_backlog(
            self.tier, opens or (lambda: self.store), 1.0, self.told.append, waits=lambda: repeat(7.0),
            sleep=self.slept.append,
        )  # fmt: skip

    def here(self, task: str) -> Commit | None:
        return last_commit(self.tier, task)


@pytest.fixture
def machine(store: Store, tmp_path: Path) -> Machine:
    return Machine(store, tmp_path / "machine")


def test_a_machine_without_commits_opens_no_store(machine: Machine) -> None:
    def opens() -> Store:
        raise AssertionError("opened")

    machine.hand_over(opens)
    assert machine.slept == []


def test_what_is_further_here_becomes_the_stores_next_commit(machine: Machine) -> None:
    there = machine.commit(machine.store, "fold", 3, "there")
    local = machine.commit(machine.tier, "fold", 5)
    machine.hand_over()
    newest = last_commit(machine.store, "fold")
    assert newest is not None
    assert (newest.number, newest.step, newest.nonce, newest.blobs) == (there.number + 1, 5, "here", local.blobs)
    for digest in local.blobs.values():
        machine.store.verify(digest)
    assert machine.here("fold") == local, "a fold that goes on here need not fetch it"
    assert len(machine.told) == 1 and "fold: epoch 0, step 5" in machine.told[0]


def test_handing_over_twice_makes_one_commit(machine: Machine) -> None:
    machine.commit(machine.tier, "fold", 5)
    for _ in range(2):
        machine.hand_over()
    newest = last_commit(machine.store, "fold")
    assert newest is not None and newest.number == 1


def test_what_is_behind_or_done_goes_from_the_machine(machine: Machine) -> None:
    for task in ("behind", "done"):
        machine.commit(machine.tier, task, 4)
        machine.commit(machine.tier, task, 5)
    machine.commit(machine.store, "behind", 6, "there")
    put_result(machine.store, Result("done", SPEC, 1, "n"))
    machine.hand_over()
    assert machine.here("behind") is None and machine.here("done") is None
    assert [entry.key for entry in machine.tier.list("blobs/")] == []
    newest = last_commit(machine.store, "behind")
    assert newest is not None and newest.number == 1
    assert last_commit(machine.store, "done") is None


def test_a_task_that_an_attempt_holds_is_left_to_it(machine: Machine) -> None:
    machine.commit(machine.tier, "held", 5)
    machine.commit(machine.tier, "free", 5)
    with lock_of(machine.tier, "held"):
        machine.hand_over()
    assert last_commit(machine.store, "held") is None
    assert last_commit(machine.store, "free") is not None


def test_one_process_at_a_time_goes_through_a_machines_backlog(machine: Machine) -> None:
    machine.commit(machine.tier, "fold", 5)
    with lock_of(machine.tier, "backlog"):
        machine.hand_over()
    assert last_commit(machine.store, "fold") is None


def test_what_rotted_here_is_not_offered_but_the_one_before(machine: Machine) -> None:
    good, rotten = machine.commit(machine.tier, "fold", 4), machine.commit(machine.tier, "fold", 5)
    path = machine.tier.blob_path(rotten.blobs["state"])
    assert path is not None
    path.write_bytes(b"x")
    machine.hand_over()
    newest = last_commit(machine.store, "fold")
    assert newest is not None and position(newest) == position(good)


def test_a_best_that_only_the_store_has_is_no_bar(machine: Machine) -> None:
    local = machine.commit(machine.tier, "fold", 5)
    best = machine.tier.get_blob(local.blobs["best"])
    machine.store.put_blob(best)
    machine.tier.delete_blob(local.blobs["best"])
    machine.hand_over()
    assert last_commit(machine.store, "fold") is not None


def test_a_store_that_is_away_is_asked_again_and_told_once(machine: Machine) -> None:
    machine.commit(machine.tier, "fold", 5)
    left = 3

    def opens() -> Store:
        nonlocal left
        left -= 1
        if left:
            raise StoreDownError("the store does not answer", where="there", mend="wait")
        return machine.store

    machine.hand_over(opens)
    assert last_commit(machine.store, "fold") is not None
    assert machine.slept[1:] == [7.0, 7.0]
    assert machine.told[0].startswith("the store does not answer (there): ")
    assert len(machine.told) == 3, "begun, handed over, over"


def test_a_kill_while_handing_over_leaves_both_sides_whole(machine: Machine, tmp_path: Path) -> None:
    class DiedError(BaseException):
        pass

    local = machine.commit(machine.tier, "fold", 5)
    root = machine.store.backend.local_path("")
    assert root is not None
    for writes in range(4):
        left = itertools.repeat(None, writes)

        def die(_action: str, _key: str, _data: bytes, left: Iterator[None] = left) -> None:
            if next(left, "none") == "none":
                raise DiedError

        with contextlib.suppress(DiedError):
            machine.hand_over(partial(Store, WatchedBackend(root, die)))
        assert machine.here("fold") == local
    newest = last_commit(machine.store, "fold")
    assert newest is not None and newest.number == 1 and newest.blobs == local.blobs


def test_damaged_records_on_the_machine_are_given_up(machine: Machine) -> None:
    machine.commit(machine.tier, "damaged", 5)
    machine.commit(machine.tier, "good", 5)
    path = machine.tier.backend.local_path("commits/damaged/1.json")
    assert path is not None
    path.write_bytes(b"{}")
    machine.hand_over()
    assert machine.here("damaged") is None
    assert last_commit(machine.store, "good") is not None


def test_an_attempt_that_begins_here_meanwhile_holds_its_task_and_keeps_its_commits(machine: Machine) -> None:
    machine.commit(machine.tier, "fold", 5)
    root = machine.store.backend.local_path("")
    assert root is not None
    begun = False

    def begin(_action: str, _key: str, _data: bytes) -> None:
        nonlocal begun
        if not begun:
            begun = True
            with lock_of(machine.tier, "fold").acquire(blocking=False):
                machine.commit(machine.tier, "fold", 6)
                machine.commit(machine.store, "fold", 6)
                machine.commit(machine.tier, "fold", 7)

    machine.hand_over(partial(Store, WatchedBackend(root, begin)))
    newest = machine.here("fold")
    assert begun and newest is not None and newest.step == 7
    for digest in newest.blobs.values():
        machine.tier.verify(digest)


def test_a_damaged_record_in_the_store_holds_up_its_own_task_alone(machine: Machine) -> None:
    machine.commit(machine.store, "damaged", 4, "there")
    path = machine.store.backend.local_path("commits/damaged/1.json")
    assert path is not None
    path.write_bytes(b"{}")
    for task in ("damaged", "good"):
        machine.commit(machine.tier, task, 5)
    machine.hand_over()
    assert last_commit(machine.store, "good") is not None
    assert machine.here("damaged") is not None, "somebody may mend the record"
    assert any("damaged is not handed over" in told for told in machine.told)


def test_the_locks_of_this_machine_are_not_read(machine: Machine) -> None:
    class MandatoryLocks(LocalBackend):  # as Windows has them: nobody else reads a file that is locked
        def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
            if key.startswith("locks/"):
                raise StoreError("locked", where=key, mend="wait")
            return super().parts(key, start)

    root = machine.tier.backend.local_path("")
    assert root is not None
    machine.tier = Store(MandatoryLocks(root))
    machine.commit(machine.tier, "fold", 5)
    machine.hand_over()
    assert last_commit(machine.store, "fold") is not None
    assert len(machine.slept) == 1 and len(machine.told) == 1, "handed over at once"
