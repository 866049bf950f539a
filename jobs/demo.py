"""Write the demo photos: 600 solar cells of the `elpv-dataset` package as labelled folders to train on and to predict.

Four classes (mono / poly cell, ok / defect), 150 photos each: `FOLDER/train` has 450, `FOLDER/test` 150.
Data: ELPV, CC BY-NC-SA 4.0, https://github.com/zae-bayern/elpv-dataset
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.console import command, done
from shared_store.errors import UserError

PER_CLASS, TEST_PER_CLASS = 150, 38


def main(arguments: Sequence[str]) -> int:
    return command("demo", _write, arguments)


def _write(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: foldfleet demo FOLDER\n\n{(__doc__ or '').strip()}")
        return
    if len(arguments) != 1:
        raise UserError("one folder is needed", where="foldfleet demo", mend="foldfleet demo demo-data")
    root = Path(arguments[0])
    if root.exists():
        raise UserError("the folder is there already", where=str(root), mend="use it, remove it, or name another")
    unfinished = root.with_name(f"{root.name}.part")  # a folder that a kill left half full must not pass for the photos
    shutil.rmtree(unfinished, ignore_errors=True)
    chosen: dict[str, list[Path]] = {}
    for label, photo in sorted(_cells(), key=lambda cell: hashlib.sha256(cell[1].name.encode()).digest()):
        photos = chosen.setdefault(label, [])
        if len(photos) < PER_CLASS:
            photos.append(photo)
    for label, photos in chosen.items():
        for place, photo in enumerate(photos):
            folder = unfinished / ("test" if place < TEST_PER_CLASS else "train") / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / photo.name).write_bytes(photo.read_bytes())
    unfinished.rename(root)
    count = sum(map(len, chosen.values()))
    done(
        f"wrote {count} solar-cell photos of {len(chosen)} classes to {root}",
        f"foldfleet pipeline {root / 'train'} --test {root / 'test'} --config configs/demo.yaml --run demo",
    )


def _cells() -> Iterator[tuple[str, Path]]:
    """(label, photo) of every cell that is surely ok or surely defective."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise UserError(
            "the demo photos are not installed", where="package elpv-dataset", mend="pip install 'foldfleet[demo]'"
        )
    data = Path(package.origin).parent / "data"
    for line in (data / "labels.csv").read_text().splitlines():
        file, probability, kind = line.split()
        if float(probability) in (0.0, 1.0):
            yield f"{kind}_{'defect' if float(probability) else 'ok'}", data / file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
