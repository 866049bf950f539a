"""The machines of a fleet examined by Ray tasks: also those that joined by themselves, where no SSH leads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.actors import first_line
from coordinator.checks import Answer
from coordinator.cluster import begin_ray
from coordinator.config import Experiment
from coordinator.doctor import SECONDS, keep_here, question_of
from coordinator.joining import NAME
from coordinator.roster import doors_of
from shared_store.errors import UserError
from workers.examine import examine_for

_ITSELF = "run `foldfleet doctor` on that machine itself"


@dataclass(frozen=True)
class ThroughRay:
    """Every machine that the head at `address` counts as alive. This process joins its cluster, and stays in it."""

    address: str
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.time

    def examined(self, experiment: Experiment, with_store: bool) -> list[Answer]:
        """An answer for every machine, the head's first."""
        begin_ray(self.address)
        head = ray.get_runtime_context().gcs_address.rpartition(":")[0]
        alive = [node for node in ray.nodes() if node["Alive"]]
        asked: list[tuple[str, float, Any]] = []
        for node in sorted(alive, key=lambda node: node["NodeManagerAddress"] != head):
            name = node["Labels"].get(NAME, node["NodeManagerHostname"])
            doors = [door for other in alive if other is not node for door in doors_of(other)]
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)(examine_for)
            url = experiment.store.url if with_store else None
            answer = task.options(name=f"doctor@{name}").remote(question_of(experiment, doors), url)
            asked.append((name, self.clock(), answer))
        self.tell(f"examining {len(asked)} machines: a minute or more ...")
        ray.wait([answer for *_, answer in asked], num_returns=len(asked), timeout=SECONDS)
        return [self._fetched(*one) for one in asked]

    def keep(self, text: str) -> None:
        """Here: the coordinator is to run where this does."""
        keep_here(text)

    def _fetched(self, name: str, asked_at: float, answer: Any) -> Answer:
        try:
            return Answer(name, ray.get(answer, timeout=0), asked_at, self.clock(), in_fleet=True)
        except GetTimeoutError:
            mend = "look at that machine: is it busy, or cut off?"
            return Answer(name, None, failure=f"no answer in {SECONDS:.0f} s", mend=mend)
        except RayTaskError as error:
            what, mend = why_it_failed(error)
            return Answer(name, None, failure=what, mend=mend)
        except RayError as error:
            return Answer(name, None, failure=first_line(error), mend=_ITSELF)


def why_it_failed(error: RayTaskError) -> tuple[str, str]:
    """What went wrong in an examination, and what to do: Ray's own first line says but where it ran."""
    cause = error.cause
    if isinstance(cause, UserError):
        return f"{cause.what} ({cause.where})", cause.mend
    return f"{type(cause).__name__}: {cause}", _ITSELF
