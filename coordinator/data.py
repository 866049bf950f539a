"""From DATA to what a run trains on: prepared photos, folds, composites; and the words for people about it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coordinator.config import Experiment
from coordinator.folds import assign
from coordinator.graph import Graph, Photos, build
from coordinator.view import shown
from shared_store import layout
from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.folds_table import FoldTable, read_folds
from shared_store.records import canonical_json
from shared_store.snapshot import open_snapshot, read_manifest
from shared_store.store import Store
from workers.composites import Composed, add_composites
from workers.listing import list_photos
from workers.prepare import Prepared, PrepareSettings, prepare
from workers.weights_file import weights_sha256

DATA = "data.json"


@dataclass(frozen=True)
class RunData:
    """The frozen data of a run: what was prepared, with the fold table (blob) and the snapshot to train on."""

    prepared: Prepared
    composed: Composed
    test_folds: str  # fold table (blob) of the test photos alone; empty without any
    table: FoldTable  # all photos
    weights: Mapping[str, str]  # sha256 of the files with pretrained weights, by what `recipe.weights` says

    def graph(self, experiment: Experiment) -> Graph:
        """All tasks of the experiment on this data."""
        photos = Photos(self.composed.snapshot_id, self.composed.folds)
        test = Photos(self.prepared.test_snapshot_id, self.test_folds) if self.test_folds else None
        return build(experiment, photos, self.table.classes, test, self.weights)

    def record(self, store: Store, run: str) -> None:
        """Note in the run what it trains on, for commands that do not reach the photos themselves."""
        parts = {
            "prepared": self.prepared.to_bytes().decode(),
            "composed": self.composed.to_bytes().decode(),
            "test_folds": self.test_folds,
            "weights": self.weights,
        }
        store.publish(layout.run_file(run, DATA), canonical_json(parts))


def recorded_data(store: Store, run: str) -> RunData:
    """The data that a run noted. UserError when the run was never prepared."""
    noted = store.read(layout.run_file(run, DATA))
    mend, where = f"foldfleet prepare DATA --store {store.url} --run {run}", f"{store.url}: runs/{run}"
    if noted is None:
        runs = sorted({entry.key.split("/")[1] for entry in store.list("runs/")} - {run})
        named = f"name one of the runs there with --run: {', '.join(runs)}; or begin this one: " if runs else ""
        raise UserError(f"the store knows no run {run}", where=where, mend=named + mend)
    parts = json.loads(noted)
    if "weights" not in parts:
        raise UserError("the run was prepared by an earlier foldfleet", where=f"{where}/{DATA}", mend=mend)
    composed, prepared = (
        Composed.from_bytes(parts["composed"].encode()),
        Prepared.from_bytes(parts["prepared"].encode()),
    )
    return _whole(store, prepared, composed, parts["test_folds"], parts["weights"])


def _whole(
    store: Store, prepared: Prepared, composed: Composed, test_folds: str, weights: Mapping[str, str]
) -> RunData:
    tables = [read_folds(store, digest) for digest in (composed.folds, test_folds) if digest]
    return RunData(prepared, composed, test_folds, FoldTable(row for table in tables for row in table), weights)


def check_data(experiment: Experiment) -> None:
    """UserError when no photos are given, or what is given cannot be listed: known before anything is read."""
    list_photos(_folder(experiment), experiment.data.selection, experiment.data.test)


def _folder(experiment: Experiment) -> str:
    if experiment.data.folder is None:
        mend = "give the folder or CSV of labelled photos: foldfleet prepare DATA --store STORE --run NAME"
        raise UserError("no photos are given and the run has none yet", where="DATA", mend=mend)
    return experiment.data.folder


def prepare_data(experiment: Experiment, store: Store, console: Console) -> RunData:
    """Prepare the photos, deal the folds, make the composites: found at once where it was done before.

    UserError for data that the person can mend, before any training.
    """
    data, folds = experiment.data, experiment.folds
    processes = os.cpu_count() or 1
    settings = PrepareSettings(data.longest_side, data.max_rejected, data.near_duplicate_bits)
    with shown(console, "reading photos") as progress:
        prepared = prepare(
            _folder(experiment),
            selection=data.selection,
            test=data.test,
            settings=settings,
            store=store,
            progress=progress,
            processes=processes,
        )
    cache = Cache(Path(experiment.store.cache_folder).expanduser(), experiment.store.cache_gb)
    snapshot = open_snapshot(store, prepared.snapshot_id, cache)
    test_rows = read_manifest(store, prepared.test_snapshot_id)[1] if prepared.test_snapshot_id else ()
    fraction = None if data.selection is not None else folds.selection_fraction
    dealt = assign([*snapshot.rows, *test_rows], folds.count, fraction, folds.seed)
    table, test = (FoldTable(row for row in dealt if (row.part == "test") is tested) for tested in (False, True))
    with shown(console, "making composites") as progress:
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
    test_folds = store.put_blob(test.to_csv()) if len(test) else ""
    return _whole(store, prepared, composed, test_folds, _weights(experiment))


def _weights(experiment: Experiment) -> dict[str, str]:
    read = {source: weights_sha256(source) for source in {v.recipe.weights for v in experiment.variants()}}
    return {source: digest for source, digest in read.items() if digest}


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


def findings(prepared: Prepared, shown: int = 1) -> list[str]:
    """What was found on the way, a line each, with so many examples; nothing when there is nothing to tell."""
    twice = [row for row in prepared.duplicates if row["label"] != row["other_label"]]
    copies = [row for row in prepared.duplicates if row["label"] == row["other_label"]]
    said = [
        ("files left out (rejected.csv)", [f"{row['path']}: {row['reason']}" for row in prepared.rejected]),
        ("photos left out, for their picture has two labels (duplicates.csv)", [_beside(row) for row in twice]),
        ("photos that repeat another one, used once (duplicates.csv)", [_beside(row) for row in copies]),
        ("photos in two parts, kept in one (leaks.csv)", [_beside(row) for row in prepared.leaks]),
    ]
    lines: list[str] = []
    for what, found in said:
        if found and shown == 1:
            lines.append(f"{what}: {len(found)}, first {found[0]}")
        elif found:
            more = len(found) - shown
            lines += [f"{what}: {len(found)}", *(f"  {one}" for one in found[:shown])]
            lines += [f"  and {more} more"] if more > 0 else []
    return lines


def _beside(row: Mapping[str, str]) -> str:
    return f"{row['path']} beside {row['other_path']}"
