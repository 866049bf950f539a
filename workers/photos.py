"""The predictor's own photos: which ones a person named, and their pixels in batches. A bad one is told, not raised."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from shared_store.errors import UserError
from workers.decode import UnreadableImageError
from workers.listing import READABLE, UNREADABLE, clean, walk
from workers.predictor import Pixels, Predictor

_BATCHES_AHEAD = 2

Read = dict[int, Pixels] | str
"""A photo's pixels by image size, or why it cannot be read."""


@dataclass(frozen=True)
class Photo:
    """A photo to predict; `name` is what the tables call it: its path below the folder, POSIX style."""

    name: str
    path: Path


def find_photos(images: Path) -> list[Photo]:
    """The photos that `images` names: one file, a folder with all below it (sorted), or a CSV (in its own order).

    UserError when there are none.
    """
    if images.is_dir():
        photos = sorted(_below(images), key=lambda photo: photo.name)
    elif not images.exists():
        raise UserError("there are no such photos", where=str(images), mend="give a photo, a folder or a CSV")
    elif images.suffix.lower() == ".csv":
        photos = _listed(images)
    else:
        photos = [Photo(clean(images.name), images)]
    if not photos:
        mend = f"give a folder with photos in it or below it ({', '.join(READABLE)})"
        raise UserError("there is no photo", where=str(images), mend=mend)
    return photos


def _below(root: Path) -> Iterator[Photo]:
    """Photos in `root` and its folders, of every format: that one cannot be read is told later."""
    for path in walk(root, "IMAGES"):
        if path.suffix.lower() in READABLE + UNREADABLE:
            yield Photo(clean(path.relative_to(root).as_posix()), path)


def _listed(table: Path) -> list[Photo]:
    """The rows of a CSV whose `path` (or `image`) is absolute or relative to the CSV's folder."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("the CSV is not UTF-8 text", where=str(table), mend="save it as UTF-8") from error
    rows = csv.DictReader(io.StringIO(text))
    column = next((name for name in ("path", "image") if name in (rows.fieldnames or ())), None)
    if column is None:
        mend = "give it a first line that names the columns, one of them `path`"
        raise UserError("the CSV has no column `path`", where=str(table), mend=mend)
    return [Photo(clean(row[column]), table.parent / row[column].replace("\\", "/")) for row in rows]


def read_batches(
    predictor: Predictor, photos: Sequence[Photo], batch_size: int, threads: int
) -> Iterator[list[tuple[Photo, Read]]]:
    """Batches of read photos in order; `threads` read ahead while the model works, 0 reads in turn."""
    chunks = [photos[i : i + batch_size] for i in range(0, len(photos), batch_size)]
    if threads == 0:
        for chunk in chunks:
            yield [(photo, _read(predictor, photo)) for photo in chunk]
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="photos")
    waiting: deque[list[tuple[Photo, Future[Read]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append([(photo, pool.submit(_read, predictor, photo)) for photo in chunk])
            if len(waiting) > _BATCHES_AHEAD:
                yield [(photo, future.result()) for photo, future in waiting.popleft()]
        while waiting:
            yield [(photo, future.result()) for photo, future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _read(predictor: Predictor, photo: Photo) -> Read:
    try:
        return predictor.pixels(photo.path.read_bytes())
    except UnreadableImageError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)
