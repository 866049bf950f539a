"""Full resume state <-> blobs, and one attempt's dealings with its task's commits.

A state is nested tables of tensors and plain values (`Learner.state()` and the fold's story). As bytes it is one
safetensors file whose header's JSON holds the tables, with every tensor named by its place; strides are kept, because
the order in memory decides the order of sums. Nothing is ever unpickled.

A commit names a `state` blob of its own (task, number, attempt's nonce are in the bytes, so no two commits share one)
and, for `keep: best`, the `best` weights so far, which later commits may name again. The newest two loadable commits
keep their blobs; those of older ones go once a newer commit stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from shared_store.commits import digest_of, last_commit, put_commit, read_commit
from shared_store.errors import DamagedBlobError, MissingBlobError
from shared_store.records import Commit, canonical_json
from shared_store.store import Store

_HEADER = "foldfleet"
KEPT_COMMITS = 2


class DamagedStateError(Exception):
    """A state that cannot be trusted: its bytes, its shape, or a number in it that is not finite."""


class LostRaceError(Exception):
    """Another attempt committed this number first: go on from what stands."""

    def __init__(self, standing: Commit) -> None:
        super().__init__(standing.number, standing.attempt)
        self.standing = standing


def pack(state: object, about: Mapping[str, Any]) -> bytes:
    """Nested dicts, lists, tuples, tensors and plain values as safetensors bytes; the same state, the same bytes.

    `about` is kept beside it (task, epoch ...). ValueError for a float that is not finite outside a tensor.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encoded(state, "", tensors)
    # One key only: safetensors writes its header's keys in no fixed order.
    header = canonical_json(
        {"about": dict(about), "tree": tree, "strides": {k: v.stride() for k, v in tensors.items()}}
    )
    # A flat view of the memory would be faster, but a reader without the header should see the right tensors.
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, {_HEADER: header.decode()})


