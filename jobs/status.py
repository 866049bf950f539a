"""How a run stands, from any machine that reaches the store: every task's state and newest commit."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.table import Table

from coordinator.data import recorded_data
from coordinator.session import Session
from jobs.console import done
from jobs.run_command import again, run_command
from shared_store.commits import last_commit, read_result


def main(arguments: Sequence[str]) -> int:
    return run_command("status", __doc__, _status, arguments)


def _status(session: Session) -> None:
    graph = recorded_data(session.store, session.run).graph(session.experiment)
    table = Table(box=None, pad_edge=False)
    for column in ("task", "state", "epoch", "step", "mAP"):
        table.add_column(column, justify="left" if column in ("task", "state") else "right")
    finished = 0
    for name, task in graph.tasks.items():
        result, commit = read_result(session.store, name), last_commit(session.store, name)
        finished += result is not None
        state = "done" if result is not None else "begun" if commit is not None else "waiting"
        score = result.numbers.get("mean_ap") if result is not None else None
        row = [task.name, state, *((str(commit.epoch), str(commit.step)) if commit is not None else ("", ""))]
        table.add_row(*row, "" if score is None else f"{score:.4f}")
    session.console.print(table)
    next_step = again(session, "pipeline") if finished < len(graph.tasks) else str(session.path("report.html"))
    done(f"{finished} of {len(graph.tasks)} tasks of the run {session.run} are done", next_step)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
