"""A head that is away keeps nobody waiting, and is asked by one thread alone."""

from __future__ import annotations

import threading

import pytest
from ray.exceptions import RaySystemError

from coordinator.nodes import Looks, Seen

NOTHING = Seen({}, {})


def test_a_head_that_is_away_says_nothing_until_it_is_back() -> None:
    back, asked = threading.Event(), []

    def ask() -> Seen:
        asked.append(threading.current_thread())
        assert back.wait(30)
        return NOTHING

    looks = Looks(ask, wait_seconds=0.01)
    assert [looks.look() for _ in range(3)] == [None] * 3 and len(asked) == 1
    back.set()
    asked[0].join(30)
    assert looks.look() is NOTHING and len(asked) == 1
    assert Looks(ask, wait_seconds=30).look() is NOTHING and len(asked) == 2


def test_a_head_that_goes_away_in_the_middle_of_it_is_asked_again() -> None:
    answers: list[Seen | Exception] = [RaySystemError("the head is gone"), NOTHING, ValueError("ours")]

    def ask() -> Seen:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    looks = Looks(ask, wait_seconds=30)
    assert looks.look() is None
    assert looks.look() is NOTHING
    with pytest.raises(ValueError, match="ours"):
        looks.look()
