"""sha256 of bytes on their way: the right one; what goes wrong leaves neither a dead-lock nor a thread."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_store.backend import PART_BYTES, Content
from shared_store.hashing import Hashed, Sha256, sha256_of_file

LARGE = os.urandom(5 * PART_BYTES + 3)


def hashing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sha256")]


def parts_of(data: bytes, bytes_each: int) -> Iterator[memoryview]:
    for start in range(0, len(data), bytes_each):
        yield memoryview(data)[start : start + bytes_each]


@settings(max_examples=20)
@given(bytes_each=st.integers(PART_BYTES // 9, 2 * PART_BYTES), ahead=st.sampled_from([0, 2, None]))
def test_parts_of_any_size_give_the_hash_of_the_whole(bytes_each: int, ahead: int | None) -> None:
    running = Sha256(ahead)
    for part in parts_of(LARGE, bytes_each):
        running.feed(part)
    assert running.hexdigest() == running.hexdigest() == hashlib.sha256(LARGE).hexdigest()
    assert hashing_threads() == []


def test_little_needs_no_thread() -> None:
    running = Sha256()
    running.feed(b"little")
    assert hashing_threads() == []
    assert running.hexdigest() == hashlib.sha256(b"little").hexdigest()


def test_what_cannot_be_hashed_is_raised_and_dead_locks_nobody() -> None:
    running = Sha256()
    running.feed(LARGE)
    with pytest.raises(BufferError):
        for _ in range(9):
            running.feed(memoryview(LARGE)[::2])  # has gaps: no hash takes it
        running.hexdigest()
    running.close()
    running.close()
    assert hashing_threads() == []


def test_content_is_hashed_anew_whenever_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    for content in (Content([LARGE[:9], LARGE[9:]]), Content(tmp_path / "file")):
        hashed = Hashed(content)
        for _ in range(2):
            assert b"".join(hashed) == LARGE
            assert hashed.digest() == hashlib.sha256(LARGE).hexdigest()
        assert hashed.size == len(LARGE)
    assert hashing_threads() == []


@pytest.mark.parametrize("how", ["stops early", "fails", "never asks"])
def test_who_reads_no_further_leaves_no_thread(how: str) -> None:
    hashed = Hashed(Content(LARGE))
    reading: Any = iter(hashed)
    if how == "never asks":  # a disk that got full when all was read
        assert len(list(reading)) == 6
    else:
        for _ in range(3):
            next(reading)
        assert hashing_threads()
    if how == "fails":
        with pytest.raises(OSError, match="full"):
            reading.throw(OSError("full"))
    del reading, hashed
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("sha256"):
            thread.join(20)
    assert hashing_threads() == []


def test_a_file_s_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(LARGE).hexdigest()
