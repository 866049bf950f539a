"""Image rows -> selection holdout and folds: stratified, grouped, seeded, blind to the order of rows. Pure.

Groups are dealt one by one, rarest class first and big before small, to the bin where they add least to
the sum over bins and classes of count^2 / share, which is least where every count is its share (for
single images that is Sainte-Lague's rule). A bin that still lacks a class is served first as soon
as no more groups of that class are left than the bins need, so that no fold goes without a class
as long as there are enough groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared_store.errors import UserError
from shared_store.folds_table import FoldRow, FoldTable
from shared_store.records import sha256

_DEALS = 32  # groups that hold several classes may need another shuffle before every bin has every class


class Image(Protocol):
    """What of an image decides its fold; `shared_store.snapshot.ImageRow` has it all."""

    @property
    def image_id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def part(self) -> str: ...


@dataclass(frozen=True)
class _Group:
    name: str
    labels: Mapping[str, int]  # images by class
    size: int


@dataclass(frozen=True)
class _Bin:
    """A place to deal groups to: its share of the images and the groups of each class it must have."""

    share: float
    needs: int


def assign(rows: Sequence[Image], count: int, selection_fraction: float | None, seed: int) -> FoldTable:
    """Cut the selection part off the train photos (unless `rows` bring one, or the fraction is None), then deal folds.

    Raises UserError, before any training, for: no images, a single class, a class with fewer groups
    than it takes, a selection part without a class, a label that only other parts have.
    """
    train = [row for row in rows if row.part == "train"]
    cut = selection_fraction is not None and not any(row.part == "selection" for row in rows)
    _refuse_classes(train, rows)
    groups = _groups(train)
    _refuse_scarce(groups, count, cut)
    selected: set[str] = set()
    if cut and selection_fraction is not None:
        bins = [_Bin(1 - selection_fraction, count), _Bin(selection_fraction, 1)]
        dealt = _deal_until_covered(groups, bins, f"{seed}/selection", "the selection part or the folds")
        selected = {name for name, place in dealt.items() if place == 1}
    rest = [group for group in groups if group.name not in selected]
    folds = _deal_until_covered(rest, [_Bin(1 / count, 1)] * count, f"{seed}/folds", "a fold")
    return FoldTable(_row(row, selected, folds) for row in rows)


def _row(row: Image, selected: set[str], folds: Mapping[str, int]) -> FoldRow:
    part = "selection" if row.part == "train" and row.group in selected else row.part
    fold = folds[row.group] if part == "train" else None
    return FoldRow(row.image_id, row.path, row.label, row.group, part, fold)


def _groups(rows: Sequence[Image]) -> list[_Group]:
    labels: dict[str, Counter[str]] = {}
    for row in rows:
        labels.setdefault(row.group, Counter())[row.label] += 1
    return [_Group(name, labels[name], labels[name].total()) for name in sorted(labels)]


def _groups_by_class(groups: Sequence[_Group]) -> Counter[str]:
    return Counter(label for group in groups for label in group.labels)


def _deal_until_covered(groups: Sequence[_Group], bins: Sequence[_Bin], seed: str, where: str) -> dict[str, int]:
    """The first shuffle that gives every bin every class. UserError when none does."""
    for salt in range(_DEALS):
        dealt = _deal(groups, bins, f"{seed}/{salt}")
        lacking = _lacking(groups, bins, dealt)
        if not lacking:
            return dealt
    raise UserError(
        f"{where} would be without the class {lacking[0]!r}: its groups cannot be spread",
        where=f"{_groups_by_class(groups)[lacking[0]]} groups of {lacking[0]!r}, some shared with other classes",
        mend="add photos of that class from other groups, or lower folds.count",
    )


def _lacking(groups: Sequence[_Group], bins: Sequence[_Bin], dealt: Mapping[str, int]) -> list[str]:
    have = Counter((label, dealt[group.name]) for group in groups for label in group.labels)
    labels = sorted(_groups_by_class(groups))
    return [label for label in labels if any(have[label, b] < bins[b].needs for b in range(len(bins)))]


def _deal(groups: Sequence[_Group], bins: Sequence[_Bin], seed: str) -> dict[str, int]:
    """Group name -> bin, in one pass over the groups."""
    groups_of = _groups_by_class(groups)

    def order(group: _Group) -> tuple[int, int, str]:
        rarest = min(groups_of[label] for label in group.labels)
        return (rarest, -group.size, sha256(f"{seed}/{group.name}".encode()))

    table = _Table(groups, bins)
    return {group.name: table.place(group) for group in sorted(groups, key=order)}


class _Table:
    """What has been dealt so far, and where the next group goes."""

    def __init__(self, groups: Sequence[_Group], bins: Sequence[_Bin]) -> None:
        self._bins = bins
        self._waiting = _groups_by_class(groups)  # groups of each class not dealt yet
        self._images_of = Counter[str]()  # images of each class in all
        for group in groups:
            self._images_of.update(group.labels)
        self._images = [Counter[str]() for _ in bins]
        self._totals = [0] * len(bins)
        self._lacks = [dict.fromkeys(self._waiting, one.needs) for one in bins]  # groups a bin still needs
        self._needed = {label: sum(one.needs for one in bins) for label in self._waiting}  # ... and all bins

    def place(self, group: _Group) -> int:
        """Deal `group` and return its bin."""
        bins: Sequence[int] = range(len(self._bins))
        if urgent := [label for label in group.labels if 0 < self._needed[label] >= self._waiting[label]]:
            wants = [sum(lacks[label] > 0 for label in urgent) for lacks in self._lacks]
            bins = [b for b, wanted in enumerate(wants) if wanted == max(wants)]
        chosen = min(bins, key=lambda b: self._added(b, group))
        self._images[chosen].update(group.labels)
        self._totals[chosen] += group.size
        for label in group.labels:
            self._waiting[label] -= 1
            if self._lacks[chosen][label]:
                self._lacks[chosen][label] -= 1
                self._needed[label] -= 1
        return chosen

    def _added(self, place: int, group: _Group) -> tuple[float, float, int]:
        """What `group` would add to the sum of squared shares: of the group's classes, then of all, then the number."""
        share, images = self._bins[place].share, self._images[place]
        added = sum(
            more * (2 * images[label] + more) / self._images_of[label] ** 2 for label, more in group.labels.items()
        )
        return (round(added / share, 12), (2 * self._totals[place] + group.size) / share, place)


