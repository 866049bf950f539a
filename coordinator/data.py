"""From DATA to what a run trains on: prepared photos, folds, composites; and the words for people about it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coordinator.config import Experiment
from coordinator.folds import assign
from coordinator.graph import Graph, build
from shared_store import layout
from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.folds_table import FoldTable, read_folds
from shared_store.records import canonical_json
from shared_store.snapshot import open_snapshot
from shared_store.store import Store
from workers.composites import Composed, add_composites
from workers.prepare import Prepared, PrepareSettings, prepare

DATA = "data.json"


@dataclass(frozen=True)
class RunData:
    """The frozen data of a run: what was prepared, with the fold table (blob) and the snapshot to train on."""

    prepared: Prepared
    composed: Composed
    table: FoldTable

    def graph(self, experiment: Experiment) -> Graph:
        """All tasks of the experiment on this data."""
        has_test = bool(self.table.ids("test"))
        return build(experiment, self.composed.snapshot_id, self.composed.folds, self.table.classes, has_test)

    def record(self, store: Store, run: str) -> None:
        """Note in the run what it trains on, for commands that do not reach the photos themselves."""
        parts = {"prepared": self.prepared.to_bytes().decode(), "composed": self.composed.to_bytes().decode()}
        store.publish(layout.run_file(run, DATA), canonical_json(parts))


def recorded_data(store: Store, run: str) -> RunData:
    """The data that a run noted. UserError when the run was never prepared."""
    noted = store.read(layout.run_file(run, DATA))
    if noted is None:
        mend = f"foldfleet prepare DATA --store {store.url} --run {run}"
        raise UserError(f"the store knows no run {run}", where=f"{store.url}: runs/{run}", mend=mend)
    parts = json.loads(noted)
    composed = Composed.from_bytes(parts["composed"].encode())
    return RunData(Prepared.from_bytes(parts["prepared"].encode()), composed, read_folds(store, composed.folds))


def prepare_data(experiment: Experiment, store: Store, console: Console) -> RunData:
    """Prepare the photos, deal the folds, make the composites: found at once where it was done before.

    UserError for data that the person can mend, before any training.
    """
    data, folds = experiment.data, experiment.folds
    if data.folder is None:
        mend = "give the folder or CSV of labelled photos: foldfleet prepare DATA --store STORE --run NAME"
        raise UserError("no photos are given and the run has none yet", where="DATA", mend=mend)
    processes = os.cpu_count() or 1
    settings = PrepareSettings(data.longest_side, data.max_rejected, data.near_duplicate_bits)
    with _shown(console, "reading photos") as progress:
        prepared = prepare(
            data.folder,
            selection=data.selection,
            test=data.test,
            settings=settings,
            store=store,
            progress=progress,
            processes=processes,
        )
    cache = Cache(Path(experiment.store.cache_folder).expanduser(), experiment.store.cache_gb)
    snapshot = open_snapshot(store, prepared.snapshot_id, cache)
    fraction = None if data.selection is not None else folds.selection_fraction
    table = assign(snapshot.rows, folds.count, fraction, folds.seed)
    with _shown(console, "making composites") as progress:
        composed = add_composites(
            store,
            snapshot,
            table,
            counts=data.composites,
            longest_side=data.longest_side,
            seed=folds.seed,
            progress=progress,
            processes=processes,
        )
    snapshot.close()
    return RunData(prepared, composed, read_folds(store, composed.folds))


def describe(data: RunData) -> Table:
    """Class counts by part and fold, as a table for the terminal."""
    table, folds = Table(box=None, pad_edge=False), range(data.table.fold_count)
    for column in ("class", *(f"fold {fold}" for fold in folds), "selection", "test"):
        table.add_column(column, justify="left" if column == "class" else "right")
    counts = Counter((row.label, row.part, row.fold) for row in data.table)
    labels = [*data.table.classes, *([""] if counts["", "test", None] else [])]
    for label in labels:
        row = [counts[label, "train", fold] for fold in folds]
        row += [counts[label, "selection", None], counts[label, "test", None]]
        table.add_row(label or "(unlabelled)", *(str(count) if count else "-" for count in row))
    return table


def findings(prepared: Prepared) -> list[str]:
    """What was found on the way, a sentence each; nothing when there is nothing to tell."""
    lines = []
    if prepared.rejected:
        first = prepared.rejected[0]
        lines.append(
            f"{len(prepared.rejected)} files left out (rejected.csv), first {first['path']}: {first['reason']}"
        )
    if prepared.duplicates:
        lines.append(f"{len(prepared.duplicates)} duplicates found and settled (duplicates.csv)")
    if prepared.leaks:
        lines.append(f"{len(prepared.leaks)} photos stood in two parts: kept in one (leaks.csv)")
    return lines


@contextmanager
def _shown(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, all): a bar on a terminal, a line for each tenth when piped."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(what, total=None, visible=False)
        told = 0

        def progress(done: int, total: int) -> None:
            nonlocal told
            bar.update(shown, completed=done, total=total, visible=True)
            if not console.is_terminal and done * 10 // total > told:
                told = done * 10 // total
                console.print(f"{what}: {done} of {total}", highlight=False)

        yield progress
