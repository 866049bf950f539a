"""Every machine of a fleet examined: over SSH, so that one outside of Ray tells why it is, or through Ray itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import ValidationError

from coordinator.checks import Answer
from coordinator.config import Experiment
from coordinator.fleet_file import FleetFile
from coordinator.launch import Ask
from coordinator.measured import FILE
from coordinator.roster import Member, from_text
from shared_store.store import Store, open_store
from workers.examine import Question, examine, examine_for
from workers.examined import Examined
from workers.recipe import Recipe

SECONDS = 300.0
_ROSTER_SECONDS = 40.0
_MARK = "examined: "  # login shells print what they like around it
_ASKED = ("recipe", "recipes", "store", "fleet")


def to_text(examined: Examined) -> str:
    """One line for programs."""
    return _MARK + examined.model_dump_json()


def recipes_of(experiment: Experiment) -> dict[str, Recipe]:
    """By name; repeats are the same steps."""
    return {one.recipe_name: one.recipe for one in experiment.variants() if one.repeat == 0}


def question_of(experiment: Experiment, doors: Sequence[str]) -> Question:
    """What a machine is asked for this experiment."""
    return Question(recipes_of(experiment), experiment.fleet.threads, experiment.store.cache_folder, tuple(doors))


def examined_here(experiment: Experiment, with_store: bool, doors: Sequence[str]) -> Examined:
    """This machine."""
    url, address = experiment.store.url, experiment.fleet.address

    def opens() -> Store:
        if url.startswith("head://") and address is not None:
            from coordinator.cluster import begin_ray  # Ray takes seconds to load

            begin_ray(address)
        return open_store(url)

    return examine(question_of(experiment, doors), opens if with_store else None, Path.home())


def alone(experiment: Experiment, with_store: bool, doors: Sequence[str]) -> Answer:
    """The answer of this machine, which is asked by itself."""
    began = time.time()
    examined = examined_here(experiment, with_store, doors)
    return Answer(examined.host, examined, began, time.time())


def keep_here(text: str) -> None:
    """Keep what was measured for the coordinator that will run on this machine."""
    path = Path.home() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


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
        members = from_text(self.ask(self.fleet.provider.head_ip, "foldfleet machines --json", _ROSTER_SECONDS).output)
        alive = {member.address: member for member in members if member.alive}
        one = partial(self._one, experiment, alive, with_store)
        with ThreadPoolExecutor(max_workers=16) as threads:
            return list(threads.map(one, self.fleet.machines))

    def keep(self, text: str) -> None:
        """Keep what was measured on the head, for the coordinator that will run there."""
        command = f"mkdir -p ~/.foldfleet && printf %s {quote(text)} > ~/{FILE}"
        if (answer := self.ask(self.fleet.provider.head_ip, command, _ROSTER_SECONDS)).code:
            self.tell(f"the head does not keep what was measured: {answer.why}")

    def _one(self, experiment: Experiment, alive: Mapping[str, Member], with_store: bool, address: str) -> Answer:
        name = alive[address].name if address in alive else address
        doors = [door for member in alive.values() if member.address != address for door in member.doors]
        store = with_store and (address in alive or not experiment.store.url.startswith("head://"))
        words = command_words(experiment, with_store=store, doors=doors if address in alive else ())
        asked_at = self.clock()
        answer = self.ask(address, "foldfleet doctor --json " + " ".join(map(quote, words)), SECONDS)
        answered_at = self.clock()
        found = _read(answer.output)
        self.tell(f"  {name}: {'examined' if found is not None else 'no answer'} ({answered_at - asked_at:.0f} s)")
        if found is not None:
            named = name if address in alive else f"{found.host} ({address})"
            return Answer(named, found, asked_at, answered_at, in_fleet=address in alive)
        if answer.code == 255:
            mend = f"ssh -i {self.fleet.auth.ssh_private_key} {self.fleet.auth.ssh_user}@{address}"
            return Answer(name, None, failure=f"SSH: {answer.why}", mend=f"switch it on, and try: {mend}")
        mend = "foldfleet up cluster.yaml installs it there; then try `foldfleet doctor` on that machine"
        return Answer(name, None, failure=f"foldfleet does not run there: {answer.why}", mend=mend)


def command_words(experiment: Experiment, *, with_store: bool, doors: Sequence[str]) -> list[str]:
    """The arguments by which another machine is asked the same as this one."""
    given = experiment.model_dump(mode="json", include=set(_ASKED), exclude_defaults=True)
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


def _read(output: str) -> Examined | None:
    lines = [line for line in output.splitlines() if line.startswith(_MARK)]
    try:
        return Examined.model_validate_json(lines[-1].removeprefix(_MARK)) if lines else None
    except ValidationError:  # another version's
        return None


def through_ray(
    experiment: Experiment, with_store: bool, tell: Callable[[str], None], clock: Callable[[], float] = time.time
) -> list[Answer]:
    """Every machine that the head counts as alive, examined by a Ray task there; the head comes first."""
    import ray  # it takes seconds to load
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from coordinator.cluster import begin_ray
    from coordinator.joining import NAME

    assert experiment.fleet.address is not None
    begin_ray(experiment.fleet.address)
    head = ray.get_runtime_context().gcs_address.rpartition(":")[0]
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeManagerAddress"] != head)
    url = experiment.store.url if with_store else None
    asked: list[tuple[str, float, Any]] = []
    for node in nodes:
        doors = [door for other in nodes if other is not node for door in doors_of(other)]
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)(examine_for)
        name = node["Labels"].get(NAME, node["NodeManagerHostname"])
        named = task.options(name=f"doctor@{name}")
        asked.append((name, clock(), named.remote(question_of(experiment, doors), url)))
    tell(f"examining {len(asked)} machines: a minute or more ...")
    ray.wait([answer for *_, answer in asked], num_returns=len(asked), timeout=SECONDS)
    return [_fetched(name, at, answer, clock) for name, at, answer in asked]


def doors_of(node: Mapping[str, Any]) -> list[str]:
    """What every other machine must reach of one that Ray runs on."""
    return [f"{node['NodeManagerAddress']}:{node[port]}" for port in ("NodeManagerPort", "ObjectManagerPort")]


def _fetched(name: str, asked_at: float, answer: Any, clock: Callable[[], float]) -> Answer:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        return Answer(name, ray.get(answer, timeout=0), asked_at, clock(), in_fleet=True)
    except GetTimeoutError:
        return Answer(
            name, None, failure=f"no answer in {SECONDS:.0f} s", mend="look at that machine: is it busy, or cut off?"
        )
    except RayError as error:
        words = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Answer(name, None, failure=words, mend="run `foldfleet doctor` on that machine itself")
