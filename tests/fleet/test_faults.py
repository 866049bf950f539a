"""What machines do in the middle of a run, on real hosts: every byte comes out as if nothing had happened.

Each fault strikes a run of its own, from a fresh store; at the end all that can be combined strikes one run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from fleet.fleet_run import Event, FleetRun, lost_steps
from fleet.operator import Operator

CACHE = "/root/.cache/foldfleet"
log = logging.getLogger(__name__)
Fault = Callable[[Operator, FleetRun], None]


def power_cut(operator: Operator, run: FleetRun) -> None:
    """The machine is dark at once; its peers must find out by themselves."""
    run.until_training_on("a")
    struck = run.events()[-1]["at"]
    operator.lab.kill("a", silent=True)
    found = run.until(lambda events: lost("a", events), "the machine is missed", 60.0)
    log.info("a silent power cut was noticed after %.1f s", found["at"] - struck)
    operator.lab.boot("a")


def cut(seconds: float) -> Fault:
    """Off the network for a while, and at work all the time."""

    def strike(operator: Operator, run: FleetRun) -> None:
        run.until_training_on("a")
        operator.lab.cut("a")
        time.sleep(seconds)
        operator.lab.heal("a")

    return strike


def freeze(operator: Operator, run: FleetRun) -> None:
    """All of its processes stand still."""
    run.until_training_on("a")
    operator.lab.freeze("a")
    time.sleep(20.0)
    operator.lab.thaw("a")


def memory_cap(operator: Operator, run: FleetRun) -> None:
    """The kernel kills what takes the most memory there."""
    run.until_training_on("a")
    operator.lab.hosts["a"].limits.memory(700)
    run.until(lambda events: ended_badly(events) or lost("a", events), "a process is killed", 90.0)
    operator.lab.hosts["a"].limits.memory(2500)


def slow_link(operator: Operator, run: FleetRun) -> None:
    """Slow, far and lossy until the end of the run."""
    run.until_training_on("a")
    operator.lab.slow_link("a", rate_mbit=20, delay_ms=40, loss_percent=1)


def full_disk(operator: Operator, run: FleetRun) -> None:
    """No room for the machine's own commits."""
    run.until_training_on("a")
    operator.lab.fill("a", CACHE)


def driver_killed(operator: Operator, run: FleetRun) -> None:
    """The coordinator is gone without a word; the same command goes on."""
    run.until_training_on("a")
    operator.lab.run("head", "pkill", "-9", "-f", "^[^ ]*python[^ ]* .*pipeline.py")
    assert run.process.wait(90) != 0
    run.begin()


def head_power_cut(operator: Operator, run: FleetRun) -> None:
    """The head, its store and the coordinator are gone; it comes back, and the same commands go on."""
    run.until_training_on("a")
    operator.lab.kill("head", silent=True)
    assert run.process.wait(120) != 0
    operator.lab.boot("head")
    operator.up()
    run.begin()


def late_machine(operator: Operator, run: FleetRun) -> None:
    """One machine comes when the others are in the middle of it."""
    run.until_training_on("a")
    operator.lab.kill("c")
    run.until(lambda events: lost("c", events), "the machine is missed", 60.0)
    operator.lab.boot("c")
    operator.up()


def drained(operator: Operator, run: FleetRun) -> None:
    """Its owner wants the machine back in 30 seconds: its fold leaves with every step, and then it does."""
    task = run.until_training_on("a")
    ran = operator.on("head", "foldfleet drain a --in 30s")
    assert ran.returncode == 0 and "a has left the fleet" in ran.stdout, ran.stdout + ran.stderr
    events = run.events()
    assert lost_steps(events, task) == 0 and any(event["event"] == "MachineDraining" for event in events)


def new_address(operator: Operator, run: FleetRun) -> None:
    """A machine loses its power and comes back under another address: it is the same machine, by its own id."""
    run.until_training_on("a")
    operator.lab.kill("a", silent=True)
    operator.lab.boot("a", number=12)
    ran = operator.on("a", f"foldfleet join {operator.lab.address('head')}:6379 --cpus 1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    run.until(lambda events: names(events).count("a") > 1, "it is back by its name", 120.0)
    assert set(names(run.events())) == {"driver", "head", "a", "b", "c"}


def names(events: list[Event]) -> list[str]:
    """Of the machines that joined, in order."""
    return [event["machine"] for event in events if event["event"] == "MachineJoined"]


def two_coordinators(operator: Operator, run: FleetRun) -> None:
    """A second command is refused while the first lives, and ends it when told to take over."""
    run.until_training_on("a")
    first = run.process
    assert run.begin().process.wait(120) != 0, run.said()
    assert first.poll() is None
    run.begin("--take-over")
    assert first.wait(120) != 0


FAULTS: dict[str, Fault] = {
    "power-cut": power_cut,
    "cut-5": cut(5.0),
    "cut-15": cut(15.0),
    "cut-90": cut(90.0),
    "freeze": freeze,
    "memory-cap": memory_cap,
    "slow-link": slow_link,
    "full-disk": full_disk,
    "driver-killed": driver_killed,
    "head-power-cut": head_power_cut,
    "late-machine": late_machine,
    "drained": drained,
    "new-address": new_address,
    "two-coordinators": two_coordinators,
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_changes_no_byte(name: str, operator: Operator, undisturbed: dict[str, dict[str, str]]) -> None:
    before = time.monotonic()
    if name == "full-disk":
        operator.lab.small_disk("a", CACHE, 60)
    run = FleetRun(operator, name).begin()
    try:
        FAULTS[name](operator, run)
        run.finish()
    finally:
        operator.forget(run.process)
        restore(operator, name)
    assert run.results() == undisturbed
    events = run.events()
    lost_most = max(lost_steps(events, task) for task in undisturbed)
    log.info("%s: %.0f s, at most %d steps made again", name, time.monotonic() - before, lost_most)


def restore(operator: Operator, name: str) -> None:
    """The fleet as it was before."""
    operator.lab.heal("a")
    if name == "full-disk":
        operator.lab.run("a", "umount", "-l", CACHE)
    if name == "new-address":
        operator.lab.kill("a")
        operator.lab.boot("a", number=2)
    operator.up()


def lost(machine: str, events: list[Event]) -> Event | None:
    """The event by which a machine is missed."""
    kinds = ("MachineCut", "MachineLeft")
    return next((one for one in events if one["event"] in kinds and one["machine"] == machine), None)


def ended_badly(events: list[Event]) -> bool:
    """Whether an attempt ended by a fault."""
    ends = (event["outcome"]["failure"] for event in events if event["event"] == "TaskEnded")
    return any(failure not in (None, "stopped") for failure in ends)
