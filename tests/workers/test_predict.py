"""Predictions: of a person's photos by a bundle, and of a run's test part."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictor_support import (
    CLASSES,
    LONGEST_SIDE,
    TEST_LABELS,
    exported_bundle,
    exported_folder,
    predict_task,
    work_for,
    written_bundle,
)
from support import digits_folder

from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.folds_table import FoldRow, FoldTable, read_folds
from shared_store.records import Result
from shared_store.snapshot import ImageRow, write_snapshot
from shared_store.store import Store
from shared_store.tables import get_predictions
from workers.bundle import load_bundle
from workers.decode import decode
from workers.meter import Meter, peak_process_mb
from workers.metrics import all_metrics, softmax
from workers.photo import read_photo
from workers.photos import find_photos, read_batches
from workers.predict import predict_folder, predict_test
from workers.prediction_tables import prediction_csv, prediction_json
from workers.predictor import BATCH_TOLERANCE
from workers.tasks import PredictTask, task_id


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_folder(tmp_path_factory.mktemp("made"), sizes=(32, 48))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_folder(tmp_path_factory.mktemp("photos"), per_class=3)


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_both_tables_say_what_the_logits_say(bundle: Path, photos: Path, tmp_path: Path) -> None:
    summary = predict_folder(bundle, photos, tmp_path / "out", batch_size=5)
    rows = _rows(tmp_path / "out" / "predictions.csv")
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    assert [row["image"] for row in rows] == paths
    assert list(rows[0]) == ["image", "category", "score", *(f"p_{name}" for name in CLASSES)]
    expected = softmax(load_bundle(bundle).logits([decode((photos / path).read_bytes()) for path in paths]))
    for row, p in zip(rows, expected, strict=True):
        assert row["category"] == CLASSES[p.argmax()]
        np.testing.assert_allclose([float(row[f"p_{name}"]) for name in CLASSES], p, atol=2e-5)
    in_json = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert in_json == [
        {"image_name": row["image"], "category": row["category"], "score": float(row["score"])} for row in rows
    ]
    assert summary.images == 12
    assert sum(summary.counts.values()) == 12
    assert summary.rejected == ()
    assert {path.name for path in summary.files} == {"predictions.csv", "predictions.json", "rejected.csv"}


def test_unreadable_photos_are_listed_and_stop_nothing(bundle: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = next(photos.rglob("*.jpg")).read_bytes()
    (folder / "b.jpg").write_bytes(good)
    (folder / "a empty.JPG").write_bytes(b"")
    (folder / "c text.png").write_text("no photo at all")
    (folder / "d phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("no photo, and nobody says so")
    (folder / ".hidden.jpg").write_bytes(good)
    Image.new("RGBA", (40, 20), (200, 10, 10, 90)).save(folder / "é.png")
    summary = predict_folder(bundle, folder, tmp_path / "out", batch_size=2)
    assert summary.images == 2
    assert [name for name, _ in summary.rejected] == ["a empty.JPG", "c text.png", "d phone.heic"]
    rejected = _rows(tmp_path / "out" / "rejected.csv")
    assert [row["image"] for row in rejected] == ["a empty.JPG", "c text.png", "d phone.heic"]
    assert rejected[0]["reason"] == "the file is empty"
    assert [row["image"] for row in _rows(tmp_path / "out" / "predictions.csv")] == ["b.jpg", "é.png"]


def test_reading_ahead_in_threads_gives_the_same_batches(bundle: Path, photos: Path) -> None:
    predictor, found = load_bundle(bundle), find_photos(photos)
    inline = list(read_batches(predictor, found, 2, threads=0))
    ahead = list(read_batches(predictor, found, 2, threads=3))
    for one, other in zip(inline, ahead, strict=True):
        assert [photo for photo, _ in one] == [photo for photo, _ in other]
        for (_, mine), (_, theirs) in zip(one, other, strict=True):
            assert not isinstance(mine, str)
            assert not isinstance(theirs, str)
            assert all((mine[size] == theirs[size]).all() for size in (32, 48))


def test_the_batch_size_changes_nothing_that_counts(bundle: Path, photos: Path) -> None:
    predictor = load_bundle(bundle)
    images = [decode(path.read_bytes()) for path in sorted(photos.rglob("*.jpg"))]
    together = predictor.logits(images)
    alone = np.concatenate([predictor.logits([image]) for image in images])
    assert np.abs(together - alone).max() <= BATCH_TOLERANCE
    assert np.abs(together).max() > 0.1


def test_one_photo_a_csv_and_flips(bundle: Path, photos: Path, tmp_path: Path) -> None:
    photo = next(photos.rglob("*.jpg"))
    table = tmp_path / "photos.csv"
    table.write_text(f"path,label\n{photo},x\nmissing.jpg,y\n", encoding="utf-8-sig")
    listed = predict_folder(bundle, table, tmp_path / "listed", flip_tta=True)
    assert listed.images == 1
    assert listed.rejected == (("missing.jpg", "No such file or directory"),)
    single = predict_folder(bundle, photo, tmp_path / "single", flip_tta=True)
    assert single.images == 1
    plain = predict_folder(bundle, photo, tmp_path / "plain")
    scores = [_rows(tmp_path / name / "predictions.csv")[0] for name in ("listed", "single", "plain")]
    assert scores[0]["score"] == scores[1]["score"]
    assert scores[2]["p_digit_0"] != scores[1]["p_digit_0"]
    assert plain.images == 1


def test_progress_reaches_every_photo(bundle: Path, photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    predict_folder(bundle, photos, tmp_path, batch_size=5, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 12), (10, 12), (12, 12)]


def test_time_and_memory_are_split(bundle: Path, photos: Path, tmp_path: Path) -> None:
    summary = predict_folder(bundle, photos, tmp_path)
    parts = [summary.load_seconds, summary.read_ms, summary.model_ms]
    assert all(part > 0 for part in parts)
    assert summary.ms_per_image == pytest.approx(parts[1] + parts[2] + 1000 * parts[0] / 12)
    assert summary.memory_of == "process"
    assert 50 < summary.memory_mb <= peak_process_mb()


def test_a_meter_adds_up_its_parts() -> None:
    ticks = iter(range(100))
    meter = Meter("cpu", clock=lambda: float(next(ticks)))
    assert meter.ms_per_image("read") == 0
    assert list(meter.timed("read", iter("abc"))) == ["a", "b", "c"]
    with meter.part("model"):
        pass
    meter.images = 2
    assert meter.seconds == {"read": 4.0, "model": 1.0}  # three items and the end
    assert meter.ms_per_image("read", "model") == 2500


def test_photos_that_are_not_there(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    (tmp_path / "latin.csv").write_bytes("path\né.jpg\n".encode("latin-1"))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing follows")
    for name, message in [
        ("missing", "there are no such photos"),
        ("empty", "there is no photo"),
        ("text.csv", "no column `path`"),
        ("latin.csv", "not UTF-8"),
        ("broken.jpg", "not one of 1 photos can be read"),
    ]:
        with pytest.raises(UserError, match=message):
            predict_folder(bundle, tmp_path / name, tmp_path / "out")


def test_an_output_folder_that_cannot_be(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        predict_folder(bundle, photos, tmp_path / "file" / "out")


def test_tables_quote_what_a_name_may_hold() -> None:
    names, classes = ['a,"b".jpg'], ["yes, really", "no"]
    probabilities = np.array([[0.123456, 0.876544]])
    assert prediction_csv(names, classes, probabilities).decode().splitlines() == [
        'image,category,score,"p_yes, really",p_no',
        '"a,""b"".jpg",no,0.87654,0.12346,0.87654',
    ]
    assert json.loads(prediction_json(names, classes, probabilities)) == [
        {"image_name": 'a,"b".jpg', "category": "no", "score": 0.87654}
    ]


def _tested(store: Store, cache: Cache) -> Result:
    task = predict_task(exported_bundle(store, cache, sizes=(32, 48)), store)
    return predict_test(task, work_for(task, store, cache))


def test_the_test_part_is_predicted_and_scored_where_labelled(store: Store, cache: Cache) -> None:
    result = _tested(store, cache)
    predictions = get_predictions(store, result.blobs["predictions"])
    assert len(predictions.image_ids) == 4
    known = [i for i, label in enumerate(TEST_LABELS) if label]
    metrics = all_metrics(predictions.logits[known], [CLASSES.index(TEST_LABELS[i]) for i in known])
    for name, value in metrics.items():
        assert result.numbers[f"test_{name}"] == pytest.approx(value)
    assert result.numbers["images"] == 4
    assert result.numbers["labelled"] == 3
    rows = list(csv.DictReader(io.StringIO(store.get_blob(result.blobs["csv"]).decode())))
    assert [row["image"].split("/")[0] for row in rows] == list(CLASSES)
    assert [row["category"] for row in rows] == [CLASSES[i] for i in predictions.logits.argmax(axis=1)]
    assert len(json.loads(store.get_blob(result.blobs["json"]))) == 4


def test_the_test_part_gives_the_same_bytes_again(store: Store, cache: Cache) -> None:
    assert _tested(store, cache).blobs == _tested(store, cache).blobs


def _large_photos(folder: Path) -> list[Path]:
    """A JPEG large enough to be decoded scaled down, a large PNG, a BMP larger than its pixels, a small JPEG."""
    random = np.random.default_rng(5)
    folder.mkdir()
    for name, size in [("a.jpg", (1500, 1100)), ("b.png", (400, 300)), ("c.bmp", (90, 70)), ("d.jpg", (80, 60))]:
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size)
        noise = random.integers(-40, 41, (*reversed(size), 3))
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(folder / name)
    return sorted(folder.iterdir())


def _snapshot_of(files: list[Path], store: Store, scratch: Path) -> tuple[str, str]:
    """The test part that preparation makes of `files`: its snapshot and its fold table."""
    kept = [read_photo(str(file), str(scratch / f"{file.name}.kept"), LONGEST_SIDE) for file in files]
    photos = {file.name: photo for file, photo in zip(files, kept, strict=True) if not isinstance(photo, str)}
    rows = [
        ImageRow(p.image_id, name, "", p.image_id, "test", "photo", (), p.width, p.height) for name, p in photos.items()
    ]
    by_id = {photo.image_id: Path(photo.file) for photo in photos.values()}
    table = FoldTable(FoldRow(row.image_id, row.path, "", row.group, "test", None) for row in rows)
    snapshot = write_snapshot(store, rows, lambda image_id: by_id[image_id].read_bytes())
    return snapshot.snapshot_id, store.put_blob(table.to_csv())


def test_photos_get_by_the_bundle_what_the_run_gave_them(store: Store, cache: Cache, tmp_path: Path) -> None:
    files = _large_photos(tmp_path / "large")
    bundle = exported_bundle(store, cache, sizes=(32, 48))
    task = PredictTask("predict/test", task_id(bundle), *_snapshot_of(files, store, tmp_path), CLASSES)
    result = predict_test(task, work_for(task, store, cache))
    predictions = get_predictions(store, result.blobs["predictions"])
    names = {row.image_id: row.path for row in read_folds(store, task.folds)}
    of_run = {
        names[image_id]: p for image_id, p in zip(predictions.image_ids, softmax(predictions.logits), strict=True)
    }
    folder = written_bundle(bundle, store, tmp_path / "bundle")
    predictor = load_bundle(folder)
    by_bundle = softmax(predictor.stacked_logits([predictor.pixels(file.read_bytes()) for file in files]))
    np.testing.assert_allclose(by_bundle, [of_run[file.name] for file in files], atol=1e-6)
    decoded = softmax(predictor.logits([decode(file.read_bytes()) for file in files]))
    np.testing.assert_allclose(decoded[1], of_run["b.png"], atol=1e-6)
    predict_folder(folder, tmp_path / "large", tmp_path / "out")
    in_run = csv.DictReader(io.StringIO(store.get_blob(result.blobs["csv"]).decode()))
    assert _rows(tmp_path / "out" / "predictions.csv") == sorted(in_run, key=lambda row: row["image"])


def test_weights_that_give_no_number_are_refused(bundle: Path) -> None:
    predictor = load_bundle(bundle)
    with torch.no_grad():
        next(predictor.members[0].model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        predictor.logits([np.zeros((20, 20, 3), np.uint8)])
