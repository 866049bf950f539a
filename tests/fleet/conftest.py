"""A lab of four hosts, the person outside, and a fleet that stands on them; skipped by name of what a machine lacks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.fleet_run import OVERRIDES, results_in
from fleet.lab import ROOT, HostKind, Lab, missing, running_lab
from fleet.operator import Operator
from support import digits_folder

PHOTOS_PER_CLASS = 30
# Their sum is not above what two cores give.
KINDS = {"head": HostKind(1, 0.5), "a": HostKind(2, 0.5), "b": HostKind(3, 0.5), "c": HostKind(4, 0.5)}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four hosts that are up."""
    if lacks := missing():
        pytest.skip(f"no lab of real hosts on this machine: it lacks {', '.join(lacks)}")
    with running_lab(tmp_path_factory.mktemp("lab"), KINDS) as made:
        yield made


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of real handwriting."""
    return digits_folder(tmp_path_factory.mktemp("photos"), PHOTOS_PER_CLASS)


@pytest.fixture(scope="session")
def operator(lab: Lab, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The person outside, who has begun a fleet of all four hosts; its head has the photos."""
    person = Operator(lab, tmp_path_factory.mktemp("operator"))
    person.write_cluster_file("head", ["a", "b", "c"], join_options="--cpus 1")
    person.send(photos, "head", "photos")
    person.up()
    yield person
    person.down()


@pytest.fixture(scope="session")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the same run leaves on this machine alone, by task id: what every run on the fleet must leave."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "jobs.cli", "pipeline", str(photos), "--config", "configs/tiny.yaml"]
    command += ["--store", str(folder / "store"), "--run", "run", *OVERRIDES]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return results_in(folder / "store")
