"""What `foldfleet down` leaves of a fleet, and a head that comes back to a fleet at work."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.alone import Alone
from fleet.fleet_run import FleetRun, Size
from fleet.journal import done_again, ends, joined, missed
from fleet.lab import ROOT
from fleet.operator import Operator
from fleet.test_stores import store_on

log = logging.getLogger(__name__)
REDIS, PORT, PASSWORD = "/usr/bin/redis-server", 6380, "of-the-lab"
OTHERS = ("a", "b", "c")


def test_nothing_is_left_after_down(operator: Operator) -> None:
    """No process but the SSH server that was there before, no file in the folders for temporary ones."""
    operator.down()
    left = {host: [*operator.lab.processes(host), *temporary_files(operator, host)] for host in operator.lab.hosts}
    assert not any(left.values()), left


def temporary_files(operator: Operator, host: str) -> list[str]:
    """What lies there; but a checkout that is there on this machine, whose environment the lab's hosts see too."""
    looked = ["find", "/tmp", "/dev/shm", "-mindepth", "1", "-path", str(ROOT), "-prune", "-o", "-print"]
    return [path for path in operator.lab.run(host, *looked).splitlines() if Path(path) not in ROOT.parents]


@pytest.fixture
def with_redis(operator: Operator) -> Iterator[Operator]:
    """The same fleet with a head that keeps its books in a Redis on the machine c."""
    if not Path(REDIS).exists():
        pytest.skip("this machine lacks redis-server")
    address = f"{operator.lab.address('c')}:{PORT}"
    command = [REDIS, "--daemonize", "yes", "--bind", operator.lab.address("c"), "--port", str(PORT)]
    operator.lab.run("c", *command, "--requirepass", PASSWORD, "--save", "", "--dir", "/tmp")
    plain = operator.cluster.read_text()
    bashrc = operator.lab.home("head") / ".bashrc"
    shutil.copy(bashrc, bashrc.with_name(".bashrc-kept"))
    with bashrc.open("a") as file:
        file.write(f"export RAY_REDIS_PASSWORD={PASSWORD}\n")
    operator.write_cluster_file("head", OTHERS, "--cpus 1", f"--redis {address}")
    operator.down()
    operator.up()
    yield operator
    operator.down()
    operator.lab.run("c", "pkill", "redis-server")
    shutil.move(bashrc.with_name(".bashrc-kept"), bashrc)
    operator.cluster.write_text(plain)


@pytest.mark.complete
@pytest.mark.timeout(900)
def test_a_head_that_comes_back_finds_its_fleet_at_work(
    with_redis: Operator, long: Size, alone: Alone, photos: Path
) -> None:
    operator = with_redis
    operator.send(photos, "b", "photos")
    run = FleetRun(operator, "redis", long, store=store_on(operator, "c", "redis")).begin_on("b")
    try:
        for machine in OTHERS:
            run.until_training_on(machine)
        before, struck = len(run.events()), time.monotonic()
        operator.lab.kill("head", silent=True)
        operator.lab.boot("head")
        operator.up()
        log.info("the head was back after %.0f s", time.monotonic() - struck)
        run.until(lambda events: "head" in joined(events[before:]), "the head is in the run again", 120.0)
        run.finish(600.0)
    finally:
        run.forget()
    assert run.results("c") == alone(long)
    events = run.events()
    assert sum(event["event"] == "RunBegan" for event in events) == 1 and done_again(events) == []
    # The others never stopped: what ran on them ended there with its result, or moved because the plan said so.
    assert not any(missed(machine, events) for machine in OTHERS)
    assert {end["where"] for end in ends(events) if end["failure"] not in (None, "stopped")} <= {"head"}
