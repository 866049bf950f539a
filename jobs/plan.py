"""Dry run: what would be trained from these photos, what is done already, where it goes. Nothing starts."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from coordinator.data import describe, findings, prepare_data
from coordinator.session import Session
from coordinator.stages import missing
from coordinator.variants import recipe_lines
from jobs.console import done
from jobs.run_command import run_command


def main(arguments: Sequence[str]) -> int:
    return run_command("plan", __doc__, lambda session: _plan(session, arguments), arguments)


def _plan(session: Session, arguments: Sequence[str]) -> None:
    data = prepare_data(session.experiment, session.store, session.console)
    session.console.print(describe(data))
    for line in findings(data.prepared):
        session.say(line)
    graph = data.graph(session.experiment)
    to_do = missing(session, graph)
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "tasks", "done", "to do"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    kinds = Counter(task.name.split("/")[0] for task in graph.tasks.values())
    waiting = Counter(task.name.split("/")[0] for task in to_do.values())
    for kind, count in kinds.items():
        table.add_row(kind, str(count), str(count - waiting[kind]), str(waiting[kind]))
    session.console.print(table)
    fleet = session.experiment.fleet
    for line in recipe_lines(session.experiment.variants()):
        session.say(line)
    slots = fleet.slots or max(1, (os.cpu_count() or 1) // fleet.threads)
    session.say(f"fleet: {fleet.address or f'this machine, {slots} folds at once without a GPU'}")
    session.say(f"files: {session.path('report.html').parent}")
    done(f"{len(to_do)} of {len(graph.tasks)} tasks would run", f"foldfleet pipeline {shlex.join(arguments)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
