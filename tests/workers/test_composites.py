"""Composites come from two train photos of one fold and two groups, and change nothing that was dealt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.folds import assign
from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.folds_table import FoldTable, read_folds
from shared_store.records import sha256
from shared_store.snapshot import ImageRow, OpenSnapshot, open_snapshot, write_snapshot
from shared_store.store import Store, open_store
from workers.composites import Composed, add_composites, paste_over
from workers.decode import decode
from workers.pastes import plan_composites
from workers.photo import encode_jpeg

SIDE = 60
CLASSES = ("normal", "smoking", "calling")
PER_CLASS = 24


def picture(number: int, tall: bool) -> NDArray[np.uint8]:
    height, width = (40, 16) if tall else (45, 60)
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Bench:
    """A prepared little data set: every third photo is tall and narrow; those of "normal" share groups of two."""

    store: Store
    snapshot: OpenSnapshot
    table: FoldTable
    cache: Cache

    def add(self, counts: dict[str, int]) -> Composed:
        return add_composites(
            self.store,
            self.snapshot,
            self.table,
            counts=counts,
            longest_side=SIDE,
            seed=42,
            progress=lambda done, total: None,
            processes=1,
        )

    def opened(self, composed: Composed) -> OpenSnapshot:
        return open_snapshot(self.store, composed.snapshot_id, self.cache)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    rows: list[ImageRow] = []
    kept: dict[str, bytes] = {}
    for number in range(PER_CLASS * len(CLASSES)):
        label = CLASSES[number // PER_CLASS]
        pixels = picture(number, tall=number % 3 == 0)
        data = encode_jpeg(pixels)
        kept[sha256(data)] = data
        group = f"pair {number // 2}" if label == "normal" else sha256(data)
        path, (height, width) = f"{label}/{number}.jpg", pixels.shape[:2]
        rows.append(ImageRow(sha256(data), path, label, group, "train", "photo", (), width, height))
    store, cache = open_store(str(tmp_path / "store")), Cache(tmp_path / "cache", 1)
    snapshot = write_snapshot(store, rows, kept.__getitem__)
    return Bench(store, open_snapshot(store, snapshot.snapshot_id, cache), assign(rows, 3, 0.15, 1), cache)


def test_no_composites_leave_everything_as_it_is(bench: Bench) -> None:
    composed = bench.add({"smoking": 0})
    assert (composed.snapshot_id, composed.composites) == (bench.snapshot.snapshot_id, 0)
    assert read_folds(bench.store, composed.folds) == bench.table


def test_as_many_as_asked_for_of_each_class_all_with_their_parents(bench: Bench) -> None:
    composed = bench.add({"smoking": 30, "normal": 10})
    snapshot, table = bench.opened(composed), read_folds(bench.store, composed.folds)
    made = [row for row in snapshot.rows if row.kind == "composite"]
    assert (len(made), composed.composites) == (40, 40)
    assert sum(row.label == "smoking" for row in made) == 30
    for row in made:
        front, back = (snapshot.by_id[parent] for parent in row.parents)
        assert (row.width, row.height, row.part) == (SIDE, SIDE, "train")
        assert front.label == row.label
        assert back.label in {row.label, "normal"}
        assert front.height > 2 * front.width
        places = {(table.by_id[r.image_id].part, table.by_id[r.image_id].fold) for r in (row, front, back)}
        assert len(places) == 1
        assert table.by_id[row.image_id].part == "train", "a composite shows a selection photo"
        assert len({table.by_id[r.image_id].group for r in (row, front, back)}) == 1
        assert row.group == table.by_id[row.image_id].group
        assert bench.table.by_id[front.image_id].group != bench.table.by_id[back.image_id].group


def test_the_photos_stay_in_the_folds_they_were_dealt_to(bench: Bench) -> None:
    table = read_folds(bench.store, bench.add({"smoking": 30, "calling": 30}).folds)
    after = {row.image_id: (row.part, row.fold) for row in table if row.image_id in bench.table.by_id}
    assert after == {row.image_id: (row.part, row.fold) for row in bench.table}


def test_the_picture_is_the_front_over_the_padded_back(bench: Bench) -> None:
    snapshot = bench.opened(bench.add({"smoking": 5}))
    pastes = plan_composites(bench.snapshot.rows, bench.table, {"smoking": 5}, SIDE, 42)
    for row in [row for row in snapshot.rows if row.kind == "composite"]:
        paste = next(paste for paste in pastes if (paste.front, paste.back) == row.parents)
        front, back = (decode(bench.snapshot.image_bytes(parent)) for parent in row.parents)
        expected = paste_over(front, back, paste.right, paste.down, SIDE)
        pixels = decode(snapshot.image_bytes(row.image_id))
        assert np.array_equal(pixels, decode(encode_jpeg(expected)))
        top, left = (SIDE - 40) // 2 + paste.down, (SIDE - 16) // 2 + paste.right
        assert np.array_equal(expected[top : top + 40, left : left + 16], front)


def test_pasting_pads_with_black_and_cuts_at_the_edge() -> None:
    front = np.full((4, 2, 3), 200, np.uint8)
    back = np.full((2, 6, 3), 100, np.uint8)
    square = paste_over(front, back, 3, -2, 6)[:, :, 0]
    assert square.tolist() == [
        [0, 0, 0, 0, 0, 200],
        [0, 0, 0, 0, 0, 200],
        [100, 100, 100, 100, 100, 200],
        [100, 100, 100, 100, 100, 100],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_order_changes_nothing_and_the_seed_does(bench: Bench, tmp_path: Path) -> None:
    counts = {"smoking": 20, "normal": 5}
    rows = bench.snapshot.rows
    plan = plan_composites(rows, bench.table, counts, SIDE, 1)
    assert plan_composites(rows[::-1], bench.table, dict(reversed(counts.items())), SIDE, 1) == plan
    assert plan_composites(rows, bench.table, counts, SIDE, 2) != plan
    other = Bench(open_store(str(tmp_path / "other")), bench.snapshot, bench.table, bench.cache)
    assert bench.add(counts) == other.add(counts)


def test_the_first_composites_stay_when_more_are_asked_for(bench: Bench) -> None:
    few = plan_composites(bench.snapshot.rows, bench.table, {"smoking": 5}, SIDE, 1)
    many = plan_composites(bench.snapshot.rows, bench.table, {"smoking": 9, "calling": 3}, SIDE, 1)
    assert [paste for paste in many if paste.label == "smoking"][:5] == few


def test_the_same_request_finds_its_result(bench: Bench) -> None:
    composed = bench.add({"smoking": 5})
    bench.store.delete_blob(composed.folds)
    assert bench.add({"smoking": 5}) == composed
    assert bench.store.blob_path(composed.folds) is not None
    assert not bench.store.has_blob(composed.folds), "the result was made again"


def test_a_class_that_is_not_there_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="no train photo has the class 'smokng'") as error:
        bench.add({"smokng": 5})
    assert "calling, normal, smoking" in error.value.what


def test_a_class_without_anything_to_paste_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="'smoking' is tall and narrow enough"):
        plan_composites(bench.snapshot.rows, bench.table, {"smoking": 5}, 40, 1)  # 40 pixels are higher than 36.7


def test_more_than_there_can_be_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="too few pairs of photos for"):
        plan_composites(bench.snapshot.rows, bench.table, {"smoking": 100_000}, SIDE, 1)
