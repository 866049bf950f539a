"""Paste-composites: a tall narrow photo of a class laid over another photo, as the competition recipe did.

They are made after the folds are dealt, from two train photos of one fold, and stand in that fold. So no
composite shows an image that its fold's teacher held out, none touches the selection part, and merging
its parents' groups joins only groups that already share a fold: chains of composites cost no balance.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared_store import layout
from shared_store.folds_table import FoldRow, FoldTable
from shared_store.records import Record, canonical_json, sha256
from shared_store.snapshot import ImageRow, OpenSnapshot, read_whole, write_snapshot
from shared_store.store import Store
from workers.decode import decode
from workers.duplicates import UnionFind
from workers.pastes import Paste, plan_composites
from workers.photo import encode_jpeg, write_scratch
from workers.pool import pooled

COMPOSITES_VERSION = 1  # raise it when the same request would come to make other pictures


@dataclass(frozen=True)
class Composed(Record):
    """The snapshot and the fold table (blob) to train on, and how many composites they hold."""

    snapshot_id: str
    folds: str
    composites: int


def add_composites(
    store: Store,
    snapshot: OpenSnapshot,
    table: FoldTable,
    *,
    counts: Mapping[str, int],
    longest_side: int,
    seed: int,
    progress: Callable[[int, int], None],
    processes: int,
) -> Composed:
    """Freeze the photos with `counts[label]` composites of each class, and the fold table with them.

    Without composites to make the snapshot stays as it is. The same request finds its earlier result.
    Raises UserError for a class that is not there or has nothing to paste or to paste on.
    """
    folds = store.put_blob(table.to_csv())
    counts = {label: count for label, count in sorted(counts.items()) if count}
    if not counts:
        return Composed(snapshot.snapshot_id, folds, 0)
    request = [COMPOSITES_VERSION, snapshot.snapshot_id, folds, counts, longest_side, seed]
    key = layout.snapshot(f"composites-{sha256(canonical_json(request))[:32]}")
    composed = store.read_record(key, Composed)
    if composed is not None and read_whole(store, composed.snapshot_id) is not None:
        return composed
    pastes = plan_composites(snapshot.rows, table, counts, longest_side, seed)
    with tempfile.TemporaryDirectory(prefix="foldfleet-") as scratch:
        made: dict[str, tuple[Paste, Path]] = {}
        answers = _make(snapshot, pastes, longest_side, Path(scratch), processes)
        for done, (image_id, paste, file) in enumerate(answers, start=1):
            made.setdefault(image_id, (paste, file))
            progress(done, len(pastes))
        composed = _freeze(store, snapshot, table, made, longest_side)
    store.put_if_absent(key, composed.to_bytes())
    return composed


def paste_over(
    front: NDArray[np.uint8], back: NDArray[np.uint8], right: int, down: int, side: int
) -> NDArray[np.uint8]:
    """`back`, padded with black to a square of `side`, with `front` over its middle, moved and cut at the edges."""
    square = np.zeros((side, side, 3), np.uint8)
    _lay(square, back, 0, 0)
    _lay(square, front, right, down)
    return square


def _lay(square: NDArray[np.uint8], picture: NDArray[np.uint8], right: int, down: int) -> None:
    height, width = picture.shape[:2]
    top, left = (square.shape[0] - height) // 2 + down, (square.shape[1] - width) // 2 + right
    rows = slice(max(top, 0), min(top + height, square.shape[0]))
    columns = slice(max(left, 0), min(left + width, square.shape[1]))
    square[rows, columns] = picture[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def make_composite(front: str, back: str, target: str, place: tuple[int, int], side: int) -> str:
    """Write a composite of two kept photos' files to `target` as JPEG 95; returns its image id."""
    over, under = (decode(Path(file).read_bytes()) for file in (front, back))
    data = encode_jpeg(paste_over(over, under, *place, side))
    write_scratch(target, data)
    return sha256(data)


def _make(
    snapshot: OpenSnapshot, pastes: Sequence[Paste], side: int, scratch: Path, processes: int
) -> Iterator[tuple[str, Paste, Path]]:
    """Every composite's image id, what it is, and the file that holds its bytes."""
    for image_id in {image_id for paste in pastes for image_id in (paste.front, paste.back)}:
        write_scratch(str(scratch / image_id), snapshot.image_bytes(image_id))
    targets = [scratch / f"{number}.kept" for number in range(len(pastes))]
    jobs = [
        (str(scratch / paste.front), str(scratch / paste.back), str(target), (paste.right, paste.down), side)
        for paste, target in zip(pastes, targets, strict=True)
    ]
    return zip(pooled(make_composite, jobs, processes), pastes, targets, strict=True)


def _freeze(
    store: Store, snapshot: OpenSnapshot, table: FoldTable, made: Mapping[str, tuple[Paste, Path]], side: int
) -> Composed:
    """Write photos and composites as one snapshot, and the table with the parents' groups merged."""
    merged = UnionFind()
    for paste, _ in made.values():
        merged.join(table.by_id[paste.front].group, table.by_id[paste.back].group)
    names: dict[Hashable, str] = {}
    for group in sorted(row.group for row in table):
        names.setdefault(merged.find(group), group)
    photos = [dataclasses.replace(row, group=names[merged.find(row.group)]) for row in snapshot.rows]
    group_of = {row.image_id: row.group for row in photos}
    composites = [
        ImageRow(
            image_id=image_id,
            path=f"composite/{paste.label}/{paste.index:05d}.jpg",
            label=paste.label,
            group=group_of[paste.front],
            part="train",
            kind="composite",
            parents=(paste.front, paste.back),
            width=side,
            height=side,
        )
        for image_id, (paste, _) in made.items()
    ]
    rows = [dataclasses.replace(row, group=group_of[row.image_id]) for row in table]
    rows += [
        FoldRow(row.image_id, row.path, row.label, row.group, "train", table.by_id[row.parents[0]].fold)
        for row in composites
    ]
    whole = write_snapshot(
        store,
        [*photos, *composites],
        lambda image_id: made[image_id][1].read_bytes() if image_id in made else snapshot.image_bytes(image_id),
    )
    return Composed(whole.snapshot_id, store.put_blob(FoldTable(rows).to_csv()), len(composites))
