"""The machines of a cluster.yaml examined over SSH: one that is not in the fleet, or cannot be, tells why."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any

from coordinator.checks import Answer
from coordinator.config import Experiment
from coordinator.doctor import SECONDS, from_text
from coordinator.fleet_file import FleetFile
from coordinator.measured import FILE
from coordinator.remote import Answer as Said
from coordinator.remote import Ask
from coordinator.roster import Member, alive_there

_KEEP_SECONDS = 40.0
_USER_ERROR = re.compile(r"foldfleet doctor: (.*?)\n  where: (.*?)\n  mend:  ([^\n]*)", re.DOTALL)  # as it prints one
_ASKED = {"recipe", "recipes", "store", "fleet"}


@dataclass(frozen=True)
class OverSsh:
    """The machines of a cluster.yaml, each asked to examine itself by the command that a person would type there."""

    fleet: FleetFile
    ask: Ask
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.time

    def examined(self, experiment: Experiment, with_store: bool) -> list[Answer]:
        """An answer for every machine, the head's first."""
        self.tell(f"examining {len(self.fleet.machines)} machines: a minute or more ...")
        alive, of_head = alive_there(self.ask, self.fleet.provider.head_ip)
        if alive is None:
            self.tell(f"the head does not say who is in the fleet: {of_head.why}")
        one = partial(self._one, experiment, alive, with_store)
        with ThreadPoolExecutor(max_workers=16) as threads:
            return list(threads.map(one, self.fleet.machines))

    def keep(self, text: str) -> None:
        """Keep what was measured on the head, for the coordinator that will run there."""
        command = f"mkdir -p ~/.foldfleet && printf %s {quote(text)} > ~/{FILE}"
        if (answer := self.ask(self.fleet.provider.head_ip, command, _KEEP_SECONDS)).code:
            self.tell(f"the head does not keep what was measured: {answer.why}")

    def _one(
        self, experiment: Experiment, members: Mapping[str, Member] | None, with_store: bool, address: str
    ) -> Answer:
        alive, in_fleet = members or {}, None if members is None else address in members
        name = alive[address].name if address in alive else address
        doors = [door for member in alive.values() if member.address != address for door in member.doors]
        store = with_store and (address in alive or not experiment.store.url.startswith("head://"))
        words = command_words(experiment, with_store=store, doors=doors if address in alive else ())
        asked_at = self.clock()
        answer = self.ask(address, "foldfleet doctor --json " + " ".join(map(quote, words)), SECONDS)
        answered_at = self.clock()
        found = from_text(answer.output)
        self.tell(f"  {name}: {'examined' if found is not None else 'no answer'} ({answered_at - asked_at:.0f} s)")
        if found is not None:
            named = name if address in alive else f"{found.host} ({address})"
            return Answer(named, found, asked_at, answered_at, in_fleet=in_fleet)
        failure, mend = self._why(address, answer)
        return Answer(name, None, failure=failure, mend=mend)

    def _why(self, address: str, answer: Said) -> tuple[str, str]:
        """Why a machine gave no answer, and what to do about it."""
        if answer.code == 255:
            mend = f"ssh -i {self.fleet.auth.ssh_private_key} {self.fleet.auth.ssh_user}@{address}"
            return f"SSH: {answer.why}", f"switch it on, and try: {mend}"
        if answer.code == 124:
            return answer.why, "is it busy, or does its card hang? `foldfleet doctor` on that machine"
        if answer.code == 2 and (told := _USER_ERROR.search(answer.errors)):
            what, where, mend = map(str.strip, told.groups())
            return f"{what} ({where})", f"{mend} (on that machine)"
        mend = "foldfleet up cluster.yaml installs it there; then try `foldfleet doctor` on that machine"
        return f"foldfleet does not run there: {answer.why}", mend


def command_words(experiment: Experiment, *, with_store: bool, doors: Sequence[str]) -> list[str]:
    """The arguments by which another machine is asked the same as this one."""
    given = experiment.model_dump(mode="json", include=_ASKED, exclude_defaults=True)
    given.get("fleet", {}).pop("address", None)
    if not with_store:
        given.get("store", {}).pop("url", None)
    else:
        given.setdefault("store", {})["url"] = experiment.store.url
        if experiment.store.url.startswith("head://"):
            given.setdefault("fleet", {})["address"] = "auto"
    words = [f"--{key}={_word(value)}" for key, value in _flat(given)]
    return words + ([f"--reach={','.join(doors)}"] if doors else [])


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        inner = isinstance(value, dict) and value and (not prefix or prefix == "recipes.")
        flat += _flat(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return flat


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
