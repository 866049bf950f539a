"""Which photos there are: a folder of class folders or a CSV -> sources with label, group and part.

A label is the name of the first folder below DATA, or the CSV's column: never a piece of a path.
Lists are sorted by part and POSIX path, so neither the disk's order nor the system matters.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from shared_store.errors import UserError

READABLE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
UNREADABLE = (".heic", ".heif", ".avif", ".jp2", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd")
PARTS = ("train", "selection", "test")
_COLUMNS = ("path", "label", "group", "part")


@dataclass(frozen=True)
class Source:
    """One photo file. `file` opens it here; `path` is its name for people and records (POSIX, NFC)."""

    file: str
    path: str
    label: str  # empty where unknown (test only)
    group: str  # empty: a group of its own
    part: str


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be used, and why."""

    part: str
    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """All photos to read, files already known to be of no use, and files that are no photos."""

    sources: tuple[Source, ...]
    rejected: tuple[Rejected, ...]
    ignored: tuple[str, ...]


def list_photos(data: str, selection: str | None = None, test: str | None = None) -> Listing:
    """List DATA and, where given, the selection and test photos (each a folder or a CSV).

    A test folder counts as labelled when one of its first folders bears the name of a class; else
    its photos are unlabelled. Raises UserError for anything missing, empty, unlabelled or misnamed.
    """
    listing = _list_one(data, "DATA", "train", ())
    classes = sorted({source.label for source in listing.sources if source.part == "train"})
    given = [(text, part) for text, part in ((selection, "selection"), (test, "test")) if text is not None]
    for text, part in given:
        if any(source.part == part for source in listing.sources):
            raise UserError(
                f"{part} photos are given twice",
                where=f"the part column of {data}, and --{part} {text}",
                mend="leave out one of the two",
            )
        other = _list_one(text, f"--{part}", part, classes)
        listing = Listing(
            listing.sources + other.sources, listing.rejected + other.rejected, listing.ignored + other.ignored
        )
    _check_labels(listing.sources, classes)
    sources = sorted(listing.sources, key=lambda source: (source.part, source.path, source.label, source.file))
    rejected = sorted(listing.rejected, key=lambda row: (row.part, row.path))
    return Listing(tuple(sources), tuple(rejected), tuple(sorted(listing.ignored)))


def _list_one(text: str, name: str, part: str, classes: Sequence[str]) -> Listing:
    root = Path(text).expanduser().absolute()
    if root.is_dir():
        listing = _list_folder(root, name, part, classes)
    elif root.is_file() and root.suffix.lower() == ".csv":
        listing = _list_csv(root, name, part)
    else:
        what = "is neither a folder nor a CSV" if root.exists() else "does not exist"
        mend = "give a folder of class folders, or a CSV with the columns path and label"
        raise UserError(f"{name} {what}", where=str(root), mend=mend)
    if not listing.sources:
        raise UserError(
            f"{name} holds no photo that can be used",
            where=str(root),
            mend="put the photos into one folder per class, such as DATA/cat/1.jpg and DATA/dog/1.jpg",
        )
    return listing


def _list_folder(root: Path, name: str, part: str, classes: Sequence[str]) -> Listing:
    sources: list[Source] = []
    rejected: list[Rejected] = []
    ignored: list[str] = []
    files = [file.relative_to(root) for file in walk(root, name)]
    firsts = {clean(relative.parts[0]) for relative in files if len(relative.parts) > 1}
    labelled = part != "test" or not firsts.isdisjoint(classes)
    for relative in files:
        path = clean(relative.as_posix())
        suffix = relative.suffix.lower()
        if suffix in UNREADABLE:
            rejected.append(Rejected(part, path, f"{suffix} files are not read: export it as JPEG or PNG"))
        elif suffix not in READABLE:
            ignored.append(path)
        elif len(relative.parts) == 1 and part != "test":
            rejected.append(Rejected(part, path, "lies in no class folder"))
        else:
            label = clean(relative.parts[0]) if labelled and len(relative.parts) > 1 else ""
            sources.append(Source(str(root / relative), path, label, "", part))
    return Listing(tuple(sources), tuple(rejected), tuple(ignored))


