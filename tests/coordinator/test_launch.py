"""`foldfleet up` and `down` around Ray's launcher: nobody is left out in silence, a fleet at work is left alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from coordinator.access import TOKEN
from coordinator.fleet_file import read_fleet_file
from coordinator.launch import ENDED, JOIN_LOG, Launcher, launch_by_ray
from coordinator.remote import Answer
from coordinator.roster import Member, to_text
from shared_store.errors import RunFailedError, UserError

HEAD, FIRST, SECOND = "10.0.0.1", "10.0.0.2", "10.0.0.3"
LOG = Path("up.log")
LAUNCHER_SAYS = """\
2026-11-24 21:55:27,230	VVINFO command_runner.py:401 -- Full command is `ssh -tt ...`
no room left on the disk
Shared connection to 10.78.0.1 closed.
Traceback (most recent call last):
  File "updater.py", line 172, in run
\x1b[39m
"""
FINE = Answer(0, "", "")


class Machines:
    """Three machines, Ray's launcher and a clock, all made up. Machines come one with each question."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = write_fleet_file(tmp_path)
        self.alive: list[str] = []
        self.coming = [HEAD, FIRST, SECOND]
        self.said: list[str] = []
        self.launched: list[tuple[Sequence[str], dict[str, str]]] = []
        self.launcher_ends = 0
        self.seconds = 0.0
        self.special: dict[tuple[str, str], Answer] = {}  # by address and the beginning of a command
        self.asked: list[tuple[str, str]] = []

    def ask(self, address: str, command: str, _seconds: float) -> Answer:
        self.asked.append((address, command))
        for (where, beginning), answer in self.special.items():
            if where == address and command.startswith(beginning):
                return answer
        if "machines --json" in command:
            return self.roster() if self.alive else Answer(1, "", "no Ray answers")
        return FINE

    def roster(self) -> Answer:
        members = [Member(address, "", address, address, alive=True) for address in self.alive]
        if self.coming and self.launched:
            self.alive.append(self.coming.pop(0))
        return Answer(0, f"Welcome!\n{to_text(members)}\n", "")

    def launch(self, arguments: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
        self.launched.append((arguments, environment))
        if self.coming and not self.launcher_ends:
            self.alive.append(self.coming.pop(0))
        return self.launcher_ends, LAUNCHER_SAYS

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def launcher(self) -> Launcher:
        fleet = read_fleet_file(self.path)
        return Launcher(
            self.path, fleet, self.ask, self.launch, LOG, self.said.append, lambda: self.seconds, self.sleep
        )


def write_fleet_file(folder: Path, **changes: object) -> Path:
    """The project's own cluster.yaml as three machines' owner would edit it."""
    given = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text())
    (folder / "key").touch()
    given["provider"] |= {"head_ip": HEAD, "worker_ips": [FIRST, SECOND]}
    given["auth"] |= {"ssh_private_key": str(folder / "key")}
    given["file_mounts"] = {"~/foldfleet/jobs": str(folder)}
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(given | changes))
    return path


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


def test_a_fleet_is_up_when_every_named_machine_is_there(machines: Machines, tmp_path: Path) -> None:
    machines.launcher().up(tmp_path, 60.0)
    arguments, environment = machines.launched[0]
    assert arguments[:2] == ["up", "-y"] and "--no-restart" not in arguments
    assert environment["RAY_UP_enable_autoscaler_v2"] == "0" and environment["RAY_AUTH_MODE"] == "token"
    assert (tmp_path / TOKEN).read_text() and machines.said[-1] == "3 of 3 machines are there"


def test_a_fleet_at_work_is_not_restarted(machines: Machines, tmp_path: Path) -> None:
    machines.alive, machines.coming = [HEAD, FIRST], [SECOND]
    machines.launcher().up(tmp_path, 60.0)
    assert "--no-restart" in machines.launched[0][0]


def test_who_does_not_come_is_named_with_the_reason_and_the_log(machines: Machines, tmp_path: Path) -> None:
    machines.coming = [HEAD]
    machines.special[FIRST, f"tail -n 8 {JOIN_LOG}"] = Answer(0, "looking\nthe token is another fleet's\n", "")
    machines.special[SECOND, ""] = Answer(255, "", "ssh: connect to host: No route to host")
    with pytest.raises(RunFailedError) as caught:
        machines.launcher().up(tmp_path, 10.0)
    text = str(caught.value)
    assert "2 of 3 machines did not come" in text and "No route to host" in text
    assert f"{FIRST}: the token is another fleet's" in text and f"{FIRST}:{JOIN_LOG}" in text and HEAD not in text
    assert any("No route to host" in line for line in machines.said)  # told before the long wait


