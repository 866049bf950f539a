"""A snapshot is frozen by content; its images are read verified, fetched once and within bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from far import FarBackend
from support import digit_rows

from shared_store import layout
from shared_store.backend import Content
from shared_store.cache import Cache
from shared_store.errors import DamagedBlobError, UserError
from shared_store.snapshot import open_snapshot, write_snapshot
from shared_store.store import Store


def test_images_come_back_and_the_order_of_rows_does_not_matter(store: Store, cache: Cache) -> None:
    rows, kept = digit_rows(per_class=3)
    record = write_snapshot(store, rows, kept.__getitem__)
    assert write_snapshot(store, rows[::-1], kept.__getitem__) == record
    opened = open_snapshot(store, record.snapshot_id, cache)
    assert set(opened.rows) == set(rows)
    assert {row.image_id: opened.image_bytes(row.image_id) for row in rows} == kept
    opened.close()


def test_what_a_row_says_is_part_of_the_id(store: Store) -> None:
    rows, kept = digit_rows(per_class=2)
    relabelled = [replace(rows[0], label="digit_3"), *rows[1:]]
    assert (
        write_snapshot(store, rows, kept.__getitem__).snapshot_id
        != write_snapshot(store, relabelled, kept.__getitem__).snapshot_id
    )


def test_bytes_that_do_not_match_or_ids_that_stand_twice_are_refused(store: Store) -> None:
    rows, kept = digit_rows(per_class=2)
    with pytest.raises(ValueError, match="twice"):
        write_snapshot(store, [*rows, rows[0]], kept.__getitem__)
    with pytest.raises(ValueError, match="do not match"):
        write_snapshot(store, rows, lambda image_id: kept[image_id] + b"x")


def test_many_shards_are_read_across(store: Store, cache: Cache) -> None:
    rows, kept = digit_rows(per_class=6)
    record = write_snapshot(store, rows, kept.__getitem__, shard_bytes=4000)
    assert len(record.shards) > 3
    opened = open_snapshot(store, record.snapshot_id, cache)
    assert all(opened.image_bytes(image_id) == data for image_id, data in kept.items())
    opened.close()


def test_a_far_shard_is_fetched_once_per_machine(tmp_path: Path) -> None:
    backend = FarBackend(tmp_path / "far")
    rows, kept = digit_rows(per_class=2)
    record = write_snapshot(Store(backend), rows, kept.__getitem__)
    for _ in range(2):  # a second process has its own Cache over the same folder
        opened = open_snapshot(Store(backend), record.snapshot_id, Cache(tmp_path / "cache", limit_gb=1))
        assert opened.image_bytes(rows[0].image_id) == kept[rows[0].image_id]
        opened.close()
    assert backend.reads.count(layout.blob(record.shards[0])) == 1


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    store = Store(FarBackend(tmp_path / "far"))
    digests = [store.put_blob(bytes([number]) * 1000) for number in range(5)]
    cache = Cache(tmp_path / "cache", limit_gb=2500e-9)
    for digest in digests:
        assert cache.path(store, digest).read_bytes() == store.get_blob(digest)
    assert sum(p.stat().st_size for p in cache.folder.iterdir() if len(p.name) == 64) <= 2500


def test_a_damaged_shard_is_never_read(store: Store, cache: Cache) -> None:
    rows, kept = digit_rows(per_class=2)
    record = write_snapshot(store, rows, kept.__getitem__)
    good = store.get_blob(record.shards[0])
    store.backend.publish(layout.blob(record.shards[0]), Content(good[:-1] + bytes([good[-1] ^ 1])))
    with pytest.raises(DamagedBlobError):
        open_snapshot(store, record.snapshot_id, cache)


def test_an_unknown_snapshot_says_what_to_do(store: Store, cache: Cache) -> None:
    with pytest.raises(UserError, match="foldfleet prepare"):
        open_snapshot(store, "0" * 32, cache)
