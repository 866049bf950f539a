"""Who is in a fleet: the machines that its head counts as alive, and those that it lost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from coordinator.roster import roster, to_text
from jobs.console import command, done, terminal


@dataclass(frozen=True)
class Machines:
    head: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[HEAD:6379]")] = "auto"
    """The head's address; on a machine of the fleet it is found."""
    json: bool = False
    """One line for programs."""


def main(arguments: Sequence[str]) -> int:
    return command("machines", _machines, arguments)


def _machines(arguments: Sequence[str]) -> None:
    kind = tyro.conf.FlagCreatePairsOff[Machines]
    given: Machines = tyro.cli(kind, prog="foldfleet machines", description=__doc__, args=list(arguments))
    members = roster(given.head)
    if given.json:
        print(to_text(members))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("machine", "address", "state", "id"):
        table.add_column(column)
    for member in sorted(members, key=lambda member: (not member.alive, member.name)):
        table.add_row(member.name, member.address, "alive" if member.alive else "lost or gone", member.machine_id)
    terminal().print(table)
    done(f"{sum(member.alive for member in members)} machines are in the fleet", f"foldfleet doctor {given.head}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