def unpack(data: bytes) -> tuple[Any, dict[str, Any]]:
    """What `pack` was given: (state, about). DamagedStateError when it is no such file, or a tensor is not finite."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
        loaded = safetensors.torch.load(data)
        tensors = {name: _with_strides(tensor, header["strides"][name]) for name, tensor in loaded.items()}
        state = _decoded(header["tree"], tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStateError(f"it is not a checkpoint of this foldfleet ({error})") from error
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise DamagedStateError(f"{len(bad)} tensors hold numbers that are not finite, such as {bad[0]}")
    return state, header["about"]


def _encoded(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    """JSON for `value` at `path`; tensors move to `tensors` under their path and leave that."""
    if isinstance(value, Tensor):
        name = path if path not in tensors else f"{path}#{len(tensors)}"  # keys 1 and "1" make one path
        tensors[name] = value.detach().cpu()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[_encoded(k, path, tensors), _encoded(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"items": items}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_encoded(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.dtype):  # some optimizers keep the one of their momentum
        return {"dtype": str(value).removeprefix("torch.")}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint: {path}")


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dtype":
        found = getattr(torch, content)
        if not isinstance(found, torch.dtype):
            raise ValueError(f"{content} is no dtype")
        return found
    if kind == "items":
        return {_decoded(k, tensors): _decoded(v, tensors) for k, v in content}
    parts = [_decoded(item, tensors) for item in content]
    return tuple(parts) if kind == "tuple" else parts


def _with_strides(tensor: Tensor, strides: list[int]) -> Tensor:
    return torch.empty_strided(tuple(tensor.shape), tuple(strides), dtype=tensor.dtype).copy_(tensor)


@dataclass(frozen=True)
class Resumed:
    """Where an attempt goes on from."""

    commit: Commit
    state: dict[str, Any]


class Checkpoints:
    """One attempt's reading and writing of its task's commits."""

    def __init__(self, store: Store, *, task: str, spec: str, attempt: int, nonce: str) -> None:
        self.store = store
        self.task, self.spec, self.attempt, self.nonce = task, spec, attempt, nonce
        self.notes: list[str] = []  # what went wrong on the way, for the log
        self._newest: Commit | None = None
        self._kept: list[Commit] = []  # standing and loadable, oldest first
        self._superseded: list[Commit] = []  # their blobs go once the next commit stands

    @property
    def number(self) -> int:
        """The number of the newest commit, 0 before the first."""
        return 0 if self._newest is None else self._newest.number

    def resume(self) -> Resumed | None:
        """The newest state that can be trusted, or None: begin anew. Damaged ones are passed over, with a note."""
        while True:
            newest = last_commit(self.store, self.task)
            found = self._newest_loadable(newest)
            # A rival may have removed the blobs while they were read: then it has committed since.
            if found is not None or last_commit(self.store, self.task) == newest:
                return found

    def _newest_loadable(self, newest: Commit | None) -> Resumed | None:
        self._newest, self._kept, self._superseded = newest, [], []
        commit = newest
        while commit is not None:
            parent = read_commit(self.store, self.task, commit.number - 1) if commit.number > 1 else None
            try:
                state = self._loaded(commit)
            except DamagedStateError as error:
                self.notes.append(f"commit {commit.number} cannot be used: {error}; looking at the one before")
                self._superseded.append(commit)
                commit = parent
                continue
            self._kept = [commit] if parent is None else [parent, commit]
            # An attempt that was killed between its commit and its cleaning left one more behind.
            if parent is not None and parent.number > 1:
                older = read_commit(self.store, self.task, parent.number - 1)
                self._superseded += [] if older is None else [older]
            return Resumed(commit, state)
        return None

    def _loaded(self, commit: Commit) -> dict[str, Any]:
        if commit.spec != self.spec:
            raise DamagedStateError("it belongs to another payload")
        state, about = unpack(self._blob(commit.blobs["state"]))
        if (about.get("task"), about.get("number")) != (commit.task, commit.number):
            raise DamagedStateError(f"its state is of {about.get('task')}, commit {about.get('number')}")
        if "best" in commit.blobs:
            unpack(self._blob(commit.blobs["best"]))
        assert isinstance(state, dict), "a state is a table"
        return state

    def _blob(self, digest: str) -> bytes:
        try:
            return self.store.get_blob(digest)
        except (DamagedBlobError, MissingBlobError) as error:
            raise DamagedStateError(error.what) from error

    def commit(self, state: Mapping[str, Any], *, epoch: int, step: int, best: str | None) -> Commit:
        """Make `state` the next commit, then let go of what it supersedes. `best`: digest of the best weights.

        Raises LostRaceError when another attempt's commit of this number stands, StoreError when the disk is full;
        then the commits before stand as they were.
        """
        number = self.number + 1
        about = {"task": self.task, "number": number, "nonce": self.nonce, "epoch": epoch, "step": step}
        blobs = {"state": self.store.put_blob(pack(state, about))}
        blobs |= {} if best is None else {"best": best}
        parent = None if self._newest is None else digest_of(self._newest)
        mine = Commit(self.task, number, parent, self.spec, self.attempt, self.nonce, epoch, step, blobs)
        standing = put_commit(self.store, mine)
        if standing != mine:
            self._take_back(blobs)
            raise LostRaceError(standing)
        self._newest = mine
        self._kept.append(mine)
        self._superseded += self._kept[:-KEPT_COMMITS]
        self._kept = self._kept[-KEPT_COMMITS:]
        self._clean()
        return mine

    def _take_back(self, blobs: Mapping[str, str]) -> None:
        """Remove what only the commit that lost would have named: our nonce is in the bytes."""
        before = {} if self._newest is None else self._newest.blobs
        for name, digest in blobs.items():
            if before.get(name) != digest:
                self.store.delete_blob(digest)

    def put_best(self, weights: Mapping[str, Tensor], epoch: int) -> str:
        """Keep the best weights so far, ready to be named by the next commit; their digest."""
        about = {"task": self.task, "nonce": self.nonce, "best_epoch": epoch}
        return self.store.put_blob(pack(dict(weights), about))

    def best(self, digest: str) -> dict[str, Tensor]:
        """The best weights that a commit names. DamagedStateError when they cannot be trusted."""
        weights, _ = unpack(self._blob(digest))
        assert isinstance(weights, dict), "weights are a table"
        return weights

    def _clean(self) -> None:
        named = {digest for commit in self._kept for digest in commit.blobs.values()}
        for commit in self._superseded:
            for digest in commit.blobs.values():
                if digest not in named:
                    self.store.delete_blob(digest)
        self._superseded = []
