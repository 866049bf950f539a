"""What the head's actor does, without Ray: transfers in parts that may be repeated, abandoned or swept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from shared_store.backend import PART_BYTES
from shared_store.errors import StoreDownError
from shared_store.head_disk import ABANDONED_SECONDS, HeadDisk, HeadDisks, Opened

KEY = "blobs/large"
LARGE = os.urandom(2 * PART_BYTES + 5)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(tmp_path: Path, clock: Clock) -> HeadDisk:
    return HeadDisk(str(tmp_path), clock)


def part(start: int, data: bytes = LARGE) -> np.ndarray:
    return np.frombuffer(data[start : start + PART_BYTES], np.uint8)


def upload(disk: HeadDisk, data: bytes) -> str:
    token = disk.begin()
    for start in range(0, len(data), PART_BYTES):
        disk.append(token, start, part(start, data))
    return token


def opened(disk: HeadDisk, start: int = 0) -> Opened:
    found = disk.open(KEY, start)
    assert found is not None
    return found


def rest(disk: HeadDisk, file: Opened, start: int = 0) -> bytes:
    places = range(start + PART_BYTES, file.bytes, PART_BYTES)
    data = bytes(file.first) + b"".join(bytes(disk.read(file.token, place)) for place in places)
    disk.let_go(file.token)
    return data


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_parts_may_come_in_any_order_and_again(disk: HeadDisk, tmp_path: Path) -> None:
    token = disk.begin()
    for start in (2 * PART_BYTES, 0, PART_BYTES, 0):
        disk.append(token, start, part(start))
    assert disk.open(KEY, 0) is None, "nothing shows before all of it is there"
    disk.finish(token, KEY, len(LARGE))
    assert rest(disk, opened(disk)) == LARGE
    assert files(tmp_path) == [KEY]


@pytest.mark.parametrize("start", [0, 1, PART_BYTES, len(LARGE) - 1, len(LARGE), len(LARGE) + 9])
def test_reading_begins_anywhere(disk: HeadDisk, start: int) -> None:
    disk.finish(upload(disk, LARGE), KEY, len(LARGE))
    file = opened(disk, start)
    assert rest(disk, file, start) == LARGE[start:]
    assert (file.token == "") == (start + PART_BYTES >= len(LARGE)), "what came whole is not kept open"


def test_a_reader_sees_the_file_that_it_opened_though_it_is_replaced(disk: HeadDisk) -> None:
    disk.finish(upload(disk, LARGE), KEY, len(LARGE))
    file = opened(disk)
    disk.publish(KEY, b"another one")
    assert rest(disk, file) == LARGE
    assert bytes(opened(disk).first) == b"another one"


def test_an_upload_that_is_not_all_there_is_asked_for_again_and_what_stood_stands(
    disk: HeadDisk, tmp_path: Path
) -> None:
    disk.publish(KEY, b"stood")
    token = upload(disk, LARGE[: PART_BYTES + 1])
    with pytest.raises(StoreDownError, match="let go"):
        disk.finish(token, KEY, len(LARGE))
    assert (tmp_path / KEY).read_bytes() == b"stood"
    assert files(tmp_path) == [KEY]


def test_an_upload_that_somebody_cleared_away_is_asked_for_again(disk: HeadDisk, tmp_path: Path) -> None:
    token = upload(disk, LARGE)
    (leftover,) = disk.leftovers()
    assert disk.list("") == [], "no listing shows it"
    disk.delete(leftover.key)
    with pytest.raises(StoreDownError):
        disk.finish(token, KEY, len(LARGE))
    assert files(tmp_path) == []


def test_what_was_let_go_of_is_over_and_that_twice_is_no_error(disk: HeadDisk, tmp_path: Path) -> None:
    token = upload(disk, LARGE)
    for _ in range(2):
        disk.let_go(token)
    assert files(tmp_path) == []
    for act in (
        lambda: disk.append(token, 0, part(0)),
        lambda: disk.read(token, 0),
        lambda: disk.finish(token, KEY, len(LARGE)),
    ):
        with pytest.raises(StoreDownError):
            act()


def test_transfers_that_nobody_touched_for_an_hour_are_let_go_of(disk: HeadDisk, clock: Clock, tmp_path: Path) -> None:
    disk.finish(upload(disk, LARGE), KEY, len(LARGE))
    abandoned, used, file = upload(disk, LARGE), upload(disk, LARGE), opened(disk)
    clock.seconds = ABANDONED_SECONDS
    disk.append(used, 0, part(0))
    clock.seconds += 1.0
    fresh = disk.begin()
    with pytest.raises(StoreDownError):
        disk.append(abandoned, 0, part(0))
    with pytest.raises(StoreDownError):
        disk.read(file.token, PART_BYTES)
    disk.finish(used, "blobs/other", len(LARGE))
    assert [fresh in entry.key for entry in disk.leftovers()] == [True]
    disk.let_go(fresh)


def test_what_a_killed_server_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    old, fresh, other = (tmp_path / "incoming" / name for name in (".head-1.part", ".head-2.part", "unrelated"))
    old.parent.mkdir()
    for file in (old, fresh, other):
        file.write_bytes(b"begun")
    long_ago = time.time() - ABANDONED_SECONDS - 60
    for file in (old, other):
        os.utime(file, (long_ago, long_ago))
    HeadDisk(str(tmp_path))
    assert sorted((tmp_path / "incoming").iterdir()) == [fresh, other]


def test_one_server_has_many_folders_apart(tmp_path: Path) -> None:
    disks = HeadDisks()
    for place in ("a", "b"):
        assert disks.call(str(tmp_path / place), "put_if_absent", "results/one.json", place.encode())
    assert (tmp_path / "a" / "results" / "one.json").read_bytes() == b"a"
    token = disks.call(str(tmp_path / "a"), "begin")
    with pytest.raises(StoreDownError):
        disks.call(str(tmp_path / "b"), "append", token, 0, part(0))
    disks.call(str(tmp_path / "a"), "let_go", token)
