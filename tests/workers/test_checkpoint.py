"""One attempt's two tiers: what lands where, what is gone on from, what a disk that fails costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pytest
import torch
from fold_support import WatchedBackend
from support import RecordingReporter
from torch import Tensor

from shared_store import layout
from shared_store.cache import Cache
from shared_store.commits import digest_of, last_commit, read_commit
from shared_store.errors import StoreDownError, StoreError, StoreFullError
from shared_store.records import Commit
from shared_store.store import Store
from workers.chain import LostRaceError, position
from workers.checkpoint import Checkpoints
from workers.state_file import pack, unpack
from workers.tier import forget, open_tier
from workers.work import Work

TASK, SPEC = "teacher-fold0-1", "5" * 64
SECONDS = 60.0  # longer than anything here takes on a loaded machine


def state(value: float) -> dict[str, Tensor]:
    return {"weights": torch.full((2, 3), value)}


class Machine:
    """A machine with a tier of its own, beside the store that all share; either may be made to fail."""

    def __init__(self, root: Path, store_root: Path, hostname: str = "one") -> None:
        self.failing: dict[str, Callable[[str, str], StoreError | None]] = {}
        self.store = Store(WatchedBackend(store_root, self._before("store")))
        tier_root = open_tier(root / hostname, self.store.url).backend.local_path("")
        assert tier_root is not None
        self.tier = Store(WatchedBackend(tier_root, self._before("tier")))

    def attempt(self, number: int = 1, patience_seconds: float = SECONDS) -> Checkpoints:
        cache = Cache(Path(self.tier.url).parent, 1.0)
        work = Work(TASK, SPEC, number, f"nonce{number}", self.store, cache, RecordingReporter(), upload_share=1.0)
        return Checkpoints(work, self.tier, patience_seconds=patience_seconds, waits=lambda: repeat(0.01))

    def fails(self, place: str, error: type[StoreError], where: str = "") -> None:
        """Every write below `where` fails from now on."""
        made = error(f"the {place} is away", where="there", mend="wait")
        self.failing[place] = lambda _action, key: made if key.startswith(where) else None

    def works(self, place: str) -> None:
        self.failing.pop(place, None)

    def _before(self, place: str) -> Callable[[str, str, bytes], None]:
        def before(action: str, key: str, _data: bytes) -> None:
            error = self.failing.get(place, lambda _action, _key: None)(action, key)
            if error is not None:
                raise error

        return before


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> Machine:
    return Machine(tmp_path, tmp_path / "store", "other")


def commit(checkpoints: Checkpoints, *values: int, best: bool = False) -> None:
    """Make commits one after the other, none superseded, and see them into the store."""
    for value in values:
        at = (value // 10, value)
        assert checkpoints.commit(state(value), at, () if best else None, must=True)
        assert checkpoints.settle()


def standing(store: Store) -> list[Commit]:
    commits: list[Commit] = []
    while (found := read_commit(store, TASK, len(commits) + 1)) is not None:
        commits.append(found)
    return commits


def damage(store: Store, digest: str) -> None:
    """Other bytes under the blob's name, in this tier alone."""
    path = store.blob_path(digest)
    assert path is not None
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"!")


def test_a_commit_lands_here_and_in_the_store(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        assert checkpoints.resume() is None
        commit(checkpoints, 11, 12)
        assert checkpoints.news().commit == 2
        assert checkpoints.news().commit is None, "news are told once"
    for place in (machine.tier, machine.store):
        assert [(c.number, c.epoch, c.step, c.nonce) for c in standing(place)] == [
            (1, 1, 11, "nonce1"),
            (2, 1, 12, "nonce1"),
        ]
    chain = standing(machine.store)
    assert [c.parent for c in chain] == [None, digest_of(chain[0])]


@pytest.mark.parametrize("which", ["machine", "other"])
def test_an_attempt_goes_on_from_the_end_of_the_chain_on_either_machine(
    machine: Machine, other: Machine, which: str
) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, 12)
    goes_on = {"machine": machine, "other": other}[which]
    with goes_on.attempt(2) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None
        assert torch.equal(resumed.state["weights"], state(12)["weights"])
        assert resumed.here is (which == "machine")
        commit(checkpoints, 13)
    assert [c.attempt for c in standing(machine.store)] == [1, 1, 2]


