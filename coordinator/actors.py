"""The slots' actors: one long-lived Ray process each, hired on a machine, asked what it is worth, dismissed.

A slot takes no CPU in Ray's books (plan.py is the one placer, and Tune's trials find the CPUs free while slots idle), a
GPU where there is one, and is never restarted or retried by Ray: a slot that was dismissed gets a fresh process when it
is next hired.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.config import FleetSection, StoreSection
from coordinator.slots import Place as Where
from workers.run import Place
from workers.slot import Slot
from workers.tasks import Probed

PROBE_SECONDS = 90.0  # for a new actor, whose first task loads torch
ANSWER_SECONDS = 10.0  # for a value that Ray says is there
_ONE_TASK_AND_ONE_CALL = 2  # threads: reports and stops come while a task runs


@dataclass(frozen=True)
class Machine:
    """One Ray node as the ledger knows it. `gpus` is the share of a card that each slot takes."""

    name: str
    node: str
    slots: int
    gpus: float
    machine_id: str | None = None  # the same at any address; None where it did not come through `foldfleet join`
    until: float = math.inf  # unix seconds: its owner wants it back then


class Actors:
    """The processes at work, by their place."""

    def __init__(self, settings: FleetSection, store: StoreSection, cache_folder: str, single_committer: bool) -> None:
        self._settings, self._store = settings, store
        self._cache_folder, self._single_committer = cache_folder, single_committer
        self._slots: dict[Where, Any] = {}

    def at(self, machine: Machine, slot: int) -> Any:
        """The actor of a slot, a fresh one where there is none."""
        place = (machine.name, slot)
        if place not in self._slots:
            self._slots[place] = self._hired(machine, slot)
        return self._slots[place]

    def of(self, place: Where) -> Any | None:
        """The actor of a slot, if there is one."""
        return self._slots.get(place)

    def dismiss(self, place: Where) -> None:
        """End the process of a slot without a word."""
        slot = self._slots.pop(place, None)
        if slot is not None:
            ray.kill(slot, no_restart=True)

    def dismiss_all(self, machine: str | None = None) -> None:
        """End every process, or those of one machine."""
        for place in [place for place in self._slots if machine in (None, place[0])]:
            self.dismiss(place)

    def processes(self) -> list[int]:
        """Their process ids."""
        found: list[int] = ray.get([slot.process.remote() for slot in self._slots.values()], timeout=60.0)
        return found

    def _hired(self, machine: Machine, slot: int) -> Any:
        device = "cuda:0" if machine.gpus else "cpu"  # Ray shows a slot its own card only
        environment = {
            "OMP_NUM_THREADS": str(self._settings.threads),
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as Ray and the driver count cards; CUDA by itself does not
        }
        options = {
            "num_cpus": 0,
            "num_gpus": machine.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": _ONE_TASK_AND_ONE_CALL,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(machine.node, soft=False),
            "runtime_env": {"env_vars": environment},
        }
        place = Place(
            self._store.url,
            self._cache_folder,
            self._store.cache_gb,
            device,
            self._settings.threads,
            self._single_committer,
            self._store.upload_share,
            60 * self._settings.orphan_minutes,
        )
        # Without a name in Ray's books, which is asked of the head and waited for: it may be away.
        return ray.remote(Slot).options(**options).remote(place, name=f"slot{slot}@{machine.name}")


@dataclass(frozen=True)
class _Question:
    answer: Any
    deadline: float
    place: Where


class Probes:
    """Probes under way, of the first slot of a machine each. What does not pass is dismissed with its process."""

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._asked: dict[str, _Question] = {}

    def ask(self, machine: Machine, *, timed: bool) -> None:
        """Begin to probe a machine that nothing runs on; `timed`: measure its speed too."""
        answer = self._actors.at(machine, 0).probe.remote(machine.slots, machine.gpus, timed)
        self._asked[machine.name] = _Question(answer, time.monotonic() + PROBE_SECONDS, (machine.name, 0))

    def forget(self, machine: str) -> None:
        self._asked.pop(machine, None)

    def answers(self) -> list[tuple[str, Probed]]:
        """What was found of which machine since the last call; no answer in time is an answer."""
        found = []
        for machine, question in list(self._asked.items()):
            if ray.wait([question.answer], timeout=0)[0]:
                found.append((machine, _answered(question.answer)))
            elif time.monotonic() > question.deadline:
                found.append((machine, Probed(False, f"no answer in {PROBE_SECONDS:.0f} s")))
        for machine, probed in found:
            question = self._asked.pop(machine)
            if not probed.passed:
                self._actors.dismiss(question.place)
        return found


def first_line(error: RayError) -> str:
    """What Ray says went wrong, without its long advice."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _answered(answer: Any) -> Probed:
    try:
        probed: Probed = ray.get(answer, timeout=ANSWER_SECONDS)
    except RayError as error:
        return Probed(False, first_line(error))
    return probed
