"""What lies in a store, judged from its listing and its records' bytes: what is named, what is wrong, what may go.

Pure: care.py reads and removes, this module decides.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from shared_store import layout
from shared_store.backend import Entry
from shared_store.records import Commit, Holder, Result, Snapshot, sha256, verified

KINDS = ("blobs", "results", "commits", "snapshots", "coordinators", "cleaners", "runs", "logs")
LEFT_BEHIND = ("incoming", "damaged", "probes", "unfinished")
KEPT_COMMITS = 3  # one more than a fold keeps itself
_LOADABLE_COMMITS = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(rb"[0-9a-f]{64,}")
_BINARY = (".safetensors", ".onnx", ".parquet", ".png", ".jpg")


def kind_of(key: str) -> str:
    """The first part of a key; `unfinished` for what killed writers left, `other` for what no foldfleet wrote."""
    first, _, rest = key.partition("/")
    if key.rpartition("/")[2].startswith(".") or "?" in key:
        return "unfinished"
    return first if rest and first in KINDS + LEFT_BEHIND else "other"


def count(entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """(how many, bytes) by kind, in a fixed order."""
    numbers: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in entries:
        numbers[kind_of(entry.key)] += 1
        sizes[kind_of(entry.key)] += entry.bytes
    return {kind: (numbers[kind], sizes[kind]) for kind in (*KINDS, *LEFT_BEHIND, "other") if numbers[kind]}


def is_digest(name: str) -> bool:
    """Whether `name` is a sha256 as the store writes it."""
    return _DIGEST.fullmatch(name) is not None


def newest_commits(keys: Iterable[str]) -> dict[str, int]:
    """The highest number listed below `commits/`, by task."""
    newest: dict[str, int] = {}
    for key in keys:
        if found := re.fullmatch(r"commits/(.+)/([1-9]\d*)\.json", key):
            newest[found[1]] = max(newest.get(found[1], 0), int(found[2]))
    return newest


# What may go


def may_name_blobs(key: str) -> bool:
    """Whether a file may hold digests that keep blobs alive: not bytes, nor commits, which have a rule of theirs."""
    return kind_of(key) not in ("blobs", "commits", "logs", *LEFT_BEHIND) and not key.endswith(_BINARY)


def digests_in(parts: Iterable[bytes | memoryview]) -> set[str]:
    """Every 64 hex digits in a row in a text that comes in parts; of a longer row, all that it holds."""
    found: set[str] = set()
    text = b""
    for part in parts:
        text += bytes(part)
        for row in _HEX.finditer(text):
            digits = row[0].decode()
            found.update(digits[place : place + 64] for place in range(len(digits) - 63))
        text = text[-63:]
    return found


def commits_to_keep(newest_first: Iterable[Commit], stands: Callable[[str], bool]) -> list[Commit]:
    """The commits of a task without a result whose blobs stay: the newest three, and on until two can be loaded."""
    kept: list[Commit] = []
    loadable = 0
    for commit in newest_first:
        kept.append(commit)
        loadable += all(map(stands, commit.blobs.values()))
        if len(kept) >= KEPT_COMMITS and loadable >= _LOADABLE_COMMITS:
            break
    return kept


@dataclass(frozen=True)
class Sweep:
    """What nobody needs: `goes` now, and what is too young to tell."""

    goes: tuple[Entry, ...]
    young: tuple[Entry, ...]


def plan_sweep(entries: Collection[Entry], named: Collection[str], now: float, grace_seconds: float) -> Sweep:
    """What may be removed of `entries` (leftovers among them), `named` being every digest that anything names.

    `now` is on the clock that stamped the entries.
    """
    standing = {entry.key for entry in entries}
    unneeded = [entry for entry in entries if _unneeded(entry.key, named, standing)]
    goes = [entry for entry in unneeded if now - entry.modified >= grace_seconds]
    young = [entry for entry in unneeded if now - entry.modified < grace_seconds]
    return Sweep(tuple(goes), tuple(young))


def _unneeded(key: str, named: Collection[str], standing: Collection[str]) -> bool:
    kind, name = kind_of(key), key.rpartition("/")[2]
    if kind == "blobs":
        return name not in named
    if kind == "damaged":  # it may be all that is left of what something names
        return name not in named or f"blobs/{name}" in standing
    return kind in ("incoming", "probes", "unfinished")


# What is wrong


@dataclass(frozen=True)
class Wrong:
    """One thing that is not as it should be, and how to mend it."""

    key: str
    what: str
    mend: str


@dataclass
class Judged:
    """What the records say."""

    wrong: list[Wrong] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    commits: dict[str, dict[int, Commit]] = field(default_factory=lambda: defaultdict(dict))
    named: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # keys that name a blob
    snapshots: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # keys that name a snapshot


def is_record(key: str) -> bool:
    """Whether a key holds a record that `judge` understands."""
    return key.endswith(".json") and kind_of(key) in ("results", "commits", "snapshots", "coordinators", "cleaners")


def judge(records: Mapping[str, bytes]) -> Judged:
    """Parse every record, and hold it against its key and against the records that it should fit to.

    What must stand for them is in `named` and `snapshots`: all that results and snapshots name, and no commit's blobs.
    """
    judged = Judged()
    for key, data in sorted(records.items()):
        try:
            _take_in(judged, key, data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            mend = "restore it from a copy, or remove it and give its run's command again"
            judged.wrong.append(Wrong(key, f"not the record that belongs there: {error}", mend))
    for task, commits in judged.commits.items():
        judged.wrong += _broken_links(task, commits, records)
    return judged


def _take_in(judged: Judged, key: str, data: bytes) -> None:
    match kind_of(key):
        case "results":
            result = Result.from_bytes(data)
            _must_be(key, layout.result(result.task))
            judged.results[result.task] = result
            _name(judged.named, key, result.blobs.values())
        case "commits":
            commit = Commit.from_bytes(data)
            _must_be(key, layout.commit(commit.task, commit.number))
            _name({}, key, commit.blobs.values())
            judged.commits[commit.task][commit.number] = commit
        case "snapshots":
            _take_in_snapshot(judged, key, data)
        case kind:
            holder = Holder.from_bytes(data)
            above = layout.CLEANERS if kind == "cleaners" else layout.coordinators(holder.run)
            _must_be(key, layout.generation(above, holder.generation))


def _take_in_snapshot(judged: Judged, key: str, data: bytes) -> None:
    """A snapshot, or what was prepared with one: there, a digest that stands by itself names a blob."""
    values = verified(data)
    if values["kind"] == Snapshot.__name__:
        snapshot = Snapshot.from_bytes(data)
        _must_be(key, layout.snapshot(snapshot.snapshot_id))
        _name(judged.named, key, [snapshot.manifest, *snapshot.shards])
        return
    texts = {name: value for name, value in values.items() if isinstance(value, str) and value}
    _name(judged.named, key, [value for value in texts.values() if is_digest(value)])
    for name, value in texts.items():
        if name.endswith("snapshot_id"):
            judged.snapshots[layout.snapshot(value)].append(key)


def _must_be(key: str, says: str) -> None:
    if key != says:
        raise ValueError(f"it says that it is {says}")


def _name(named: dict[str, list[str]], key: str, digests: Iterable[str]) -> None:
    for digest in digests:
        if not is_digest(digest):
            raise ValueError(f"{digest!r} is no sha256")
        named.setdefault(digest, []).append(key)


def _broken_links(task: str, commits: Mapping[int, Commit], records: Mapping[str, bytes]) -> Iterator[Wrong]:
    """Commits that do not name the one before them, and numbers that no commit has."""
    mend = "restore it from a copy; the fold itself goes on from its newest commit"
    for number in range(1, max(commits) + 1):
        key = layout.commit(task, number)
        if key not in records:
            yield Wrong(key, f"missing, though commit {max(commits)} stands", mend)
        elif number in commits:
            before = records.get(layout.commit(task, number - 1)) if number > 1 else None
            expected = None if before is None else sha256(before)
            if commits[number].parent != expected and (number == 1 or before is not None):
                yield Wrong(key, "it does not name the commit before it as its parent", mend)
