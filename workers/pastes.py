"""Which paste-composites to make: parents, places and limits, drawn by seed. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared_store.errors import UserError
from shared_store.folds_table import FoldTable
from shared_store.snapshot import ImageRow

BACKGROUND_CLASS = "normal"
"""Besides a class's own photos, those of a class of this name serve as backgrounds."""
TALL = 2.0
"""A front is more than this many times as high as wide."""
_SQUARE, _HEIGHT, _SHIFT = 600, 550, 20  # the recipe's pixels; all scale with the longest side
_DRAWS = 200  # tries for a pair that was not drawn yet and does not share a group


@dataclass(frozen=True)
class Paste:
    """One composite to make: `front` over the middle of `back`, moved by (right, down) pixels."""

    label: str
    index: int
    front: str  # image ids
    back: str
    right: int
    down: int


def plan_composites(
    rows: Sequence[ImageRow], table: FoldTable, counts: Mapping[str, int], longest_side: int, seed: int
) -> list[Paste]:
    """Draw parents and places. Composite n of a class is decided by (seed, class, n) and the sorted photos alone."""
    rows = sorted(rows, key=lambda row: row.image_id)
    train = [row for row in rows if row.kind == "photo" and table.by_id[row.image_id].part == "train"]
    by_fold: dict[tuple[int | None, str], list[ImageRow]] = defaultdict(list)
    for row in train:
        by_fold[table.by_id[row.image_id].fold, row.label].append(row)
    reach = round(_SHIFT * longest_side / _SQUARE)
    pastes: list[Paste] = []
    for label, count in sorted(counts.items()):
        fronts = _fronts(label, train, longest_side)
        backs = {
            fold: [row for ground in sorted({label, BACKGROUND_CLASS}) for row in by_fold.get((fold, ground), [])]
            for fold in {table.by_id[row.image_id].fold for row in train}
        }
        choices = [(front, backs[table.by_id[front.image_id].fold]) for front in fronts]
        draws = _Draws(label, choices, reach, seed)
        pastes.extend(draws.paste(index) for index in range(count))
    return pastes


def _fronts(label: str, train: Sequence[ImageRow], longest_side: int) -> list[ImageRow]:
    """What can be pasted of a class. UserError when that is nothing."""
    mend = "correct data.composites: it counts the composites to make of each class"
    own = [row for row in train if row.label == label]
    if not own:
        classes = ", ".join(sorted({row.label for row in train}))
        raise UserError(f"no train photo has the class {label!r} (there are: {classes})", where="composites", mend=mend)
    highest = longest_side * _HEIGHT / _SQUARE
    fronts = [row for row in own if row.height > TALL * row.width and row.height < highest]
    if not fronts:
        what = f"no photo of the class {label!r} is tall and narrow enough to paste"
        where = f"higher than {TALL:g} times its width, and lower than {highest:g} pixels: none of {len(own)}"
        raise UserError(what, where=where, mend=f"add such cut-outs, or take {label!r} out of data.composites")
    return fronts


class _Draws:
    """Draws the composites of one class, each pair and place once."""

    def __init__(
        self, label: str, choices: Sequence[tuple[ImageRow, Sequence[ImageRow]]], reach: int, seed: int
    ) -> None:
        self._label = label
        self._choices = choices  # what can be pasted, and what each may be pasted on
        self._reach = reach  # pixels from the middle
        self._seed = seed
        self._drawn: set[tuple[str, str, int, int]] = set()

    def paste(self, index: int) -> Paste:
        """A pair of one fold and two groups, and a place, that no earlier composite has."""
        for attempt in range(_DRAWS):
            number = hashlib.sha256(f"{self._seed}/{self._label}/{index}/{attempt}".encode()).digest()
            one, two, three, four = (int.from_bytes(number[at : at + 8], "big") for at in (0, 8, 16, 24))
            front, backs = self._choices[one % len(self._choices)]
            if not backs:
                continue
            back = backs[two % len(backs)]
            right, down = (draw % (2 * self._reach + 1) - self._reach for draw in (three, four))
            place = (front.image_id, back.image_id, right, down)
            if front.group != back.group and place not in self._drawn:
                self._drawn.add(place)
                return Paste(self._label, index, *place)
        raise UserError(
            f"there are too few pairs of photos for {index + 1} composites of the class {self._label!r}",
            where="two photos of one fold and of two groups make a pair",
            mend="ask for fewer in data.composites, or add photos",
        )
