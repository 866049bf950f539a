"""The frozen records the store keeps, as versioned canonical JSON. Pure: standard library only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

VERSION = 2
_CHECK = "check"


def canonical_json(value: object) -> bytes:
    """The one way a value becomes bytes: sorted keys, no spaces, NaN refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Record:
    """A frozen dataclass that is kept as JSON with its kind, its version and the sha256 of all that."""

    def to_bytes(self) -> bytes:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        value = {"kind": type(self).__name__, "version": VERSION, **fields}
        return canonical_json({**value, _CHECK: f"sha256:{sha256(canonical_json(value))}"})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse and check kind, version, fields and every byte; ValueError says which is off."""
        value: Any = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError(f"expected a {cls.__name__} record")
        value.pop(_CHECK, None)
        kind, version = value.pop("kind", None), value.pop("version", None)
        if kind != cls.__name__ or version != VERSION:
            raise ValueError(f"expected a {cls.__name__} record of version {VERSION}, found {kind} version {version}")
        names = {f.name for f in dataclasses.fields(cls)}
        if names != set(value):
            raise ValueError(f"{cls.__name__} record with fields {sorted(value)}, expected {sorted(names)}")
        record = cls(**value)
        if record.to_bytes() != data:
            raise ValueError(f"{cls.__name__} record whose bytes do not match its sha256")
        return record


def verified(data: bytes) -> dict[str, Any]:
    """The kind and the fields of a record of whatever kind, every byte verified. ValueError says what is off."""
    value: Any = json.loads(data)
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise ValueError(f"expected a record of version {VERSION}")
    value.pop(_CHECK, None)
    if canonical_json({**value, _CHECK: f"sha256:{sha256(canonical_json(value))}"}) != data:
        raise ValueError("a record whose bytes do not match its sha256")
    return value


@dataclass(frozen=True)
class Commit(Record):
    """One step of a fold that can be resumed from. `number` counts from 1 without gaps.

    `blobs` names what a resume needs: `state` always, `best` once there is a best epoch.
    `parent` is the sha256 of the previous commit's record; `nonce` tells an attempt its own write.
    """

    task: str
    number: int
    parent: str | None
    spec: str
    attempt: int
    nonce: str
    epoch: int
    step: int
    blobs: Mapping[str, str]


@dataclass(frozen=True)
class Result(Record):
    """What a finished task left: blobs by name, numbers for tables, texts for people."""

    task: str
    spec: str
    attempt: int
    nonce: str
    blobs: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder(Record):
    """Who drives a run (or cleans a store): one process after another, `generation` counts them from 1.

    `since` is for people and decides nothing; `nonce` tells a process its own record.
    """

    generation: int
    run: str
    host: str
    process: int
    since: str
    nonce: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


@dataclass(frozen=True)
class Snapshot(Record):
    """A frozen data set: the manifest table's blob and the shards that hold the kept bytes."""

    snapshot_id: str
    manifest: str
    shards: list[str]
    images: int
    bytes: int
