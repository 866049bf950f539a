"""What a run leaves for people under `runs/NAME/`. Nothing here is truth: it is made anew from the store at any time.

One function a stage; `publish_known` calls them all, each does what is known so far, and doing it again gives the same
files. `config.yaml` and `events.jsonl` are written where they arise (`session.py`, `journal.py`).
"""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import io
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from coordinator.known import Known, metrics_csv
from coordinator.report import VERSIONS, build_report
from shared_store import layout
from shared_store.cache import Cache
from shared_store.snapshot import open_snapshot
from shared_store.store import Store
from shared_store.tables import get_predictions
from workers.metrics import softmax
from workers.prediction_tables import prediction_csv, prediction_json
from workers.suspects import contact_sheet, suspects_csv
from workers.tasks import BundleTask, PredictTask, SearchTask, TrainTask
from workers.thumbnail import thumbnail

_BUNDLE_INDEX = "bundle/bundle.json"
_THUMBNAIL_SIDE = 176


def publish_known(store: Store, known: Known, cache: Cache) -> None:
    """Publish everything that is known of the run, the report included. Photos are read through `cache`."""
    publish_data(store, known)
    publish_folds(store, known)
    publish_labels(store, known)
    publish_suspects(store, known, cache)
    publish_ensemble(store, known)
    publish_predictions(store, known)
    publish(store, known.run, {"result.json": result_json(known)})
    publish_report(store, known, cache)


def publish_report(store: Store, known: Known, cache: Cache) -> None:
    """report.html, with the chosen ensemble's worst mistakes as small pictures in it."""
    publish(store, known.run, {"report.html": build_report(known, thumbnails(store, known, cache)).encode()})


def thumbnails(store: Store, known: Known, cache: Cache) -> dict[str, str]:
    """The photos that the report shows, as data URIs by image id. Nothing is read before there is something to show."""
    found = {}
    snapshots = {"selection": known.snapshot, "test": known.prepared.test_snapshot_id}
    for judged in known.judged:
        shown = [judged.image_ids[place] for place in judged.worst]
        if shown:
            with contextlib.closing(open_snapshot(store, snapshots[judged.part], cache)) as snapshot:
                for image_id in shown:
                    data = base64.b64encode(thumbnail(snapshot.image_bytes(image_id), _THUMBNAIL_SIDE)).decode()
                    found[image_id] = f"data:image/jpeg;base64,{data}"
    return found


def publish(store: Store, run: str, files: Mapping[str, bytes]) -> None:
    """Publish files by name below `runs/RUN/`."""
    for name, data in files.items():
        store.publish(layout.run_file(run, name), data)


def publish_data(store: Store, known: Known) -> None:
    """folds.csv; rejected.csv, duplicates.csv, leaks.csv."""
    publish(store, known.run, {"folds.csv": known.table.to_csv(), **known.prepared.tables()})


def publish_folds(store: Store, known: Known) -> None:
    """folds/<task>/metrics.csv and train.log of every fold that finished an epoch."""
    for name, task in known.tasks.items():
        if isinstance(task, TrainTask):
            metrics = metrics_csv(store, name, known.results.get(name))
            read = {"metrics.csv": metrics, "train.log": store.read(layout.log(name, "train.log"))}
            folder = f"folds/{layout.slug(task.name)}"
            publish(store, known.run, {f"{folder}/{file}": data for file, data in read.items() if data is not None})


def publish_labels(store: Store, known: Known) -> None:
    """labels.parquet: image_id, p_<class>, teacher; a row for each teacher of an image, sorted by both."""
    if not known.labels:
        return
    parts = [
        pd.DataFrame(
            {"image_id": table.image_ids}
            | {f"p_{name}": table.probabilities[:, i] for i, name in enumerate(table.classes)}
            | {"teacher": table.teachers}
        )
        for table in known.labels
    ]
    buffer = io.BytesIO()
    frame = pd.concat(parts, ignore_index=True).sort_values(["image_id", "teacher"], ignore_index=True)
    frame.to_parquet(buffer, index=False)
    publish(store, known.run, {"labels.parquet": buffer.getvalue()})


def publish_suspects(store: Store, known: Known, cache: Cache) -> None:
    """suspects.csv and suspects.png: the given labels that the teachers doubt most, for a person to look at."""
    if not known.labels:
        return
    snapshot = open_snapshot(store, known.snapshot, cache)
    try:
        sheet = contact_sheet(known.suspects, snapshot.image_bytes)
    finally:
        snapshot.close()
    publish(store, known.run, {"suspects.csv": suspects_csv(known.suspects), "suspects.png": sheet})


