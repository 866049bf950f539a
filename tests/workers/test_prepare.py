"""Photos become one snapshot: the same from any order, place and process count; bad files are named."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.snapshot import OpenSnapshot, open_snapshot, read_manifest
from shared_store.store import Store, open_store
from workers.decode import decode
from workers.prepare import Prepared, PrepareSettings, prepare

Pixels = NDArray[np.uint8]
ELPV = Path(elpv_dataset.__file__).parent / "data"


def scene(seed: int, height: int = 90, width: int = 120) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def save(path: Path, pixels: Pixels, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number in range(6):
        save(root / ("cat" if number % 2 else "dog") / f"{number}.jpg", scene(number), quality=90)
    return root


def run(store: Store, data: Path, **options: object) -> Prepared:
    parts = {part: str(options.pop(part)) if part in options else None for part in ("selection", "test")}
    settings = PrepareSettings(**{"longest_side": 100, **options})  # type: ignore[arg-type]
    return prepare(str(data), **parts, settings=settings, store=store, progress=lambda done, total: None, processes=1)


def opened(store: Store, prepared: Prepared, tmp_path: Path) -> OpenSnapshot:
    return open_snapshot(store, prepared.snapshot_id, Cache(tmp_path / "cache", 1))


def test_photos_are_shrunk_to_the_longest_side_and_only_ever_down(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "data"
    save(root / "a" / "wide.jpg", scene(1, 90, 360), quality=95)
    save(root / "a" / "high.png", scene(2, 240, 120))
    save(root / "b" / "small.jpg", scene(3, 40, 60), quality=95)
    save(root / "b" / "thin.png", scene(4, 1, 900))
    snapshot = opened(store, run(store, root), tmp_path)
    sizes = {row.path: (row.width, row.height) for row in snapshot.rows}
    assert sizes == {"a/wide.jpg": (100, 25), "a/high.png": (50, 100), "b/small.jpg": (60, 40), "b/thin.png": (100, 1)}
    for row in snapshot.rows:
        assert decode(snapshot.image_bytes(row.image_id)).shape == (row.height, row.width, 3)


def test_a_shrunk_photo_is_what_the_area_filter_gives(store: Store, data: Path, tmp_path: Path) -> None:
    path = save(data / "cat" / "big.jpg", scene(50, 800, 1200), quality=95)
    full = cv2.resize(decode(path.read_bytes()), (100, 67), interpolation=cv2.INTER_AREA)
    snapshot = opened(store, run(store, data), tmp_path)
    kept = decode(snapshot.image_bytes(next(row.image_id for row in snapshot.rows if row.path == "cat/big.jpg")))
    assert np.abs(kept.astype(int) - full).mean() < 4  # 4:2:0 chroma of a very colourful picture


def test_small_photos_stay_byte_for_byte(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "data"
    paths = [save(root / "a" / "1.png", scene(1, 60, 80)), save(root / "b" / "2.jpg", scene(2, 60, 80), quality=50)]
    snapshot = opened(store, run(store, root), tmp_path)
    kept = {row.path: snapshot.image_bytes(row.image_id) for row in snapshot.rows}
    assert kept == {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_a_small_picture_in_a_large_file_is_kept_as_jpeg(store: Store, data: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(scene(n, 60, 80)) for n in range(60, 70)]
    frames[0].save(data / "cat" / "film.gif", save_all=True, append_images=frames[1:])
    snapshot = opened(store, run(store, data), tmp_path)
    kept = next(snapshot.image_bytes(row.image_id) for row in snapshot.rows if row.path == "cat/film.gif")
    assert kept[:3] == b"\xff\xd8\xff"


def test_rotated_photos_are_kept_upright(store: Store, data: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(np.rot90(scene(70, 400, 200)))
    save(data / "cat" / "turned.jpg", stored, quality=95, exif=exif)
    snapshot = opened(store, run(store, data), tmp_path)
    row = next(row for row in snapshot.rows if row.path == "cat/turned.jpg")
    assert (row.width, row.height) == (50, 100)
    upright = cv2.resize(scene(70, 400, 200), (50, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(decode(snapshot.image_bytes(row.image_id)).astype(int) - upright).mean() < 8


def test_the_same_photos_give_the_same_snapshot_wherever_they_lie(store: Store, data: Path, tmp_path: Path) -> None:
    first = run(store, data)
    moved = tmp_path / "moved"
    for path in sorted(data.rglob("*.jpg"), reverse=True):  # written in another order, at another time
        target = moved / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    listed = tmp_path / "data" / "list.csv"
    rows = [(path.relative_to(data).as_posix(), path.parent.name) for path in sorted(data.rglob("*.jpg"), reverse=True)]
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(listed, index=False)
    other = open_store(str(tmp_path / "other"))
    assert run(other, moved).snapshot_id == first.snapshot_id
    assert run(other, listed).snapshot_id == first.snapshot_id


def test_the_same_command_again_reads_nothing(store: Store, data: Path) -> None:
    calls: list[int] = []
    arguments = {"selection": None, "test": None, "settings": PrepareSettings(), "store": store, "processes": 1}
    first = prepare(str(data), progress=lambda done, total: calls.append(done), **arguments)  # type: ignore[arg-type]
    assert calls == [1, 2, 3, 4, 5, 6]
    again = prepare(str(data), progress=lambda done, total: calls.append(done), **arguments)  # type: ignore[arg-type]
    assert (again, len(calls)) == (first, 6)
    save(data / "cat" / "1.jpg", scene(99), quality=90)
    changed = prepare(str(data), progress=lambda done, total: calls.append(done), **arguments)  # type: ignore[arg-type]
    assert changed.snapshot_id != first.snapshot_id


def test_bad_files_are_listed_with_their_reason(store: Store, data: Path) -> None:
    whole = (data / "cat" / "1.jpg").read_bytes()
    (data / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "cat" / "empty.jpg").write_bytes(b"")
    (data / "cat" / "text.png").write_bytes(b"not a picture")
    (data / "dog" / "gone.jpg").symlink_to(data / "nowhere")
    prepared = run(store, data, max_rejected=0.5)
    reasons = {row["path"]: row["reason"] for row in prepared.rejected}
    assert set(reasons) == {"cat/cut.jpg", "cat/empty.jpg", "cat/text.png", "dog/gone.jpg"}
    assert "cut off" in reasons["cat/cut.jpg"]
    assert "empty" in reasons["cat/empty.jpg"]
    assert "not a JPEG" in reasons["cat/text.png"]
    assert "cannot be read" in reasons["dog/gone.jpg"]
    assert prepared.images == {"train": 6}
    table = list(csv.DictReader(io.StringIO(prepared.tables()["rejected.csv"].decode())))
    assert [row["path"] for row in table] == sorted(reasons)


def test_too_many_bad_files_stop_the_run_and_are_named(store: Store, data: Path) -> None:
    (data / "cat" / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 7 files cannot be used, more than data\.max_rejected \(5%\)") as error:
        run(store, data)
    assert "cat/empty.jpg: the file is empty" in error.value.where
    assert "data.max_rejected" in error.value.mend


def test_copies_and_leaks_across_parts_are_reported(store: Store, data: Path, tmp_path: Path) -> None:
    shutil.copyfile(data / "cat" / "1.jpg", data / "cat" / "copy.jpg")
    shutil.copyfile(data / "cat" / "3.jpg", data / "dog" / "other label.jpg")
    test = tmp_path / "test"
    for name in ("leak.jpg", "again.jpg"):
        test.mkdir(exist_ok=True)
        shutil.copyfile(data / "dog" / "2.jpg", test / name)
    selection = tmp_path / "selection"
    save(data / "cat" / "big.jpg", scene(41, 450, 600), quality=95)
    save(selection / "cat" / "leak.png", scene(41, 450, 600))
    save(selection / "dog" / "fine.png", scene(40))
    prepared = run(store, data, test=test, selection=selection)
    found = {(row["path"], row["other_path"], row["kind"]) for row in prepared.duplicates}
    assert found == {
        ("cat/copy.jpg", "cat/1.jpg", "exact"),
        ("cat/3.jpg", "dog/other label.jpg", "exact"),
        ("dog/other label.jpg", "cat/3.jpg", "exact"),
        ("leak.jpg", "again.jpg", "exact"),
    }
    leaks = {(row["part"], row["path"], row["other_part"], row["other_path"], row["kind"]) for row in prepared.leaks}
    assert leaks == {
        ("train", "dog/2.jpg", "test", "again.jpg", "exact"),
        ("train", "cat/big.jpg", "selection", "cat/leak.png", "near"),
    }
    rows = {(row.part, row.path) for row in opened(store, prepared, tmp_path).rows}
    assert {path for part, path in rows if part == "train"} == {"cat/1.jpg", "cat/5.jpg", "dog/0.jpg", "dog/4.jpg"}
    assert {part for part, _ in rows} == {"train", "selection"}
    assert [row.path for row in read_manifest(store, prepared.test_snapshot_id)[1]] == ["again.jpg"]
    assert set(prepared.test_copies) == {"leak.jpg"}
    assert prepared.images == {"train": 4, "selection": 2, "test": 1}


def test_groups_of_a_csv_reach_the_snapshot(store: Store, data: Path, tmp_path: Path) -> None:
    (data / "list.csv").write_text("path,label,group\ncat/1.jpg,cat,anna\ncat/3.jpg,cat,\n")
    rows = {row.path: row for row in opened(store, run(store, data / "list.csv"), tmp_path).rows}
    assert rows["cat/1.jpg"].group == "anna"
    assert rows["cat/3.jpg"].group == rows["cat/3.jpg"].image_id


def test_nothing_left_to_train_on_is_refused(store: Store, data: Path) -> None:
    for path in (data / "cat").iterdir():
        shutil.copyfile(path, data / "dog" / f"of {path.name}")
    for path in [path for path in (data / "dog").iterdir() if not path.name.startswith("of")]:
        path.unlink()
    with pytest.raises(UserError, match="no train photo is left"):
        run(store, data)


def test_a_selection_part_that_is_all_test_is_refused(store: Store, data: Path, tmp_path: Path) -> None:
    for part in ("selection", "test"):
        save(tmp_path / part / "cat" / "1.png", scene(30))
    with pytest.raises(UserError, match="no selection photo is left"):
        run(store, data, selection=tmp_path / "selection", test=tmp_path / "test")


def test_practically_all_solar_cells_are_kept(store: Store, tmp_path: Path) -> None:
    labels = pd.read_csv(ELPV / "labels.csv", sep=r"\s+", header=None, names=["path", "defect", "type"])
    labels["label"] = labels["type"] + labels["defect"].map(lambda share: " defect" if share > 0.5 else " ok")
    chosen = labels.iloc[::8]
    root = tmp_path / "cells"
    for row in chosen.itertuples():
        (root / str(row.label)).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ELPV / str(row.path), root / str(row.label) / Path(str(row.path)).name)
    prepared = run(store, root, longest_side=300)
    assert prepared.images["train"] >= 0.99 * len(chosen)
    assert prepared.rejected == []
