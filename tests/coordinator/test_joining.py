"""What a machine asks before it joins, and how long it waits for the head."""

from __future__ import annotations

import datetime
import os
import platform
import socket
from dataclasses import replace
from importlib.metadata import version

import pytest

from coordinator.joining import Door, RayCommands, Told, deadline, enter, own_address, with_redis
from shared_store.errors import UserError

DOOR = Door(head="192.0.2.1:6379", machine="ab" * 8, name="attic", node_ip="192.0.2.7", until=1234.5, cpus=2)


class Script:
    """A Ray whose head says `answers` one after the other, the last for ever; and a clock that only sleep moves."""

    def __init__(self, *alive: dict[str, dict[str, str]], ray: str = version("ray")) -> None:
        self.answers = [Told(ray, platform.python_version(), one) for one in alive]
        self.started: list[list[str]] = []
        self.time = 0.0
        self.node_here = ""

    def start(self, words: list[str]) -> None:
        self.started.append(words)

    def stop(self) -> None:
        self.started.append(["stop"])

    def runs(self, node: str) -> bool:
        return node == self.node_here

    def ask(self, head: str) -> Told:
        assert head == "192.0.2.1:6379"
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_a_machine_waits_for_its_new_node_and_not_for_the_one_it_was_before() -> None:
    mine = {"foldfleet-id": DOOR.machine}
    script = Script({"old": mine}, {"old": mine}, {"old": mine, "new": mine})
    told: list[str] = []
    enter(DOOR, script, told.append, script.now, script.sleep)
    assert script.time == 2.0
    assert any("attic" in line for line in told)
    [words] = script.started
    assert "--labels=foldfleet-id=abababababababab,foldfleet-name=attic,foldfleet-until=1234" in words
    assert {"--address=192.0.2.1:6379", "--node-ip-address=192.0.2.7", "--num-cpus=2"} <= set(words)
    assert not any(word.startswith("--num-gpus") for word in words)


def test_a_machine_at_work_in_the_fleet_is_kept_and_any_other_ends_its_ray_first() -> None:
    mine = {"foldfleet-id": DOOR.machine}
    door = replace(DOOR, keep=True)
    at_work = Script({"mine": mine, "other": {}})
    at_work.node_here = "mine"
    enter(door, at_work, print, at_work.now, at_work.sleep)
    assert at_work.started == []
    for here in ("", "of another fleet"):  # it was switched off and is counted alive; or it is elsewhere
        script = Script({"mine": mine}, {"mine": mine, "new": mine})
        script.node_here = here
        enter(door, script, print, script.now, script.sleep)
        assert script.started == [["stop"], DOOR.line()]


def test_other_versions_are_refused_before_ray_starts() -> None:
    script = Script({}, ray="1.0")
    with pytest.raises(UserError, match=r"the head 1\.0"):
        enter(DOOR, script, print, script.now, script.sleep)
    assert not script.started


def test_a_head_that_never_sees_the_machine_is_named_after_a_minute() -> None:
    script = Script({"other": {"foldfleet-id": "cd" * 8}})
    with pytest.raises(UserError, match="does not see attic") as caught:
        enter(DOOR, script, print, script.now, script.sleep)
    assert caught.value.where == DOOR.head


def test_the_address_is_the_one_towards_the_head() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert own_address(f"127.0.0.1:{port}") == "127.0.0.1"
    for nobody in (f"127.0.0.1:{port}", "nothing", "127.0.0.1:999999"):
        with pytest.raises(UserError, match="no head answers"):
            own_address(nobody)


def test_a_head_keeps_its_books_in_a_redis_that_answers() -> None:
    environment = {"RAY_REDIS_PASSWORD": "secret"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        password = with_redis(address, environment)
    assert environment["RAY_REDIS_ADDRESS"] == address
    words = Door(None, DOOR.machine, DOOR.name, DOOR.node_ip, redis_password=password).line()
    assert {"--head", "--redis-password=secret"} <= set(words)
    with pytest.raises(UserError, match="no Redis answers"):
        with_redis(address, {})


def test_a_start_that_fails_does_not_print_the_password() -> None:
    words = ["no-such-command", "--redis-password=secret"]  # so that nothing begins
    with pytest.raises(UserError, match="ray start did not succeed") as caught:
        RayCommands(dict(os.environ)).start(words)
    assert "secret" not in str(caught.value)


def test_a_time_that_has_passed_today_is_tomorrows() -> None:
    now = datetime.datetime(2026, 1, 1, 17, 0, tzinfo=datetime.UTC)
    assert deadline("18:00", now) - now.timestamp() == 3600
    assert deadline("16:00", now) - now.timestamp() == 23 * 3600
    with pytest.raises(UserError, match="no time of day"):
        deadline("soon", now)
