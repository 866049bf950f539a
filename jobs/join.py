"""This machine joins a fleet's cluster, or begins it with --head."""

from __future__ import annotations

import datetime
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from coordinator import joining
from coordinator.access import environment_to_join
from coordinator.joining import Door, RayCommands
from jobs.console import command, done
from shared_store.errors import UserError
from workers.identity import machine_id
from workers.probe import LABELS


@dataclass(frozen=True)
class Join:
    """This machine joins the cluster at HOST:PORT, or begins one with --head."""

    address: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[HOST:PORT]")] = ""
    head: bool = False
    """Begin the cluster here."""
    name: str = ""
    """What the fleet calls this machine (its host name)."""
    until: str | None = None
    """The time of day when it leaves, such as 18:00."""
    labels: str | None = None
    """Words for rules on placement, such as quiet,attic."""
    node_ip: str | None = None
    """This machine's address, where the one towards the head is not right."""
    cpus: int | None = None
    gpus: int | None = None
    port: int = 6379
    dashboard_host: str = "127.0.0.1"
    autoscaling_config: str | None = None
    keep: bool = False
    """Leave this machine as it is where it is in that fleet already; else end what Ray runs here first."""
    redis: str | None = None
    """With --head: HOST:PORT of a Redis on another machine, by which a lost head comes back to a fleet at work."""


def main(arguments: Sequence[str]) -> int:
    return command("join", _join, arguments)


def _join(arguments: Sequence[str]) -> None:
    kind = tyro.conf.FlagCreatePairsOff[Join]
    given: Join = tyro.cli(kind, prog="foldfleet join", description=__doc__, args=list(arguments))
    if given.head == bool(given.address):
        raise UserError("say either HOST:PORT or --head", where="foldfleet join", mend="foldfleet join HEAD:6379")
    name = joining.checked_name(given.name or socket.gethostname())
    if given.redis and not given.head:
        raise UserError("only the head has a Redis", where="--redis", mend="leave it out here")
    until = joining.deadline(given.until, datetime.datetime.now().astimezone()) if given.until else None
    environment = environment_to_join(Path.home(), begins=given.head)
    if given.labels is not None:
        environment[LABELS] = given.labels
    node_ip = _node_ip(given)
    door = Door(
        head=given.address or None,
        machine=machine_id(Path.home() / ".foldfleet"),
        name=name,
        node_ip=node_ip,
        until=until,
        cpus=given.cpus,
        gpus=given.gpus,
        port=given.port,
        dashboard_host=given.dashboard_host,
        autoscaling_config=given.autoscaling_config,
        keep=given.keep,
        redis_password=joining.with_redis(given.redis, environment) if given.redis else None,
    )
    joining.enter(door, RayCommands(environment), print)
    step = f"machines {given.address}" if given.address else f"join {node_ip}:{given.port}, on each other machine"
    done(f"{name} ({node_ip}) is in the fleet", f"foldfleet {step}")


def _node_ip(given: Join) -> str:
    if given.head:
        launchers = given.autoscaling_config
        return given.node_ip or (launchers and joining.address_in(launchers)) or joining.outward_address()
    print(f"asking {given.address} ...", flush=True)
    towards = joining.own_address(given.address)  # also a look whether anybody is there
    return given.node_ip or towards


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
