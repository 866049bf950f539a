"""Fleets, folds and faults of bench.simulate, all of them from one integer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from coordinator.chance import Chance
from coordinator.config import Experiment
from coordinator.faults import Change, Faults, Relief, Span
from coordinator.graph import Graph, Photos, wire
from coordinator.retry import Needs, Rules
from coordinator.scenario import DRIVER, Ending, FoldTruth, MachineModel, Outage, Scenario
from workers.tasks import BundleTask, LabelTask, SearchTask, Task, TrainTask, from_json, task_id, to_json

ANCHOR = "anchor"  # it can do all of the work, and keeps coming back


@dataclass(frozen=True)
class Drawn:
    """One seed's scenario. `folds` and `nested` are what the leak rule asks with."""

    scenario: Scenario
    faults: Faults
    folds: int
    nested: bool
    is_wrong: bool  # its labels are wired wrongly on purpose


def draw(seed: int) -> Drawn:
    chance = Chance(seed)
    nested = chance.happens(0.3)
    folds = chance.whole(3, 4) if nested else chance.whole(2, 5)
    rounds = 2 if nested or chance.happens(0.7) else 1
    repeats = 2 if not nested and chance.happens(0.15) else 1
    epochs = chance.whole(3, 12)
    patience = chance.pick((None, 2, 4))
    tasks = list(_wired(folds, rounds=rounds, nested=nested, repeats=repeats, epochs=epochs, patience=patience))
    is_wrong = rounds == 2 and chance.happens(0.1)
    if is_wrong:
        tasks = wrongly(tasks, nested, chance)
    graph = Graph.of(tasks)
    seconds = chance.between(100.0, 600.0)
    length = 3.0 * epochs * seconds * max(1, len(graph.tasks) // 6)
    machines = [_anchor(chance, length)]
    machines += [_machine(f"m{i}", chance, length) for i in range(chance.whole(0, 7))]
    trained = {name: task for name, task in graph.tasks.items() if isinstance(task, TrainTask)}
    share = chance.pick((0.2, 0.34, 0.5, 1.0))
    slowest, fastest = min(m.speed for m in machines), max(m.speed for m in machines)
    noise = chance.pick((0.0, 0.05, 0.2))
    scenario = Scenario(
        graph,
        (*machines, DRIVER),
        {name: _truth(chance, task, epochs) for name, task in trained.items()},
        seconds,
        short_seconds=chance.between(1.0, 60.0),
        commit_share=share,
        move_seconds=chance.between(5.0, 200.0),
        restart_seconds=chance.between(0.0, 30.0),
        noise=noise,
        rules=_rules(chance, graph, machines, 8.0 * seconds / slowest + 1200.0),
        seed=chance.whole(0, 2**60),
        horizon=400.0 * length + 4e6,
    )
    landing = chance.between(0.0, 0.25) * share * seconds / fastest / 2.0
    return Drawn(scenario, _faults(chance, scenario, length, landing, seconds), folds, nested, is_wrong)


@lru_cache(maxsize=64)
def _wired(
    folds: int, *, rounds: int, nested: bool, repeats: int, epochs: int, patience: int | None
) -> tuple[Task, ...]:
    experiment = Experiment.model_validate(
        {
            "folds": {"count": folds, "repeats": repeats},
            "distill": {"rounds": rounds, "labels": "nested" if nested else "oof"},
            "recipe": {"epochs": epochs, "patience": patience, "batch_size": 6},
        }
    )
    return tuple(wire(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), None, {}))


def wrongly(tasks: list[Task], nested: bool, chance: Chance) -> list[Task]:
    """The same tasks, but one label is not honest; what follows from it has other ids."""
    labels = [task for task in tasks if isinstance(task, LabelTask)]
    wrong = chance.pick(labels)
    teachers = {task_id(task): task for task in tasks if isinstance(task, TrainTask) and not task.labels}
    others = [name for name, t in teachers.items() if not set(wrong.held_out) <= set(t.held_out)]
    changed: dict[str, str] = {}
    found: list[Task] = []
    for task in tasks:
        new = _with_inputs(task, changed)
        if task is wrong and isinstance(new, LabelTask):
            new = replace(new, teacher=chance.pick(others))
        if new is not task:
            changed[task_id(task)] = task_id(new)
        found.append(new)
    return found


def _with_inputs(task: Task, changed: Mapping[str, str]) -> Task:
    """The task with its inputs under their new names."""
    if not changed:
        return task
    fields: dict[str, Any] = to_json(task)
    if isinstance(task, TrainTask):
        fields["labels"] = [changed.get(name, name) for name in task.labels]
    elif isinstance(task, SearchTask):
        fields["members"] = [changed.get(name, name) for name in task.members]
    elif isinstance(task, BundleTask):
        fields["search"] = changed.get(task.search, task.search)
    return from_json(fields)


def _anchor(chance: Chance, length: float) -> MachineModel:
    """Large enough for everything; it says what it is, and is mostly here."""
    speed = chance.between(0.5, 1.5)
    outages = _outages(chance, length, chance.pick((0.0, 0.5, 2.0)))
    return MachineModel(
        ANCHOR, speed, chance.whole(1, 2), memory_gb=24.0, labels=("home",), told_speed=speed, outages=outages
    )


