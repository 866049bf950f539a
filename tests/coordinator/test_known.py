"""What is known of a run that goes on while it is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from finished_run import finished_run

from coordinator.known import gather
from shared_store import layout
from shared_store.backend import Backend, Passing
from shared_store.cache import Cache
from shared_store.store import Store


class Growing(Passing):
    """A store in which three more results stand after each that was read, in the order of `tasks`."""

    def __init__(self, inner: Backend, tasks: list[str], standing: int) -> None:
        super().__init__(inner)
        self._places = {layout.result(task): place for place, task in enumerate(tasks)}
        self._standing = standing

    def parts(self, key: str, start: int = 0) -> Iterator[bytes | memoryview] | None:
        place = self._places.get(key)
        if place is None:
            return super().parts(key, start)
        stands, self._standing = place < self._standing, self._standing + 3
        return super().parts(key, start) if stands else None


@pytest.mark.parametrize("standing", range(0, 10, 2))
def test_whose_result_is_known_its_inputs_results_are_too(store: Store, cache: Cache, standing: int) -> None:
    run = finished_run(store, cache)
    tasks = run.data.graph(run.experiment).tasks
    growing = Store(Growing(store.backend, list(tasks), standing))
    known = gather(growing, "demo", run.experiment, run.data)
    for name in known.results:
        assert set(tasks[name].inputs) <= set(known.results)
