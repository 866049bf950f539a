"""The lab itself: its hosts do what the tests of the fleet take for granted."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from fleet.lab import ENVIRONMENT, ROOT, HostKind, Lab, links, missing, running_lab


def answers(lab: Lab, host: str) -> bool:
    return subprocess.run(lab.ssh_line(host, "true"), capture_output=True, check=False).returncode == 0


@pytest.fixture
def pair(tmp_path: Path) -> Lab:
    """Two hosts that a test makes and removes."""
    if lacks := missing():
        pytest.skip(f"no lab of real hosts on this machine: it lacks {', '.join(lacks)}")
    return Lab(tmp_path / "lab", {"one": HostKind(1, 1.0), "two": HostKind(2, 1.0, 300)})


def test_hosts_do_what_the_tests_of_the_fleet_take_for_granted(pair: Lab) -> None:
    try:
        pair.make()
        assert pair.run("one", "hostname") == "one\n"
        shown = [".venv"] if ENVIRONMENT == ROOT / ".venv" else []
        assert pair.run("one", "ls", "-A", str(ROOT)).split() == shown  # the checkout is hidden
        _cables(pair)
        _power(pair)
        _limits(pair)
    finally:
        pair.remove()


def _cables(pair: Lab) -> None:
    pair.cut("two")
    assert not answers(pair, "two")
    pair.heal("two")
    assert answers(pair, "two")
    pair.slow_link("two", 20.0, 20.0, 1.0)
    assert answers(pair, "two")
    pair.heal("two")


def _power(pair: Lab) -> None:
    pair.run("two", "touch", "/root/kept", "/dev/shm/gone")
    pair.kill("two", silent=True)
    assert not pair.hosts["two"].limits.processes() and not answers(pair, "two")
    pair.boot("two", number=9)
    assert pair.address("two").endswith(".9") and answers(pair, "two")
    assert pair.run("two", "ls", "/root", "/dev/shm").split() == ["/dev/shm:", "/root:", "kept"]


def _limits(pair: Lab) -> None:
    pair.freeze("two")
    assert not answers(pair, "two")
    pair.thaw("two")
    assert answers(pair, "two")
    hungry = "import sys; bytearray(1000 * 2**20); sys.exit(0)"
    ran = subprocess.run(pair.hosts["two"].within(["python3", "-c", hungry]), capture_output=True, check=False)
    assert ran.returncode in (-9, 137)
    pair.small_disk("two", "/root/small", 2)
    pair.fill("two", "/root/small")
    line = pair.hosts["two"].within(["cp", "/etc/hosts", "/root/small/more"])
    assert b"No space left" in subprocess.run(line, capture_output=True, check=False).stderr


def test_nothing_is_left_of_a_lab(tmp_path: Path) -> None:
    if lacks := missing():
        pytest.skip(f"no lab of real hosts on this machine: it lacks {', '.join(lacks)}")
    before = links()
    with running_lab(tmp_path / "lab", {"one": HostKind(1, 1.0)}) as lab:
        limits, name = lab.hosts["one"].limits, lab.switch.lab
        assert links() > before and limits.processes()
    time.sleep(0.2)
    assert links() == before and not limits.processes() and not any(folder.exists() for folder in limits.folders)
    assert name not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
