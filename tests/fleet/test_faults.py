"""What machines do in the middle of a run, on real hosts: every byte comes out as if nothing had happened.

Each fault strikes a run of its own, from a fresh store; and all that can be combined strike one run.
"""

from __future__ import annotations

import logging
import time

import pytest
from fleet.alone import Alone
from fleet.fleet_run import MIDDLE, FleetRun, forked_chains
from fleet.journal import done_again, given_up_and_heard, losses
from fleet.operator import Operator
from fleet.strikes import CACHE, STRIKES

log = logging.getLogger(__name__)


@pytest.mark.complete
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", STRIKES)
def test_a_fault_changes_no_byte(name: str, operator: Operator, alone: Alone) -> None:
    before = time.monotonic()
    if name == "full-disk":
        operator.lab.small_disk("a", CACHE, 60)
    run = FleetRun(operator, name, MIDDLE).begin()
    try:
        STRIKES[name](operator, run, "a")
        run.finish()
    finally:
        run.forget()
        restore(operator)
    assert run.results() == alone(MIDDLE)
    log.info("%s: %.0f s, %s", name, time.monotonic() - before, kept_its_promises(run))


def kept_its_promises(run: FleetRun) -> str:
    """Nothing is done twice, and nobody loses more than an interval: AssertionError. What was lost, in words."""
    events = run.events()
    assert done_again(events) == [] and given_up_and_heard(events) == []
    assert forked_chains(run.folder()) == []
    found = losses(events, run.size.interval_seconds)
    assert all(loss.steps <= loss.of_an_interval for loss in found), found
    most = max(found, key=lambda loss: loss.steps, default=None)
    return (
        "nothing was made again" if most is None else f"{most.steps} steps made again, room {most.of_an_interval:.0f}"
    )


def restore(operator: Operator) -> None:
    """The fleet as it was before."""
    for host in operator.lab.hosts.values():
        operator.lab.heal(host.name)
        if "tmpfs" in operator.lab.run(host.name, "sh", "-c", f"grep {CACHE} /proc/mounts; true"):
            operator.lab.run(host.name, "umount", "-l", CACHE)
        if not host.address.endswith(f".{host.kind.number}"):
            operator.lab.kill(host.name)
            operator.lab.boot(host.name, number=host.kind.number)
    operator.up()
