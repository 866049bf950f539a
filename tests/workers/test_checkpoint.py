from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fold_support import WatchedBackend
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shared_store import layout
from shared_store.commits import digest_of, last_commit, read_commit
from shared_store.errors import StoreError
from shared_store.records import Commit
from shared_store.store import Store
from workers.checkpoint import Checkpoints, DamagedStateError, LostRaceError, pack, unpack

SPEC = "5" * 64


def attempt(store: Store, number: int = 1, task: str = "teacher-fold0-1") -> Checkpoints:
    return Checkpoints(store, task=task, spec=SPEC, attempt=number, nonce=f"nonce{number}")


def state(value: float) -> dict[str, Tensor]:
    return {"weights": torch.full((2, 3), value)}


def commit(checkpoints: Checkpoints, value: float, best: str | None = None) -> Commit:
    return checkpoints.commit(state(value), epoch=int(value), step=int(value) * 10, best=best)


def damage(store: Store, digest: str) -> None:
    path = store.blob_path(digest)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def exists(store: Store, digest: str) -> bool:
    return store.has_blob(digest)


PLAIN = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
TENSORS = st.builds(
    lambda kind, shape: (torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape) / 3).to(kind),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.lists(st.integers(0, 3), max_size=4),
)
TREES = st.recursive(
    PLAIN | st.text(max_size=5) | TENSORS | st.sampled_from([torch.bfloat16, torch.float32]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        same_kind = type(one) is type(other) and len(one) == len(other)  # type: ignore[arg-type]
        return same_kind and all(map(equal, one, other))  # type: ignore[arg-type]
    return type(one) is type(other) and one == other


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_any_tree_of_tensors_and_values_comes_back_as_it_was(tree: object) -> None:
    back, about = unpack(pack({"tree": tree}, {"task": "t"}))
    assert equal(back["tree"], tree)
    assert about == {"task": "t"}


def test_keys_that_print_alike_are_kept_apart() -> None:
    tree = {1: torch.zeros(2), "1": torch.ones(2)}
    assert equal(unpack(pack(tree, {}))[0], tree)


def test_equal_states_give_equal_bytes_and_memory_order_is_kept() -> None:
    weights = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    tree = {"weights": weights, "names": ["b", "a"], "other": torch.zeros(3)}
    assert pack(tree, {"b": 1, "a": 2}) == pack(tree, {"a": 2, "b": 1})
    back, _ = unpack(pack(tree, {}))
    assert back["weights"].stride() == weights.stride()
    assert torch.equal(back["weights"], weights)


def test_what_is_no_checkpoint_or_not_finite_is_refused() -> None:
    good = pack(state(1.0), {})
    for bad in (b"", b"garbage", good[:40], good[:-1]):
        with pytest.raises(DamagedStateError, match="not a checkpoint"):
            unpack(bad)
    with pytest.raises(DamagedStateError, match="not finite, such as /weights"):
        unpack(pack(state(float("nan")), {}))
    with pytest.raises(TypeError, match="cannot be kept"):
        pack({"function": len}, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"loss": float("nan")}, {})


def test_commits_form_a_chain_that_resumes_from_its_end(store: Store) -> None:
    assert attempt(store).resume() is None
    first = attempt(store)
    first.resume()
    commits = [commit(first, value) for value in (1, 2, 3)]
    assert [c.number for c in commits] == [1, 2, 3]
    assert [c.parent for c in commits] == [None, digest_of(commits[0]), digest_of(commits[1])]
    second = attempt(store, 2)
    resumed = second.resume()
    assert resumed is not None
    assert equal(resumed.state, state(3))
    assert commit(second, 4).parent == digest_of(commits[2])


def test_two_tasks_and_two_attempts_never_share_a_state_blob(store: Store) -> None:
    one, other = attempt(store), attempt(store, task="teacher-fold1-1")
    assert commit(one, 1).blobs["state"] != commit(other, 1).blobs["state"]


def test_the_last_two_states_and_the_best_are_kept_older_ones_go(store: Store) -> None:
    checkpoints = attempt(store)
    best = checkpoints.put_best(state(1), epoch=1)
    commits = [commit(checkpoints, value, best) for value in (1, 2, 3, 4)]
    assert [exists(store, c.blobs["state"]) for c in commits] == [False, False, True, True]
    assert exists(store, best)
    better = checkpoints.put_best(state(5), epoch=5)
    commit(checkpoints, 5, better)
    assert exists(store, best), "the commit before still names it"
    commit(checkpoints, 6, better)
    assert not exists(store, best)
    assert equal(checkpoints.best(better), state(5))


def test_nothing_goes_before_the_newer_commit_stands(tmp_path: Path) -> None:
    order: list[str] = []
    backend = WatchedBackend(tmp_path, before=lambda action, key, _data: order.append(f"{action} {key.split('/')[0]}"))
    checkpoints = attempt(Store(backend))
    for value in (1, 2, 3):
        commit(checkpoints, value)
    assert order == ["publish blobs", "put commits"] * 3 + ["delete blobs"]


def test_what_a_kill_left_between_commit_and_cleaning_goes_at_the_next_commit(store: Store) -> None:
    class DiedError(Exception):
        pass

    def die(action: str, _key: str, _data: bytes) -> None:
        if action == "delete":
            raise DiedError

    root = store.backend.local_path("x")
    assert root is not None
    first = attempt(Store(WatchedBackend(root.parent, before=die)))
    one, two = commit(first, 1), commit(first, 2)
    with pytest.raises(DiedError):
        commit(first, 3)
    assert exists(store, one.blobs["state"])
    second = attempt(store, 2)
    resumed = second.resume()
    assert resumed is not None
    assert resumed.commit.number == 3
    commit(second, 4)
    assert not exists(store, one.blobs["state"])
    assert not exists(store, two.blobs["state"])


def test_a_lost_race_names_the_winner_and_leaves_nothing_of_the_loser(store: Store) -> None:
    winner, loser = attempt(store, 1), attempt(store, 2)
    first = commit(winner, 1)
    loser.resume()
    second = commit(winner, 2)
    before = set(store.list("blobs/"))
    best = loser.put_best(state(2), epoch=2)
    with pytest.raises(LostRaceError) as lost:
        commit(loser, 2, best)
    assert lost.value.standing == second
    assert set(store.list("blobs/")) == before
    assert exists(store, first.blobs["state"])
    resumed = loser.resume()
    assert resumed is not None
    assert resumed.commit == second
    assert commit(loser, 3).number == 3


@pytest.mark.parametrize("harm", ["damaged", "missing", "another task's", "not finite"])
def test_a_state_that_cannot_be_trusted_is_passed_over_with_a_note(store: Store, harm: str) -> None:
    first = attempt(store)
    commits = [commit(first, value) for value in (1, 2)]
    if harm == "damaged":
        damage(store, commits[1].blobs["state"])
    elif harm == "missing":
        store.delete_blob(commits[1].blobs["state"])
    else:
        value, task = (float("inf"), "teacher-fold0-1") if harm == "not finite" else (2.0, "other")
        blob = store.put_blob(pack(state(value), {"task": task, "number": 3}))
        forged = Commit("teacher-fold0-1", 3, digest_of(commits[1]), SPEC, 1, "n", 3, 30, {"state": blob})
        store.put_if_absent(layout.commit(forged.task, 3), forged.to_bytes())
        commits.append(forged)
    second = attempt(store, 2)
    resumed = second.resume()
    assert resumed is not None
    assert resumed.commit == commits[-2]
    (note,) = second.notes
    assert note.startswith(f"commit {commits[-1].number} cannot be used")
    following = commit(second, 5)
    assert following.number == commits[-1].number + 1, "numbers have no gaps"
    assert following.parent == digest_of(commits[-1])
    assert exists(store, commits[-2].blobs["state"]), "the last but one that can be trusted stays"
    assert not exists(store, commits[-1].blobs["state"])


def test_damaged_best_weights_count_as_damage_and_all_damaged_means_anew(store: Store) -> None:
    first = attempt(store)
    best = first.put_best(state(1), epoch=1)
    commit(first, 1, best)
    commit(first, 2, best)
    damage(store, best)
    second = attempt(store, 2)
    assert second.resume() is None
    assert len(second.notes) == 2
    assert commit(second, 1).number == 3


def test_a_rival_that_commits_while_a_state_is_read_is_followed(tmp_path: Path) -> None:
    plain = Store(WatchedBackend(tmp_path))
    rival = attempt(plain, 1)
    commit(rival, 1)

    class Slow(WatchedBackend):
        done = False

        def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
            if key.startswith("blobs/") and not self.done:
                self.done = True
                for value in (2, 3, 4):
                    commit(rival, value)
            return super().parts(key, start)

    late = attempt(Store(Slow(tmp_path)), 2)
    resumed = late.resume()
    assert resumed is not None
    assert resumed.commit.number == 4


def test_a_full_disk_leaves_the_commit_before(tmp_path: Path) -> None:
    def full(action: str, key: str, data: bytes) -> None:
        if b'"number":2' in data:
            raise StoreError("full", where=key, mend="free some")

    checkpoints = attempt(Store(WatchedBackend(tmp_path, before=full)))
    one = commit(checkpoints, 1)
    with pytest.raises(StoreError):
        commit(checkpoints, 2)
    store = Store(WatchedBackend(tmp_path))
    assert last_commit(store, one.task) == one
    assert read_commit(store, one.task, 2) is None
    assert exists(store, one.blobs["state"])
