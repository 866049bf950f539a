"""Begin the fleet that a cluster.yaml names, and say which machine did not come, and why."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from coordinator.fleet_file import read_fleet_file
from coordinator.launch import Launcher, launch_by_ray
from coordinator.remote import remote_of
from jobs.console import command, done


@dataclass(frozen=True)
class Up:
    cluster: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="[CLUSTER.YAML]")] = Path("cluster.yaml")
    """The fleet's file."""
    wait_seconds: float = 300.0
    """How long to wait for the machines once the head is there."""


def main(arguments: Sequence[str]) -> int:
    return command("up", _up, arguments)


def launcher(path: Path, log: str) -> Launcher:
    """The fleet of a file, and Ray's launcher with a log of its own."""
    fleet = read_fleet_file(path)
    path_of_log = Path.home() / ".foldfleet" / log
    return Launcher(path, fleet, remote_of(fleet).run, launch_by_ray(path_of_log), path_of_log, print)


def _up(arguments: Sequence[str]) -> None:
    given = tyro.cli(Up, prog="foldfleet up", description=__doc__, args=list(arguments))
    of_file = launcher(given.cluster, "up.log")
    of_file.up(Path.home(), given.wait_seconds)
    path = quote(str(given.cluster))
    step = f"foldfleet doctor {path} --store head:///home/USER/store"
    done(f"all {len(of_file.fleet.machines)} machines of {of_file.fleet.cluster_name} are there", step)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
