"""From nothing to a finished run on four unequal machines, as a person does it: up, submit, look, down."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request

import pytest
from fleet.fleet_run import FleetRun, training_seconds
from fleet.operator import Operator

log = logging.getLogger(__name__)
CORES = {"head": 0.8, "a": 0.6, "b": 0.4, "c": 0.2}


@pytest.mark.timeout(900)
def test_a_fleet_of_unequal_machines_leaves_what_one_machine_leaves(
    operator: Operator, undisturbed: dict[str, dict[str, str]]
) -> None:
    for host, cores in CORES.items():
        operator.lab.hosts[host].limits.cpu(cores)
    run = FleetRun(operator, "unequal").begin()
    try:
        run.finish(800.0)
    finally:
        operator.forget(run.process)
        for host in operator.lab.hosts.values():
            host.limits.cpu(0.5)
    assert run.results() == undisturbed
    took = training_seconds(run.events())
    log.info("seconds of training by machine: %s", {machine: round(seconds) for machine, seconds in took.items()})
    assert took["head"] > 0


def test_who_has_no_token_is_refused(operator: Operator) -> None:
    head = operator.lab.address("head")
    operator.lab.run("c", "mv", "/root/.ray/auth_token", "/root/.ray/kept")
    try:
        joining = operator.on("c", f"foldfleet join {head}:6379 --cpus 1")
        asking = operator.on("c", f"foldfleet machines {head}:6379")
        by_hand = operator.on("c", f"RAY_AUTH_MODE=token timeout 60 ray start --address={head}:6379")
    finally:
        operator.lab.run("c", "mv", "/root/.ray/kept", "/root/.ray/auth_token")
    for refused in (joining, asking):
        assert refused.returncode == 2 and "does not have the fleet's token" in refused.stderr, refused.stderr
    assert by_hand.returncode != 0
    other = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    submitting = operator.on("head", " ".join(f"{name}={value}" for name, value in other.items()) + SUBMIT)
    assert (submitting.returncode != 0 and "401" in submitting.stdout + submitting.stderr) or "403" in submitting.stderr
    assert operator.on("head", CALL).stdout.strip() == "401"


SUBMIT = " ray job submit --address http://127.0.0.1:8265 -- true"
CALL = "curl -s -o /dev/null -w %{http_code} http://127.0.0.1:8265/api/jobs/"


def test_the_dashboard_is_for_the_head_itself_alone(operator: Operator) -> None:
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{operator.lab.address('head')}:8265/api/version", timeout=5.0)


@pytest.mark.timeout(600)
def test_ray_job_submit_runs_the_project_as_it_is_here(
    operator: Operator, undisturbed: dict[str, dict[str, str]]
) -> None:
    token = (operator.home / ".ray" / "auth_token").read_text()
    store = "head:///root/stores/job"
    run = FleetRun(operator, "job", store)
    command = "RAY_AUTH_MODE=token ray job submit --address http://127.0.0.1:8265 --working-dir foldfleet -- "
    command += f"python jobs/pipeline.py /root/photos --config configs/tiny.yaml --store {store} --run run {run.words}"
    ran = operator.on("head", command, 500.0)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert run.results() == undisturbed and token not in ran.stdout
    assert operator.lab.home("head").joinpath(".ray/auth_token").stat().st_mode & 0o777 == 0o600
