"""When a run would end, and where each fold would run: it is played many times by the simulator. Pure.

What nobody knows beforehand is drawn anew for every play: when folds stop early, and how long each epoch takes. So the
finish is an interval, and a fold has the machine that it came to in most plays.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from coordinator.estimate import Interval
from coordinator.forecast_plays import Play, Question, Span, all_plays
from coordinator.graph import Graph
from coordinator.scenario import MachineModel


@dataclass(frozen=True)
class FoldForecast:
    """Where a fold would begin and end in most plays, and the share of plays in which it ends there."""

    name: str
    first: str
    last: str
    share: float
    begins: float  # seconds from now, the median
    ends: float


@dataclass(frozen=True)
class MachineForecast:
    """How much a machine would do. `busy`: share of its slots' time until the last fold ends."""

    model: MachineModel
    folds: float  # that end there, the mean of all plays
    busy: float


@dataclass(frozen=True)
class Bottleneck:
    """The machine that the last fold ends on in most plays: their share, and the seconds that it then works alone."""

    machine: str
    share: float
    alone: float


@dataclass(frozen=True)
class Saving:
    """What one more machine like `machine` would save, in seconds of the median finish."""

    machine: str
    finish: float
    saved: float


@dataclass(frozen=True)
class Forecast:
    """Seconds from now. `finish`: 10 %, 50 % and 90 % of all plays ended by then."""

    finish: Interval
    folds: tuple[FoldForecast, ...]
    machines: tuple[MachineForecast, ...]
    bottleneck: Bottleneck | None  # None when there is nothing to train
    savings: tuple[Saving, ...]


@dataclass(frozen=True)
class Outlook:
    """What a forecast says first, without what it says of each fold and of other machines."""

    finish: Interval
    bottleneck: Bottleneck | None


def outlook(question: Question) -> Outlook:
    """Play the run as it is. UserError as for `forecast`."""
    plays = all_plays(question, question.basis.machines)
    return Outlook(interval_of(play.finish for play in plays), _bottleneck(plays))


def forecast(question: Question) -> Forecast:
    """Play the run. UserError when a task fits no machine, so that the run would never end."""
    plays = all_plays(question, question.basis.machines)
    finish = interval_of([play.finish for play in plays])
    bottleneck = _bottleneck(plays)
    savings = [] if bottleneck is None else list(_savings(question, finish.middle))
    return Forecast(
        finish,
        _folds(question.graph, plays),
        tuple(_machine(model, plays) for model in question.basis.machines),
        bottleneck,
        tuple(savings),
    )


def _folds(graph: Graph, plays: Sequence[Play]) -> tuple[FoldForecast, ...]:
    tries: dict[str, list[list[Span]]] = defaultdict(list)  # by task and play: its attempts, the first one first
    for play in plays:
        by_task: dict[str, list[Span]] = defaultdict(list)
        for span in play.spans:
            by_task[span.task].append(span)
        for task, own in by_task.items():
            tries[task].append(own)
    found = []
    for task in (task for task in graph.tasks if task in tries):
        first, _ = Counter(own[0].machine for own in tries[task]).most_common(1)[0]
        last, count = Counter(own[-1].machine for own in tries[task]).most_common(1)[0]
        begins = statistics.median(own[0].begins for own in tries[task])
        ends = statistics.median(own[-1].ends for own in tries[task])
        found.append(FoldForecast(graph.tasks[task].name, first, last, count / len(plays), begins, ends))
    return tuple(found)


def _machine(model: MachineModel, plays: Sequence[Play]) -> MachineForecast:
    ended, busy = 0, []
    for play in plays:
        own = [span for span in play.spans if span.machine == model.name]
        last = {span.task: span.machine for span in play.spans}
        ended += sum(machine == model.name for machine in last.values())
        until = max((span.ends for span in play.spans), default=0.0)
        worked = sum(span.ends - span.begins for span in own)
        busy.append(worked / (until * model.slots) if until > 0 else 0.0)
    return MachineForecast(model, ended / len(plays), statistics.mean(busy))


def _bottleneck(plays: Sequence[Play]) -> Bottleneck | None:
    alone: dict[str, list[float]] = defaultdict(list)
    for play in plays:
        if play.spans:
            last = max(play.spans, key=lambda span: span.ends)
            others = [span.ends for span in play.spans if span.machine != last.machine]
            alone[last.machine].append(last.ends - max(others, default=0.0))
    if not alone:
        return None
    machine = max(sorted(alone), key=lambda name: len(alone[name]))
    return Bottleneck(machine, len(alone[machine]) / len(plays), statistics.median(alone[machine]))


def _savings(question: Question, finish: float) -> list[Saving]:
    """One more of each kind of machine, the most useful first. Machines of one speed, memory and width are a kind."""
    machines, kinds = question.basis.machines, dict[object, MachineModel]()
    for model in machines:
        kinds.setdefault((round(model.speed, 2), model.memory_gb, model.slots, model.system, model.labels), model)
    found = []
    for model in kinds.values():
        more = replace(model, name=f"one more like {model.name}")
        with_it = statistics.median(play.finish for play in all_plays(question, (*machines, more)))
        found.append(Saving(model.name, with_it, finish - with_it))
    return sorted(found, key=lambda saving: saving.finish)


def interval_of(values: Iterable[float]) -> Interval:
    """10 %, 50 % and 90 % of the values, between neighbours where they fall between (Hyndman and Fan's type 7)."""
    values = list(values)
    if len(values) == 1:
        return Interval(values[0], values[0], values[0])
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return Interval(tenths[0], statistics.median(values), tenths[-1])
