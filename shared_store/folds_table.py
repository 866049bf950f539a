"""The fold table: which image is in which part and fold, as a CSV that people can read too. Pure.

Columns image_id, path, label, group, part, fold; sorted by (part, path); `\\n` line ends; UTF-8. `fold`
is 0..k-1 in the train part and empty elsewhere; `label` is empty where unknown (test).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared_store.store import Store

PARTS = ("train", "selection", "test")
COLUMNS = ["image_id", "path", "label", "group", "part", "fold"]


@dataclass(frozen=True)
class FoldRow:
    """Where one image belongs. `fold` is None outside the train part."""

    image_id: str
    path: str
    label: str
    group: str
    part: str
    fold: int | None


class FoldTable:
    """Rows in the table's order. ValueError when they break a rule of the table."""

    def __init__(self, rows: Iterable[FoldRow]) -> None:
        self.rows = tuple(sorted(rows, key=lambda row: (row.part, row.path, row.image_id)))
        _check(self.rows)

    def __iter__(self) -> Iterator[FoldRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FoldTable) and self.rows == other.rows

    def __hash__(self) -> int:
        return hash(self.rows)

    @cached_property
    def by_id(self) -> dict[str, FoldRow]:
        return {row.image_id: row for row in self.rows}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Sorted labels of the train part: the order of every logit and p column."""
        return tuple(sorted({row.label for row in self.rows if row.part == "train"}))

    @cached_property
    def fold_count(self) -> int:
        return 1 + max((row.fold for row in self.rows if row.fold is not None), default=-1)

    def ids(self, part: str, folds: Collection[int] | None = None) -> tuple[str, ...]:
        """Image ids of a part (of some of its folds), in the table's order."""
        return tuple(row.image_id for row in self.rows if row.part == part and (folds is None or row.fold in folds))

    def labels(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """The labels of `image_ids`, in that order; KeyError names an image that is not here."""
        return tuple(self.by_id[image_id].label for image_id in image_ids)

    def to_csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            fold = "" if row.fold is None else row.fold
            writer.writerow([row.image_id, row.path, row.label, row.group, row.part, fold])
        return text.getvalue().encode()

    @classmethod
    def from_csv(cls, data: bytes) -> FoldTable:
        """Parse and check; ValueError says which rule a row breaks."""
        reader = csv.reader(io.StringIO(data.decode(), newline=""))
        header = next(reader, [])
        if header != COLUMNS:
            raise ValueError(f"a fold table with the columns {header}, expected {COLUMNS}")
        return cls(_parse(row, number) for number, row in enumerate(reader, start=2))


def read_folds(store: Store, digest: str) -> FoldTable:
    """The fold table kept as the blob `digest`."""
    return FoldTable.from_csv(store.get_blob(digest))


def _parse(row: Sequence[str], number: int) -> FoldRow:
    if len(row) != len(COLUMNS) or not (row[5] == "" or row[5].isdecimal()):
        raise ValueError(f"row {number} of a fold table is not {COLUMNS}: {row}")
    return FoldRow(row[0], row[1], row[2], row[3], row[4], int(row[5]) if row[5] else None)


def _check(rows: Sequence[FoldRow]) -> None:
    places: dict[str, tuple[str, int | None]] = {}
    seen: set[str] = set()
    for row in rows:
        if row.part not in PARTS or (row.fold is not None) != (row.part == "train"):
            raise ValueError(f"a fold table with {row.path} in part {row.part!r}, fold {row.fold}")
        if not row.label and row.part != "test":
            raise ValueError(f"a fold table with {row.path} of part {row.part} without a label")
        if row.image_id in seen:
            raise ValueError(f"a fold table with the image {row.image_id} twice")
        seen.add(row.image_id)
        place = places.setdefault(row.group, (row.part, row.fold))
        if place != (row.part, row.fold):
            raise ValueError(f"a fold table with the group {row.group} in {place} and in {(row.part, row.fold)}")