def publish_ensemble(store: Store, known: Known) -> None:
    """leaderboard.csv, and bundle/ with the exported winner and nothing else."""
    search, bundle = known.only(SearchTask), known.only(BundleTask)
    if search is not None:
        publish(store, known.run, {"leaderboard.csv": store.get_blob(search.blobs["leaderboard"])})
    if bundle is None:
        return
    digests = {f"bundle/{name.removeprefix('file:')}": digest for name, digest in bundle.blobs.items()}
    index = store.get_blob(digests.pop(_BUNDLE_INDEX))
    before = store.read(layout.run_file(known.run, _BUNDLE_INDEX))
    keys = {name: layout.run_file(known.run, name) for name in digests}
    if before == index and all(store.exists(key) for key in keys.values()):
        return  # the index goes last, so what it names lies beside it: hundreds of megabytes need not move again
    for name, digest in digests.items():
        publish(store, known.run, {name: store.get_blob(digest)})
    publish(store, known.run, {_BUNDLE_INDEX: index})
    for file in json.loads(before)["files"] if before else ():
        if f"bundle/{file}" not in digests:
            store.backend.delete(layout.run_file(known.run, f"bundle/{file}"))


def publish_predictions(store: Store, known: Known) -> None:
    """predictions.csv and predictions.json: a row for every test photo that was given, copies of one another too."""
    predict = known.only(PredictTask)
    if predict is None:
        return
    predictions = get_predictions(store, predict.blobs["predictions"])
    paths = {row.path: row.image_id for row in known.table if row.part == "test"} | dict(known.prepared.test_copies)
    names = sorted(paths)
    probabilities = softmax(predictions.rows([paths[name] for name in names]))
    files = {
        "predictions.csv": prediction_csv(names, predictions.classes, probabilities),
        "predictions.json": prediction_json(names, predictions.classes, probabilities),
    }
    publish(store, known.run, files)


def result_json(known: Known) -> bytes:
    """result.json: the outcome for programs. Nothing measured in seconds or megabytes is in it, so that it repeats."""
    search, predict = known.only(SearchTask), known.only(PredictTask)
    experiment = known.experiment
    value: dict[str, Any] = {
        "run": known.run,
        "finished": set(known.results) == set(known.tasks),
        "winner": [{"task": name, "name": known.tasks[name].name} for name in known.winner],
        "verdict": None if search is None else search.texts["verdict"],
        "selection": None if known.search is None else _selection(known.search),
        "test": None if predict is None else _rounded(predict.numbers, ("test_", "images", "labelled")),
        "held_out": {
            task.name: _rounded(result.numbers, ("mean_ap", "top_class_ap", "accuracy", "log_loss", "kept_epoch"))
            for _, task, result in known.done(TrainTask)
        },
        "data": {
            "classes": list(known.table.classes),
            "images": dict(Counter(row.part for row in known.table)),
            "folds": known.table.fold_count,
            "rejected": len(known.prepared.rejected),
            "duplicates": len(known.prepared.duplicates),
            "leaks": len(known.prepared.leaks),
            "snapshot": known.prepared.snapshot_id,
        },
        "seeds": {
            "folds": experiment.folds.seed,
            "recipe": experiment.recipe.seed,
            "ensemble": experiment.ensemble.seed,
        },
        "recipes": {
            variant.name: variant.recipe.model_dump(mode="json", include={"model", "image_size", "epochs", "seed"})
            for variant in experiment.variants()
            if variant.name
        },
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "tasks": {task.name: name for name, task in known.tasks.items()},
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _selection(search: Mapping[str, Any]) -> dict[str, Any]:
    """The winner's score with its interval, and every simpler choice beside it."""
    names = [member["name"] for member in search["members"]]
    score = {key: search["winner"][key] for key in ("score", "score_low", "score_high")}
    baselines = [
        {
            **{key: value for key, value in found.items() if key != "ensemble"},
            "members": [names[i] for i in found["ensemble"]],
        }
        for found in search["comparisons"]
    ]
    return {"metric": search["metric"], "images": search["images"], **score, "baselines": baselines}


def _rounded(numbers: Mapping[str, float], prefixes: tuple[str, ...]) -> dict[str, float]:
    chosen = {name: value for name, value in numbers.items() if name.startswith(prefixes)}
    return {name: round(value, 9) for name, value in sorted(chosen.items()) if np.isfinite(value)}
