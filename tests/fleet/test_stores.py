"""The same run with the other kinds of stores: an SFTP server that every machine reaches, and an S3 bucket."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fleet.alone import Alone
from fleet.fleet_run import REPEATED, SHORT, FleetRun, Results
from fleet.operator import Operator
from s3_server import running_s3

from shared_store.commits import read_result
from shared_store.store import Store, open_store

CREDENTIALS = "[default]\naws_access_key_id = tester\naws_secret_access_key = secret\n"


def results_of(store: Store, tasks: Results) -> Results:
    """Hashes of what must be the same bytes, of the same tasks."""
    found = {task: read_result(store, task) for task in tasks}
    return {
        task: {name: blob for name, blob in result.blobs.items() if name in REPEATED}
        for task, result in found.items()
        if result is not None
    }


def store_on(operator: Operator, host: str, name: str) -> str:
    """A host as an SFTP server that all hosts know, and have the key of."""
    server = operator.lab.address(host)
    for client in operator.lab.hosts:
        ssh = operator.lab.home(client) / ".ssh"
        shutil.copy(operator.lab.key, ssh / "id_ed25519")
        operator.lab.run(client, "sh", "-c", f"ssh-keyscan {server} >> /root/.ssh/known_hosts 2> /dev/null")
    return f"sftp://root@{server}/root/stores/{name}"


@pytest.mark.complete
@pytest.mark.timeout(600)
def test_a_run_with_its_store_on_an_sftp_server(operator: Operator, alone: Alone) -> None:
    run = FleetRun(operator, "sftp", SHORT, store=store_on(operator, "head", "sftp")).begin()
    try:
        run.finish()
    finally:
        run.forget()
    assert run.results() == alone(SHORT)


@pytest.mark.timeout(600)
def test_a_run_that_ray_job_submit_begins_with_its_store_in_an_s3_bucket(
    operator: Operator, alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3(tmp_path, operator.lab.switch.operator) as server:
        for host in operator.lab.hosts:
            folder = operator.lab.home(host) / ".aws"
            folder.mkdir(exist_ok=True)
            (folder / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {server.endpoint_url}\n")
            (folder / "credentials").write_text(CREDENTIALS)
        run = FleetRun(operator, "s3", SHORT, store=server.url("run")).submit("pipeline")
        try:
            run.finish()
        finally:
            run.forget()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert results_of(open_store(server.url("run")), alone(SHORT)) == alone(SHORT)
    assert (operator.home / ".ray" / "auth_token").read_text() not in operator.said("s3.log")
    assert operator.lab.home("head").joinpath(".ray/auth_token").stat().st_mode & 0o777 == 0o600
