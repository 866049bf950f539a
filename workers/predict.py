"""Predictions: of any photos by a bundle (no store, no Ray), and of a run's test part by its winner.

Results do not depend on the batch size (see `workers.predictor.BATCH_TOLERANCE`); `workers.prediction_tables` has the
forms in which they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared_store.commits import read_result
from shared_store.errors import UserError
from shared_store.folds_table import read_folds
from shared_store.records import Result
from shared_store.snapshot import OpenSnapshot, open_snapshot
from shared_store.tables import Predictions, put_predictions
from workers.bundle import load_bundle, open_bundle
from workers.images import evaluation_batches
from workers.meter import Meter
from workers.metrics import all_metrics, softmax
from workers.photos import Photo, Read, find_photos, read_batches
from workers.prediction_tables import prediction_csv, prediction_json, rejected_csv
from workers.predictor import Predictor
from workers.tasks import PredictTask, Progress
from workers.work import Work

TEST_BATCH = 16  # fixed, so that the test part's bytes do not depend on a setting
_READERS = 8

Logits = NDArray[np.float32]


Report = Callable[[int, int], None]
"""Told (photos done, photos in all) after every batch."""


@dataclass(frozen=True)
class Summary:
    """What `predict_folder` did. `rejected` holds (name, reason); milliseconds are per readable photo."""

    images: int
    rejected: tuple[tuple[str, str], ...]
    counts: dict[str, int]  # photos by predicted class
    files: tuple[Path, ...]
    load_seconds: float  # reading, verifying and building the bundle, once
    read_ms: float  # reading, decoding and resizing a photo (on a GPU: waiting for it)
    model_ms: float
    memory_mb: float
    memory_of: str  # "process" or "GPU"

    @property
    def ms_per_image(self) -> float:
        """Everything, loading included: what a time limit per photo is about."""
        return self.read_ms + self.model_ms + 1000 * self.load_seconds / self.images


def predict_folder(
    bundle: Path,
    images: Path,
    out: Path,
    *,
    batch_size: int = 32,
    flip_tta: bool = False,
    device: str = "cpu",
    progress: Report = lambda done, total: None,
) -> Summary:
    """Predict `images` (a photo, a folder with all below it, or a CSV with a `path` column) and write tables to `out`.

    Photos that cannot be read go to `rejected.csv` with the reason and stop nothing. `flip_tta` averages each photo
    with its mirror image. UserError when there is no bundle, no photo, or none that can be read.
    """
    photos = find_photos(images)
    meter = Meter(device)
    with meter.part("load"):
        predictor = load_bundle(bundle, device)
    batches = read_batches(predictor, photos, batch_size, _READERS if meter.device.type == "cuda" else 0)
    names, logits, rejected = _predicted(predictor, batches, flip_tta, meter, lambda done: progress(done, len(photos)))
    if not names:
        name, reason = rejected[0]
        mend = "give photos as JPEG, PNG, WebP, BMP, TIFF or GIF files"
        raise UserError(
            f"not one of {len(rejected)} photos can be read; {name}: {reason}", where=str(images), mend=mend
        )
    probabilities = softmax(logits)
    top = probabilities.argmax(axis=1)
    tables = {
        "predictions.csv": prediction_csv(names, predictor.classes, probabilities),
        "predictions.json": prediction_json(names, predictor.classes, probabilities),
        "rejected.csv": rejected_csv(rejected),
    }
    return Summary(
        images=len(names),
        rejected=tuple(rejected),
        counts={name: int((top == i).sum()) for i, name in enumerate(predictor.classes)},
        files=_write(out, tables),
        load_seconds=meter.seconds["load"],
        read_ms=meter.ms_per_image("read"),
        model_ms=meter.ms_per_image("model"),
        memory_mb=meter.memory_mb(),
        memory_of="GPU" if meter.device.type == "cuda" else "process",
    )


def _predicted(
    predictor: Predictor,
    batches: Iterator[list[tuple[Photo, Read]]],
    flip_tta: bool,
    meter: Meter,
    report: Callable[[int], None],
) -> tuple[list[str], Logits, list[tuple[str, str]]]:
    """(names, logits, rejected) of all batches, their parts timed by `meter`."""
    names: list[str] = []
    rejected: list[tuple[str, str]] = []
    logits = [np.empty((0, len(predictor.classes)), np.float32)]
    for batch in meter.timed("read", batches):
        readable = [(photo.name, read) for photo, read in batch if not isinstance(read, str)]
        rejected += [(photo.name, read) for photo, read in batch if isinstance(read, str)]
        with meter.part("model"):
            logits.append(predictor.stacked_logits([pixels for _, pixels in readable], flip_tta))
        names += [name for name, _ in readable]
        report(len(names) + len(rejected))
    meter.images = len(names)
    return names, np.concatenate(logits), rejected


def _write(out: Path, tables: dict[str, bytes]) -> tuple[Path, ...]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in tables.items():
            (out / name).write_bytes(data)
    except OSError as error:
        mend = "give --out a folder that you may write to"
        raise UserError(f"the predictions cannot be written ({error.strerror})", where=str(out), mend=mend) from error
    return tuple(out / name for name in tables)


def predict_test(task: PredictTask, work: Work) -> Result:
    """Logits of the snapshot's test photos by the bundle. Same inputs, same bytes in every blob.

    Numbers: `images`, `labelled`, the metrics of `all_metrics` with the prefix `test_` over photos whose label is one
    of the classes (when there are any), and measured `read_ms_per_image`, `model_ms_per_image`, `memory_mb`.
    """
    meter = Meter(work.device)
    with meter.part("load"):
        predictor = _bundle_in_store(task, work)
    rows = [row for row in read_folds(work.store, task.folds) if row.part == "test"]
    snapshot = open_snapshot(work.store, task.snapshot, work.cache)
    try:
        logits = _snapshot_logits(predictor, snapshot, [row.image_id for row in rows], meter, work)
    finally:
        snapshot.close()
    column = {name: i for i, name in enumerate(task.classes)}
    known = [i for i, row in enumerate(rows) if row.label in column]
    numbers = {
        "images": float(len(rows)),
        "labelled": float(len(known)),
        "read_ms_per_image": meter.ms_per_image("read"),
        "model_ms_per_image": meter.ms_per_image("model"),
        "memory_mb": meter.memory_mb(),
    }
    if known:
        metrics = all_metrics(logits[known], np.array([column[rows[i].label] for i in known]))
        numbers |= {f"test_{name}": value for name, value in metrics.items()}
    names, probabilities = [row.path for row in rows], softmax(logits)
    table = Predictions(tuple(row.image_id for row in rows), task.classes, logits)
    blobs = {
        "predictions": put_predictions(work.store, table),
        "csv": work.store.put_blob(prediction_csv(names, task.classes, probabilities)),
        "json": work.store.put_blob(prediction_json(names, task.classes, probabilities)),
    }
    return Result(work.task, work.spec, work.attempt, work.nonce, blobs=blobs, numbers=numbers)


def _bundle_in_store(task: PredictTask, work: Work) -> Predictor:
    bundle = read_result(work.store, task.bundle)
    assert bundle is not None, f"{task.name} ran before {task.bundle} had a result"
    blobs = bundle.blobs

    def read(name: str) -> bytes | None:
        digest = blobs.get(f"file:{name}")
        return None if digest is None else work.store.get_blob(digest)

    return open_bundle(read, f"{work.store.url}, {task.bundle}", work.device)


def _snapshot_logits(
    predictor: Predictor, snapshot: OpenSnapshot, image_ids: Sequence[str], meter: Meter, work: Work
) -> Logits:
    """Logits of kept images, in the order given."""
    streams = [evaluation_batches(snapshot, image_ids, size, TEST_BATCH) for size in predictor.sizes]
    logits = [np.empty((0, len(predictor.classes)), np.float32)]
    done = 0
    for batches in meter.timed("read", zip(*streams, strict=True)):
        pixels = {size: batch for size, (batch, _) in zip(predictor.sizes, batches, strict=True)}
        with meter.part("model"):
            logits.append(predictor.batch_logits(pixels))
        done += len(logits[-1])
        work.reporter.progress(Progress(work.task, work.attempt, step=done, steps=len(image_ids)))
    meter.images = done
    return np.concatenate(logits)
