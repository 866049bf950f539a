"""The ready files of docs/monitoring: a real Prometheus scrapes a real run, Grafana's panels name what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import eventually
from support import digits_folder

from coordinator.metrics import COUNTERS, GAUGES

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs" / "monitoring"
SERIES = {f"ray_{gauge.name}": gauge for gauge in GAUGES} | {f"ray_{count.name}_total": count for count in COUNTERS}


def targets() -> list[dict[str, Any]]:
    """What the panels of the Grafana dashboard ask Prometheus for."""
    board = json.loads((FILES / "grafana.json").read_text(encoding="utf-8"))
    return [target for panel in board["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_shows_every_series_there_is_and_no_other() -> None:
    shown = {name for target in targets() for name in re.findall(r"ray_\w+", target["expr"])}
    assert shown == set(SERIES)


def test_the_panels_name_no_tag_that_a_series_lacks() -> None:
    for target in targets():
        for name in re.findall(r"ray_\w+", target["expr"]):
            named = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]) + re.findall(r"(\w+)=", target["expr"])
            assert set(named) <= set(SERIES[name].tags), target["expr"]


def test_monitoring_md_names_every_series() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    missing = [name for name in SERIES if f"`{name.removeprefix('ray_foldfleet_')}`" not in text]
    assert missing == []


@contextmanager
def training(folder: Path) -> Iterator[str]:
    """A command whose folds train and train; gives the address of its dashboard."""
    digits_folder(folder / "photos", per_class=12, classes=2)
    words = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--recipe.epochs", "4000", "--folds.count", "2"]
    output = (folder / "output").open("w+", encoding="utf-8")
    command = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "teacher", "photos", *words, "--fleet.dashboard", "true"],
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "RAY_metrics_report_interval_ms": "1000"},
        start_new_session=True,
    )

    def told() -> str:
        return (folder / "output").read_text(encoding="utf-8")

    try:
        assert eventually(lambda: "Ray's dashboard" in told() or command.poll() is not None)
        (address,) = re.findall(r"Ray's dashboard, .*: (http://127\.0\.0\.1:\d+)", told())
        yield address
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 130, told()
    finally:
        command.kill()
        command.wait()
        output.close()


@contextmanager
def prometheus(folder: Path, dashboard: str) -> Iterator[str]:
    """Prometheus with the ready file, in a hurry, and with the token that all Rays of these tests ask for."""
    config = yaml.safe_load((FILES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"]["scrape_interval"] = "1s"
    (here,) = (job for job in config["scrape_configs"] if job["job_name"] == "this-machine")
    (discovery,) = here["http_sd_configs"]
    assert discovery["url"] == "http://127.0.0.1:8265/api/prometheus/sd"
    assert discovery["authorization"]["credentials_file"] == "/home/YOU/.ray/auth_token"
    (folder / "token").write_text(os.environ["RAY_AUTH_TOKEN"], encoding="ascii")
    discovery["authorization"]["credentials_file"] = "token"
    discovery |= {"url": f"{dashboard}/api/prometheus/sd", "refresh_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        door = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", f"--web.listen-address={door}", "--config.file=prometheus.yml", "--storage.tsdb.path=data"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield f"http://{door}"
        finally:
            process.terminate()
            process.wait(30)


def asked(address: str, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a query; nothing while it does not listen yet. HTTPError for one it does not take."""
    words = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{address}/api/v1/query?{words}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def test_prometheus_finds_a_run_on_this_machine_by_the_ready_file(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed; on Debian: apt-get install prometheus")
    with training(tmp_path) as dashboard, prometheus(tmp_path, dashboard) as address:

        def folds() -> set[tuple[str, str]]:
            with suppress(ConnectionError, urllib.error.URLError):
                found = asked(address, "ray_foldfleet_fold_loss")
                return {(one["metric"]["run"], one["metric"]["fold"]) for one in found}
            return set()

        assert eventually(lambda: folds() == {("main", "teacher/fold0"), ("main", "teacher/fold1")})
        answers = [asked(address, target["expr"].replace("$run", ".*")) for target in targets()]
        assert [target["legendFormat"] for target, answer in zip(targets(), answers, strict=True) if answer]
        states = asked(address, "ray_foldfleet_machine_state == 1")
        assert [state["metric"]["state"] for state in states] == ["alive"]
        with urllib.request.urlopen(dashboard) as page:
            assert "Ray Dashboard" in page.read().decode()
