"""Who is in a fleet's Ray, and who is let go: asked of its head without joining it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coordinator.access import TOKEN, enter_fleet
from coordinator.joining import ID, NAME, answering
from coordinator.remote import Answer, Ask, marked, what_it_says
from shared_store.errors import UserError

_MARK = "machines"
_ASK_SECONDS = 60.0  # a busy head takes its time to load Ray
_LATER = "try again in a minute"


@dataclass(frozen=True)
class Member:
    """One Ray node. `machine_id` and `name` are what `foldfleet join` gave it; else there are none and its host's."""

    node: str
    machine_id: str
    name: str
    address: str
    alive: bool
    doors: tuple[str, ...] = ()  # "HOST:PORT", what every other machine must reach
    head: bool = False


_MEMBERS = TypeAdapter(list[Member])  # of another version it takes what it knows


def roster(address: str) -> list[Member]:
    """The nodes that the head at `address` (host:port, or `auto`) knows of, dead ones too. UserError if none answers.

    For a command's main thread and once in a process: Ray reads its variables when it is imported.
    """
    enter_fleet(os.environ, Path.home())
    from ray._private.internal_api import get_state_from_address
    from ray.exceptions import RaySystemError

    head = head_address(address)
    mend = "name the head as HOST:6379, or begin the fleet: foldfleet up cluster.yaml"
    if not head:
        raise UserError("no Ray was begun", where="this machine", mend=mend)
    answering(head, "no Ray answers", mend)  # Ray's own client waits most of a minute to find out
    state = get_state_from_address(head)
    try:
        return [_member(node) for node in state.node_table()]
    except RaySystemError as error:
        mend = f"copy the head's {TOKEN} to this machine, and use the head's version of Ray"
        raise UserError("the head does not let this machine ask", where=head, mend=mend) from error
    finally:
        state.disconnect()


def head_address(address: str) -> str:
    """HOST:PORT of the head; `auto`: of the Ray that was begun on this machine, or nothing."""
    if address != "auto":
        return address
    enter_fleet(os.environ, Path.home())  # before Ray is imported, which reads its variables then
    from ray._private.utils import read_ray_address

    return read_ray_address() or ""


def let_go(address: str, node: str, until: float, why: str) -> None:
    """Have the head at `address` (host:port) take a node back at `until`, unix seconds.

    Ray starts nothing there from now on, and ends the node when nothing of Ray's is left on it, which may be never:
    see `end_node`. A driver that uses the node sees that it drains, and has its folds leave in time. UserError where
    the head does not do it.
    """
    import ray._raylet
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    with _explained(address):
        client = vars(ray._raylet)["GcsClient"]  # its stub does not tell of it
        taken, refusal = client(address=address).drain_node(node, reason, why, int(until * 1000))
    if not taken:
        raise UserError(f"the head does not let the machine go: {refusal}", where=address, mend=_LATER)


def end_node(address: str, node: str) -> None:
    """Have the head at `address` (host:port) end a node at once, whatever is left on it. UserError if it does not."""
    import ray._raylet

    with _explained(address):
        vars(ray._raylet)["GcsClient"](address=address).drain_nodes([bytes.fromhex(node)])


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Whatever Ray raises where a head does not answer, as a UserError."""
    from ray.exceptions import RayError

    try:
        yield
    except (RuntimeError, RayError) as error:
        raise UserError(f"the head does not do what is asked: {error}", where=address, mend=_LATER) from error


def to_text(members: Sequence[Member]) -> str:
    """One line for programs."""
    return marked(_MARK, json.dumps([asdict(member) for member in members]))


def from_text(output: str) -> list[Member]:
    """What a process printed that was asked for such a line; nothing where it failed."""
    said = what_it_says(_MARK, output)
    return [] if said is None else _MEMBERS.validate_json(said)


def alive_there(ask: Ask, head: str) -> tuple[dict[str, Member] | None, Answer]:
    """Who is in a fleet, by address, asked of its head over SSH; nobody where no Ray runs there. And its answer.

    None where it was not heard: that says nothing of a fleet at work.
    """
    answer = ask(head, "foldfleet machines --json", _ASK_SECONDS)
    alive = {member.address: member for member in from_text(answer.output) if member.alive}
    return None if answer.unheard else alive, answer


def doors_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """What every other machine must reach of a node, as HOST:PORT."""
    return tuple(f"{node['NodeManagerAddress']}:{node[port]}" for port in ("NodeManagerPort", "ObjectManagerPort"))


def _member(node: dict[str, Any]) -> Member:
    from shared_store.head import HEAD_RESOURCE  # Ray is imported already

    labels = node["Labels"]
    return Member(
        node["NodeID"],
        labels.get(ID, ""),
        labels.get(NAME, node["NodeManagerHostname"]),
        node["NodeManagerAddress"],
        node["Alive"],
        doors_of(node),
        head=HEAD_RESOURCE in node["Resources"],
    )
