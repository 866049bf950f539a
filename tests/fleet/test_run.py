"""From nothing to a finished run on four unequal machines, as a person does it; and who is not let in."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleet.alone import Alone
from fleet.fleet_run import FleetRun, Size
from fleet.journal import training_seconds
from fleet.makespan import makespan
from fleet.operator import Operator

log = logging.getLogger(__name__)
CORES = {"head": 0.8, "a": 0.6, "b": 0.4, "c": 0.2}
MOST_OF_THE_BOUND = 1.15
SUBMIT = "ray job submit --address http://127.0.0.1:8265 -- true"
CALL = "curl -s -o /dev/null -w %{http_code} http://127.0.0.1:8265/api/jobs/"
DRIVER = 'python -c "import ray; ray.init(\\"HEAD\\")"'


@pytest.mark.timeout(900)
def test_a_fleet_of_unequal_machines_leaves_what_one_machine_leaves(
    operator: Operator, long: Size, alone: Alone
) -> None:
    run = FleetRun(operator, "unequal", long).begin()
    try:
        with operator.lab.cores(CORES):
            run.finish(800.0)
    finally:
        run.forget()
    assert run.results() == alone(long)
    events = run.events()
    took, found = training_seconds(events), makespan(events, long.folds, long.epochs)
    log.info("seconds of training: %s", {machine: round(seconds) for machine, seconds in sorted(took.items())})
    log.info("makespan %s", found)
    assert sorted(took) == sorted(CORES)
    # How much of the work each machine did goes by its speed.
    done = {machine: took[machine] / found.epoch_seconds[machine] for machine in CORES}
    assert done["a"] > done["b"] > done["c"] > 0
    assert found.ratio <= MOST_OF_THE_BOUND


def test_who_has_no_token_is_refused(operator: Operator) -> None:
    head = operator.lab.address("head")
    operator.lab.run("c", "mv", "/root/.ray/auth_token", "/root/.ray/kept")
    try:
        asked = [f"join {head}:6379 --cpus 1", f"machines {head}:6379", f"drain a --head {head}:6379"]
        asked.append(f"student foldfleet --fleet.address {head}:6379 --store head:///root/refused")
        told = [operator.on("c", f"foldfleet {words}") for words in asked]
        by_hand = operator.on("c", f"RAY_AUTH_MODE=token timeout 60 ray start --address={head}:6379")
    finally:
        operator.lab.run("c", "mv", "/root/.ray/kept", "/root/.ray/auth_token")
    for refused in told:
        assert refused.returncode == 2 and "does not have the fleet's token" in refused.stderr, refused
    assert by_hand.returncode != 0


def test_who_has_another_token_is_refused(operator: Operator) -> None:
    other = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=" + "0" * 64
    address = f"{operator.lab.address('head')}:6379"
    starts, drives = f"ray start --address={address}", DRIVER.replace("HEAD", address)
    tries = [("b", starts), ("c", drives), ("head", SUBMIT)]  # Ray tries for a while: all at once
    with ThreadPoolExecutor(len(tries)) as threads:
        told = list(threads.map(lambda one: operator.on(one[0], f"{other} timeout 90 {one[1]}"), tries))
    assert all(refused.returncode not in (0, 124) for refused in told), told
    assert "Invalid authentication token" in told[-1].stderr, told[-1]
    with_another = f'{CALL} -H "Authorization: Bearer {"0" * 64}"'
    assert [operator.on("head", call).stdout.strip() for call in (with_another, CALL)] == ["403", "401"]


def test_the_dashboard_is_for_the_head_itself_alone(operator: Operator) -> None:
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{operator.lab.address('head')}:8265/api/version", timeout=5.0)