def _refuse_classes(train: Sequence[Image], rows: Sequence[Image]) -> None:
    """No images, one class, or parts whose classes do not fit the train part's."""
    if not train:
        raise UserError("there are no images to train on", where="the train part", mend="give DATA labelled photos")
    classes = sorted({row.label for row in train})
    if len(classes) == 1:
        mend = "put the photos of each class into a folder of its own; a classifier needs at least two"
        raise UserError(f"there is a single class: {classes[0]!r}", where="the train part", mend=mend)
    for part in ("selection", "test"):
        labels = {row.label for row in rows if row.part == part and row.label}
        for label in sorted(labels - set(classes)):
            mend = f"use the train part's labels: {', '.join(classes)}"
            raise UserError(f"no train image has the label {label!r}", where=f"the {part} part", mend=mend)
        for label in sorted(set(classes) - labels) if part == "selection" and labels else ():
            mend = "add photos of it there: the ensemble is chosen by its score over every class"
            raise UserError(f"the selection part has no image of the class {label!r}", where="--selection", mend=mend)


def _refuse_scarce(groups: Sequence[_Group], count: int, cut: bool) -> None:
    """Every fold, and the selection part if it is cut here, needs a group of every class."""
    needed = count + 1 if cut else count
    for label, found in sorted(_groups_by_class(groups).items()):
        if found < needed:
            what = f"{count} folds and the selection part" if cut else f"{count} folds"
            raise UserError(
                f"the class {label!r} has {found} groups of photos; {what} need at least {needed}",
                where=f"class {label!r}",
                mend="add photos of it, leave the class out, or lower folds.count",
            )
