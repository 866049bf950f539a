"""What a store holds, as tables for people: kinds, runs, tasks, keys, and what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from coordinator.generation import ENDED, Chain
from coordinator.view import shown, size
from shared_store import layout
from shared_store.backend import Entry
from shared_store.care import Checked
from shared_store.commits import last_commit, read_result
from shared_store.errors import DamagedRecordError
from shared_store.inventory import LEFT_BEHIND, Sweep, Wrong, count, kind_of, newest_commits
from shared_store.store import Store
from shared_store.sweep import find_needless


def show_checked(console: Console, checked: Checked) -> None:
    """What was read, all that is wrong with how to mend it, and what was left behind."""
    console.print(_kinds(checked.counts, checked.wrong))
    for one in checked.wrong:
        _say(console, f"{one.key}: {one.what}\n  mend:  {one.mend}")
    found = {kind: checked.counts[kind] for kind in LEFT_BEHIND if kind in checked.counts}
    left = [f"{files} {kind} ({size(weight)})" for kind, (files, weight) in found.items()]
    _say(console, f"left behind by killed writers, or put aside: {', '.join(left) or 'nothing'}")


def show_contents(console: Console, store: Store, prefix: str) -> Sequence[Entry]:
    """Kinds (with what killed writers left unfinished), runs and tasks; or every key below a prefix. What is there."""
    entries = store.list(prefix)
    if prefix:
        console.print(_keys(entries))
        return entries
    entries += store.backend.leftovers()
    console.print(_kinds(count(entries)), "", _runs(store, entries), "", _tasks(store, entries))
    return entries


def show_needless(console: Console, store: Store, grace_hours: float) -> Sweep:
    """Find what nobody needs, and show it with what is too young to go."""
    with shown(console, "reading what is named") as progress:
        sweep = find_needless(store, grace_hours * 3600, progress)
    if sweep.goes:
        console.print(_kinds(count(sweep.goes)))
    _say(console, f"not needed either, but younger than {grace_hours:g} hours: {total(sweep.young)}")
    return sweep


def total(entries: Iterable[Entry]) -> str:
    """`1,204 files, 3.1 GB`."""
    sizes = [entry.bytes for entry in entries]
    return f"{len(sizes):,} file{'' if len(sizes) == 1 else 's'}, {size(sum(sizes))}"


def _kinds(counts: Mapping[str, tuple[int, int]], wrong: Sequence[Wrong] = ()) -> Table:
    """Files and bytes by kind, and how many of them are wrong where any is."""
    table = _table("kind", ">files", ">size", *([">wrong"] if wrong else []))
    for kind, (files, weight) in counts.items():
        bad = len({one.key for one in wrong if kind_of(one.key) == kind})
        table.add_row(kind, f"{files:,}", size(weight), *([str(bad or "")] if wrong else []))
    return table


def _keys(entries: Iterable[Entry]) -> Table:
    """Every key with its size, and the time that the store's own clock gave it."""
    table = _table("key", ">size", "written")
    for entry in entries:
        written = datetime.fromtimestamp(entry.modified).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.key, size(entry.bytes), written)
    return table


def _runs(store: Store, entries: Collection[Entry]) -> Table:
    """Each run: what it left for people, and who drove it last."""
    files: dict[str, list[int]] = {}
    for entry in entries:
        kind, _, rest = entry.key.partition("/")
        if kind in ("runs", layout.COORDINATORS):
            sizes = files.setdefault(rest.partition("/")[0], [])
            sizes += [entry.bytes] if kind == "runs" else []
    table = _table("run", ">files", ">size", "last driven by", "")
    for run, sizes in sorted(files.items()):
        table.add_row(run, f"{len(sizes):,}", size(sum(sizes)), *_driver(Chain(store, layout.coordinators(run))))
    return table


def _tasks(store: Store, entries: Collection[Entry]) -> Table:
    """Each task that left anything: done or begun, how far, and how much its result or newest commit weighs."""
    sizes = {entry.key: entry.bytes for entry in entries}
    newest = newest_commits(sizes)
    done = {key.removeprefix("results/").removesuffix(".json") for key in sizes if kind_of(key) == "results"}
    table = _table("task", "state", ">commits", ">epoch", ">step", ">size")
    for task in sorted(done | newest.keys()):
        table.add_row(task, *_task(store, task, newest.get(task, 0), sizes))
    return table


def _driver(chain: Chain) -> tuple[str, str]:
    try:
        holder = chain.newest()
    except DamagedRecordError as error:
        return error.what, ""
    if holder is None:
        return "", ""
    return str(holder), "ended" if chain.beat(holder) == ENDED else "no end noted: still driven, or killed"


def _task(store: Store, task: str, commits: int, sizes: Mapping[str, int]) -> tuple[str, ...]:
    try:
        result, commit = read_result(store, task), last_commit(store, task)
    except DamagedRecordError:
        return "damaged record", str(commits or ""), "", "", ""
    blobs = result.blobs if result is not None else commit.blobs if commit is not None else {}
    weight = sum(sizes.get(layout.blob(digest), 0) for digest in set(blobs.values()))
    where = ("", "") if commit is None else (str(commit.epoch), str(commit.step))
    return "begun" if result is None else "done", str(commits or ""), *where, size(weight)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _table(*columns: str) -> Table:
    """A table without lines; columns that begin with `>` are numbers."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table
