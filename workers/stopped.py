"""How a fold that was asked to stop ends, and where its last step is to be found."""

from __future__ import annotations

import socket


class StoppedError(Exception):
    """Somebody asked the fold to stop. The store's commit `commit` holds all its steps, or this machine, or neither."""

    def __init__(self, commit: int | None, epoch: int, step: int, here: bool = True) -> None:
        """`commit`: None when the store did not take the last step. `here`: whether this machine's disk did."""
        super().__init__(commit, epoch, step, here)
        self.commit, self.epoch, self.step, self.here = commit, epoch, step, here

    def __str__(self) -> str:
        kept = f"commit {self.commit} holds all of it"
        if self.commit is None:
            kept = f"the store does not take it; {socket.gethostname()} keeps all of it and hands it over later"
            if not self.here:
                kept = "neither this machine's disk nor the store takes it; what was committed before stands"
        return f"stopped at epoch {self.epoch}, step {self.step}; {kept}"
