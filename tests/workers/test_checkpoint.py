"""One attempt's two tiers: what lands where, what is gone on from, what a disk that fails costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pytest
import torch
from fold_support import WatchedBackend
from torch import Tensor

from shared_store import layout
from shared_store.commits import digest_of, last_commit, read_commit
from shared_store.errors import StoreDownError, StoreError, StoreFullError
from shared_store.records import Commit
from shared_store.store import Store
from workers.chain import LostRaceError, position
from workers.checkpoint import Checkpoints
from workers.resume import Mark
from workers.state_file import pack, unpack
from workers.tier import forget, open_tier

TASK, SPEC = "teacher-fold0-1", "5" * 64
SECONDS = 60.0  # longer than anything here takes on a loaded machine


def state(value: float) -> dict[str, Tensor]:
    return {"weights": torch.full((2, 3), value)}


class Machine:
    """A machine with a tier of its own, beside the store that all share; either may be made to fail."""

    def __init__(self, root: Path, store_root: Path, hostname: str = "one") -> None:
        self.failing: dict[str, Callable[[str, str], StoreError | None]] = {}
        self.store = Store(WatchedBackend(store_root, self._before("store")))
        tier_root = open_tier(root / hostname, self.store.url).backend.local_path("")
        assert tier_root is not None
        self.tier = Store(WatchedBackend(tier_root, self._before("tier")))

    def attempt(self, number: int = 1) -> Checkpoints:
        mark = Mark(TASK, SPEC, number, f"nonce{number}")
        return Checkpoints(self.store, self.tier, mark, 1.0, waits=lambda: repeat(0.01))

    def fails(self, place: str, error: type[StoreError], where: str = "") -> None:
        """Every write below `where` fails from now on."""
        made = error(f"the {place} is away", where="there", mend="wait")
        self.failing[place] = lambda _action, key: made if key.startswith(where) else None

    def works(self, place: str) -> None:
        self.failing.pop(place, None)

    def _before(self, place: str) -> Callable[[str, str, bytes], None]:
        def before(action: str, key: str, _data: bytes) -> None:
            error = self.failing.get(place, lambda _action, _key: None)(action, key)
            if error is not None:
                raise error

        return before


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> Machine:
    return Machine(tmp_path, tmp_path / "store", "other")


def commit(checkpoints: Checkpoints, *values: int, best: bool = False) -> None:
    """Make commits one after the other, none superseded, and see them into the store."""
    for value in values:
        at = (value // 10, value)
        assert checkpoints.commit(state(value), at, ("weights",) if best else None, patience_seconds=SECONDS)
        assert checkpoints.settle(SECONDS)


def standing(store: Store) -> list[Commit]:
    found = iter(lambda: read_commit(store, TASK, len(commits) + 1), None)
    commits: list[Commit] = []
    for one in found:
        commits.append(one)
    return commits


def damage(store: Store, digest: str) -> None:
    """Other bytes under the blob's name, in this tier alone."""
    path = store.blob_path(digest)
    assert path is not None
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"!")
