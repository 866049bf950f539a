"""The commits of one task in one store: numbers without gaps, one winner each, the newest two whole ones kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from fold_support import WatchedBackend

from shared_store.commits import digest_of, read_commit
from shared_store.errors import StoreError
from shared_store.records import Commit
from shared_store.store import Store
from workers.chain import Chain, LostRaceError, position

TASK, SPEC = "teacher-fold0-1", "5" * 64


class Attempt:
    """One that commits: its chain, its nonce, its state blobs."""

    def __init__(self, store: Store, number: int = 1) -> None:
        self.store, self.number = store, number
        self.chain = Chain(store, TASK)
        self.chain.look()

    def commit(self, step: int, best: str | None = None) -> Commit:
        state = self.store.put_blob(f"attempt {self.number}, step {step}".encode())
        blobs = {"state": state} | ({} if best is None else {"best": best})
        draft = Commit(TASK, 1, None, SPEC, self.number, f"nonce{self.number}", step // 10, step, blobs)
        return self.chain.add(draft, lambda: {state})


def kept(store: Store, *commits: Commit | None) -> list[bool]:
    return [commit is not None and store.has_blob(commit.blobs["state"]) for commit in commits]


def test_commits_form_a_chain(store: Store) -> None:
    attempt = Attempt(store)
    commits = [attempt.commit(step) for step in (1, 2, 3)]
    assert [commit.number for commit in commits] == [1, 2, 3]
    assert [commit.parent for commit in commits] == [None, digest_of(commits[0]), digest_of(commits[1])]
    assert Attempt(store, 2).commit(4).parent == digest_of(commits[2])


def test_the_newest_two_states_and_the_best_they_name_stay(store: Store) -> None:
    attempt, best, better = Attempt(store), store.put_blob(b"best"), store.put_blob(b"better")
    commits = [attempt.commit(step, best) for step in (1, 2, 3, 4)]
    assert kept(store, *commits) == [False, False, True, True]
    attempt.commit(5, better)
    assert store.has_blob(best), "the commit before still names it"
    attempt.commit(6, better)
    assert not store.has_blob(best) and store.has_blob(better)


def test_nothing_goes_before_the_newer_commit_stands(tmp_path: Path) -> None:
    order: list[str] = []
    backend = WatchedBackend(tmp_path, before=lambda action, key, _data: order.append(f"{action} {key.split('/')[0]}"))
    attempt = Attempt(Store(backend))
    for step in (1, 2, 3):
        attempt.commit(step)
    assert order == ["publish blobs", "put commits"] * 3 + ["delete blobs"]


def test_what_a_kill_left_between_commit_and_cleaning_goes_with_later_commits(tmp_path: Path) -> None:
    class DiedError(Exception):
        pass

    def die(action: str, _key: str, _data: bytes) -> None:
        if action == "delete":
            raise DiedError

    store = Store(WatchedBackend(tmp_path))
    commits: list[Commit | None] = []
    for number in (1, 2):  # two attempts are killed where they clean for the first time
        killed = Attempt(Store(WatchedBackend(tmp_path, before=die)), number)
        with pytest.raises(DiedError):
            for step in itertools.count(10 * number):
                killed.commit(step)
        assert killed.chain.newest is not None
        commits = [read_commit(store, TASK, n) for n in range(1, killed.chain.newest.number + 1)]
    assert all(kept(store, *commits))
    third = Attempt(store, 3)
    newest = [third.commit(step) for step in (41, 42)]
    assert kept(store, *commits, *newest) == [False] * len(commits) + [True] * 2


def test_a_commit_that_is_not_known_to_be_whole_does_not_count_as_one_that_is_kept(store: Store) -> None:
    first, second = Attempt(store, 1), Attempt(store, 2)
    ours = [first.commit(step) for step in (1, 2)]
    second.chain.look()
    second.chain.trust(ours[1])
    rivals = first.commit(3)
    mine = second.commit(4)
    assert mine.number == 4
    assert kept(store, ours[1], rivals, mine) == [True, True, True]
    after = second.commit(5)
    assert kept(store, ours[0], ours[1], rivals, mine, after) == [False, False, False, True, True]


def test_who_is_behind_loses_the_race_and_leaves_nothing(store: Store) -> None:
    winner, loser = Attempt(store, 1), Attempt(store, 2)
    first = winner.commit(1)
    loser.chain.look()
    second = winner.commit(7)
    before = {entry.key for entry in store.list("blobs/")}
    for step in (6, 7):  # as far is not further
        with pytest.raises(LostRaceError) as lost:
            loser.commit(step)
        assert lost.value.standing == second
        assert {entry.key for entry in store.list("blobs/")} == before
    assert kept(store, first) == [True]


def test_who_is_further_goes_on_with_the_next_number(store: Store) -> None:
    one, other = Attempt(store, 1), Attempt(store, 2)
    for step in range(1, 6):
        one.commit(step)
    mine = other.commit(6)
    assert mine.number == 6
    assert mine.parent == digest_of(read_commit(store, TASK, 5) or mine)


def test_who_brings_the_same_commit_as_a_rival_takes_nothing_from_it(store: Store) -> None:
    elsewhere = Attempt(store, 2)
    one, other = Attempt(store), Attempt(store)  # a machine's backlog, and the attempt that goes on there from it
    made: list[Commit] = []
    state = store.put_blob(b"attempt 1, step 1")
    draft = Commit(TASK, 1, None, SPEC, 1, "nonce1", 0, 1, {"state": state})

    def send() -> set[str]:
        elsewhere.commit(0)
        made.extend([other.commit(1), other.commit(2)])
        return {state}

    with pytest.raises(LostRaceError):
        one.chain.add(draft, send)
    assert kept(store, *made) == [True, True]


def test_best_weights_that_a_rivals_newest_commit_names_are_left(store: Store) -> None:
    best, better = store.put_blob(b"best"), store.put_blob(b"better")
    one, other = Attempt(store, 1), Attempt(store, 2)
    one.commit(1, best)
    other.chain.look()
    one.commit(2, better)

    def overtaken(action: str, key: str) -> None:
        if action == "put" and key.endswith("/3.json"):
            other.commit(9, best)

    root = store.backend.local_path("")
    assert root is not None
    one.chain.store = Store(WatchedBackend(root, after=overtaken))
    one.commit(3, better)
    assert store.has_blob(best)


def test_best_weights_that_a_rival_let_go_of_meanwhile_are_brought_again(store: Store) -> None:
    attempt, best = Attempt(store), b"best weights"
    digest = store.put_blob(best)
    root = store.backend.local_path("")
    assert root is not None

    def let_go(action: str, _key: str, _data: bytes) -> None:
        if action == "put":
            store.delete_blob(digest)

    attempt.chain.store = Store(WatchedBackend(root, before=let_go))
    draft = Commit(TASK, 1, None, SPEC, 1, "nonce1", 0, 1, {"state": digest, "best": digest})
    attempt.chain.add(draft, lambda: {store.put_blob(best)})
    assert store.has_blob(digest)


def test_what_is_held_stays_until_it_is_let_go(store: Store) -> None:
    attempt = Attempt(store)
    commits = [attempt.commit(1)]
    attempt.chain.held = commits[0]
    commits += [attempt.commit(step) for step in (2, 3, 4)]
    assert kept(store, *commits) == [True, True, True, True]
    attempt.chain.held = None
    attempt.commit(5)
    assert kept(store, *commits) == [False, False, False, True]


def test_a_commit_that_was_passed_over_as_damaged_bars_nobody(store: Store) -> None:
    first = Attempt(store, 1)
    whole, damaged = first.commit(5), first.commit(9)
    second = Attempt(store, 2)
    second.chain.trust(whole)
    second.chain.reached = position(whole)
    assert second.commit(7).parent == digest_of(damaged)


def test_a_disk_that_fails_leaves_the_commits_before(tmp_path: Path) -> None:
    def full(_action: str, _key: str, data: bytes) -> None:
        if b'"number":2' in data:
            raise StoreError("full", where="here", mend="free some")

    attempt = Attempt(Store(WatchedBackend(tmp_path, before=full)))
    one = attempt.commit(1)
    with pytest.raises(StoreError):
        attempt.commit(2)
    assert attempt.chain.newest == one
    store = Store(WatchedBackend(tmp_path))
    assert kept(store, one) == [True] and read_commit(store, TASK, 2) is None


def test_a_validated_epoch_is_further_than_its_last_step() -> None:
    commits = [None, *(Commit(TASK, 1, None, SPEC, 1, "n", *at, {}) for at in ((0, 9), (0, 10), (1, 10), (1, 11)))]
    assert sorted(map(position, commits)) == list(map(position, commits))
