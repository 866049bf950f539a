"""Shared by the tests: small real photos, snapshots and reporters. No test in here."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from coordinator.events import Event, ResultFound, Start, TaskEnded
from shared_store.snapshot import ImageRow
from workers.tasks import Progress


def run_again(events: Iterable[Event]) -> list[str]:
    """Tasks that a journal starts although they were done: none, or a law is broken."""
    done: set[str] = set()
    again = []
    for event in events:
        match event:
            case TaskEnded(outcome) if outcome.failure is None:
                done.add(outcome.task)
            case ResultFound(task):
                done.add(task)
            case Start(task) if task in done:
                again.append(task)
    return again


class RecordingReporter:
    """Implements `workers.tasks.Reporter`: keeps what it is told, asks to stop once `stop_at_step` is reached."""

    def __init__(self, stop_at_step: int | None = None) -> None:
        self.reports: list[Progress] = []
        self.stop_at_step = stop_at_step

    def progress(self, progress: Progress) -> None:
        self.reports.append(progress)

    def stop_requested(self) -> bool:
        return self.stop_at_step is not None and any(r.step >= self.stop_at_step for r in self.reports)


def digit_jpegs(per_class: int, classes: int = 4, side: int = 48) -> list[tuple[str, bytes]]:
    """(class name, JPEG bytes) of scikit-learn's handwritten digits, of slightly varied size."""
    digits = load_digits()
    photos: list[tuple[str, bytes]] = []
    for label in range(classes):
        for place, index in enumerate(np.flatnonzero(digits.target == label)[:per_class]):
            grey = (digits.images[index] * 15.9).astype(np.uint8)
            image = Image.fromarray(grey).convert("RGB").resize((side + place % 5, side + place % 3))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=92)
            photos.append((f"digit_{label}", buffer.getvalue()))
    return photos


def digits_folder(root: Path, per_class: int, classes: int = 4, side: int = 48) -> Path:
    """A folder of class folders with digit photos."""
    for place, (label, data) in enumerate(digit_jpegs(per_class, classes, side)):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"photo_{place:04d}.jpg").write_bytes(data)
    return root


def digit_rows(per_class: int, classes: int = 4, side: int = 48) -> tuple[list[ImageRow], dict[str, bytes]]:
    """Train-part rows of distinct digit photos, and their bytes by image id."""
    from shared_store.records import sha256

    rows: list[ImageRow] = []
    kept: dict[str, bytes] = {}
    for place, (label, data) in enumerate(digit_jpegs(per_class, classes, side)):
        image_id = sha256(data)
        if image_id in kept:
            continue
        kept[image_id] = data
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        path = f"{label}/photo_{place:04d}.jpg"
        rows.append(ImageRow(image_id, path, label, image_id, "train", "photo", (), width, height))
    return rows, kept
