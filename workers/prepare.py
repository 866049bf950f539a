"""From listed photos to a frozen snapshot: read in a process pool, judged for duplicates, kept once.

`prepare` is the whole room in one call. Its record stands in the store under a key made of the settings
and of every file's name, size and time of change, so the same command again finds it at once.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shared_store import layout
from shared_store.errors import UserError
from shared_store.records import Record, canonical_json, sha256
from shared_store.snapshot import ImageRow, read_whole, write_snapshot
from shared_store.store import Store
from workers.duplicates import Candidate, Finding, Verdict, judge
from workers.listing import Listing, Rejected, Source, list_photos
from workers.photo import Photo, read_photo
from workers.pool import pooled

Progress = Callable[[int, int], None]
"""Called with (photos done, photos in all)."""

PREPARE_VERSION = 1  # raise it when the same photos would come to be kept otherwise


@dataclass(frozen=True)
class PrepareSettings:
    """What decides how photos are kept."""

    longest_side: int = 600
    max_rejected: float = 0.05  # largest share of unusable files
    near_duplicate_bits: int = 2


@dataclass(frozen=True)
class Prepared(Record):
    """What `prepare` left. The lists hold rows for people; their keys are the tables' columns."""

    snapshot_id: str  # train and selection photos
    test_snapshot_id: str  # test photos, apart: more of them make no other training; empty without any
    images: Mapping[str, int]  # kept images by part
    rejected: list[dict[str, str]]  # part, path, reason
    duplicates: list[dict[str, str]]  # see duplicates.Finding
    leaks: list[dict[str, str]]
    ignored: list[str]  # files that are no photos
    test_copies: dict[str, str]  # path of a test photo that has no row of its own -> image id that stands for it

    def tables(self) -> dict[str, bytes]:
        """rejected.csv, duplicates.csv and leaks.csv, UTF-8 with `\\n` line ends."""
        columns = [field.name for field in dataclasses.fields(Finding)]
        return {
            "rejected.csv": _csv(["part", "path", "reason"], self.rejected),
            "duplicates.csv": _csv(columns, self.duplicates),
            "leaks.csv": _csv(columns, self.leaks),
        }


def prepare(
    data: str,
    *,
    selection: str | None,
    test: str | None,
    settings: PrepareSettings,
    store: Store,
    progress: Progress,
    processes: int,
) -> Prepared:
    """List, read, judge and freeze the photos of DATA and of the selection and test parts.

    The same photos give the same snapshot id, whatever the order, the process count and the system.
    Raises UserError for input that the person can mend, and when too many files are unusable.
    """
    listing = list_photos(data, selection, test)
    key = layout.snapshot(f"prepared-{_fingerprint(listing, settings)}")
    prepared = store.read_record(key, Prepared)
    if prepared is not None and all(
        read_whole(store, name) for name in (prepared.snapshot_id, prepared.test_snapshot_id) if name
    ):
        return prepared
    with tempfile.TemporaryDirectory(prefix="foldfleet-") as scratch:
        read = list(_read_all(listing.sources, settings.longest_side, Path(scratch), progress, processes))
        prepared = _freeze(listing, read, settings, store, data)
    store.put_if_absent(key, prepared.to_bytes())
    return prepared


def _fingerprint(listing: Listing, settings: PrepareSettings) -> str:
    files = [[s.path, s.label, s.group, s.part, *_size_and_time(s.file)] for s in listing.sources]
    rejected = [[*asdict(row).values()] for row in listing.rejected]
    return sha256(canonical_json([PREPARE_VERSION, asdict(settings), files, rejected, list(listing.ignored)]))[:32]


def _size_and_time(file: str) -> list[int]:
    try:
        stat = Path(file).stat()
    except OSError:  # a dangling link, say: reading it will give the reason
        return [-1, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _read_all(
    sources: Sequence[Source], longest_side: int, scratch: Path, progress: Progress, processes: int
) -> Iterator[Photo | str]:
    """Each source's photo, or why there is none, in order."""
    jobs = [(source.file, str(scratch / f"{number}.kept"), longest_side) for number, source in enumerate(sources)]
    for done, photo in enumerate(pooled(read_photo, jobs, processes), start=1):
        progress(done, len(sources))
        yield photo


def _freeze(
    listing: Listing, read: Sequence[Photo | str], settings: PrepareSettings, store: Store, data: str
) -> Prepared:
    pairs = list(zip(listing.sources, read, strict=True))
    rejected = [*listing.rejected, *(Rejected(s.part, s.path, p) for s, p in pairs if isinstance(p, str))]
    rejected.sort(key=lambda row: (row.part, row.path))
    _refuse_many(rejected, len(listing.sources) + len(listing.rejected), settings.max_rejected, data)
    photos = [(source, photo) for source, photo in pairs if isinstance(photo, Photo)]
    verdict = judge([_candidate(source, photo) for source, photo in photos], settings.near_duplicate_bits)
    rows = _rows(photos, verdict)
    _refuse_empty_parts(listing, rows, data)
    files = {photo.image_id: photo.file for _, photo in photos}
    learned, tested = ([row for row in rows if (row.part == "test") is test] for test in (False, True))
    snapshots = [
        write_snapshot(store, some, lambda image_id: Path(files[image_id]).read_bytes()) if some else None
        for some in (learned, tested)
    ]
    return Prepared(
        snapshot_id=snapshots[0].snapshot_id if snapshots[0] else "",
        test_snapshot_id=snapshots[1].snapshot_id if snapshots[1] else "",
        images=dict(sorted(Counter(row.part for row in rows).items())),
        rejected=[asdict(row) for row in rejected],
        duplicates=[asdict(finding) for finding in verdict.duplicates],
        leaks=[asdict(finding) for finding in verdict.leaks],
        ignored=list(listing.ignored),
        test_copies=_test_copies(photos, verdict),
    )


def _candidate(source: Source, photo: Photo) -> Candidate:
    return Candidate(
        photo.image_id, source.path, source.label, source.group, source.part, photo.hash_bits, photo.thumbnail
    )


def _rows(photos: Sequence[tuple[Source, Photo]], verdict: Verdict) -> list[ImageRow]:
    return [
        ImageRow(
            image_id=photo.image_id,
            path=source.path,
            label=source.label,
            group=group,
            part=source.part,
            kind="photo",
            parents=(),
            width=photo.width,
            height=photo.height,
        )
        for (source, photo), kept, group in zip(photos, verdict.kept, verdict.groups, strict=True)
        if kept
    ]


def _test_copies(photos: Sequence[tuple[Source, Photo]], verdict: Verdict) -> dict[str, str]:
    dropped = [pair for pair, kept in zip(photos, verdict.kept, strict=True) if not kept]
    return {source.path: photo.image_id for source, photo in dropped if source.part == "test"}


def _refuse_many(rejected: Sequence[Rejected], files: int, limit: float, data: str) -> None:
    if len(rejected) <= limit * files:
        return
    first = "; ".join(f"{row.path}: {row.reason}" for row in rejected[:3])
    more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
    raise UserError(
        f"{len(rejected)} of {files} files cannot be used, more than data.max_rejected ({limit:.0%}) allows",
        where=f"{data}: {first}{more}",
        mend="mend or remove those files, or raise data.max_rejected",
    )


def _refuse_empty_parts(listing: Listing, rows: Sequence[ImageRow], data: str) -> None:
    for part in ("train", "selection"):
        if any(source.part == part for source in listing.sources) and not any(row.part == part for row in rows):
            mend = "see that its pictures do not lie under two labels, or in another part as well"
            raise UserError(f"no {part} photo is left after duplicates were taken out", where=data, mend=mend)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