def walk(root: Path, name: str) -> Iterator[Path]:
    """Files below `root`, links followed once each, hidden ones left out. UserError for a closed folder."""

    def refuse(error: OSError) -> None:
        mend = "let this user read that folder, or move it elsewhere"
        raise UserError(f"a folder of {name} cannot be read ({error.strerror})", where=str(error.filename), mend=mend)

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(child for child in folders if not child.startswith(".") and child != "__MACOSX")
        yield from (Path(folder, child) for child in sorted(files) if not child.startswith("."))


def _list_csv(file: Path, name: str, part: str) -> Listing:
    frame = _read_csv(file, name)
    sources: list[Source] = []
    for line, row in enumerate(frame.to_dict(orient="records"), start=2):
        where = f"{file}, line {line}"
        if not row["path"]:
            raise UserError(f"{name} has a row without a path", where=where, mend="fill in the photo's path")
        own_part = row["part"] or part
        if own_part not in (PARTS if part == "train" else (part,)):
            allowed = f"one of {', '.join(PARTS)}" if part == "train" else f"{part}, or leave it empty"
            raise UserError(f"{name} has the part {own_part!r}", where=where, mend=f"write {allowed}")
        if not row["label"] and own_part != "test":
            raise UserError(f"{name} has a {own_part} photo without a label", where=where, mend="fill in its label")
        photo = _csv_photo(file.parent, row["path"])
        if photo is None:
            mend = "paths are taken from the CSV's own folder: correct the path, or remove the row"
            raise UserError(f"{name} names a photo that does not exist: {row['path']}", where=where, mend=mend)
        path = _name_below(photo, file.parent)
        sources.append(Source(str(photo), path, clean(row["label"]), clean(row["group"]), own_part))
    return Listing(tuple(sources), (), ())


def _read_csv(file: Path, name: str) -> pd.DataFrame:
    mend = "give a UTF-8 CSV, separated by commas, with the columns path and label (group and part if you like)"
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (ValueError, OSError) as error:  # pandas' parser and encoding errors are ValueErrors
        raise UserError(f"{name} cannot be read as a CSV ({error})", where=str(file), mend=mend) from error
    frame.columns = [str(column).strip().lower() for column in frame.columns]
    needed = ("path",) if name == "--test" else ("path", "label")
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        found = ", ".join(frame.columns)
        raise UserError(f"{name} lacks the column {' and '.join(missing)} (found: {found})", where=str(file), mend=mend)
    return pd.DataFrame({c: frame[c].str.strip() if c in frame.columns else "" for c in _COLUMNS}, index=frame.index)


def _csv_photo(folder: Path, text: str) -> Path | None:
    """The file a CSV row names; backslashes of a CSV written on Windows are understood everywhere."""
    candidates = (folder / text, folder / text.replace("\\", "/"))
    return next((Path(os.path.normpath(c)) for c in candidates if c.is_file()), None)


def _name_below(photo: Path, folder: Path) -> str:
    return clean(photo.relative_to(folder).as_posix() if photo.is_relative_to(folder) else photo.as_posix())


def clean(text: str) -> str:
    """NFC, so that macOS and Linux agree; names that are no Unicode keep their bytes as escapes."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "backslashreplace").decode())


def _check_labels(sources: Sequence[Source], classes: Sequence[str]) -> None:
    """Every label outside the train part must be a class of the train part."""
    for source in sources:
        if source.part != "train" and source.label and source.label not in classes:
            near = difflib.get_close_matches(source.label, classes, n=1) or list(classes[:5])
            raise UserError(
                f"{source.part} photos have the label {source.label!r}, which no train photo has",
                where=str(PurePosixPath(source.path)),
                mend=f"use the train part's labels (nearest: {', '.join(near)}), or leave those photos out",
            )
