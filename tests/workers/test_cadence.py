"""A kill at its worst moment costs no more than the interval: landings and validations count into it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from workers.cadence import Cadence

SECONDS = st.floats(0.01, 40)


def test_a_commit_is_due_when_the_next_chance_would_land_too_late() -> None:
    cadence = Cadence(interval_seconds=300, snapshot_at=1000)
    assert not cadence.is_due(1285, step_seconds=5, landing_seconds=9, last_step=False)
    assert cadence.is_due(1286, step_seconds=5, landing_seconds=9, last_step=False)


def test_a_long_validation_begins_with_a_commit_once_its_length_is_known() -> None:
    cadence = Cadence(interval_seconds=300, snapshot_at=1000)
    assert not cadence.is_due(1290, step_seconds=5, landing_seconds=9, last_step=True)
    cadence.validation_seconds = 200
    assert cadence.is_due(1091, step_seconds=5, landing_seconds=9, last_step=True)
    assert not cadence.is_due(1090, step_seconds=5, landing_seconds=9, last_step=True)


@given(step=SECONDS, landing=SECONDS, interval=st.floats(100, 1000), steps=st.integers(10, 200))
def test_no_kill_costs_more_than_the_interval_whatever_steps_and_landings_take(
    step: float, landing: float, interval: float, steps: int
) -> None:
    cadence, snapshots = Cadence(interval), [0.0]
    for number in range(1, steps):
        now = number * step
        if cadence.is_due(now, step_seconds=step, landing_seconds=landing, last_step=False):
            snapshots.append(now)
            cadence.snapshot_at = now
    worst = [later + landing - earlier for earlier, later in itertools.pairwise(snapshots)]
    assert all(cost <= interval + 1e-6 for cost in worst)
