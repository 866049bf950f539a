"""What a run is about to do, in a few lines before any work: photos, tasks, machines, the finish, where files go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from coordinator.data import RunData
from coordinator.forecast import outlook
from coordinator.forecast_known import known_basis, question_of, slots_here
from coordinator.graph import Graph
from coordinator.machine_lines import duration
from coordinator.measured import read_measured
from coordinator.session import Session
from shared_store.errors import UserError
from workers.tasks import TrainTask

_PLAYS = 5
_MOST_FOLDS = 100  # of more, the forecast would be waited for: `foldfleet plan --simulate` has it


def overview(session: Session, data: RunData, graph: Graph, to_do: Collection[str]) -> list[str]:
    """Lines for the graph's tasks, of which `to_do` have no result yet."""
    return [
        f"photos: {photos_text(data)}",
        f"work:   {work_text(graph, to_do)}",
        f"fleet:  {_fleet_text(session)}",
        *([f"finish: {_finish_text(session, data, graph, to_do)}"] if to_do else []),
        f"files:  {session.path('report.html').parent}",
    ]


def photos_text(data: RunData) -> str:
    """`76 of 4 classes in 3 folds (18 of cats to 20 of dogs); 20 to select on; 24 to predict`."""
    parts = Counter(row.part for row in data.table)
    classes = Counter(row.label for row in data.table if row.part == "train")
    most = max(classes, key=lambda name: classes[name])
    least = min(classes, key=lambda name: classes[name])
    spread = f"{classes[least]} of {least} to {classes[most]} of {most}"
    if classes[least] == classes[most]:
        spread = f"{classes[most]} of each"
    text = f"{parts['train']} of {len(classes)} classes in {data.table.fold_count} folds ({spread})"
    text += f"; {parts['selection']} to select on"
    return text + (f"; {parts['test']} to predict" if parts["test"] else "")


def work_text(graph: Graph, to_do: Collection[str]) -> str:
    """`11 tasks, 4 done before: teacher 3 of 3, label 1 of 3, student 0 of 3, search 0 of 1`."""
    kinds = {name: task.name.split("/")[0] for name, task in graph.tasks.items()}
    every, left = Counter(kinds.values()), Counter(kinds[name] for name in to_do)
    done = len(graph.tasks) - len(to_do)
    if not done:
        return f"{len(graph.tasks)} tasks: {', '.join(f'{count} {kind}' for kind, count in every.items())}"
    stages = ", ".join(f"{kind} {count - left[kind]} of {count}" for kind, count in every.items())
    return f"{len(graph.tasks)} tasks, {done} done before: {stages}"


def _fleet_text(session: Session) -> str:
    address = session.experiment.fleet.address
    if address is None:
        return f"this machine, as many folds at once as it has GPUs, or {slots_here(session.experiment)} without"
    machines = read_measured(Path.home()).machines.values()
    speeds = [f"{one.name} {one.probe_speed:.3g}" for one in machines if one.probe_speed is not None]
    return f"at {address}" + (f"; speeds by `foldfleet doctor`: {', '.join(sorted(speeds))}" if speeds else "")


def _span(low: str, middle: str, high: str) -> str:
    """`in 20 min, between 18 min and 25 min`; `in about 2 min` where those would be the same words."""
    return f"in about {middle}" if low == high else f"in {middle}, between {low} and {high}"


def _finish_text(session: Session, data: RunData, graph: Graph, to_do: Collection[str]) -> str:
    """From what this run or the doctor measured; nothing is tried for it."""
    folds = sum(isinstance(graph.tasks[name], TrainTask) for name in to_do)
    basis = known_basis(session, data, graph) if 0 < folds <= _MOST_FOLDS else None
    if basis is None:
        return "not known before an epoch is timed; `foldfleet plan --simulate` tries some steps and tells"
    try:
        found = outlook(question_of(session, graph, basis, plays=_PLAYS))
    except UserError as error:  # a machine that a fold is meant for may still come
        return f"not foreseen: {error.what}"
    low, middle, high = map(duration, found.finish)
    stuck = found.bottleneck if len(basis.machines) > 1 else None
    held = f"; bottleneck {stuck.machine}, in the end alone for {duration(stuck.alone)}" if stuck else ""
    return f"{_span(low, middle, high)}, {basis.said}{held}"
