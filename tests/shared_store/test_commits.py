"""The commit protocol: numbers without gaps, one winner each, the newest found by exact reads."""

from __future__ import annotations

import pytest
from faulty import Fault, FaultyBackend, MemoryBackend
from hypothesis import given
from hypothesis import strategies as st

from shared_store import layout
from shared_store.commits import digest_of, last_commit, put_commit, put_result, read_commit, read_result
from shared_store.errors import DamagedRecordError
from shared_store.records import Commit, Result
from shared_store.store import Store, open_store


def commit(number: int, parent: str | None = None, nonce: str = "a") -> Commit:
    return Commit("fold", number, parent, "spec", 1, nonce, number // 3, number, {"state": "0" * 64})


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 9, 33])
def test_the_newest_commit_is_found(store: Store, count: int) -> None:
    for number in range(1, count + 1):
        put_commit(store, commit(number))
    found = last_commit(store, "fold")
    assert (found.number if found else 0) == count


def test_who_loses_a_number_is_told_the_record_that_stands(store: Store) -> None:
    first = put_commit(store, commit(1, nonce="first"))
    assert put_commit(store, commit(1, nonce="second")) == first
    assert read_commit(store, "fold", 1) == first


def test_the_chain_of_parents_holds(store: Store) -> None:
    first = put_commit(store, commit(1))
    second = put_commit(store, commit(2, parent=digest_of(first)))
    assert second.parent == digest_of(first)
    assert digest_of(first) != digest_of(second)


def test_a_task_has_one_result(store: Store) -> None:
    first = put_result(store, Result("fold", "spec", 1, "a", numbers={"mean_ap": 0.5}))
    assert put_result(store, Result("fold", "spec", 2, "b", numbers={"mean_ap": 0.6})) == first
    assert read_result(store, "fold") == first


@given(
    st.builds(
        Commit,
        st.just("fold"),
        st.integers(1),
        st.none() | st.text(),
        *[st.text()],
        st.integers(1),
        st.text(),
        st.integers(0),
        st.integers(0),
        st.dictionaries(st.text(), st.text()),
    )
)
def test_a_record_survives_its_bytes(record: Commit) -> None:
    assert Commit.from_bytes(record.to_bytes()) == record


def test_a_record_of_another_kind_or_shape_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="expected a Result"):
        Result.from_bytes(commit(1).to_bytes())
    with pytest.raises(ValueError, match="fields"):
        Commit.from_bytes(b'{"kind":"Commit","version":2,"task":"fold"}')


@given(st.data())
def test_a_record_with_any_bit_wrong_or_missing_is_refused(data: st.DataObject) -> None:
    whole = commit(7, parent="f" * 64).to_bytes()
    bit, length = data.draw(st.integers(0, 8 * len(whole) - 1)), data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    for wrong in (bytes(flipped), whole[:length], whole + b" ", b"[]", b"7"):
        with pytest.raises(ValueError):
            Commit.from_bytes(wrong)


def test_a_damaged_record_is_named_and_stays_for_its_number_is_taken(store: Store) -> None:
    put_commit(store, commit(1))
    key = layout.commit("fold", 2)
    damaged = put_commit(store, commit(2)).to_bytes().replace(b'"step":2', b'"step":3')
    store.publish(key, damaged)
    for act in (lambda: last_commit(store, "fold"), lambda: put_commit(store, commit(2, nonce="other"))):
        with pytest.raises(DamagedRecordError, match=key):
            act()
    assert store.read(key) == damaged


def test_a_record_that_only_one_reading_got_wrong_is_read_again() -> None:
    memory, faults = MemoryBackend(), list[Fault]()
    store = Store(
        FaultyBackend(memory, lambda action, _key: faults.pop() if faults and action == "parts" else Fault.NONE)
    )
    put_commit(store, commit(1))
    for fault in (Fault.FLIPPED, Fault.TRUNCATED):
        faults.append(fault)
        assert read_commit(store, "fold", 1) == commit(1)
        assert faults == []


def test_stores_are_apart(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    put_commit(store, commit(1))
    other = open_store(str(tmp_path_factory.mktemp("other")))
    assert other.read(layout.commit("fold", 1)) is None
