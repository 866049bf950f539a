"""A fleet with planted faults: the doctor names all of them and nothing else, and nothing once they are mended."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.cables import ip
from fleet.operator import Operator
from fleet.test_stores import store_on

from coordinator.measured import FILE, read_measured

CACHE = "/root/.cache/foldfleet"
OTHER_PYTHON = "/usr/bin/python3"
GTX_1060 = "0, NVIDIA GeForce GTX 1060 6GB, 6.1, 580.95, 6144, 81, 43, GPU-1"
_ROW = re.compile(r"(fail|warn)\s+(\S+(?: \S+)?)\s{2,}(\S+)\s{2,}(\S.*)")


def look(operator: Operator, where: str, store: str) -> subprocess.CompletedProcess[str]:
    words = ["foldfleet", "doctor", where, "--config", "configs/tiny.yaml", "--store", store]
    return operator.run(words, COLUMNS="200")


def wrong(said: str) -> set[tuple[str, str, str]]:
    """(state, check, machine) of every line that is not ok."""
    return {found.groups()[:3] for line in said.splitlines() if (found := _ROW.match(line))}  # type: ignore[misc]


@contextlib.contextmanager
def another_python(operator: Operator, host: str) -> Iterator[None]:
    """Its environment is one of this machine's other Python."""
    environment = operator.lab.home(host) / "foldfleet-env"
    own, settings = (environment / "bin/python").readlink(), (environment / "pyvenv.cfg").read_text()
    operator.lab.run(host, "ln", "-sf", OTHER_PYTHON, "/root/foldfleet-env/bin/python")
    (environment / "pyvenv.cfg").write_text(f"home = {Path(OTHER_PYTHON).parent}\n")
    yield
    operator.lab.run(host, "ln", "-sf", str(own), "/root/foldfleet-env/bin/python")
    (environment / "pyvenv.cfg").write_text(settings)


def _packages(operator: Operator, host: str) -> Path:
    """Of its own environment, which come before those that all hosts share."""
    return next(operator.lab.home(host).glob("foldfleet-env/lib/python3*/site-packages"))


@contextlib.contextmanager
def another_torch(operator: Operator, host: str) -> Iterator[None]:
    """What its own environment has installed as torch comes before what all share."""
    installed = _packages(operator, host) / "torch-2.9.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1\n")
    yield
    shutil.rmtree(installed)


@contextlib.contextmanager
def no_disk(operator: Operator, host: str) -> Iterator[None]:
    operator.lab.small_disk(host, CACHE, 20)
    operator.lab.fill(host, CACHE)
    yield
    operator.lab.run(host, "umount", "-l", CACHE)


@contextlib.contextmanager
def no_way(operator: Operator, host: str, to: str) -> Iterator[None]:
    """A firewall: its own SSH reaches nobody at `to`, all else goes through."""
    namespace = operator.lab.hosts[host].cable.namespace
    rule = ("to", to, "ipproto", "tcp", "dport", "22", "unreachable")
    ip("-n", namespace, "rule", "add", *rule)
    yield
    ip("-n", namespace, "rule", "del", *rule)


@contextlib.contextmanager
def clock_an_hour_fast(operator: Operator, host: str) -> Iterator[None]:
    """For its own environment's Python: hosts of one kernel have one clock."""
    shift = _packages(operator, host) / "sitecustomize.py"
    shift.write_text("import time\n\nright = time.time\ntime.time = lambda: right() + 3600.0\n")
    yield
    shift.unlink()


@contextlib.contextmanager
def card_that_torch_has_no_code_for(operator: Operator, host: str) -> Iterator[None]:
    """A driver that tells of a GTX 1060, in place of one."""
    program = operator.lab.home(host) / "foldfleet-env/bin/nvidia-smi"
    program.write_text(f'#!/bin/sh\ncase "$1" in --query-gpu*) echo "{GTX_1060}";; esac\n')
    program.chmod(0o755)
    yield
    program.unlink()


def _other_python() -> bool:
    """Whether this machine has a second Python for which the packages of this one were built."""
    if not Path(OTHER_PYTHON).exists():
        return False
    said = subprocess.run([OTHER_PYTHON, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    mine = platform.python_version()
    return said != mine and said.split(".")[:2] == mine.split(".")[:2]


@pytest.mark.timeout(600)
def test_all_planted_faults_are_named_and_nothing_else(operator: Operator) -> None:
    if not _other_python():
        pytest.skip(f"{OTHER_PYTHON} is no other Python with this one's packages: 3.{sys.version_info.minor}.x")
    store = store_on(operator, "head", "doctor")
    with contextlib.ExitStack() as planted:
        planted.enter_context(another_python(operator, "a"))
        planted.enter_context(no_way(operator, "a", operator.lab.address("head")))
        planted.enter_context(another_torch(operator, "b"))
        planted.enter_context(no_disk(operator, "b"))
        planted.enter_context(clock_an_hour_fast(operator, "c"))
        planted.enter_context(card_that_torch_has_no_code_for(operator, "c"))
        ill = look(operator, str(operator.cluster), store)
    assert wrong(ill.stdout) == {
        ("fail", "Python", "a"),
        ("fail", "store", "a"),
        ("fail", "torch", "b"),
        ("fail", "disk", "b"),
        ("fail", "clock", "c"),
        ("fail", "card", "c"),
    }, ill.stdout + ill.stderr
    assert ill.returncode == 2 and "6 fail, 0 warn" in ill.stderr
    assert "sm_61" in ill.stdout and "+cu126" in ill.stdout
    well = look(operator, str(operator.cluster), store)
    assert well.returncode == 0 and wrong(well.stdout) == set(), well.stdout + well.stderr
    measured = read_measured(operator.lab.home("head"))
    assert {one.name for one in measured.machines.values()} == set(operator.lab.hosts)
    assert all(one.steps and one.link_mb_per_second for one in measured.machines.values())


@pytest.mark.timeout(300)
def test_machines_are_examined_through_ray_too(operator: Operator) -> None:
    operator.lab.run("head", "rm", "-f", f"/root/{FILE}")
    command = "foldfleet doctor auto --config foldfleet/configs/tiny.yaml --store head:///root/stores/doctor"
    ran = operator.on("head", command, 250.0)
    assert ran.returncode == 0 and "4 machines examined: 0 fail, 0 warn" in ran.stdout, ran.stdout + ran.stderr
    assert len(read_measured(operator.lab.home("head")).machines) == 4
