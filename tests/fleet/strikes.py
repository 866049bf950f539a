"""What goes wrong with machines in the middle of a run, each done to a fleet from outside. No test in here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fleet.fleet_run import FleetRun
from fleet.journal import ended_badly, joined, losses, missed
from fleet.operator import Operator

CACHE = "/root/.cache/foldfleet"
NOTICED_SECONDS = 15.0  # a machine that is cut off without a word is missed within them
COORDINATOR = "^[^ ]*python[^ ]* .*(student|pipeline).py"
log = logging.getLogger(__name__)
Strike = Callable[[Operator, FleetRun, str], None]  # the last is the machine that it strikes


def power_cut(operator: Operator, run: FleetRun, machine: str) -> None:
    """The machine is dark at once; its peers must find out by themselves."""
    run.until_training_on(machine)
    await_missed(run, machine, lambda: operator.lab.kill(machine, silent=True))
    operator.lab.boot(machine)


def await_missed(run: FleetRun, machine: str, strike: Callable[[], None]) -> None:
    """Strike, and see the run miss the machine in time: both read from this machine's one clock."""
    before, struck = len(run.events()), time.monotonic()
    strike()
    run.until(lambda events: missed(machine, events[before:]), f"{machine} is missed", 60.0)
    took = time.monotonic() - struck
    log.info("%s: a silent cut was noticed after %.1f s", machine, took)
    assert took <= NOTICED_SECONDS


def cut(seconds: float) -> Strike:
    """Off the network for a while, and at work all the time."""

    def strike(operator: Operator, run: FleetRun, machine: str) -> None:
        run.until_training_on(machine)
        began = time.monotonic()
        if seconds > 2 * NOTICED_SECONDS:
            await_missed(run, machine, lambda: operator.lab.cut(machine))
        else:
            operator.lab.cut(machine)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        operator.lab.heal(machine)

    return strike


def freeze(operator: Operator, run: FleetRun, machine: str) -> None:
    """All of its processes stand still."""
    run.until_training_on(machine)
    operator.lab.freeze(machine)
    time.sleep(20.0)
    operator.lab.thaw(machine)


def memory_cap(operator: Operator, run: FleetRun, machine: str) -> None:
    """Ray or the kernel kills what it may, for want of memory."""
    run.until_training_on(machine)
    before = len(run.events())
    with operator.lab.pressed(machine):
        run.until(lambda events: ended_badly(events[before:]), "a fold's process is killed", 60.0)


def slow_link(operator: Operator, run: FleetRun, machine: str) -> None:
    """Slow, far and lossy until somebody heals it."""
    run.until_training_on(machine)
    operator.lab.slow_link(machine, rate_mbit=20, delay_ms=40, loss_percent=1)


def full_disk(operator: Operator, run: FleetRun, machine: str) -> None:
    """No room for the machine's own commits; its cache was a small disk from the beginning."""
    run.until_training_on(machine)
    operator.lab.fill(machine, CACHE)


def driver_killed(operator: Operator, run: FleetRun, machine: str) -> None:
    """The coordinator is gone without a word; the same command goes on."""
    run.until_training_on(machine)
    operator.lab.run("head", "pkill", "-9", "-f", COORDINATOR)
    assert run.process.wait(90) != 0
    begin_again(run)


def head_power_cut(operator: Operator, run: FleetRun, machine: str) -> None:
    """The head, its store and the coordinator are gone; it comes back, and the same commands go on."""
    run.until_training_on(machine)
    operator.lab.kill("head", silent=True)
    assert run.process.wait(120) != 0
    operator.lab.boot("head")
    operator.up()
    begin_again(run)


def late_machine(operator: Operator, run: FleetRun, machine: str) -> None:
    """A machine that is not there comes when the others are in the middle of it."""
    run.until_training_on(machine)
    before = len(run.events())
    operator.lab.kill("c")
    run.until(lambda events: missed("c", events[before:]), "c is missed", 60.0)
    operator.lab.boot("c")
    operator.up()
    run.until(lambda events: "c" in joined(events[before:]), "c is in the run", 60.0)


def rejoin(operator: Operator, run: FleetRun, machine: str) -> None:
    """Somebody types the one command at a machine, and the run takes it in under its own name."""
    before = len(run.events())
    ran = operator.on(machine, f"foldfleet join {operator.lab.address('head')}:6379 --cpus 1")
    assert ran.returncode == 0 or "already" in ran.stderr, ran.stdout + ran.stderr
    run.until(lambda events: machine in joined(events[before:]), f"{machine} is in the run by its name", 120.0)
    assert set(joined(run.events())) <= {"driver", *operator.lab.hosts}


def drained(operator: Operator, run: FleetRun, machine: str) -> None:
    """Its owner wants the machine back in 30 seconds: its fold leaves with every step, and then it does."""
    task = run.until_training_on(machine)
    before = len(run.events())
    ran = operator.on("head", f"foldfleet drain {machine} --in 30s")
    assert ran.returncode == 0 and f"{machine} has left the fleet" in ran.stdout, ran.stdout + ran.stderr
    events = run.events()[before:]
    assert any(event["event"] == "MachineDraining" and event["machine"] == machine for event in events)
    assert all(loss.steps == 0 for loss in losses(events, 0.0) if loss.task == task)


def new_address(operator: Operator, run: FleetRun, machine: str) -> None:
    """A machine loses its power and comes back under another address: it is the same machine, by its own id."""
    run.until_training_on(machine)
    operator.lab.kill(machine, silent=True)
    operator.lab.boot(machine, number=operator.lab.hosts[machine].kind.number + 100)
    rejoin(operator, run, machine)


def two_coordinators(operator: Operator, run: FleetRun, machine: str) -> None:
    """A second command is refused while the first lives, and ends it when told to take over."""
    run.until_training_on(machine)
    first = run.process
    assert run.begin().process.wait(120) != 0, run.said()
    assert first.poll() is None
    begin_again(run, "--take-over")
    assert first.wait(120) != 0


def begin_again(run: FleetRun, *more: str) -> None:
    """The same command, until it drives the run."""
    before = len(run.events())
    run.begin(*more)
    run.until(lambda events: any(one["event"] == "RunBegan" for one in events[before:]), "it goes on", 120.0)


STRIKES: dict[str, Strike] = {
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