def _machine(name: str, chance: Chance, length: float) -> MachineModel:
    speed = chance.pick((0.2, 0.35, 0.5, 0.8, 1.0, 1.0, 1.5, 3.0))
    memory = chance.pick((4.0, 6.0, 8.0, 12.0, 24.0))
    lies = chance.happens(0.25)
    told = chance.pick((None, speed * chance.between(0.2, 5.0))) if lies else speed
    outages = list(_outages(chance, length, chance.pick((0.0, 1.0, 4.0))))
    if chance.happens(0.1):
        outages.append(Outage(chance.between(0.0, length), 1e12))  # for good
    return MachineModel(
        name,
        speed,
        chance.pick((1, 1, 1, 2)),
        memory_gb=memory,
        system=chance.pick(("linux", "linux", "windows")),
        labels=chance.pick(((), ("home",), ("away",))),
        told_speed=told,
        told_memory_gb=memory * chance.pick((2.0, 4.0)) if chance.happens(0.15) else None,
        link_mb_per_second=chance.pick((None, 2.0, 20.0, 100.0)),
        outages=_apart(outages),
    )


def _outages(chance: Chance, length: float, often: float) -> tuple[Outage, ...]:
    """About `often` in a third of the run, of each kind."""
    outages: list[Outage] = []
    time = 0.0
    while often:
        time += max(60.0, chance.between(0.0, 2.0 * length / 3.0 / often))
        if time > 3.0 * length:
            break
        ending = chance.pick(tuple(Ending))
        up = time + chance.between(1.0, length / 6.0)
        notice = chance.between(0.0, length / 20.0) if ending is Ending.PREEMPTION else 0.0
        outages.append(Outage(time, up, ending, notice))
        time = up
    return tuple(outages)


def _apart(outages: list[Outage]) -> tuple[Outage, ...]:
    """Without those that begin while the machine is away."""
    found: list[Outage] = []
    for outage in sorted(outages, key=lambda o: o.down):
        if not found or outage.down > found[-1].up:
            found.append(outage)
    return tuple(found)


def _truth(chance: Chance, task: TrainTask, epochs: int) -> FoldTruth:
    best = chance.whole(1, epochs)
    before = [epoch for epoch in range(1, best) if chance.happens(0.5)]
    patience, last = task.recipe["patience"], 0
    improvements: list[int] = []
    for epoch in (*before, best):
        if patience is not None and epoch > last + patience:
            break
        improvements.append(epoch)
        last = epoch
    return FoldTruth(tuple(improvements), epochs if patience is None else min(epochs, last + patience))


def _rules(chance: Chance, graph: Graph, machines: list[MachineModel], hang_seconds: float) -> Rules:
    """Pins and needs of some tasks; the anchor meets all needs."""
    pins, needs = dict[str, str](), dict[str, Needs]()
    if chance.happens(0.3):
        steady = [machine.name for machine in machines if all(outage.up < 1e12 for outage in machine.outages)]
        for name, task in graph.tasks.items():
            if not isinstance(task, TrainTask):
                continue
            if chance.happens(0.1):
                pins[name] = chance.pick(steady)
            elif chance.happens(0.4):
                needs[name] = Needs(
                    chance.pick((0.0, 6.0, 20.0)), chance.pick(("", "linux")), chance.pick(("", "home"))
                )
    return Rules(pins=pins, needs=needs, hang_seconds=hang_seconds)


def _spans(chance: Chance, most: int, length: float, longest: float) -> tuple[Span, ...]:
    spans = []
    for _ in range(chance.whole(0, most)):
        begin = chance.between(0.0, length)
        spans.append((begin, begin + chance.between(1.0, longest)))
    return tuple(spans)


def _faults(chance: Chance, scenario: Scenario, length: float, landing_seconds: float, tick_seconds: float) -> Faults:
    machines = [machine.name for machine in scenario.machines if machine is not DRIVER]
    crowded = chance.happens(0.3)  # memory matters
    needed = chance.pick((2.0, 5.0, 10.0, 16.0)) if crowded else 0.0
    hang = scenario.rules.hang_seconds
    jumps = chance.pick((0, 0, 1, 2))
    changes = [
        Change(
            chance.between(0.0, length),
            chance.pick(tuple(Relief)),
            gap=chance.between(1.0, 300.0),
            stays=chance.between(0.0, length / 2.0),
        )
        for _ in range(chance.pick((0, 0, 1, 1, 2, 3)))
    ]
    return Faults(
        {name: needed for name, task in scenario.graph.tasks.items() if isinstance(task, TrainTask)} if crowded else {},
        bad={name: _spans(chance, 2, length, length / 4.0) for name in machines if chance.happens(0.25)},
        hot={name: _spans(chance, 3, length, length / 5.0) for name in machines if chance.happens(0.3)},
        store_down=_spans(chance, 2, length, chance.pick((30.0, 300.0, 3000.0))),
        landing_seconds=landing_seconds,
        crash=chance.pick((0.0, 0.0, 0.02, 0.1)),
        nan=chance.pick((0.0, 0.0, 0.01)),
        hang=chance.pick((0.0, 0.0, 0.03)),
        lost_answer=chance.pick((0.0, 0.05, 0.3)),
        doubled=chance.pick((0.0, 0.1)),
        late=chance.pick((0.0, 0.1)),
        longest_delay=chance.pick((10.0, 300.0, 3000.0)),
        unnoticed=chance.pick((0.0, 60.0)),
        clock=tuple((chance.between(0.0, length), chance.between(-hang, hang)) for _ in range(jumps)),
        changes=tuple(sorted(changes, key=lambda change: change.at)),
        tick_seconds=tick_seconds,
    )
