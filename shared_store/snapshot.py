"""The frozen data set: a manifest table and packed shards that hold the kept bytes of every image.

The snapshot id is the hash of what the rows say and what the bytes are, so the same photos give the
same id whatever the order, the machine or the version of the table format.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from shared_store import layout
from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.records import Snapshot, canonical_json, sha256
from shared_store.store import Store

SHARD_BYTES = 64 * 2**20
Places = dict[str, tuple[int, int, int]]  # (shard, offset, length) by image id


@dataclass(frozen=True)
class ImageRow:
    """One kept image. `image_id` is the sha256 of its kept bytes; `label` is empty where unknown."""

    image_id: str
    path: str  # relative to the data folder, POSIX style
    label: str
    group: str
    part: str  # train / selection / test
    kind: str  # photo / composite
    parents: tuple[str, ...]  # image ids of a composite's parts
    width: int
    height: int


def write_snapshot(
    store: Store, rows: Sequence[ImageRow], read: Callable[[str], bytes], shard_bytes: int = SHARD_BYTES
) -> Snapshot:
    """Freeze `rows` and their bytes (`read(image_id)`) in the store. The same content is kept once.

    Raises ValueError when an image id stands twice or its bytes do not match it.
    """
    rows = sorted(rows, key=lambda row: row.image_id)
    if len({row.image_id for row in rows}) != len(rows):
        raise ValueError("an image id stands twice in the rows of a snapshot")
    snapshot_id = sha256(canonical_json([asdict(row) for row in rows]))[:32]
    existing = read_whole(store, snapshot_id)
    if existing is not None:
        return existing
    places, shards, total_bytes = _pack(store, rows, read, shard_bytes)
    frame = pd.DataFrame([asdict(row) for row in rows])
    frame[["shard", "offset", "length"]] = pd.DataFrame(places, index=frame.index)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    manifest = store.put_blob(buffer.getvalue())
    record = Snapshot(snapshot_id, manifest, shards, len(rows), total_bytes)
    store.put_if_absent(layout.snapshot(snapshot_id), record.to_bytes())
    return record


def read_whole(store: Store, snapshot_id: str) -> Snapshot | None:
    """The record of a snapshot all of whose blobs stand (unverified), else None."""
    record = store.read_record(layout.snapshot(snapshot_id), Snapshot)
    whole = record is not None and all(store.has_blob(digest) for digest in (record.manifest, *record.shards))
    return record if whole else None


def _pack(
    store: Store, rows: Sequence[ImageRow], read: Callable[[str], bytes], shard_bytes: int
) -> tuple[list[tuple[int, int, int]], list[str], int]:
    """Pack the bytes into shards of about `shard_bytes`; (shard, offset, length) of each row."""
    places: list[tuple[int, int, int]] = []
    shards: list[str] = []
    total_bytes, shard = 0, bytearray()
    for row in rows:
        data = read(row.image_id)
        if sha256(data) != row.image_id:
            raise ValueError(f"the bytes of {row.path} do not match their image id {row.image_id}")
        if shard and len(shard) + len(data) > shard_bytes:
            shards.append(store.put_blob(bytes(shard)))
            shard = bytearray()
        places.append((len(shards), len(shard), len(data)))
        shard += data
        total_bytes += len(data)
    if shard:
        shards.append(store.put_blob(bytes(shard)))
    return places, shards, total_bytes


class OpenSnapshot:
    """A snapshot ready to read on this machine: rows by image id, bytes from mapped, verified shards."""

    def __init__(self, record: Snapshot, rows: Sequence[ImageRow], places: Places) -> None:
        self.snapshot_id = record.snapshot_id
        self.rows = tuple(rows)
        self.by_id = {row.image_id: row for row in rows}
        self._places = places
        self._maps: list[mmap.mmap] = []

    def attach(self, store: Store, cache: Cache, shards: Sequence[str]) -> None:
        """Map every shard, fetching those that this machine lacks."""
        for digest in shards:
            with cache.open(store, digest) as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def image_bytes(self, image_id: str) -> bytes:
        """The kept bytes of one image; KeyError when the snapshot has no such image."""
        shard, offset, length = self._places[image_id]
        return self._maps[shard][offset : offset + length]

    def close(self) -> None:
        for mapped in self._maps:
            mapped.close()
        self._maps = []


def open_snapshot(store: Store, snapshot_id: str, cache: Cache) -> OpenSnapshot:
    """Open a snapshot. UserError when the store has none of that id."""
    record, rows, places = read_manifest(store, snapshot_id)
    opened = OpenSnapshot(record, rows, places)
    opened.attach(store, cache, record.shards)
    return opened


def read_manifest(store: Store, snapshot_id: str) -> tuple[Snapshot, list[ImageRow], Places]:
    """A snapshot's record, rows and (shard, offset, length) by image id, without fetching a shard."""
    record = store.read_record(layout.snapshot(snapshot_id), Snapshot)
    if record is None:
        raise UserError(
            f"the store has no snapshot {snapshot_id}", where=store.url, mend="prepare the photos: foldfleet prepare"
        )
    frame = pd.read_parquet(io.BytesIO(store.get_blob(record.manifest)))
    rows: list[ImageRow] = []
    places: Places = {}
    for values in frame.to_dict(orient="records"):
        places[values["image_id"]] = (int(values.pop("shard")), int(values.pop("offset")), int(values.pop("length")))
        fields = {str(name): value for name, value in values.items()}
        rows.append(ImageRow(**{**fields, "parents": tuple(fields["parents"])}))
    return record, rows, places
