"""What a report costs: 50 folds of 35 epochs, teachers and students, on a fleet that loses machines. Seconds and bytes.

    PYTHONPATH=tests python -m bench.report

The run is made without training (tests/finished_run.py, tests/simulated_journal.py); what reads it and writes the page
is the product's own code. The limits are 5 seconds from the store to the page, and 8 MB.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from finished_run import finished_run
from simulated_journal import write_journal

from coordinator.outputs import publish_report
from shared_store import layout
from shared_store.cache import Cache
from shared_store.store import open_store
from workers.tasks import LabelTask, SearchTask, TrainTask

CONFIG = """
folds: {count: 50}
recipe: {model: test_efficientnet, weights: none, image_size: 32, batch_size: 2, epochs: 35}
ensemble: {max_members: 2, bootstrap: 100}
"""
PHOTOS_PER_CLASS = 105
LIMIT_SECONDS, LIMIT_MB = 5.0, 8.0
_ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, cache = open_store(str(Path(folder) / "store")), Cache(Path(folder) / "cache", limit_gb=1.0)
        run = finished_run(store, cache, (TrainTask, LabelTask, SearchTask), CONFIG, PHOTOS_PER_CLASS)
        write_journal(run)
        walls, cores, pages = [], [], set()
        for _ in range(_ROUNDS):
            began, worked = time.perf_counter(), time.process_time()
            known = run.known()
            publish_report(store, known, cache)
            walls.append(time.perf_counter() - began)
            cores.append(time.process_time() - worked)
            pages.add(store.read(layout.run_file("demo", "report.html")))
        (page,) = pages  # the same bytes each time
        assert page is not None
        wall, core = statistics.median(walls), statistics.median(cores)
        lines = len(known.events)
        print(
            f"report of 50 folds x 35 epochs, teachers and students, a journal of {lines:,} lines, from store to page:"
        )
        print(
            f"  {wall:.2f} s ({core:.2f} s of a core), {wall / LIMIT_SECONDS:.2f} of the limit of {LIMIT_SECONDS:g} s"
        )
        print(f"  {len(page) / 1e6:.2f} MB, {len(page) / 1e6 / LIMIT_MB:.2f} of the limit of {LIMIT_MB:g} MB")


if __name__ == "__main__":
    main()
