"""What the live view takes of a core: its own seconds, beside those that pass: two screens and two reports a second.

    python -m bench.view                 3 machines x 10 folds, and 100 machines x 500 folds
    python -m bench.view --show          the small fleet played out on this terminal: a machine comes late, one is lost

The real ledger, plan and view on a fleet whose folds report numbers and have none.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console

from coordinator.config import Experiment, FoldsSection
from coordinator.events import (
    Event,
    MachineCut,
    MachineJoined,
    Migrate,
    Progressed,
    RunBegan,
    Start,
    Stop,
    TaskEnded,
    Tick,
)
from coordinator.graph import Graph, Photos, build
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.scenario import WORK
from coordinator.view import View
from workers.recipe import Recipe
from workers.tasks import Failure, Outcome, Progress, TrainTask

CARDS = (("rtx3090", 24.0, 2.0), ("rtx2070", 8.0, 1.15), ("gtx1060", 6.0, 0.5))
EPOCHS, EPOCH_SECONDS, STEPS = 12, 24.0, 200  # an epoch at speed 1
TURN_SECONDS, REPORT_SECONDS, LEDGER_SECONDS = 0.2, 0.5, 60.0


@dataclass
class Fold:
    """A fold that runs: how far it is, in epochs."""

    start: Start
    trains: bool
    position: float
    told: float = -math.inf
    heard: float = -math.inf


@dataclass
class Played:
    """A fleet that does what is ordered. `watch` is told what a driver's watch is told; `spent` counts its seconds."""

    graph: Graph
    watch: Callable[[Event, Ledger], None]
    spent: float = 0.0
    now: float = 0.0
    running: dict[str, Fold] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.graph)

    def play(self, happens: Callable[[float], list[Event]], seconds: float, wait: Callable[[], None]) -> None:
        """Turn after turn, until the run or the time ends."""
        self._take(RunBegan(tuple(self.graph.tasks)))
        self._take(MachineJoined("driver", 1, ("search",)))
        while self.now < seconds and self.ledger.finished is None:
            self.now = round(self.now + TURN_SECONDS, 3)
            self._take(Tick(self.now))
            for event in [*happens(self.now), *self._reports()]:
                self._take(event)
            while orders := plan(self.ledger):
                for order in orders:
                    self._take(order)
            wait()

    def _take(self, event: Event) -> None:
        if not isinstance(event, Progressed) or self._counts(event.progress):
            self.ledger.apply(event)
        began = time.thread_time()
        self.watch(event, self.ledger)
        self.spent += time.thread_time() - began
        match event:
            case Start(task):
                trains = isinstance(self.graph.tasks[task], TrainTask)
                self.running[task] = Fold(event, trains, self.kept.get(task, 0.0))
            case Stop(task) | Migrate(task):
                self.running[task].told = math.inf
            case MachineCut(machine):
                self.running = {name: fold for name, fold in self.running.items() if fold.start.machine != machine}

    def _counts(self, progress: Progress) -> bool:
        fold = self.running.get(progress.task)
        if fold is None or (progress.commit is None and self.now - fold.heard < LEDGER_SECONDS):
            return False
        fold.heard = self.now
        return True

    def _reports(self) -> Iterator[Event]:
        for task, fold in list(self.running.items()):
            before, speed = fold.position, self._speed(fold.start.machine)
            fold.position += TURN_SECONDS * speed / (EPOCH_SECONDS if fold.trains else 3.0 / EPOCHS)
            epoch = min(EPOCHS, int(fold.position))
            if fold.told == math.inf:
                self.kept[task] = fold.position
                yield self._end(task, fold, Failure.STOPPED)
            elif fold.position >= EPOCHS:
                yield self._report(task, fold, EPOCHS, committed=True, speed=speed)
                yield self._end(task, fold, None)
            elif int(fold.position) > int(before) or self.now - fold.told >= REPORT_SECONDS:
                fold.told = self.now
                committed = int(fold.position) > int(before)
                self.kept[task] = float(epoch) if committed else self.kept.get(task, 0.0)
                yield self._report(task, fold, epoch, committed=committed, speed=speed)

    def _report(self, task: str, fold: Fold, epoch: int, *, committed: bool, speed: float) -> Progressed:
        step = int(fold.position * STEPS)
        loss = 0.2 + math.exp(-fold.position / 4)
        mean_ap = 0.95 - 0.5 * math.exp(-epoch / 4) + 0.01 * math.sin(7 * epoch + len(task)) if epoch else None
        left = (EPOCHS - fold.position) * EPOCH_SECONDS / speed
        if not fold.trains:
            return Progressed(Progress(task, fold.start.attempt))
        return Progressed(
            Progress(
                task,
                fold.start.attempt,
                epoch,
                EPOCHS,
                min(step, EPOCHS * STEPS),
                EPOCHS * STEPS,
                loss,
                mean_ap,
                40 * speed,
                left,
                commit=epoch if committed else None,
                gpu_memory_gb=0.7 * self._card(fold.start.machine)[1],
                temperature_celsius=60 + 8 * speed,
                card=0,
            )
        )

    def _end(self, task: str, fold: Fold, failure: Failure | None) -> TaskEnded:
        del self.running[task]
        seconds = self.now - self.ledger.running[task].started
        return TaskEnded(Outcome(task, fold.start.attempt, failure, seconds=seconds))

    def joined(self, machine: str) -> MachineJoined:
        _, memory, speed = self._card(machine)
        return MachineJoined(machine, 1, WORK, True, memory, "linux", (), speed, 90.0, 16)

    def _speed(self, machine: str) -> float:
        return 1.0 if machine == "driver" else self._card(machine)[2]

    def _card(self, machine: str) -> tuple[str, float, float]:
        return next((card for card in CARDS if machine.startswith(card[0])), CARDS[0])


