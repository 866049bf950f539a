"""The cases of bench.placement, drawn from a seed: fleets, folds, what happens to them; and the lower bound of each."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.config import Experiment
from coordinator.graph import Graph, Photos, build
from coordinator.scenario import DRIVER, FoldTruth, MachineModel, Outage, Scenario
from workers.tasks import Task

EPOCH_SECONDS = 600.0  # on a machine of speed 1
EPOCHS, PATIENCE, FOLDS = 35, 26, 5
RESTART_EPOCHS = 0.05  # a fold that goes on where its last commit lies loads it from that machine's own disk
BETWEEN_DEATHS, DOWN = 60.0, 8.0  # epochs of the machine of speed 1
START_SECONDS, STATE_MB = 30.0, 212.0  # what moves.py guesses a move from, so that a link told is a move known
Span = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """A fleet and its work. `widest`: early stops anywhere from epoch 12 on, instead of by the patience of 26."""

    name: str
    speeds: tuple[float, ...]
    groups: int = 1
    move_epochs: float = 0.15
    deaths: bool = False
    widest: bool = False
    commit_share: float = 0.25
    noise: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """A case as a seed makes it, with all that the bound needs. Work and times count in epochs at speed 1."""

    scenario: Scenario
    teachers: tuple[tuple[float, ...], ...]  # by group and fold
    students: tuple[tuple[float, ...], ...]
    speeds: tuple[float, ...]
    down: tuple[tuple[Span, ...], ...] = ()


def graph_of(groups: int, patience: int) -> Graph:
    """`groups` times five teachers, their labels, five students; at most 100 of them in one experiment."""
    tasks: list[Task] = []
    for first in range(0, groups, 100):
        folds = {"count": FOLDS, "repeats": min(100, groups - first)}
        recipe = {"epochs": EPOCHS, "patience": patience, "seed": 1000 * first}
        experiment = Experiment.model_validate({"folds": folds, "recipe": recipe})
        tasks += build(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), None).tasks.values()
    return Graph.of(tasks)


def draw(case: Case, seed: int, graph: Graph) -> Drawn:
    """The truth about every fold, and the machines' deaths, from one seed."""
    chance = random.Random(seed)
    patience = 8 if case.widest else PATIENCE
    truths, work = {}, {}
    for name in (*graph.named("teacher/"), *graph.named("student/")):
        best = chance.randint(4 if case.widest else 1, EPOCHS)
        before = [epoch for epoch in range(1, best) if chance.random() < 0.5]
        truths[name] = FoldTruth((*before, best), min(EPOCHS, best + patience))
        work[name] = float(truths[name].last_epoch)
    much = 4 * sum(work.values()) / sum(case.speeds) + 500
    down = tuple(_deaths(chance, much) if case.deaths else () for _ in case.speeds)
    link = STATE_MB / max(1.0, case.move_epochs * EPOCH_SECONDS - START_SECONDS)
    machines = tuple(
        MachineModel(
            f"machine{i}",
            speed,
            told_speed=speed,
            link_mb_per_second=link,
            outages=tuple(Outage(begin * EPOCH_SECONDS, end * EPOCH_SECONDS) for begin, end in down[i]),
        )
        for i, speed in enumerate(case.speeds)
    )
    scenario = Scenario(
        graph,
        (*machines, DRIVER),
        truths,
        EPOCH_SECONDS,
        commit_share=case.commit_share,
        move_seconds=case.move_epochs * EPOCH_SECONDS,
        restart_seconds=min(case.move_epochs, RESTART_EPOCHS) * EPOCH_SECONDS,
        noise=case.noise,
        seed=seed,
    )
    teachers, students = _by_group(graph, work, "teacher/"), _by_group(graph, work, "student/")
    return Drawn(scenario, teachers, students, case.speeds, down)


def _by_group(graph: Graph, work: dict[str, float], prefix: str) -> tuple[tuple[float, ...], ...]:
    names = graph.named(prefix)
    return tuple(tuple(work[name] for name in names[i : i + FOLDS]) for i in range(0, len(names), FOLDS))


def _deaths(chance: random.Random, much: float) -> tuple[Span, ...]:
    spans, time = [], 0.0
    while time < much:
        time += chance.expovariate(1 / BETWEEN_DEATHS)
        spans.append((time, time + DOWN))
        time += DOWN
    return tuple(spans)


class Capacity:
    """What the fastest machines that are up can do from a time on. Times count in epochs at speed 1."""

    def __init__(self, speeds: Sequence[float], down: Sequence[Sequence[Span]]) -> None:
        edges = sorted({0.0} | {edge for spans in down for span in spans for edge in span})
        self.spans: list[tuple[float, float, list[float]]] = []
        for begin, end in zip(edges, [*edges[1:], math.inf], strict=True):
            up = (speed for speed, spans in zip(speeds, down, strict=True) if not any(a <= begin < b for a, b in spans))
            self.spans.append((begin, end, sorted(up, reverse=True)))

    def end(self, start: float, machines: int, work: float) -> float:
        """When `work` epochs are done at the earliest, on the fastest `machines` of those up, from `start` on."""
        left = work
        for begin, end, up in self.spans:
            since, rate = max(begin, start), sum(up[:machines])
            if end <= since or rate == 0:
                continue
            if rate * (end - since) >= left:
                return since + left / rate
            left -= rate * (end - since)
        return math.inf

    def end_of_all(self, start: float, works: Sequence[float]) -> float:
        """The preemptive bound: for every k, the k longest tasks run on at most k machines at a time."""
        longest = sorted(works, reverse=True)
        return max((self.end(start, k, sum(longest[:k])) for k in range(1, len(longest) + 1)), default=start)


@dataclass(frozen=True)
class Bound:
    """No schedule ends before `epochs` (at speed 1), early stops and deaths known in advance. `why`: its parts."""

    epochs: float
    why: tuple[tuple[str, float], ...]


def lower_bound(drawn: Drawn) -> Bound:
    """The largest of what must hold for every preemptive schedule without any cost of moving.

    - all work, on the fastest K machines that are up, K = folds that can run at once;
    - for each group, the preemptive bound of its teachers, then of its students but one (whose own teacher may be the
      last: all the others wait for every teacher), the one chosen that makes it least.
    For uniform machines: Horvath, Lam, Sethi 1977.
    """
    capacity = Capacity(drawn.speeds, drawn.down or [()] * len(drawn.speeds))
    together = sum(map(sum, drawn.teachers)) + sum(map(sum, drawn.students))
    parts = [("all work", capacity.end(0.0, FOLDS * len(drawn.teachers), together))]
    for group, (teachers, students) in enumerate(zip(drawn.teachers, drawn.students, strict=True)):
        taught = capacity.end_of_all(0.0, teachers)
        others = ([work for fold, work in enumerate(students) if fold != last] for last in range(len(students)))
        chain = min(capacity.end_of_all(taught, rest) for rest in others)
        parts.append((f"group {group}: teachers until {taught:.2f}, then all students but one", chain))
        parts.append((f"group {group}: its work, {FOLDS} at once", capacity.end(0.0, FOLDS, sum(teachers + students))))
    return Bound(max(end for _, end in parts), tuple(parts))
