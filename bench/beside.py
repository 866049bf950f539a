"""What the live view and the report add to a training step on the same machine: two steps side by side in time.

    PYTHONPATH=tests python -m bench.beside [--rounds 6] [--seconds 60]

One process trains (EfficientNet-Lite0 at 96 px, batch 16, one thread). Beside it another one plays a fleet of 3
machines x 10 folds, in one half of each round with nobody watching, in the other with the live view on a terminal and
the report of such a run being rewritten, as a command does it. Which half is first alternates. What is compared is the
time that passes in a step; each half's median counts, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from finished_run import FinishedRun, finished_run
from rich.console import Console
from simulated_journal import write_journal

from bench.step import CLASSES, ours, ready
from bench.view import CARDS, TURN_SECONDS, Played, graph_of
from coordinator.events import Event
from coordinator.ledger import Ledger
from coordinator.outputs import publish_report
from coordinator.rewriting import Rewriting
from coordinator.view import View
from shared_store.cache import Cache
from shared_store.store import open_store
from workers.model import initial_model
from workers.recipe import Recipe
from workers.repeatable import repeatable
from workers.tasks import LabelTask, SearchTask, TrainTask

Watch = Callable[[Event, Ledger], None]
STEPS, PHOTOS_PER_CLASS = 3, 21
CONFIG = """
folds: {count: 10}
recipe: {model: test_efficientnet, weights: none, image_size: 32, batch_size: 2, epochs: 12}
ensemble: {max_members: 2, bootstrap: 100}
"""


def train(orders: Connection) -> None:
    """Trains for as many seconds as it is told, again and again, and answers with the seconds of each step."""
    recipe = Recipe(
        weights="none",
        optimizer="adamw",
        clip="none",
        schedule="cosine",
        model="tf_efficientnet_lite0",
        image_size=96,
        batch_size=16,
    )
    with repeatable("cpu", threads=1):
        epoch = ours(initial_model(recipe, CLASSES, seed=0), recipe, ready(recipe, STEPS), "cpu")
        epoch()
        while seconds := orders.recv():
            times, until = [], time.monotonic() + seconds
            while (began := time.monotonic()) < until:
                epoch()
                times.append((time.monotonic() - began) / STEPS)
            orders.send(times)


@contextmanager
def watching(run: FinishedRun, terminal: Path) -> Iterator[Watch]:
    """The live view, and the report of the run."""
    with ExitStack() as stack:
        console = Console(file=stack.enter_context(terminal.open("w")), force_terminal=True, width=100, height=45)
        view = stack.enter_context(View(console))
        rewriting = stack.enter_context(Rewriting(lambda: publish_report(run.store, run.known(), run.cache), print))

        def watch(event: Event, ledger: Ledger) -> None:
            view(event, ledger)
            rewriting(event, ledger)

        yield watch


def play(watch: Watch, seconds: float) -> None:
    """The fleet, in the time that really passes."""
    played = Played(graph_of(10), watch)
    names = [f"{card}-0" for card, _, _ in CARDS]
    played.play(
        lambda now: [played.joined(name) for name in names] if now <= TURN_SECONDS else [],
        seconds,
        lambda: time.sleep(TURN_SECONDS),
    )


def half(orders: Connection, watch: Watch, seconds: float) -> float:
    """Median seconds of a step of the training beside."""
    orders.send(seconds)
    play(watch, seconds)
    times: list[float] = orders.recv()
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    here, there = multiprocessing.Pipe()
    training = multiprocessing.get_context("spawn").Process(target=train, args=(there,), daemon=True)
    training.start()
    alone, watched = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, cache = open_store(str(folder / "store")), Cache(folder / "cache", limit_gb=1.0)
        run = finished_run(store, cache, (TrainTask, LabelTask, SearchTask), CONFIG, PHOTOS_PER_CLASS)
        write_journal(run)
        for place in range(given.rounds):
            for shown in (place % 2 == 0, place % 2 == 1):
                if shown:
                    with watching(run, folder / "terminal") as watch:
                        watched.append(half(here, watch, given.seconds))
                else:
                    alone.append(half(here, lambda event, ledger: None, given.seconds))
    here.send(0.0)
    training.join()
    ratios = sorted(b / a for a, b in zip(alone, watched, strict=True))
    print(f"a step with nobody watching        {1e3 * statistics.median(alone):8.2f} ms")
    print(f"a step beside view and report      {1e3 * statistics.median(watched):8.2f} ms")
    print(
        f"ratio, in the middle               {statistics.median(ratios):8.4f}    "
        f"({given.rounds} rounds: {ratios[0]:.4f} to {ratios[-1]:.4f}, {os.cpu_count()} cores)"
    )


if __name__ == "__main__":
    main()
