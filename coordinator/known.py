"""What is known of a run at some moment, read from the store once: the input of the outputs and of the report.

Everything is keyed by task id, and a task without a result is simply not there: a half-finished run is an ordinary one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from coordinator.config import Experiment
from coordinator.data import RunData
from coordinator.events import Event
from coordinator.journal import parse_journal
from coordinator.judged import Judged, judge
from coordinator.run_files import journal_bytes
from shared_store import layout
from shared_store.commits import read_result
from shared_store.folds_table import FoldTable
from shared_store.records import Result
from shared_store.snapshot import read_manifest
from shared_store.store import Store
from shared_store.tables import SoftLabels, get_soft_labels
from workers.prepare import Prepared
from workers.suspects import Suspect, find_suspects
from workers.tasks import BundleTask, LabelTask, PredictTask, SearchTask, Task, TrainTask

Kind = TypeVar("Kind", TrainTask, LabelTask, SearchTask, BundleTask, PredictTask)
Curve = list[dict[str, float]]
"""metrics.csv of one fold: one row an epoch."""


@dataclass(frozen=True)
class Known:
    """A run's configuration, data and tasks with the results that stand."""

    run: str
    experiment: Experiment
    prepared: Prepared
    snapshot: str  # composites included
    table: FoldTable
    tasks: Mapping[str, Task]
    results: Mapping[str, Result]
    curves: Mapping[str, Curve]  # of train tasks that finished an epoch
    labels: tuple[SoftLabels, ...]
    suspects: tuple[Suspect, ...]
    search: Mapping[str, Any] | None  # coordinator.leaderboard.as_json
    judged: tuple[Judged, ...]  # what the chosen ensemble says of labelled photos
    events: tuple[tuple[float, Event], ...]  # the journal: (seconds on its command's clock, event)
    journal_trouble: str  # why there are none although there is a journal

    def done(self, kind: type[Kind]) -> Iterator[tuple[str, Kind, Result]]:
        """(id, task, result) of the finished tasks of a kind, in the graph's order."""
        for name, task in self.tasks.items():
            if isinstance(task, kind) and name in self.results:
                yield name, task, self.results[name]

    def only(self, kind: type[Kind]) -> Result | None:
        """The result of the one task of a kind (search, bundle, predict), if it stands."""
        return next((result for _, _, result in self.done(kind)), None)

    @property
    def winner(self) -> tuple[str, ...]:
        """Ids of the chosen members; empty before the search is done."""
        search = self.only(SearchTask)
        return () if search is None else tuple(json.loads(search.texts["winner"]))


def gather(store: Store, run: str, experiment: Experiment, data: RunData) -> Known:
    """Read all that stands of the run's tasks."""
    tasks = data.graph(experiment).tasks
    # What rests on others first: when its result stands theirs stood before, also in a run that goes on meanwhile.
    read = {name: read_result(store, name) for name in reversed(tasks)}
    results = {name: result for name in tasks if (result := read[name]) is not None}
    curves = {}
    for name, task in tasks.items():
        text = metrics_csv(store, name, results.get(name)) if isinstance(task, TrainTask) else None
        if text is not None:
            rows = list(csv.DictReader(io.StringIO(text.decode())))
            if rows:  # a fold stopped within its first epoch has none
                curves[name] = [{key: float(value) for key, value in row.items()} for row in rows]
    labels = [
        get_soft_labels(store, results[name].blobs["labels"]) for name in results if isinstance(tasks[name], LabelTask)
    ]
    search = next((results[name] for name in results if isinstance(tasks[name], SearchTask)), None)
    chosen = () if search is None else json.loads(search.texts["winner"])
    predicted = next((results[name] for name in results if isinstance(tasks[name], PredictTask)), None)
    events, trouble = _journal(store, run)
    return Known(
        run=run,
        experiment=experiment,
        prepared=data.prepared,
        snapshot=data.composed.snapshot_id,
        table=data.table,
        tasks=tasks,
        results=results,
        curves=curves,
        labels=tuple(labels),
        suspects=_suspects(store, labels, data),
        search=None if search is None else json.loads(store.get_blob(search.blobs["search"])),
        judged=judge(store, data.table, [results[name] for name in chosen], predicted),
        events=events,
        journal_trouble=trouble,
    )


def _journal(store: Store, run: str) -> tuple[tuple[tuple[float, Event], ...], str]:
    """What the journal tells; where another version wrote what is not understood, nothing, and why."""
    try:
        return tuple(parse_journal(journal_bytes(store, run))), ""
    except ValueError as error:
        return (), str(error)


def metrics_csv(store: Store, task: str, result: Result | None) -> bytes | None:
    """A fold's metrics.csv: the finished one, else what a running or stopped attempt published last."""
    return store.read(layout.log(task, "metrics.csv")) if result is None else store.get_blob(result.blobs["metrics"])


def _suspects(store: Store, labels: Sequence[SoftLabels], data: RunData) -> tuple[Suspect, ...]:
    """Photos (no composites) whose given label the teachers doubt."""
    if not labels:
        return ()
    _, manifest, _ = read_manifest(store, data.composed.snapshot_id)
    photos = [row for row in manifest if row.part == "train" and row.kind == "photo"]
    folds = {row.image_id: row.label for row in data.table}
    return find_suspects(
        labels,
        {row.image_id: folds[row.image_id] for row in photos if row.image_id in folds},
        {row.image_id: row.path for row in photos},
    )
