"""The modelled store: per task a chain of commits, each put if absent, and one result. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulatedCommit:
    """A state to go on from. `position` counts epochs."""

    position: float
    best_epoch: int
    writer: int  # number of the run in its simulation: what a nonce is
    machine: str


class SimulatedStore:
    """What is kept. Nothing here is ever replaced."""

    def __init__(self) -> None:
        self.commits: dict[str, list[SimulatedCommit]] = {}
        self.results: dict[str, int] = {}  # the writer, by task

    def put_commit(self, task: str, number: int, commit: SimulatedCommit) -> SimulatedCommit:
        """Put commit `number` (from 1) unless it is there; the one that stands."""
        chain = self.commits.setdefault(task, [])
        if number <= len(chain):
            return chain[number - 1]
        assert number == len(chain) + 1, f"{task}: commit {number} after {len(chain)}"
        chain.append(commit)
        return commit

    def put_result(self, task: str, writer: int) -> int:
        """Put the result unless it is there; the writer of the one that stands."""
        return self.results.setdefault(task, writer)

    def last(self, task: str) -> tuple[int, SimulatedCommit | None]:
        """(its number, the newest commit), or (0, None)."""
        chain = self.commits.get(task)
        return (len(chain), chain[-1]) if chain else (0, None)
