"""A lab of four hosts, the person outside, and a fleet that stands on them; skipped by name of what a machine lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.alone import Alone
from fleet.fleet_run import SHORT, Size
from fleet.lab import HostKind, Lab, missing, running_lab
from fleet.operator import Operator
from support import digits_folder

PHOTOS_PER_CLASS = 30
LONG_FOLD_SECONDS = 20.0  # of one fold of a long run, on a core of this machine
# As fast as they can while no test has them slower.
KINDS = {"head": HostKind(1, 2.0), "a": HostKind(2, 2.0), "b": HostKind(3, 2.0), "c": HostKind(4, 2.0)}


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
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The same work on one machine, undisturbed."""
    return Alone(photos, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def long(alone: Alone) -> Size:
    """A run of some minutes, however fast this machine is: by what epochs of a short one take here."""
    return Size(5, max(4 * SHORT.epochs, round(LONG_FOLD_SECONDS / alone.epoch_seconds(SHORT))), 3.0)
