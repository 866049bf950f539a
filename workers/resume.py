"""Where an attempt goes on from: the furthest state that can be trusted, on this machine or in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from shared_store.backend import Content
from shared_store.commits import last_commit
from shared_store.errors import DamagedBlobError, DamagedRecordError, MissingBlobError, StoreError
from shared_store.records import Commit
from shared_store.store import Store
from workers.chain import Chain, position
from workers.state_file import DamagedStateError, unpack
from workers.tier import discard
from workers.trouble import Tell
from workers.work import Work


@dataclass(frozen=True)
class Resumed:
    """Where an attempt goes on from."""

    commit: Commit
    state: dict[str, Any]
    here: bool  # it is a commit of this machine's own tier

    @property
    def name(self) -> str:
        """What people call it."""
        return f"commit {self.commit.number}{' on this machine' if self.here else ''}"


class Reading:
    """Reads commits of one task with all their blobs. What was wrong on the way is told."""

    def __init__(self, work: Work, tier: Store, tell: Tell) -> None:
        self._work, self._store, self._tier, self._tell = work, work.store, tier, tell

    def furthest(self, local: Chain, shared: Chain) -> Resumed | None:
        """The furthest state of both chains that can be trusted, or None: begin anew.

        Damaged ones are passed over. StoreError when the store cannot be read.
        """
        while True:
            newest = shared.look()
            found = self._furthest_loadable(local, self._look_here(local), shared, newest)
            # A rival may have removed the blobs while they were read: then it has committed since.
            if found is not None or last_commit(self._store, self._work.task) == newest:
                return found

    def weights(self, digest: str) -> dict[str, Tensor]:
        """The best weights that a commit names. DamagedStateError when they cannot be trusted."""
        weights, _ = unpack(self._blob(digest))
        assert isinstance(weights, dict), "weights are a table"
        return weights

    def _look_here(self, local: Chain) -> Commit | None:
        try:
            return local.look()
        except DamagedRecordError as error:
            self._tell(f"commits on this machine are given up: {error.what} ({error.where})")
            discard(self._tier, self._work.task)
        except StoreError as error:
            self._tell(f"commits on this machine cannot be read: {error.what} ({error.where})")
        return None

    def _before_here(self, local: Chain, commit: Commit) -> Commit | None:
        try:
            return local.before(commit)
        except StoreError as error:
            self._tell(f"commits on this machine cannot be read: {error.what} ({error.where})")
            return None

    def _furthest_loadable(
        self, local: Chain, here: Commit | None, shared: Chain, there: Commit | None
    ) -> Resumed | None:
        while here is not None or there is not None:
            is_here = here is not None and position(here) >= position(there)
            commit, chain = (here, local) if is_here else (there, shared)
            assert commit is not None
            try:
                state = self._loaded(commit)
            except DamagedStateError as error:
                place = " on this machine" if is_here else ""
                self._tell(f"commit {commit.number}{place} cannot be used: {error}; looking at the one before")
                here, there = (self._before_here(local, commit), there) if is_here else (here, shared.before(commit))
                continue
            chain.trust(commit)
            local.reached, shared.reached = position(here), position(there)  # what was passed over does not count
            return Resumed(commit, state, is_here)
        local.reached = shared.reached = position(None)
        return None

    def _loaded(self, commit: Commit) -> dict[str, Any]:
        if commit.spec != self._work.spec:
            raise DamagedStateError("it belongs to another payload")
        state, about = unpack(self._blob(commit.blobs["state"]))
        of = (about.get("task"), about.get("nonce"), about.get("epoch"), about.get("step"))
        if of != (commit.task, commit.nonce, commit.epoch, commit.step):
            raise DamagedStateError(f"its state is of {about.get('task')}, epoch {of[2]}, step {of[3]}")
        if "best" in commit.blobs:
            unpack(self._blob(commit.blobs["best"], keep=True))
        assert isinstance(state, dict), "a state is a table"
        return state

    def _blob(self, digest: str, keep: bool = False) -> bytes:
        """A blob from this machine if it is here and right, else from the store; `keep`: then it is here afterwards."""
        try:
            return self._tier.get_blob(digest)
        except MissingBlobError:
            pass
        except StoreError as error:
            self._tell(f"not read on this machine: {error.what} ({error.where})")
        try:
            data = self._store.get_blob(digest)
        except (DamagedBlobError, MissingBlobError) as error:
            raise DamagedStateError(error.what) from error
        try:
            if keep:
                self._tier.put_named_blob(digest, Content(data))
        except StoreError as error:
            self._tell(f"not kept on this machine: {error.what} ({error.where})")
        return data