def test_a_machine_that_never_began_to_join_is_told_of_from_the_heads_log(machines: Machines, tmp_path: Path) -> None:
    machines.coming = [HEAD, SECOND]
    machines.special[FIRST, "tail"] = Answer(1, "", "No such file or directory")
    machines.special[HEAD, "grep"] = Answer(0, "pip install failed there", "")
    with pytest.raises(RunFailedError, match="pip install failed there"):
        machines.launcher().up(tmp_path, 10.0)


@pytest.mark.parametrize("answer", [Answer(124, "", "no answer within 40 s"), Answer(255, "", "Connection reset")])
def test_a_fleet_whose_head_is_not_heard_is_not_restarted_either(
    machines: Machines, tmp_path: Path, answer: Answer
) -> None:
    machines.alive, machines.coming = [HEAD, FIRST], [SECOND]
    machines.special[HEAD, "foldfleet machines"] = answer
    with pytest.raises(UserError, match=f"does not say whether a fleet is at work: {answer.errors}"):
        machines.launcher().up(tmp_path, 60.0)
    assert not machines.launched


def test_a_head_that_cannot_say_who_is_there_is_no_empty_fleet(machines: Machines, tmp_path: Path) -> None:
    machines.special[HEAD, "foldfleet machines"] = Answer(1, "", "No module named 'jobs'")
    with pytest.raises(RunFailedError, match="cannot say who is there: No module named 'jobs'"):
        machines.launcher().up(tmp_path, 10.0)


def test_without_the_head_nothing_is_begun(machines: Machines, tmp_path: Path) -> None:
    machines.special[HEAD, "for needed"] = Answer(0, "it lacks rsync\n", "")
    with pytest.raises(UserError, match="it lacks rsync"):
        machines.launcher().up(tmp_path, 10.0)
    assert not machines.launched


def test_a_machine_whose_login_shell_greets_lacks_nothing(machines: Machines, tmp_path: Path) -> None:
    machines.special[HEAD, "for needed"] = Answer(0, "Welcome!\n", "")
    machines.launcher().up(tmp_path, 60.0)
    assert machines.launched and not any("Welcome" in line for line in machines.said)


def test_a_launcher_that_does_not_end_is_ended_and_told_of(tmp_path: Path) -> None:
    code, said = launch_by_ray(tmp_path / "logs" / "up.log", seconds=0.01)(["--help"], dict(os.environ))
    assert code == 124 and said.endswith("no end within 0 s: it was ended\n")


def test_a_launcher_that_fails_shows_what_the_machine_said(machines: Machines, tmp_path: Path) -> None:
    machines.launcher_ends = 1
    with pytest.raises(UserError, match="exit code 1:\n  no room left on the disk\n") as caught:
        machines.launcher().up(tmp_path, 10.0)
    assert str(LOG) in caught.value.mend


def test_down_stops_every_machine_and_names_those_that_it_cannot_reach(machines: Machines) -> None:
    machines.launcher().down()
    stopped = [address for address, command in machines.asked if "ray stop" in command]
    assert sorted(stopped) == [HEAD, FIRST, SECOND] and machines.launched[0][0][0] == "down"
    machines.special[SECOND, "ray stop"] = Answer(255, "", "no route")
    with pytest.raises(RunFailedError, match=f"{SECOND}: no route"):
        machines.launcher().down()


@pytest.mark.parametrize(("looks", "code", "words"), [(2, 0, ""), (99, 1, "still there: 7 raylet 8 python\n")])
def test_a_machine_is_stopped_when_nothing_is_left_that_ends_by_itself(
    tmp_path: Path, looks: int, code: int, words: str
) -> None:
    """`looks` at the processes see two; those who wait are not waited for here."""
    looked = tmp_path / "looked"
    looked.touch()
    for name, text in {
        "pgrep": f"echo look >> {looked}; test $(wc -l < {looked}) -le {looks} && printf '7 raylet\\n8 python\\n'",
        "sleep": "",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", ENDED], env={"PATH": path}, check=False, capture_output=True, text=True, timeout=30
    )
    assert (ran.returncode, ran.stdout) == (code, words)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"provider": {"type": "aws"}}, "Input should be 'local'"),
        ({"provider": {"type": "local", "head_ip": "192.0.2.10", "worker_ips": []}}, "is an example"),
        ({"provider": {"type": "local", "head_ip": HEAD, "worker_ips": [HEAD, FIRST]}}, "stands there twice"),
        ({"provider": {"type": "local", "head_ip": "tower", "worker_ips": []}}, "tower is a name"),
        ({"min_workers": 1}, "min_workers 1"),
        ({"auth": {"ssh_user": "me", "ssh_private_key": "/nowhere"}}, "there is no"),
        ({"file_mounts": {"~/foldfleet/jobs": "nowhere"}}, "there is no nowhere here"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        read_fleet_file(write_fleet_file(tmp_path, **changes))
    assert str(tmp_path / "cluster.yaml") in caught.value.where


def test_no_file_and_no_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_fleet_file(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot be read"):
        read_fleet_file(tmp_path / "bad.yaml")
