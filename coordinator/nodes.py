"""What a fleet's head says of its nodes, asked without waiting for a head that is away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Any

import ray
from ray._private.state import state as ray_state
from ray.exceptions import RayError

log = logging.getLogger(__name__)
WAIT_SECONDS = 2.0
_AWAY = "does not answer: machines go on with what they do; with Redis it may come back (docs/operating.md)"


@dataclass(frozen=True)
class Seen:
    """Ray's nodes by id, and those that it takes back: until when, in milliseconds of the wall clock, or 0."""

    nodes: Mapping[str, dict[str, Any]]
    draining: Mapping[str, int]


def of_ray() -> Seen:
    """As Ray's own calls have it: they wait for the head, for minutes where it has lost its power."""
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    return Seen(nodes, ray_state.get_draining_nodes())


class Looks:
    """Looks at the nodes, one at a time, each in a thread of its own. Of a head that is away only the first waits."""

    def __init__(self, ask: Callable[[], Seen] = of_ray, wait_seconds: float = WAIT_SECONDS) -> None:
        self._ask, self._wait_seconds = ask, wait_seconds
        self._under_way: Future[Seen] | None = None
        self._away = False

    def look(self) -> Seen | None:
        """What Ray says now; None where its head does not answer in time: nothing is known then."""
        seen = self._looked()
        if (seen is None) != self._away:
            self._away = seen is None
            log.warning("the head %s", _AWAY if self._away else "answers again")
        return seen

    def _looked(self) -> Seen | None:
        if self._under_way is None:
            self._under_way = Future()
            Thread(target=self._fill, args=(self._under_way,), name="nodes", daemon=True).start()
        if not wait([self._under_way], 0.0 if self._away else self._wait_seconds).done:
            return None
        answer, self._under_way = self._under_way, None
        try:
            return answer.result()
        except RayError:  # the head went away in the middle of it
            return None

    def _fill(self, answer: Future[Seen]) -> None:
        try:
            answer.set_result(self._ask())
        except Exception as error:  # noqa: BLE001 (raised where it was asked for)
            answer.set_exception(error)
