from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_store.backend import Content
from shared_store.transfer import cut, in_order


@given(st.lists(st.binary(max_size=40)), st.integers(1, 30))
def test_parts_are_of_one_size_and_the_same_bytes(buffers: list[bytes], part_bytes: int) -> None:
    parts = [part.read() for part in cut(Content(buffers), part_bytes)]
    assert b"".join(parts) == b"".join(buffers)
    assert all(len(part) == part_bytes for part in parts[:-1])
    assert all(0 < len(part) <= part_bytes for part in parts)


def test_a_part_can_be_read_again() -> None:
    for part in cut(Content(b"abcdef"), 4):
        first = part.read()
        part.seek(0)
        assert part.read() == first != b""


@given(st.integers(1, 5), st.integers(0, 12))
def test_results_come_in_order_and_no_more_jobs_run_than_may(at_once: int, count: int) -> None:
    asked, ended, lock = [0], [0], threading.Lock()

    def job(number: int) -> int:
        with lock:
            ended[0] += 1
        return number

    def jobs() -> Iterator[partial[int]]:
        for number in range(count):
            asked[0] += 1
            yield partial(job, number)

    results = in_order(jobs(), at_once)
    for place in range(count):
        assert next(results) == place
        assert asked[0] <= place + at_once
        assert ended[0] >= place + 1
    assert list(results) == []


def test_one_at_a_time_ends_before_the_next_is_asked_for() -> None:
    ended: list[int] = []

    def jobs() -> Iterator[partial[None]]:
        for number in range(4):
            assert ended == list(range(number))
            yield partial(ended.append, number)

    assert list(in_order(jobs(), 1)) == [None] * 4


def test_after_a_failure_no_other_job_begins_and_none_is_left_running() -> None:
    begun, ended, first_may_fail = list[int](), list[int](), threading.Event()

    def job(number: int) -> None:
        begun.append(number)
        if number == 0:
            assert first_may_fail.wait(30)
            raise OSError("broken")
        first_may_fail.set()
        ended.append(number)

    with pytest.raises(OSError, match="broken"):
        list(in_order((partial(job, number) for number in range(9)), 3))
    assert sorted(begun) == [0, 1, 2]
    assert sorted(ended) == [1, 2]


def test_who_stops_reading_leaves_nothing_running() -> None:
    before = threading.active_count()
    results = in_order((partial(int, number) for number in range(9)), 3)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before
