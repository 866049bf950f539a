"""When a commit is due, so that a kill costs no more work than the interval that was asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Cadence:
    """Work is counted from one snapshot to the landing of the next: all that a kill at its worst moment costs."""

    interval_seconds: float
    snapshot_at: float = 0.0  # of the newest snapshot, on the clock that `is_due` is asked with
    validation_seconds: float = 0.0  # that the newest validation took; 0: not known yet

    def is_due(self, now: float, *, step_seconds: float, landing_seconds: float, last_step: bool) -> bool:
        """Whether to take a snapshot now, as the next chance is one step away, or a validation after the last step.

        That the first validation follows at once is no reason for a commit: how long it takes is not known, and a
        commit follows it.
        """
        if last_step and not self.validation_seconds:
            return False
        following = self.validation_seconds if last_step else step_seconds
        landing_seconds = min(landing_seconds, self.interval_seconds / 2)  # one that took an outage tells nothing
        return now + following + landing_seconds - self.snapshot_at >= self.interval_seconds
