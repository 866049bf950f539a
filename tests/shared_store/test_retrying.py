"""Patience with a store that does not answer, on a clock, a sleep and dice of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faulty import Fault, FaultyBackend, MemoryBackend, by_chance
from hypothesis import given
from hypothesis import strategies as st

from shared_store.backend import Content
from shared_store.errors import StoreDownError, StoreError, StoreFullError, StoreRefusedError
from shared_store.retrying import Retrying
from shared_store.store import Store

KEY = "runs/demo/file"
TEXT = b"a text of some parts"
DOWN, LOST, REFUSED = Fault.ERROR_BEFORE, Fault.ERROR_AFTER, Fault.REFUSED


class Trying:
    """A backend in memory that meets `faults` in turn, tried by a Retrying whose waits pass on a clock of its own."""

    def __init__(
        self, *faults: Fault, patience_seconds: float = 60.0, first_seconds: float | None = None, draw: float = 1.0
    ) -> None:
        self.memory = MemoryBackend(part_bytes=4)
        self.memory.publish(KEY, Content(TEXT))
        self.calls: list[tuple[str, str]] = []
        self.faults = list(faults)
        self.now, self.waits, self.told = 0.0, list[float](), list[str]()
        self.faulty = FaultyBackend(self.memory, self.choose)
        self.retrying = Retrying(
            self.faulty,
            patience_seconds,
            first_patience_seconds=patience_seconds if first_seconds is None else first_seconds,
            clock=lambda: self.now,
            sleep=self.sleep,
            draw=lambda: draw,
            tell=self.told.append,
        )

    def choose(self, action: str, key: str) -> Fault:
        self.calls.append((action, key))
        return self.faults.pop(0) if self.faults else Fault.NONE

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def text(self, start: int = 0) -> bytes | None:
        parts = self.retrying.parts(KEY, start)
        return None if parts is None else b"".join(parts)


CALLS: dict[str, Callable[[Retrying], Any]] = {
    "put_if_absent": lambda backend: backend.put_if_absent("results/one.json", b"one"),
    "publish": lambda backend: backend.publish(KEY, Content(TEXT)),
    "parts": lambda backend: b"".join(backend.parts(KEY) or ()),
    "size": lambda backend: backend.size(KEY),
    "move": lambda backend: backend.move("runs/demo/none", "runs/demo/other"),
    "delete": lambda backend: backend.delete("runs/demo/none"),
    "list": lambda backend: backend.list(""),
    "leftovers": lambda backend: backend.leftovers(),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_made_again_on_a_new_connection(name: str) -> None:
    undisturbed, trying = Trying(), Trying(DOWN, DOWN, REFUSED)
    assert CALLS[name](trying.retrying) == CALLS[name](undisturbed.retrying)
    assert [action for action, _ in trying.calls] == [name] * 4
    assert trying.faulty.closed == len(trying.waits) == 3


def test_waits_double_up_to_a_longest_one() -> None:
    trying = Trying(*[DOWN] * 9, patience_seconds=1e9)
    trying.retrying.size(KEY)
    assert trying.waits == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]


def test_patience_is_short_with_a_store_that_never_answered() -> None:
    trying = Trying(*[DOWN] * 99, first_seconds=10.0)
    with pytest.raises(StoreDownError):
        trying.retrying.size(KEY)
    assert trying.now < 20
    trying.faults = []
    trying.retrying.size(KEY)
    trying.faults, before = [DOWN] * 99, trying.now
    with pytest.raises(StoreDownError):
        trying.retrying.size(KEY)
    assert trying.now - before >= 60


def test_a_person_is_told_once_of_a_call_that_takes_longer_than_a_moment() -> None:
    short, long = Trying(DOWN, DOWN), Trying(*[DOWN] * 6)
    for trying in (short, long):
        trying.retrying.size(KEY)
    assert not short.told
    (told,) = long.told
    assert "trying again for up to 60 s" in told


def test_each_wait_is_drawn_between_its_half_and_its_whole() -> None:
    for draw in (0.0, 0.5, 1.0):
        trying = Trying(DOWN, DOWN, draw=draw)
        trying.retrying.size(KEY)
        assert trying.waits == [0.25 * (1 + draw) / 2, 0.5 * (1 + draw) / 2]


@pytest.mark.parametrize("name", CALLS)
def test_patience_ends_with_the_store_s_own_words(name: str) -> None:
    trying = Trying(*[DOWN] * 99, patience_seconds=10.0)
    with pytest.raises(StoreDownError, match="made to fail"):
        CALLS[name](trying.retrying)
    assert 10.0 <= trying.now < 10.0 + 8.0, "the last try comes when the time is over, not much later"


def test_the_next_call_has_patience_of_its_own() -> None:
    trying = Trying(*[DOWN] * 4, patience_seconds=1.0)
    with pytest.raises(StoreDownError):
        trying.retrying.size(KEY)
    trying.faults = [DOWN]
    assert trying.retrying.size(KEY) == len(TEXT)


def test_a_refusal_is_tried_once_more_and_not_again() -> None:
    trying = Trying(REFUSED, REFUSED)
    with pytest.raises(StoreRefusedError):
        trying.retrying.size(KEY)
    assert (len(trying.calls), trying.faulty.closed) == (2, 1)
    trying = Trying(REFUSED, DOWN, REFUSED)
    with pytest.raises(StoreRefusedError):
        trying.retrying.size(KEY)


def test_a_full_store_is_not_asked_again() -> None:
    trying = Trying(Fault.FULL)
    with pytest.raises(StoreFullError):
        trying.retrying.publish(KEY, Content(TEXT))
    assert (len(trying.calls), trying.waits) == (1, [])


def test_a_write_that_won_and_was_not_acknowledged_counts_as_won_by_the_store_alone() -> None:
    trying = Trying(LOST)
    assert trying.retrying.put_if_absent("results/one.json", b"one") is False
    assert Store(Trying(LOST).retrying).put_if_absent("results/one.json", b"one")


def test_reading_goes_on_where_it_was_cut() -> None:
    asked: list[int] = []

    class Asked(FaultyBackend):
        def parts(self, key: str, start: int = 0) -> Any:
            asked.append(start)
            return super().parts(key, start)

    trying = Trying(Fault.CUT, Fault.CUT, DOWN, Fault.CUT)
    trying.retrying.inner = Asked(trying.memory, trying.choose)
    assert trying.text() == TEXT
    assert asked == [0, 2, 4, 4, 6], "half a part arrived each time; one call met a store that was down"


@given(
    start=st.integers(0, len(TEXT)),
    faults=st.lists(st.sampled_from([DOWN, LOST, Fault.CUT, Fault.NONE]), max_size=12),
)
def test_whatever_cuts_a_reading_its_bytes_are_those_that_stand(start: int, faults: list[Fault]) -> None:
    assert Trying(*faults, patience_seconds=1e9).text(start) == TEXT[start:]


def test_a_long_reading_that_moves_on_may_meet_more_trouble_than_one_patience_covers() -> None:
    trying = Trying(*[Fault.CUT, DOWN] * 8, patience_seconds=1.0)
    assert trying.text() == TEXT
    assert trying.now > 2.0


def test_what_is_removed_while_it_is_read_ends_in_an_error_and_what_was_never_there_in_none() -> None:
    trying = Trying(Fault.CUT)
    assert trying.retrying.parts("runs/demo/none") is None
    trying.faults = [Fault.CUT]
    parts = trying.retrying.parts(KEY)
    assert parts is not None
    next(parts)
    trying.memory.delete(KEY)
    with pytest.raises(StoreError):
        next(parts)


def test_any_mixture_of_troubles_leaves_what_a_calm_store_has() -> None:
    rates = {DOWN: 0.2, LOST: 0.2, Fault.CUT: 0.1}
    for seed in range(20):
        memory = MemoryBackend(part_bytes=4)
        faulty = FaultyBackend(memory, by_chance(seed, rates))
        store = Store(Retrying(faulty, 1e9, clock=lambda: 0.0, sleep=lambda _seconds: None))
        digest = store.put_blob(TEXT)
        assert store.put_if_absent("results/one.json", TEXT)
        assert not store.put_if_absent("results/one.json", b"other")
        store.publish(KEY, TEXT)
        assert store.get_blob(digest) == store.read("results/one.json") == store.read(KEY) == TEXT
        store.delete_blob(digest)
        assert sorted(memory.kept) == ["results/one.json", KEY]
