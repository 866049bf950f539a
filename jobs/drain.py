"""A machine of the fleet is wanted back: its folds commit and move on, then it is let go."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from coordinator.roster import Member, end_node, head_address, let_go, roster
from jobs.console import command, done
from shared_store.errors import RunFailedError, UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_GRACE_SECONDS = 30.0  # for Ray to end a node whose time is up, and to say so
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Drain:
    machine: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MACHINE")]
    """Its name, as `foldfleet machines` has it, or its address."""
    within: Annotated[str, tyro.conf.arg(name="in", metavar="30s|10m|2h")] = "10m"
    """How long it may stay, to bring what it does to an end."""
    head: Annotated[str, tyro.conf.arg(metavar="HEAD:6379")] = "auto"
    """The head's address; on a machine of the fleet it is found."""


def main(arguments: Sequence[str]) -> int:
    return command("drain", _drain, arguments)


def _drain(arguments: Sequence[str]) -> None:
    given = tyro.cli(Drain, prog="foldfleet drain", description=__doc__, args=list(arguments))
    seconds = _seconds(given.within)
    head = head_address(given.head)
    member = _found(given.machine, [one for one in roster(head) if one.alive], head)
    let_go(head, member.node, time.time() + seconds, "its owner wants it back")
    print(f"{member.name} takes nothing new; what it does leaves it within {given.within}", flush=True)
    due, ended = time.monotonic() + seconds, False
    while any(one.node == member.node and one.alive for one in roster(head)):
        if time.monotonic() > due + _GRACE_SECONDS:
            raise RunFailedError(f"{member.name} is still in the fleet\nnext: `ray stop` there; its commits are safe")
        if time.monotonic() > due and not ended:
            end_node(head, member.node)
            ended = True
        time.sleep(_LOOK_SECONDS)
    done(f"{member.name} has left the fleet", f"there: `ray stop` ends what Ray left; or `foldfleet join {head}`")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise UserError(f"{text!r} is no time", where="--in", mend="write it like 30s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _found(machine: str, members: Sequence[Member], head: str) -> Member:
    found = [one for one in members if machine in (one.name, one.address)]
    if len(found) != 1:
        what = f"{len(found) or 'no'} machines of the fleet are called {machine}"
        raise UserError(what, where=head, mend=f"one of: {', '.join(f'{one.name} ({one.address})' for one in members)}")
    if found[0].head:
        mend = "end the run with Ctrl-C, then: foldfleet down cluster.yaml"
        raise UserError("the head holds the fleet together and cannot leave it", where=machine, mend=mend)
    return found[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
