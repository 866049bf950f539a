"""Stop Ray on every machine that a cluster.yaml names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from jobs.console import command, done
from jobs.up import launcher


@dataclass(frozen=True)
class Down:
    cluster: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="[CLUSTER.YAML]")] = Path("cluster.yaml")
    """The fleet's file."""


def main(arguments: Sequence[str]) -> int:
    return command("down", _down, arguments)


def _down(arguments: Sequence[str]) -> None:
    given = tyro.cli(Down, prog="foldfleet down", description=__doc__, args=list(arguments))
    of_file = launcher(given.cluster, "down.log")
    of_file.down()
    what = f"Ray is stopped on {len(of_file.fleet.machines)} machines; stores and commits stay where they are"
    done(what, f"foldfleet up {quote(str(given.cluster))}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
