"""The cache under several processes: nothing is fetched twice, the bound holds, what is open can be read to its end."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from far import FarBackend
from filelock import FileLock

from shared_store import layout
from shared_store.backend import Content
from shared_store.cache import Cache
from shared_store.errors import DamagedBlobError, MissingBlobError
from shared_store.store import Store

BLOBS, BLOB_BYTES = 6, 200_000


def kept_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if not path.name.endswith(".lock"))


def read_all(root: str, digests: list[str], limit: tuple[float, int], barrier: Any, fetched: Any) -> None:
    """The body of a process that reads every blob through the machine's cache, as a fold does."""
    backend = FarBackend(Path(root, "far"))
    store, (limit_gb, rounds) = Store(backend), limit
    barrier.wait(60)
    for _ in range(rounds):
        for digest in digests:
            with Cache(Path(root, "cache"), limit_gb).open(store, digest) as file:
                with FileLock(str(Path(root, "cache", "fetching.lock"))):  # while nobody comes or goes
                    assert kept_bytes(Path(root, "cache")) <= limit_gb * 1e9
                assert file.read() == store.get_blob(digest)
    fetched.put(len(backend.reads) - rounds * len(digests))


@pytest.mark.parametrize(("blobs_that_fit", "rounds"), [(BLOBS, 1), (2, 4)], ids=["room for all", "room for two"])
def test_processes_share_one_cache(tmp_path: Path, blobs_that_fit: int, rounds: int) -> None:
    store = Store(FarBackend(tmp_path / "far"))
    digests = [store.put_blob(os.urandom(BLOB_BYTES)) for _ in range(BLOBS)]
    context = multiprocessing.get_context("spawn")
    barrier, fetched = context.Barrier(3), context.Queue()
    body = (str(tmp_path), digests, (blobs_that_fit * BLOB_BYTES / 1e9, rounds), barrier, fetched)
    processes = [context.Process(target=read_all, args=body) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    if blobs_that_fit == BLOBS:
        assert sum(fetched.get() for _ in processes) == BLOBS, "each was fetched once for all of them"


def test_what_is_evicted_between_being_found_and_being_opened_is_fetched_again(tmp_path: Path) -> None:
    class Hasty(Cache):
        hurry = 1

        def path(self, store: Store, digest: str) -> Path:
            found = super().path(store, digest)
            if self.hurry:
                self.hurry -= 1
                found.unlink()
            return found

    store = Store(FarBackend(tmp_path / "far"))
    digest = store.put_blob(b"shard")
    with Hasty(tmp_path / "cache", limit_gb=1.0).open(store, digest) as file:
        assert file.read() == b"shard"


def test_what_is_open_can_be_read_after_it_was_evicted(tmp_path: Path) -> None:
    store = Store(FarBackend(tmp_path / "far"))
    one, other = store.put_blob(b"1" * 1000), store.put_blob(b"2" * 1000)
    cache = Cache(tmp_path / "cache", limit_gb=1e-6)
    with cache.open(store, one) as file:
        cache.path(store, other)
        assert not (cache.folder / one).exists()
        assert file.read() == b"1" * 1000


def test_what_a_killed_download_left_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Dying(Store):
        def get_file(self, digest: str, target: Path) -> None:
            target.write_bytes(b"half")
            raise Killed

    backend = FarBackend(tmp_path / "far")
    one, other = Store(backend).put_blob(b"one shard"), Store(backend).put_blob(b"other shard")
    cache = Cache(tmp_path / "cache", limit_gb=1.0)
    with pytest.raises(Killed):
        cache.path(Dying(backend), one)
    assert kept_bytes(cache.folder) == 4
    cache.path(Store(backend), other)
    assert kept_bytes(cache.folder) == len(b"other shard")


def test_a_cached_file_that_changed_on_this_disk_is_fetched_again(tmp_path: Path) -> None:
    store = Store(FarBackend(tmp_path / "far"))
    digest = store.put_blob(b"shard")
    Cache(tmp_path / "cache", 1.0).path(store, digest).write_bytes(b"shart")
    assert Cache(tmp_path / "cache", 1.0).path(store, digest).read_bytes() == b"shard"


def test_a_blob_on_this_machine_is_read_in_place_and_verified(store: Store, tmp_path: Path) -> None:
    digest = store.put_blob(b"shard")
    cache = Cache(tmp_path / "cache", 1.0)
    assert cache.path(store, digest) == store.blob_path(digest)
    assert not cache.folder.exists()
    store.backend.publish(layout.blob(digest), Content(b"shart"))
    with pytest.raises(DamagedBlobError):
        Cache(tmp_path / "cache", 1.0).path(store, digest)
    with pytest.raises(MissingBlobError):
        cache.path(store, digest)


@pytest.fixture(autouse=True)
def no_temporary_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.rglob("*.part")) == []
