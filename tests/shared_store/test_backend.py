"""Bytes that travel in parts, whatever they lie in; a file's at a share of the link."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared_store.backend import PART_BYTES, Content, Paced

LARGE = os.urandom(2 * PART_BYTES + 5)


def test_one_buffer_and_a_file_give_the_same_parts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    for content in (Content(LARGE), Content(tmp_path / "file"), Paced(tmp_path / "file", 1.0)):
        for _ in range(2):  # reading it again, as after an error, begins anew
            parts = list(content)
            assert [part.nbytes for part in parts] == [PART_BYTES, PART_BYTES, 5]
            assert b"".join(parts) == LARGE
        assert content.size == len(LARGE)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_many_buffers_are_their_bytes_in_order(buffers: list[bytes]) -> None:
    content = Content([memoryview(buffer) if len(buffer) % 2 else buffer for buffer in buffers])
    assert b"".join(content) == b"".join(buffers)
    assert content.size == len(b"".join(buffers))
    assert all(part.nbytes for part in content)


def test_an_array_s_memory_is_taken_as_it_lies_the_empty_one_too() -> None:
    arrays: list[NDArray[Any]] = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 3), np.float32),
        np.ones(2, np.int64),
    ]
    content = Content([array.data for array in arrays])
    assert b"".join(content) == b"".join(array.tobytes() for array in arrays)
    assert content.size == 24 + 16


def test_an_empty_file_has_no_part(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert list(Content(tmp_path / "file")) == list(Content(b"")) == []
    assert Content(tmp_path / "file").size == Content(b"").size == 0


class Link:
    """A link on which each part takes `seconds`; the clock goes on by that and by waiting."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.busy = seconds, 0.0, 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def send(self, _part: memoryview) -> None:
        self.now += self.seconds
        self.busy += self.seconds


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("seconds", [0.001, 0.3, 40.0])
def test_a_paced_file_takes_its_share_of_any_link_and_no_more(tmp_path: Path, share: float, seconds: float) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    link = Link(seconds)
    for part in Paced(tmp_path / "file", share, link.clock, link.sleep):
        link.send(part)
    assert link.busy / link.now == pytest.approx(share)


def test_a_link_that_slows_down_is_left_more_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    link, waits = Link(1.0), list[float]()
    for part in Paced(tmp_path / "file", 0.5, link.clock, waits.append):
        link.send(part)
        link.seconds *= 10
    assert waits == pytest.approx([1.0, 10.0, 100.0])