def graph_of(folds: int) -> Graph:
    """Teachers, labels and students of so many folds: ten of one experiment, or five repeated."""
    repeats, count = (1, folds) if folds <= 10 else (folds // 5, 5)
    recipe = Recipe(epochs=EPOCHS, batch_size=12, patience=None)
    experiment = Experiment(folds=FoldsSection(count=count, repeats=repeats), recipe=recipe)
    return build(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), None)


def measured(machines: int, folds: int, seconds: float) -> tuple[float, float]:
    """(share of a core, seconds of the longest call) of the view of such a fleet, on a terminal of 100 x 45."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        console = Console(file=nowhere, force_terminal=True, width=100, height=45)
        played: Played
        longest = 0.0
        with View(console, clock=lambda: played.now + time.thread_time()) as view:

            def watch(event: Event, ledger: Ledger) -> None:
                nonlocal longest
                began = time.thread_time()
                view(event, ledger)
                longest = max(longest, time.thread_time() - began)

            played = Played(graph_of(folds), watch)
            names = [f"{CARDS[i % 3][0]}-{i}" for i in range(machines)]
            played.play(lambda now: [played.joined(n) for n in names] if now <= TURN_SECONDS else [], seconds, _no_wait)
        return played.spent / played.now, longest


def show() -> None:
    """The small fleet on this terminal, ten times as fast as it would be."""
    played: Played
    with View(Console(), clock=time.monotonic) as view:

        def happens(now: float) -> list[Event]:
            script = {0.2: "rtx2070", 0.4: "gtx1060", 150.0: "rtx3090"}
            found: list[Event] = [played.joined(script[now])] if now in script else []
            return [*found, MachineCut("gtx1060", "no heartbeat for 30 s")] if now == 120.0 else found

        played = Played(graph_of(5), view)
        played.play(happens, math.inf, lambda: time.sleep(TURN_SECONDS / 10))


def _no_wait() -> None:
    """Time is what the clock says."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--seconds", type=float, default=300.0)
    given = parser.parse_args()
    if given.show:
        show()
        return
    for machines, folds in ((3, 10), (100, 500)):
        share, longest = measured(machines, folds, given.seconds)
        print(
            f"the view of {machines} machines x {folds} folds: {share:.2%} of a core, "
            f"the longest call {1000 * longest:.0f} ms"
        )


if __name__ == "__main__":
    main()
