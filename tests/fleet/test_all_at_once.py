"""All that can go wrong with machines strikes one run, one after the other and some of it at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleet.alone import Alone
from fleet.fleet_run import FleetRun, Size
from fleet.operator import Operator
from fleet.strikes import CACHE, STRIKES
from fleet.test_faults import kept_its_promises, restore

log = logging.getLogger(__name__)
# Rounds come one after the other. In a round several rows of strikes begin at the same time: what, on which machine.
ROUNDS: Sequence[Sequence[Sequence[tuple[str, str]]]] = (
    [[("slow-link", "c")], [("full-disk", "b")]],
    [[("freeze", "c")], [("memory-cap", "b")]],
    [[("cut-90", "a")], [("power-cut", "b"), ("driver-killed", "head"), ("two-coordinators", "head")]],
    [[("cut-5", "c")], [("drained", "b")]],
    [[("head-power-cut", "head")]],
    [[("cut-15", "a")], [("new-address", "c")]],  # the launcher knows c by the address that it had: no `up` after this
)
SLOW = {"head": 0.5, "a": 0.3, "b": 0.3, "c": 0.3}  # so that there is work left for the last strike


@pytest.mark.timeout(1200)
def test_whatever_strikes_one_run_its_bytes_are_the_same(operator: Operator, long: Size, alone: Alone) -> None:
    began = time.monotonic()
    operator.lab.small_disk("b", CACHE, 60)
    run = FleetRun(operator, "all", long).begin()
    try:
        with operator.lab.cores(SLOW):
            for rows in ROUNDS:
                at_once([_striking(operator, run, row, began) for row in rows])
        log.info("after %.0f s: nothing more", time.monotonic() - began)
        run.finish()
    finally:
        run.forget()
        restore(operator)
    assert run.results() == alone(long)
    log.info("%.0f s, %s", time.monotonic() - began, kept_its_promises(run))


def _striking(operator: Operator, run: FleetRun, row: Sequence[tuple[str, str]], began: float) -> Callable[[], None]:
    def strike() -> None:
        for name, machine in row:
            log.info("after %.0f s: %s, %s", time.monotonic() - began, name, machine)
            STRIKES[name](operator, run, machine)

    return strike


def at_once(acts: Sequence[Callable[[], None]]) -> None:
    """Each in a thread; what one raises comes when all are over."""
    with ThreadPoolExecutor(len(acts)) as threads:
        for done in [threads.submit(act) for act in acts]:
            done.result()
