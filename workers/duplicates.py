"""What follows from photos that are the same picture: which are used, in which group, and what is told. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from workers.alike import near_pairs

# Which part keeps its copy: whoever is measured on a picture must never have learned from it.
_PRECEDENCE = {"test": 0, "selection": 1, "train": 2}


@dataclass(frozen=True)
class Candidate:
    """One readable photo, as far as duplicates are concerned."""

    image_id: str
    path: str
    label: str
    group: str  # explicit group; empty where the photo is a group of its own
    part: str
    hash_bits: int
    thumbnail: bytes


@dataclass(frozen=True)
class Finding:
    """One photo that is not used as it was given, or is used twice, and the photo that it repeats."""

    kind: str  # exact / near / group
    part: str
    path: str
    label: str
    other_part: str
    other_path: str
    other_label: str
    action: str  # for people


@dataclass(frozen=True)
class Verdict:
    """`kept[i]` says whether candidate i is used; `groups[i]` is its final group; findings for the reports."""

    kept: tuple[bool, ...]
    groups: tuple[str, ...]
    duplicates: tuple[Finding, ...]
    leaks: tuple[Finding, ...]


class UnionFind:
    """Disjoint sets of anything."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, item: Hashable) -> Hashable:
        self._parent.setdefault(item, item)
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def join(self, one: Hashable, other: Hashable) -> None:
        self._parent[self.find(one)] = self.find(other)


def judge(candidates: Sequence[Candidate], bits: int) -> Verdict:
    """Decide which photos are used, and their groups. The order of `candidates` does not matter.

    - Across parts: where a picture (or an explicit group) lies in several parts, only the copies of
      the part that is measured are used: test before selection before train. Reported as leaks.
    - Within train or selection: a picture with two labels is dropped; copies with one label are kept
      once, the first by path.
    - Within test every photo is predicted; files with the same bytes are one row.
    """
    order = sorted(range(len(candidates)), key=lambda i: _sort_key(candidates[i]))
    ordered = [candidates[i] for i in order]
    neighbours = _neighbours(ordered, bits)
    sets = _sets(ordered, neighbours)
    leaks = _leaks(ordered, neighbours, sets)
    duplicates = _within_parts(ordered, neighbours, {place for place, _ in leaks})
    dropped = {place for place, _ in leaks} | {place for place, used, _ in duplicates if not used}
    kept = [False] * len(candidates)
    groups = [""] * len(candidates)
    names = _group_names(ordered, sets, dropped)
    for place, original in enumerate(order):
        kept[original] = place not in dropped
        groups[original] = names[sets.find(place)]
    return Verdict(
        tuple(kept), tuple(groups), tuple(f for _, _, f in duplicates), tuple(finding for _, finding in leaks)
    )


def _sort_key(candidate: Candidate) -> tuple[str, ...]:
    return (candidate.part, candidate.path, candidate.label, candidate.group, candidate.image_id)


def _neighbours(candidates: Sequence[Candidate], bits: int) -> list[list[int]]:
    """For each candidate the places of its duplicates, ascending. Same bytes count without a look.

    Of many copies with the same bytes, part and label only the first stands in the lists, so that a
    picture that lies there a thousand times costs a thousand entries and not a million.
    """
    first: dict[tuple[str, str, str], int] = {}
    for place, candidate in enumerate(candidates):
        first.setdefault((candidate.image_id, candidate.part, candidate.label), place)
    places: dict[str, list[int]] = defaultdict(list)
    for (image_id, _, _), place in first.items():
        places[image_id].append(place)
    unique = [candidates[found[0]] for found in places.values()]
    hashes = np.array([candidate.hash_bits for candidate in unique], np.uint64)
    thumbnails = np.frombuffer(b"".join(candidate.thumbnail for candidate in unique), np.uint8)
    same: dict[str, set[int]] = {image_id: set(found) for image_id, found in places.items()}
    if unique:
        for one, other in near_pairs(hashes, thumbnails.reshape(len(unique), -1, 3), bits).tolist():
            same[unique[one].image_id].update(places[unique[other].image_id])
            same[unique[other].image_id].update(places[unique[one].image_id])
    return [sorted(same[candidate.image_id] - {place}) for place, candidate in enumerate(candidates)]


def _sets(candidates: Sequence[Candidate], neighbours: Sequence[Sequence[int]]) -> UnionFind:
    sets = UnionFind()
    for place, candidate in enumerate(candidates):
        if candidate.group:
            sets.join(place, ("group", candidate.group))
        for other in neighbours[place]:
            sets.join(place, other)
    return sets


def _members(sets: UnionFind, places: Iterable[int]) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for place in places:
        members[sets.find(place)].append(place)
    return members


def _leaks(
    candidates: Sequence[Candidate], neighbours: Sequence[Sequence[int]], sets: UnionFind
) -> list[tuple[int, Finding]]:
    """Candidates that share a picture or group with a part of higher precedence."""
    leaks: list[tuple[int, Finding]] = []
    for places in _members(sets, range(len(candidates))).values():
        winner = min((candidates[place].part for place in places), key=_PRECEDENCE.__getitem__)
        measured = [place for place in places if candidates[place].part == winner]
        for place in places:
            if candidates[place].part != winner:
                direct = [other for other in neighbours[place] if candidates[other].part == winner]
                other = (direct or measured)[0]
                kind = _kind(candidates[place], candidates[other]) if direct else "group"
                action = f"not used in {candidates[place].part}: it would leak into {winner}"
                leaks.append((place, _finding(kind, candidates[place], candidates[other], action)))
    return sorted(leaks, key=lambda leak: leak[0])


def _within_parts(
    candidates: Sequence[Candidate], neighbours: Sequence[Sequence[int]], leaked: set[int]
) -> list[tuple[int, bool, Finding]]:
    """(place, used, finding) of every candidate that repeats another of its own part."""
    rows: list[tuple[int, bool, Finding]] = []
    leaders: set[int] = set()
    for place, candidate in enumerate(candidates):
        if place in leaked:
            continue
        near = [n for n in neighbours[place] if candidates[n].part == candidate.part and n not in leaked]
        contrary = [n for n in near if candidates[n].label != candidate.label]
        earlier = [n for n in near if n in leaders]
        if candidate.part == "test":
            earlier = [n for n in earlier if candidates[n].image_id == candidate.image_id]
            contrary = []
        if contrary:
            action = "dropped: the same picture has two labels"
            rows.append((place, False, _finding("", candidate, candidates[contrary[0]], action)))
        elif earlier:
            action = "one row with its copy" if candidate.part == "test" else "kept once"
            rows.append((place, False, _finding("", candidate, candidates[earlier[0]], action)))
        else:
            leaders.add(place)
    return rows


def _kind(one: Candidate, other: Candidate) -> str:
    return "exact" if one.image_id == other.image_id else "near"


def _finding(kind: str, one: Candidate, other: Candidate, action: str) -> Finding:
    return Finding(
        kind or _kind(one, other), one.part, one.path, one.label, other.part, other.path, other.label, action
    )


def _group_names(candidates: Sequence[Candidate], sets: UnionFind, dropped: set[int]) -> dict[Hashable, str]:
    """A set's name: its first explicit group, else the first id among its used photos (or all, if none is used)."""
    names: dict[Hashable, str] = {}
    for root, places in _members(sets, range(len(candidates))).items():
        explicit = [candidates[place].group for place in places if candidates[place].group]
        used = [candidates[place].image_id for place in places if place not in dropped]
        names[root] = min(explicit or used or [candidates[place].image_id for place in places])
    return names