def test_what_is_further_here_than_in_the_store_is_gone_on_from_and_offered(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11)
        machine.fails("store", StoreDownError)
        checkpoints.commit(state(12), (1, 12))
        checkpoints.land()
    machine.works("store")
    assert len(standing(machine.store)) == 1
    with machine.attempt(2) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None and resumed.here and position(resumed.commit) == (1, 12)
        assert checkpoints.settle()
    offered = standing(machine.store)[-1]
    assert (offered.number, offered.step, offered.nonce) == (2, 12, "nonce1")


def test_what_is_further_in_the_store_is_gone_on_from(machine: Machine, other: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11)
    with other.attempt(2) as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 25)
    with machine.attempt(3) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None and not resumed.here and resumed.commit.step == 25


def test_only_the_newest_of_many_snapshots_need_land(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        for value in range(11, 31):
            checkpoints.commit(state(value), (1, value))
        assert checkpoints.settle()
    for place in (machine.tier, machine.store):
        steps = [c.step for c in standing(place)]
        assert steps == sorted(set(steps)) and steps[-1] == 30
        newest = last_commit(place, TASK)
        assert newest is not None
        assert torch.equal(unpack(place.get_blob(newest.blobs["state"]))[0]["weights"], state(30)["weights"])


def test_the_last_two_states_and_the_best_stay_in_both_tiers(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, best=True)
        commit(checkpoints, 12, 13, 14)
        assert torch.equal(checkpoints.best()["weights"], state(11)["weights"])
    for place in (machine.tier, machine.store):
        commits = standing(place)
        assert [place.has_blob(c.blobs["state"]) for c in commits] == [False, False, True, True]
        assert len({c.blobs["best"] for c in commits}) == 1
        assert place.has_blob(commits[0].blobs["best"])
        assert len(place.list("blobs/")) == 3


def test_the_best_weights_are_not_given_up_for_a_newer_snapshot(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        machine.fails("tier", StoreFullError)
        machine.fails("store", StoreDownError)
        assert checkpoints.commit(state(11), (1, 11))
        assert checkpoints.commit({"model": state(12)}, (1, 12), ("model",))
        taken = [value for value in range(13, 33) if checkpoints.commit({"model": state(value)}, (1, value))]
        machine.works("tier")
        checkpoints.land()
        best = checkpoints.best()
    assert torch.equal(best["weights"], state(12)["weights"])
    assert standing(machine.tier)[-1].step == max([12, *taken])


def test_better_weights_take_the_place_of_those_that_wait(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        machine.fails("tier", StoreFullError)
        machine.fails("store", StoreDownError)
        assert all(checkpoints.commit({"model": state(value)}, (1, value), ("model",)) for value in range(11, 21))
        machine.works("tier")
        checkpoints.land()
        assert torch.equal(checkpoints.best()["weights"], state(20)["weights"])


def test_a_store_that_is_away_is_told_once_and_the_backlog_goes_when_it_is_back(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        machine.fails("store", StoreDownError)
        for value in (11, 12, 13):
            assert checkpoints.commit(state(value), (1, value))
            checkpoints.land()
        while not (notes := list(checkpoints.news().notes)):
            time.sleep(0.01)
        machine.works("store")
        assert checkpoints.settle()
        notes += checkpoints.news().notes
    assert [c.step for c in standing(machine.store)] == [13], "what was superseded is passed over"
    assert notes == [
        "the store is away (there): training goes on, commits stay on this machine until the store takes them",
        "the store takes commits again",
    ]


def test_a_full_local_disk_sends_commits_straight_into_the_store(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, best=True)
        machine.fails("tier", StoreFullError)
        commit(checkpoints, 12, 13)
        assert [c.step for c in standing(machine.store)] == [11, 12, 13]
        machine.works("tier")
        commit(checkpoints, 14)
        notes = list(checkpoints.news().notes)
    assert [c.step for c in standing(machine.store)] == [11, 12, 13, 14]
    assert [c.step for c in standing(machine.tier)] == [11, 14]
    assert len({c.blobs["best"] for c in standing(machine.store)}) == 1
    assert notes == [
        "the tier is away (there): commits go straight into the store, training goes on",
        "this machine's disk takes commits again",
    ]


def test_a_full_disk_is_left_without_what_no_commit_names(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        machine.fails("tier", StoreFullError, "commits/")
        commit(checkpoints, 11)
    assert machine.tier.list("blobs/") == []


def test_with_both_disks_away_training_goes_on_and_the_newest_lands_later(machine: Machine) -> None:
    with machine.attempt(patience_seconds=0.5) as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11)
        machine.fails("tier", StoreFullError)
        machine.fails("store", StoreDownError)
        for value in range(12, 20):
            assert checkpoints.commit(state(value), (1, value))
        with pytest.raises(StoreError):
            checkpoints.land()
        machine.works("store")
        checkpoints.land()
        notes = list(checkpoints.news().notes)
    assert [c.step for c in standing(machine.store)][-1] == 19
    assert sum("kept nowhere" in note for note in notes) == 1
    assert "commits are kept again" in notes


def test_a_machine_without_a_disk_of_its_own_commits_to_the_store(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    machine.tier = Store(WatchedBackend(tmp_path / "file" / "tier"))
    with machine.attempt() as checkpoints:
        assert checkpoints.resume() is None
        commit(checkpoints, 11)
        assert "commits go straight into the store" in checkpoints.news().notes[-1]
    with machine.attempt(2) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None and resumed.commit.step == 11


def test_a_rival_that_is_further_is_heard_of_and_one_that_is_not_changes_nothing(
    machine: Machine, other: Machine
) -> None:
    with machine.attempt() as checkpoints, other.attempt(2) as rival:
        checkpoints.resume()
        rival.resume()
        commit(rival, 11)
        commit(checkpoints, 15)
        checkpoints.check((1, 15))
        assert [(c.attempt, c.step) for c in standing(machine.store)] == [(2, 11), (1, 15)]
        commit(rival, 29)
        commit(checkpoints, 20)
        with pytest.raises(LostRaceError) as lost:
            checkpoints.check((1, 20))
        assert lost.value.standing.step == 29
        checkpoints.check((2, 30))  # we came by it meanwhile
    assert [(c.attempt, c.step) for c in standing(machine.store)] == [(2, 11), (1, 15), (2, 29)]


def test_an_older_attempt_on_the_same_machine_does_no_harm(machine: Machine) -> None:
    with machine.attempt() as old, machine.attempt(2) as young:
        old.resume()
        young.resume()
        commit(old, 11)
        commit(young, 12)
        commit(old, 13)
        commit(young, 14)
    assert [(c.attempt, c.step) for c in standing(machine.store)] == [(1, 11), (2, 12), (1, 13), (2, 14)]


@pytest.mark.parametrize("harm", ["damaged", "missing", "another task's", "not finite"])
def test_a_state_that_cannot_be_trusted_is_passed_over_with_a_note(machine: Machine, harm: str) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, 12)
    forget(machine.tier, TASK)
    store, commits = machine.store, standing(machine.store)
    if harm == "damaged":
        damage(store, commits[1].blobs["state"])
    elif harm == "missing":
        store.delete_blob(commits[1].blobs["state"])
    else:
        value, task = (float("inf"), TASK) if harm == "not finite" else (2.0, "other")
        about = {"task": task, "nonce": "n", "epoch": 3, "step": 30}
        blobs = {"state": store.put_blob(pack(state(value), about))}
        forged = Commit(TASK, 3, digest_of(commits[1]), SPEC, 1, "n", 3, 30, blobs)
        store.put_if_absent(layout.commit(TASK, 3), forged.to_bytes())
        commits.append(forged)
    with machine.attempt(2) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None and resumed.commit == commits[-2]
        (note,) = checkpoints.news().notes
        assert note.startswith(f"commit {commits[-1].number} cannot be used")
        commit(checkpoints, 13)
        following = standing(store)[-1]
        assert following.number == commits[-1].number + 1, "numbers have no gaps"
        assert following.parent == digest_of(commits[-1])
        assert store.has_blob(commits[-2].blobs["state"]), "the last but one that can be trusted stays"
        commit(checkpoints, 14)
    assert not store.has_blob(commits[-1].blobs["state"])


def test_a_copy_that_rotted_here_is_read_from_the_store(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, best=True)
    damage(machine.tier, standing(machine.tier)[0].blobs["state"])
    with machine.attempt(2) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None and resumed.commit.step == 11
        assert "not read on this machine" in checkpoints.news().notes[0]


def test_damaged_best_weights_count_as_damage_and_all_damaged_means_anew(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, best=True)
        commit(checkpoints, 12)
    forget(machine.tier, TASK)
    damage(machine.store, standing(machine.store)[0].blobs["best"])
    with machine.attempt(2) as checkpoints:
        assert checkpoints.resume() is None
        assert len(checkpoints.news().notes) == 2
        commit(checkpoints, 1)
    assert standing(machine.store)[-1].number == 3


def test_damaged_records_on_the_machine_are_given_up(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11)
    path = machine.tier.backend.local_path(layout.commit(TASK, 1))
    assert path is not None
    path.write_bytes(b"")
    with machine.attempt(2) as checkpoints:
        resumed = checkpoints.resume()
        assert resumed is not None and not resumed.here
        commit(checkpoints, 12)
    assert [c.step for c in standing(machine.tier)] == [12]


def test_best_weights_from_elsewhere_are_kept_here_too(machine: Machine, other: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        commit(checkpoints, 11, best=True)
    with other.attempt(2) as checkpoints:
        checkpoints.resume()
        checkpoints.commit(state(12), (1, 12))
        checkpoints.land()
        machine.fails("store", StoreDownError)
    newest = standing(other.tier)[-1]
    assert all(other.tier.has_blob(digest) for digest in newest.blobs.values())


def test_a_rival_that_commits_while_a_state_is_read_is_followed(tmp_path: Path) -> None:
    rivals = Machine(tmp_path, tmp_path / "store", "rival")
    with rivals.attempt(1) as rival:
        rival.resume()
        commit(rival, 11)

        class Slow(WatchedBackend):
            done = False

            def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
                if key.startswith("blobs/") and not self.done:
                    self.done = True
                    commit(rival, 12, 13, 14)
                return super().parts(key, start)

        late = Machine(tmp_path, tmp_path / "store", "late")
        late.store = Store(Slow(tmp_path / "store"))
        with late.attempt(2) as checkpoints:
            resumed = checkpoints.resume()
            assert resumed is not None and resumed.commit.number == 4


@pytest.mark.parametrize("place", ["tier", "store"])
def test_our_own_mistakes_in_the_background_are_raised_where_training_is(machine: Machine, place: str) -> None:
    class MistakeError(Exception):
        pass

    def mistaken(_action: str, _key: str) -> StoreError | None:
        raise MistakeError

    checkpoints = machine.attempt()
    checkpoints.resume()
    machine.failing[place] = mistaken
    checkpoints.commit(state(11), (1, 11))
    assert not checkpoints.settle()
    with pytest.raises(MistakeError):
        checkpoints.close()


def test_an_attempt_that_fails_leaves_what_it_committed_in_the_store(machine: Machine) -> None:
    with pytest.raises(ZeroDivisionError), machine.attempt() as checkpoints:
        checkpoints.resume()
        checkpoints.commit(state(11), (1, 11))
        raise ZeroDivisionError
    assert [c.step for c in standing(machine.store)] == [11]


def test_no_thread_is_left(machine: Machine) -> None:
    before = threading.active_count()
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        machine.fails("store", StoreDownError)
        checkpoints.prepare(state(1))
        checkpoints.commit(state(11), (1, 11))
        checkpoints.land()
    assert threading.active_count() == before


def test_training_waits_for_a_slow_landing_before_a_kill_could_cost_more_than_the_interval(machine: Machine) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_action: str, _key: str) -> None:
        begun.set()
        assert go_on.wait(SECONDS)

    with machine.attempt() as checkpoints:
        checkpoints.resume()
        machine.failing["tier"] = slowly
        assert checkpoints.commit(state(11), (1, 11))
        assert begun.wait(SECONDS)
        checkpoints.keep_within(300, began=0.0, until=300.0)
        assert checkpoints.landed_at < (1, 11), "work since the beginning is within the interval yet"
        threading.Timer(0.1, go_on.set).start()
        checkpoints.keep_within(300, began=0.0, until=301.0)
        assert checkpoints.landed_at == (1, 11)


def test_training_waits_once_for_a_landing_that_does_not_come(machine: Machine) -> None:
    with machine.attempt() as checkpoints:
        checkpoints.resume()
        for place in ("tier", "store"):
            machine.fails(place, StoreDownError)
        assert checkpoints.commit(state(11), (1, 11))
        for until in (301.0, 302.0, 303.0):
            checkpoints.keep_within(300, began=0.0, until=until)
        assert checkpoints.landed_at < (1, 11)
        for place in ("tier", "store"):
            machine.works(place)
        assert checkpoints.commit(state(12), (1, 12), must=True)
        checkpoints.land()
        assert checkpoints.landed_at == (1, 12)
